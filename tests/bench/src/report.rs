//! What the person reads and the JSON that programs read.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use crate::{
    rounds::{Samples, Summary, summary},
    rows::{Ratio, Row},
};

/// A table of rows and what follows from it.
pub(crate) struct Table {
    rows: Vec<(&'static str, Summary)>,
    ratios: Vec<(Ratio, f64)>,
}

impl Table {
    /// What the starts of Envoy say of these rows and ratios.
    pub(crate) fn new(starts: &[Samples], rows: &[Row], ratios: &[Ratio]) -> Self {
        let rows: Vec<_> =
            rows.iter().filter_map(|row| Some((row.name, summary(starts, row)?))).collect();
        let added =
            |name: &str| rows.iter().find(|(own, _)| *own == name).map(|(_, row)| row.added_cpu_us);
        let ratios = ratios_of(ratios, added);
        Self { rows, ratios }
    }

    /// The table, the ratios and whether the budgets are reached.
    pub(crate) fn text(&self) -> String {
        let mut text = format!(
            "\n{:<28}{:>13}{:>11}{:>10}{:>10}{:>10}\n",
            "row", "added CPU us", "CPU us", "p50 us", "p99 us", "req/s"
        );
        for (name, row) in &self.rows {
            let _infallible = writeln!(
                text,
                "{name:<28}{:>13.2}{:>11.2}{:>10.1}{:>10.1}{:>10.0}",
                row.added_cpu_us, row.cpu_us, row.p50_us, row.p99_us, row.rps
            );
        }
        let _infallible =
            writeln!(text, "\n{:<38}{:>8}{:>8}{:>8}", "ratio of added CPU", "ratio", "must", "aim");
        for (ratio, value) in &self.ratios {
            let _infallible = match ratio.budget {
                None => writeln!(text, "{:<38}{value:>8.2}", ratio.name),
                Some(budget) => writeln!(
                    text,
                    "{:<38}{value:>8.2}{:>8.2}{:>8.2}   {}",
                    ratio.name,
                    budget.must,
                    budget.aim,
                    match value {
                        value if *value <= 0.0 => "not measurable",
                        value if *value <= budget.aim => "aim reached",
                        value if *value <= budget.must => "must reached, aim not",
                        _ => "NOT REACHED",
                    }
                ),
            };
        }
        text
    }

    /// The rows, for the JSON.
    pub(crate) fn rows_json(&self) -> Value {
        self.rows
            .iter()
            .map(|(name, row)| {
                json!({
                    "name": name,
                    "added_cpu_us": row.added_cpu_us,
                    "p50_us": row.p50_us,
                    "p99_us": row.p99_us,
                    "rps": row.rps,
                })
            })
            .collect()
    }

    /// The ratios, for the JSON.
    pub(crate) fn ratios_json(&self) -> Value {
        self.ratios
            .iter()
            .map(|(ratio, value)| (ratio.name.to_owned(), json!(value)))
            .collect::<Map<_, _>>()
            .into()
    }

    /// The budgets of those ratios that have one, for the JSON.
    pub(crate) fn budgets_json(&self) -> Value {
        let budget = |(ratio, value): &(Ratio, f64)| {
            let budget = ratio.budget?;
            let entry = json!({
                "must": budget.must,
                "aim": budget.aim,
                "must_reached": *value <= budget.must,
                "aim_reached": *value <= budget.aim,
            });
            Some((ratio.name.to_owned(), entry))
        };
        self.ratios.iter().filter_map(budget).collect::<Map<_, _>>().into()
    }
}

/// What the added CPU of some rows is beside that of others, where both were measured.
fn ratios_of(ratios: &[Ratio], added: impl Fn(&str) -> Option<f64>) -> Vec<(Ratio, f64)> {
    ratios.iter().filter_map(|ratio| Some((*ratio, added(ratio.of)? / added(ratio.to)?))).collect()
}

/// Cores, CPU model and load, for whoever compares two tables.
pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let information = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = information
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown CPU", |(_, model)| model);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    format!("{cores} cores, {model}, load {load} before")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::{MESH, MESH_RATIOS, RATIOS, ROWS};

    #[test]
    fn the_mesh_ratio_is_of_what_both_add_to_istio_alone() {
        let added = |name: &str| match name {
            "mesh_request_auth" => Some(40.0),
            "mesh_inbound_hit" => Some(8.0),
            // A row of another baseline, which must not be taken.
            "inbound_hit" => Some(4.0),
            _ => None,
        };
        let ratios = ratios_of(&MESH_RATIOS, added);
        let names: Vec<&str> = ratios.iter().map(|(ratio, _)| ratio.name).collect();
        assert_eq!(names, ["mesh_hit_vs_request_auth"], "only where both rows were measured");
        assert!(ratios.iter().all(|(_, value)| (value - 0.2).abs() < 1e-9), "{ratios:?}");
    }

    #[test]
    fn every_ratio_and_baseline_names_a_row_that_is_measured_with_it() {
        for (rows, ratios) in
            [(ROWS.as_slice(), RATIOS.as_slice()), (MESH.as_slice(), MESH_RATIOS.as_slice())]
        {
            let known = |name: &str| rows.iter().any(|row| row.name == name);
            assert!(rows.iter().all(|row| known(row.baseline)));
            assert!(ratios.iter().all(|ratio| known(ratio.of) && known(ratio.to)));
        }
    }
}
