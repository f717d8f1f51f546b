//! What the person reads and the JSON that programs read.

use std::path::Path;

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::{
    rounds::{Samples, Summary},
    rows::{RATIOS, ROWS, Ratio},
};

/// What was measured, where and with what.
pub(crate) struct Report<'a> {
    /// What the rounds measured.
    pub(crate) samples: &'a Samples,
    /// Envoy's version line.
    pub(crate) envoy: &'a str,
    /// Bytes of our module.
    pub(crate) module_bytes: u64,
}

impl Report<'_> {
    /// The tables and whether the budgets are reached.
    pub(crate) fn text(&self) -> String {
        let mut lines = vec![format!(
            "{:<22}{:>13}{:>11}{:>10}{:>10}{:>10}",
            "row", "added CPU us", "CPU us", "p50 us", "p99 us", "req/s"
        )];
        for (name, row) in self.summaries() {
            lines.push(format!(
                "{name:<22}{:>13.2}{:>11.2}{:>10.1}{:>10.1}{:>10.0}",
                row.added_cpu_us, row.cpu_us, row.p50_us, row.p99_us, row.rps
            ));
        }
        lines.push(String::new());
        lines.push(format!("{:<38}{:>8}{:>8}{:>8}", "ratio of added CPU", "ratio", "must", "aim"));
        for (ratio, value) in self.ratios() {
            lines.push(match ratio.budget {
                None => format!("{:<38}{value:>8.2}", ratio.name),
                Some(budget) => format!(
                    "{:<38}{value:>8.2}{:>8.2}{:>8.2}   {}",
                    ratio.name,
                    budget.must,
                    budget.aim,
                    match value {
                        value if value <= budget.aim => "aim reached",
                        value if value <= budget.must => "must reached, aim not",
                        _ => "NOT REACHED",
                    }
                ),
            });
        }
        lines.push(format!("module: {} bytes", self.module_bytes));
        lines.join("\n")
    }

    /// Writes rows, ratios and budgets as JSON.
    pub(crate) fn write_json(&self, file: &Path) -> Result<()> {
        let rows: Vec<Value> = self
            .summaries()
            .map(|(name, row)| {
                json!({
                    "name": name,
                    "added_cpu_us": row.added_cpu_us,
                    "p50_us": row.p50_us,
                    "p99_us": row.p99_us,
                    "rps": row.rps,
                })
            })
            .collect();
        let mut ratios = Map::new();
        let mut budgets = Map::new();
        for (ratio, value) in self.ratios() {
            ratios.insert(ratio.name.to_owned(), json!(value));
            if let Some(budget) = ratio.budget {
                let entry = json!({
                    "must": budget.must,
                    "aim": budget.aim,
                    "must_reached": value <= budget.must,
                    "aim_reached": value <= budget.aim,
                });
                budgets.insert(ratio.name.to_owned(), entry);
            }
        }
        let whole = json!({
            "envoy": self.envoy,
            "module_bytes": self.module_bytes,
            "rows": rows,
            "ratios": ratios,
            "budgets": budgets,
        });
        std::fs::write(file, format!("{whole:#}\n"))?;
        Ok(())
    }

    fn summaries(&self) -> impl Iterator<Item = (&'static str, Summary)> {
        ROWS.iter().filter_map(|row| Some((row.name, self.samples.summary(row)?)))
    }

    fn ratios(&self) -> impl Iterator<Item = (&'static Ratio, f64)> {
        let added = |name: &str| {
            self.summaries().find(|(own, _)| *own == name).map(|(_, row)| row.added_cpu_us)
        };
        RATIOS.iter().filter_map(move |ratio| Some((ratio, added(ratio.of)? / added(ratio.to)?)))
    }
}

/// Cores, CPU model, load and Envoy, for whoever compares two tables.
pub(crate) fn machine(envoy: &str) -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let information = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = information
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown CPU", |(_, model)| model);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    format!("{cores} cores, {model}, load {load} before\nEnvoy {envoy}, one worker")
}
