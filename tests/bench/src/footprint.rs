//! `cargo xtask bench --broker`: what the token broker takes of its pod, and how fast it answers.
//!
//! The broker is the static program of the images, alone on this machine with a fake Entra. Its hits
//! are compared with an axum handler that answers as many constant bytes on a Unix socket of the
//! same kind: what is left of the difference is the broker's own work.

mod hits;
mod on_behalf_of;
mod stage;

use std::path::Path;

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::{from_environment, report, statistics::median};
use hits::Hits;
use stage::Stage;

/// Starts whose median is the time to be ready.
const STARTS: usize = 15;
/// Tokens of users in the cache.
const CACHED: usize = 10_000;

/// What is measured, with what it must reach.
struct Figure {
    /// Its key in the JSON.
    name: &'static str,
    what: &'static str,
    must: Must,
    value: f64,
}

#[derive(Clone, Copy)]
enum Must {
    AtMost(f64),
    AtLeast(f64),
}

impl Must {
    fn is_reached(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }
}

/// Measures, prints the table, and writes the JSON where one is wanted.
pub(crate) fn run(json: Option<&Path>) -> Result<()> {
    println!("{}", report::machine());
    let program = from_environment("TOKEN_BROKER_BIN")?;
    let stage = Stage::set(Path::new(&program))?;
    let mut ready_ms = Vec::new();
    for _ in 0..STARTS {
        ready_ms.push(stage.start()?.ready_after.as_secs_f64() * 1e3);
    }
    let broker = stage.start()?;
    let rss_idle = broker.settled_memory_mib()?;
    let hits = Hits::measure(&stage, &broker, &from_environment("BENCH_EMPTY_HANDLER")?)?;
    drop(broker);
    let rss_10k = on_behalf_of::memory_mib(&stage, CACHED)?;
    #[allow(clippy::cast_precision_loss, reason = "megabytes")]
    let binary_mb = std::fs::metadata(&program)?.len() as f64 / 1e6;
    let figures = [
        figure("binary_mb", "static program, MB", Must::AtMost(8.0), binary_mb),
        figure("rss_idle_mib", "memory when ready, MiB", Must::AtMost(10.0), rss_idle),
        figure("rss_10k_mib", "memory with 10,000 tokens, MiB", Must::AtMost(16.0), rss_10k),
        figure("ready_ms", "start to ready, ms", Must::AtMost(100.0), median(&ready_ms)),
        figure("hits_vs_empty_handler", "hits/s vs empty handler", Must::AtLeast(0.8), hits.ratio),
        figure("p99_hit_us", "p99 of a hit at 1,000/s, us", Must::AtMost(1_000.0), hits.p99_us),
    ];
    println!(
        "\nhits: {:.0}/s, empty handler: {:.0}/s, {} bytes each; p50 of a hit {:.0} us\n\
         medians of {STARTS} starts, {} rounds and {} passes; {}\n",
        hits.per_second,
        hits.empty_per_second,
        hits.bytes,
        hits.p50_us,
        hits::ROUNDS,
        hits::PASSES,
        hits.placement,
    );
    println!("{:<34}{:>10}{:>12}", "token broker", "measured", "must");
    for figure in &figures {
        println!("{}", figure.line());
    }
    if let Some(file) = json {
        let values: Map<String, Value> =
            figures.iter().map(|figure| (figure.name.to_owned(), json!(figure.value))).collect();
        std::fs::write(file, format!("{:#}\n", json!({"broker": values})))?;
    }
    Ok(())
}

fn figure(name: &'static str, what: &'static str, must: Must, value: f64) -> Figure {
    Figure { name, what, must, value }
}

impl Figure {
    fn line(&self) -> String {
        let (sign, limit) = match self.must {
            Must::AtMost(limit) => ("<=", limit),
            Must::AtLeast(limit) => (">=", limit),
        };
        let verdict = if self.must.is_reached(self.value) { "reached" } else { "NOT REACHED" };
        format!(
            "{:<34}{:>10.2}{:>12}   {verdict}",
            self.what,
            self.value,
            format!("{sign} {limit}")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_reached_on_it_and_not_beyond() {
        for (must, value, reached) in [
            (Must::AtMost(16.0), 16.0, true),
            (Must::AtMost(16.0), 16.1, false),
            (Must::AtLeast(0.8), 0.8, true),
            (Must::AtLeast(0.8), 0.79, false),
        ] {
            assert_eq!(figure("f", "f", must, value).line().contains("NOT"), !reached, "{value}");
        }
    }
}
