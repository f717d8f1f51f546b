//! Many short rounds, each row's beside every other's, and what they say together.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Context, Result};

use crate::{
    envoy::Envoy,
    load::{Connections, RequestTexts},
    rows::{Requests, Row},
    statistics::{median, median_added, percentile},
};

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// Rounds that each row has.
    pub(crate) cycles: usize,
    /// Requests in a saturating round.
    pub(crate) saturating: usize,
    /// Requests in a paced round.
    pub(crate) paced: usize,
    /// Time between two paced requests.
    pub(crate) interval: Duration,
}

/// The requests that rows send.
pub(crate) struct Traffic<'a> {
    /// A path that our policy lets a user read.
    pub(crate) path: &'a str,
    /// Distinct tokens, more than any cache holds.
    pub(crate) tokens: &'a [String],
}

/// What a row's rounds measured, by row name; each vector has one entry per cycle or request.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    rows: BTreeMap<&'static str, RowSamples>,
}

#[derive(Debug, Default)]
struct RowSamples {
    cpu_us: Vec<f64>,
    rps: Vec<f64>,
    latency_us: Vec<f64>,
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

/// Measures all rows; `progress` is told before each cycle.
pub(crate) fn measure(
    envoy: &Envoy,
    directory: &Path,
    rows: &[Row],
    traffic: &Traffic<'_>,
    effort: Effort,
    samples: &mut Samples,
) -> Result<()> {
    let mut lanes =
        rows.iter().map(|row| Lane::open(*row, directory, traffic)).collect::<Result<Vec<_>>>()?;
    for lane in &mut lanes {
        lane.warm_up(effort).with_context(|| lane.row.name)?;
    }
    let count = lanes.len();
    for cycle in 0..effort.cycles {
        // Each cycle begins with another row, so no row always follows the same disturbance.
        lanes.rotate_left(cycle.checked_rem(count).unwrap_or_default());
        for lane in &mut lanes {
            let name = lane.row.name;
            lane.round(envoy, effort, samples.rows.entry(name).or_default()).context(name)?;
        }
    }
    Ok(())
}

/// A row with its connections and requests.
struct Lane {
    row: Row,
    connections: Connections,
    requests: RequestTexts,
}

impl Lane {
    fn open(row: Row, directory: &Path, traffic: &Traffic<'_>) -> Result<Self> {
        let tokens = match row.requests {
            Requests::OneToken => traffic.tokens.get(..1).context("no token")?,
            Requests::FreshTokens => traffic.tokens,
            Requests::NoToken => &[],
        };
        let socket = directory.join(format!("{}.sock", row.listener));
        Ok(Self {
            row,
            connections: Connections::open(&socket, row.status)?,
            requests: RequestTexts::new(traffic.path, tokens),
        })
    }

    fn warm_up(&mut self, effort: Effort) -> Result<()> {
        self.connections.saturate(&mut self.requests, effort.saturating.saturating_mul(4))?;
        Ok(())
    }

    fn round(&mut self, envoy: &Envoy, effort: Effort, samples: &mut RowSamples) -> Result<()> {
        let count = effort.saturating;
        let before = envoy.cpu_nanoseconds()?;
        let elapsed = self.connections.saturate(&mut self.requests, count)?;
        let spent = envoy.cpu_nanoseconds()?.saturating_sub(before);
        #[allow(clippy::cast_precision_loss, reason = "small numbers")]
        let (spent_us, count) = (spent as f64 / 1_000.0, count as f64);
        samples.cpu_us.push(spent_us / count);
        samples.rps.push(count / elapsed.as_secs_f64());
        let times = self.connections.pace(&mut self.requests, effort.paced, effort.interval)?;
        samples.latency_us.extend(times.iter().map(|time| time.as_secs_f64() * 1e6));
        Ok(())
    }
}

impl Samples {
    /// What the rounds of a row say together.
    pub(crate) fn summary(&self, row: &Row) -> Option<Summary> {
        let own = self.rows.get(row.name)?;
        let baseline = self.rows.get(row.baseline)?;
        Some(Summary {
            added_cpu_us: median_added(&own.cpu_us, &baseline.cpu_us),
            cpu_us: median(&own.cpu_us),
            p50_us: median(&own.latency_us),
            p99_us: percentile(&own.latency_us, 0.99),
            rps: median(&own.rps),
        })
    }
}
