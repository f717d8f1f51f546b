//! Many short rounds, each row's beside every other's, and what they say together.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rand_chacha::{
    ChaCha20Rng,
    rand_core::{RngCore, SeedableRng},
};

use crate::{
    envoy::Envoy,
    evidence,
    load::{Connections, RequestTexts},
    rows::{Requests, Row},
    statistics::{median, median_added, middle_mean, percentile},
    upstream::{Certificate, Upstream},
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

/// Tokens that our decision cache (8 MiB) holds at the same time, with room to spare.
const LIVE_TOKENS: usize = 2_500;

/// Requests before those that are measured, so that the row's code and data are in the caches.
const PRIMING: usize = 16;
/// Every so many rounds there are paced requests too.
const PACED_EVERY: usize = 4;

/// The requests that rows send.
pub(crate) struct Traffic<'a> {
    /// A path that our policy lets a user read.
    pub(crate) path: &'a str,
    /// Distinct tokens, more than any cache holds.
    pub(crate) tokens: &'a [String],
    /// What the upstreams of outbound rows show to Envoy.
    pub(crate) certificate: &'a Certificate,
}

/// What the rounds of one Envoy measured, by row name.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    rows: BTreeMap<&'static str, RowSamples>,
}

/// One entry per round; for the latency, one per paced request.
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

/// Measures all rows on one Envoy, in whole rounds until then.
pub(crate) fn measure(
    envoy: &Envoy,
    directory: &Path,
    rows: &[Row],
    traffic: &Traffic<'_>,
    effort: Effort,
    until: Instant,
) -> Result<Samples> {
    let mut samples = Samples::default();
    let mut lanes =
        rows.iter().map(|row| Lane::open(*row, directory, traffic)).collect::<Result<Vec<_>>>()?;
    for lane in &mut lanes {
        lane.warm_up(effort).with_context(|| lane.row.name)?;
    }
    // Twice where there is more to disturb: an outbound row has two sockets and TLS per request.
    let mut visits: Vec<usize> = (0..lanes.len())
        .chain(
            lanes
                .iter()
                .enumerate()
                .filter(|(_, lane)| lane.row.requests == Requests::NoToken)
                .map(|(index, _)| index),
        )
        .collect();
    let mut order = ChaCha20Rng::seed_from_u64(0);
    for round in 0_usize.. {
        for _ in 0..effort.passes {
            shuffle(&mut visits, &mut order);
            for visit in &visits {
                let lane = lanes.get_mut(*visit).context("no such row")?;
                lane.pass(envoy, effort).with_context(|| lane.row.name)?;
            }
        }
        for lane in &mut lanes {
            lane.finish_round(&mut samples);
            if round.is_multiple_of(PACED_EVERY) {
                lane.pace(effort, &mut samples).with_context(|| lane.row.name)?;
            }
        }
        if Instant::now() >= until {
            break;
        }
    }
    let sent: Vec<_> = lanes.iter().map(|lane| (lane.row, lane.sent)).collect();
    evidence::caches_were_used_as_named(envoy, &sent)?;
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

/// A row with its connections and requests, and the best pass of its round.
struct Lane {
    row: Row,
    connections: Connections,
    requests: RequestTexts,
    cpu_us: f64,
    rps: f64,
    sent: usize,
}

impl Lane {
    fn open(row: Row, directory: &Path, traffic: &Traffic<'_>) -> Result<Self> {
        let tokens = match row.requests {
            Requests::OneToken => traffic.tokens.get(..1).context("no token")?,
            Requests::LiveTokens => traffic.tokens.get(..LIVE_TOKENS).context("too few tokens")?,
            Requests::FreshTokens => traffic.tokens,
            Requests::NoToken => &[],
        };
        let upstream = match row.requests {
            Requests::OneToken | Requests::LiveTokens | Requests::FreshTokens => None,
            Requests::NoToken => {
                let socket = directory.join(format!("{}-upstream.sock", row.name));
                Some(Upstream::listen(&socket, traffic.certificate)?)
            }
        };
        let socket = directory.join(format!("{}.sock", row.name));
        Ok(Self {
            row,
            connections: Connections::open(&socket, row.status, upstream)?,
            requests: RequestTexts::new(traffic.path, tokens),
            cpu_us: f64::INFINITY,
            rps: 0.0,
            sent: 0,
        })
    }

    fn warm_up(&mut self, effort: Effort) -> Result<()> {
        let count = match self.row.requests {
            // Until each is known.
            Requests::LiveTokens => LIVE_TOKENS,
            _ => effort.requests.saturating_mul(8),
        };
        self.saturate(count)?;
        Ok(())
    }

    fn saturate(&mut self, count: usize) -> Result<Duration> {
        self.sent = self.sent.saturating_add(count);
        self.connections.saturate(&mut self.requests, count)
    }

    fn pass(&mut self, envoy: &Envoy, effort: Effort) -> Result<()> {
        let count = match self.row.requests {
            Requests::FreshTokens => effort.requests.div_ceil(4),
            _ => effort.requests,
        };
        self.saturate(PRIMING)?;
        let before = envoy.cpu_nanoseconds()?;
        let elapsed = self.saturate(count)?;
        let spent = envoy.cpu_nanoseconds()?.saturating_sub(before);
        #[allow(clippy::cast_precision_loss, reason = "small numbers")]
        let (spent_us, count) = (spent as f64 / 1_000.0, count as f64);
        self.cpu_us = self.cpu_us.min(spent_us / count);
        self.rps = self.rps.max(count / elapsed.as_secs_f64());
        Ok(())
    }

    fn finish_round(&mut self, samples: &mut Samples) {
        let row = samples.rows.entry(self.row.name).or_default();
        row.cpu_us.push(std::mem::replace(&mut self.cpu_us, f64::INFINITY));
        row.rps.push(std::mem::take(&mut self.rps));
    }

    fn pace(&mut self, effort: Effort, samples: &mut Samples) -> Result<()> {
        self.sent = self.sent.saturating_add(effort.paced);
        let times = self.connections.pace(&mut self.requests, effort.paced, effort.interval)?;
        let row = samples.rows.entry(self.row.name).or_default();
        row.latency_us.extend(times.iter().map(|time| time.as_secs_f64() * 1e6));
        Ok(())
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
