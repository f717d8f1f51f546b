//! What a claims challenge adds to a call: the time from the challenge to the answer of the replay.
//!
//! Each destination is challenged once, because the filter then asks for nothing new for a while. The
//! broker answers at once here: what Entra takes comes on top.

use std::{fmt, path::Path, time::Duration};

use anyhow::Result;
use serde_json::{Value, json};

use crate::{
    lane::Traffic,
    load::{Connections, Place, RequestTexts},
    statistics::{median, percentile},
    upstream::Upstream,
};

/// How many destinations are challenged.
pub(crate) const DESTINATIONS: usize = 40;

/// Ordinary calls to each destination before.
const CALLS: usize = 20;
/// Between two calls.
const INTERVAL: Duration = Duration::from_millis(1);

/// What was measured, in microseconds.
pub(crate) struct Replay {
    call_us: Vec<f64>,
    challenged_us: Vec<f64>,
}

impl Replay {
    /// Calls each destination as ever, then has its token refused and calls once more.
    pub(crate) fn measure(
        directory: &Path,
        names: &[String],
        traffic: &Traffic<'_>,
        injected: &str,
    ) -> Result<Self> {
        let mut measured = Self { call_us: Vec::new(), challenged_us: Vec::new() };
        let microseconds = |times: Vec<Duration>| {
            times.into_iter().map(|time| time.as_secs_f64() * 1e6).collect::<Vec<_>>()
        };
        for name in names {
            let upstream = directory.join(format!("{name}-upstream.sock"));
            let upstream = Upstream::listen(&upstream, traffic.certificate)?;
            let place = Place::File(directory.join(format!("{name}.sock")));
            let mut connections = Connections::open(&place, 200, Some(upstream))?;
            let mut requests = RequestTexts::new(traffic.path, &[]);
            // The first has to wait for its token.
            connections.pace(&mut requests, 1, INTERVAL)?;
            let calls = connections.pace(&mut requests, CALLS, INTERVAL)?;
            measured.call_us.extend(microseconds(calls));
            connections.refuse(injected);
            let challenged = connections.pace(&mut requests, 1, INTERVAL)?;
            measured.challenged_us.extend(microseconds(challenged));
        }
        Ok(measured)
    }

    fn added_p50_us(&self) -> f64 {
        median(&self.challenged_us) - median(&self.call_us)
    }

    fn added_p99_us(&self) -> f64 {
        percentile(&self.challenged_us, 0.99) - median(&self.call_us)
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        json!({
            "replays": self.challenged_us.len(),
            "call_p50_us": median(&self.call_us),
            "added_p50_us": self.added_p50_us(),
            "added_p99_us": self.added_p99_us(),
        })
    }
}

impl fmt::Display for Replay {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "claims challenge: {} calls replayed, each {:.0} us later than the {:.0} us of a call \
             (99 of 100 within {:.0} us)",
            self.challenged_us.len(),
            self.added_p50_us(),
            median(&self.call_us),
            self.added_p99_us()
        )
    }
}
