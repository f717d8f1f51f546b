//! A row at work: its connections, its requests, and what one pass of it costs.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};

use crate::{
    load::{Connections, Place, RequestTexts},
    process::Process,
    rounds::{Effort, RowSamples},
    rows::{Requests, Row},
    upstream::{Certificate, Upstream},
};

/// Tokens that our decision cache (8 MiB) holds at the same time, with room to spare.
const LIVE_TOKENS: usize = 2_500;

/// Requests before those that are measured, so that the row's code and data are in the caches.
const PRIMING: usize = 16;

/// The requests that rows send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Traffic<'a> {
    /// A path that our policy lets a user read.
    pub(crate) path: &'a str,
    /// Distinct tokens, more than any cache holds.
    pub(crate) tokens: &'a [String],
    /// What the upstreams of outbound rows show to Envoy.
    pub(crate) certificate: &'a Certificate,
}

/// A row with its connections and requests, and the best pass of its round.
pub(crate) struct Lane {
    /// What it measures.
    pub(crate) row: Row,
    /// Requests so far.
    pub(crate) sent: usize,
    envoy: Process,
    connections: Connections,
    requests: RequestTexts,
    cpu_us: f64,
    rps: f64,
}

impl Lane {
    /// A row on a listener of an Envoy of ours, whose sockets are in this directory.
    pub(crate) fn on_our_envoy(
        row: Row,
        envoy: Process,
        directory: &Path,
        traffic: Traffic<'_>,
    ) -> Result<Self> {
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
        let place = Place::File(directory.join(format!("{}.sock", row.name)));
        let connections = Connections::open(&place, row.status, upstream)?;
        Ok(Self::new(row, envoy, connections, RequestTexts::new(traffic.path, tokens)))
    }

    /// A row on a pod, with the application behind it.
    pub(crate) fn on_a_pod(
        row: Row,
        envoy: Process,
        place: &Place,
        requests: RequestTexts,
    ) -> Result<Self> {
        let connections = Connections::open(place, row.status, None)?;
        Ok(Self::new(row, envoy, connections, requests))
    }

    fn new(row: Row, envoy: Process, connections: Connections, requests: RequestTexts) -> Self {
        Self { row, sent: 0, envoy, connections, requests, cpu_us: f64::INFINITY, rps: 0.0 }
    }

    /// Until nothing is done for the first time any more.
    pub(crate) fn warm_up(&mut self, effort: Effort) -> Result<()> {
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

    /// One pass of a round.
    pub(crate) fn pass(&mut self, effort: Effort) -> Result<()> {
        let count = match self.row.requests {
            Requests::FreshTokens => effort.requests.div_ceil(4),
            _ => effort.requests,
        };
        self.saturate(PRIMING)?;
        let before = self.envoy.cpu_nanoseconds()?;
        let elapsed = self.saturate(count)?;
        let spent = self.envoy.cpu_nanoseconds()?.saturating_sub(before);
        #[allow(clippy::cast_precision_loss, reason = "small numbers")]
        let (spent_us, count) = (spent as f64 / 1_000.0, count as f64);
        self.cpu_us = self.cpu_us.min(spent_us / count);
        self.rps = self.rps.max(count / elapsed.as_secs_f64());
        Ok(())
    }

    /// Hands over the round's best pass.
    pub(crate) fn finish_round(&mut self, samples: &mut RowSamples) {
        samples.cpu_us.push(std::mem::replace(&mut self.cpu_us, f64::INFINITY));
        samples.rps.push(std::mem::take(&mut self.rps));
    }

    /// Paced requests, with the time of each.
    pub(crate) fn pace(&mut self, effort: Effort, samples: &mut RowSamples) -> Result<()> {
        self.sent = self.sent.saturating_add(effort.paced);
        let times = self.connections.pace(&mut self.requests, effort.paced, effort.interval)?;
        samples.latency_us.extend(times.iter().map(|time| time.as_secs_f64() * 1e6));
        Ok(())
    }
}
