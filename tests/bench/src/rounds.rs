//! Many short rounds, each row's beside every other's, and what they say together.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rand_chacha::{
    ChaCha20Rng,
    rand_core::{RngCore, SeedableRng},
};

use crate::{
    lane::Lane,
    rows::Row,
    statistics::{median, median_added, middle_mean, percentile},
};

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// How often Envoy is started anew: where its memory happens to lie costs or spares some
    /// percent for as long as it runs.
    pub(crate) starts: u32,
    /// How long all this takes.
    pub(crate) time: Duration,
    /// Passes of a round: what else the machine does only ever adds, so the least counts.
    pub(crate) passes: usize,
    /// Requests in a saturating pass; a quarter where each takes several times as long.
    pub(crate) requests: usize,
    /// Paced requests in a round that has them.
    pub(crate) paced: usize,
    /// Time between two paced requests.
    pub(crate) interval: Duration,
}

/// Every so many rounds there are paced requests too.
const PACED_EVERY: usize = 4;

/// What the rounds of one Envoy measured, by row name.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    rows: BTreeMap<&'static str, RowSamples>,
}

/// One entry per round; for the latency, one per paced request.
#[derive(Debug, Default)]
pub(crate) struct RowSamples {
    pub(crate) cpu_us: Vec<f64>,
    pub(crate) rps: Vec<f64>,
    pub(crate) latency_us: Vec<f64>,
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Summary {
    /// CPU of the Envoy process per request, less its baseline's, in microseconds.
    pub(crate) added_cpu_us: f64,
    /// CPU of the Envoy process per request, in microseconds.
    pub(crate) cpu_us: f64,
    /// Median time of a paced request, in microseconds.
    pub(crate) p50_us: f64,
    /// 99th percentile of the same.
    pub(crate) p99_us: f64,
    /// Requests per second when saturated.
    pub(crate) rps: f64,
}

/// Measures all rows side by side, in whole rounds until then.
pub(crate) fn measure(lanes: &mut [Lane], effort: Effort, until: Instant) -> Result<Samples> {
    let mut samples = Samples::default();
    for lane in lanes.iter_mut() {
        lane.warm_up(effort).with_context(|| lane.row.name)?;
    }
    // Twice where there is more to disturb: two sockets per request, and TLS or an application.
    let twice = lanes.iter().enumerate().filter(|(_, lane)| lane.row.has_an_upstream());
    let mut visits: Vec<usize> = (0..lanes.len()).chain(twice.map(|(index, _)| index)).collect();
    let mut order = ChaCha20Rng::seed_from_u64(0);
    for round in 0_usize.. {
        for _ in 0..effort.passes {
            shuffle(&mut visits, &mut order);
            for visit in &visits {
                let lane = lanes.get_mut(*visit).context("no such row")?;
                lane.pass(effort).with_context(|| lane.row.name)?;
            }
        }
        for lane in lanes.iter_mut() {
            let row = samples.rows.entry(lane.row.name).or_default();
            lane.finish_round(row);
            if round.is_multiple_of(PACED_EVERY) {
                lane.pace(effort, row).with_context(|| lane.row.name)?;
            }
        }
        if Instant::now() >= until {
            break;
        }
    }
    Ok(samples)
}

/// Another order each time: a row that always follows the same one pays, or is spared, for what
/// that one left in the core's caches.
fn shuffle(visits: &mut [usize], order: &mut ChaCha20Rng) {
    for last in (1..visits.len()).rev() {
        let choices = u64::try_from(last).unwrap_or_default().saturating_add(1);
        let chosen = order.next_u64().checked_rem(choices).unwrap_or_default();
        visits.swap(last, usize::try_from(chosen).unwrap_or_default());
    }
}

/// What all starts of Envoy say of a row together.
pub(crate) fn summary(starts: &[Samples], row: &Row) -> Option<Summary> {
    let over_starts = |value: &dyn Fn(&RowSamples, &RowSamples) -> f64| {
        let values: Option<Vec<f64>> = starts
            .iter()
            .map(|start| Some(value(start.rows.get(row.name)?, start.rows.get(row.baseline)?)))
            .collect();
        Some(middle_mean(&values?))
    };
    Some(Summary {
        added_cpu_us: over_starts(&|own, baseline| median_added(&own.cpu_us, &baseline.cpu_us))?,
        cpu_us: over_starts(&|own, _| median(&own.cpu_us))?,
        p50_us: over_starts(&|own, _| median(&own.latency_us))?,
        p99_us: over_starts(&|own, _| percentile(&own.latency_us, 0.99))?,
        rps: over_starts(&|own, _| median(&own.rps))?,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says by a panic that it fails")]
mod tests {
    use super::*;
    use crate::rows::{MESH, ROWS};

    #[test]
    fn a_row_in_the_mesh_is_compared_with_istio_alone_and_not_with_a_bare_envoy() {
        let start = |shift: f64| {
            let row = |cpu: f64| RowSamples { cpu_us: vec![cpu + shift; 3], ..Default::default() };
            let rows =
                [("no_filter", 20.0), ("mesh_istio_alone", 80.0), ("mesh_inbound_hit", 92.0)];
            Samples { rows: rows.into_iter().map(|(name, cpu)| (name, row(cpu))).collect() }
        };
        // Each start has pods of its own, and is compared within itself.
        let starts = [start(0.0), start(7.0)];
        let row = |name| ROWS.iter().chain(&MESH).find(|row| row.name == name).unwrap();
        let added = |name| summary(&starts, row(name)).unwrap().added_cpu_us;
        assert!((added("mesh_inbound_hit") - 12.0).abs() < 1e-9);
        assert!(added("mesh_istio_alone").abs() < 1e-9);
        assert!(summary(&starts, row("mesh_request_auth")).is_none(), "nothing was measured");
    }
}
