//! Medians and percentiles, and what a row adds to its baseline.
//!
//! A round takes some milliseconds, and whatever else the machine does hits some rounds and not
//! others. So a row is compared with the baseline of the same cycle, and the median of these
//! differences counts: a disturbed round moves it by one rank, however long it took.

/// The value that `share` (0 to 1) of all lie below; 0 for none.
pub(crate) fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank within a vector"
    )]
    let rank = (share * last as f64).round() as usize;
    sorted.get(rank).copied().unwrap_or_default()
}

/// The middle value.
pub(crate) fn median(values: &[f64]) -> f64 {
    percentile(values, 0.5)
}

/// The median of what each value is above the baseline's at the same place.
pub(crate) fn median_added(values: &[f64], baseline: &[f64]) -> f64 {
    let added: Vec<f64> =
        values.iter().zip(baseline).map(|(value, baseline)| value - baseline).collect();
    median(&added)
}

/// The mean without the least and the greatest, where there are enough.
pub(crate) fn middle_mean(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = match sorted.as_slice() {
        [_, middle @ .., _] if middle.len() > 1 => middle,
        all => all,
    };
    #[allow(clippy::cast_precision_loss, reason = "a handful")]
    let count = middle.len().max(1) as f64;
    middle.iter().sum::<f64>() / count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disturbed_round_moves_no_median() {
        let baseline = [10.0, 50.0, 10.0, 10.2, 9.8];
        let row = [13.0, 53.1, 13.0, 13.2, 90.0];
        assert!((median_added(&row, &baseline) - 3.0).abs() < 1e-9);
    }

    #[test]
    fn one_odd_start_does_not_count() {
        for (values, expected) in
            [(vec![], 0.0), (vec![3.0, 1.0], 2.0), (vec![9.0, 4.0, 2.0, -7.0], 3.0)]
        {
            assert!((middle_mean(&values) - expected).abs() < 1e-9);
        }
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<f64> = (0..=100).rev().map(f64::from).collect();
        for (share, expected) in [(0.0, 0.0), (0.5, 50.0), (0.99, 99.0), (1.0, 100.0)] {
            assert!((percentile(&values, share) - expected).abs() < 1e-9);
        }
        assert!(percentile(&[], 0.5).abs() < 1e-9);
    }
}
