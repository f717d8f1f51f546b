//! What goes wrong on purpose: the next N answers of one endpoint are replaced or spoiled.
//!
//! A script per endpoint, first in first out; when it is used up the fake answers as it should.
//! `server` applies a fault, a test or the control listener writes the script.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use serde::Deserialize;
use tokio::sync::watch;

use super::calls::Endpoint;

/// One thing that goes wrong.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// Exactly this answer.
    Answer {
        /// HTTP status.
        status: u16,
        /// Additional headers.
        #[serde(default)]
        headers: Vec<(String, String)>,
        /// The body, sent as `application/json`.
        body: String,
    },
    /// A bare HTTP status with an empty body.
    Status {
        /// HTTP status.
        status: u16,
        /// `Retry-After`, as it is to be written: seconds or an HTTP date.
        #[serde(default)]
        retry_after: Option<String>,
    },
    /// Entra's refusal with this AADSTS number.
    Refuse {
        /// AADSTS number.
        code: u32,
        /// `Retry-After`.
        #[serde(default)]
        retry_after: Option<String>,
    },
    /// An HTML page, as a gateway in front of Entra sends.
    Html {
        /// HTTP status.
        status: u16,
    },
    /// Status 200 and a JSON string of this many bytes.
    Huge {
        /// Size of the body in bytes.
        bytes: usize,
    },
    /// Status 302 to elsewhere.
    Redirect {
        /// `Location`.
        location: String,
    },
    /// The true answer breaks off in the middle.
    ResetMidBody,
    /// The connection ends without an answer.
    Close,
    /// The true answer waits until the gate opens.
    Hold {
        /// What opens it.
        #[serde(skip)]
        gate: Gate,
    },
    /// Members of the true answer (a JSON object) are replaced; null removes one.
    Members {
        /// The other members.
        members: serde_json::Map<String, serde_json::Value>,
    },
    /// The key set has this many keys, the true ones first.
    ManyKeys {
        /// Keys in all.
        count: usize,
    },
}

/// Holds answers back until it is opened. Clones are the same gate.
#[derive(Debug, Clone)]
pub struct Gate(watch::Sender<bool>);

impl Default for Gate {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Gate {
    /// Lets every held answer go, and the ones to come.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    pub(super) async fn passed(&self) {
        // The sender is alive in `self`, so this ends only when the gate opens.
        drop(self.0.subscribe().wait_for(|open| *open).await);
    }
}

/// The faults to come.
#[derive(Default)]
pub(super) struct Script(Mutex<VecDeque<Planned>>);

struct Planned {
    endpoint: Endpoint,
    times: usize,
    fault: Fault,
}

impl Script {
    pub(super) fn plan(&self, endpoint: Endpoint, times: usize, fault: Fault) {
        if times > 0 {
            self.lock().push_back(Planned { endpoint, times, fault });
        }
    }

    /// The fault of the next answer of an endpoint, if one is planned; used up by asking.
    pub(super) fn next(&self, endpoint: Endpoint) -> Option<Fault> {
        let mut script = self.lock();
        let at = script.iter().position(|planned| planned.endpoint == endpoint)?;
        let planned = script.get_mut(at)?;
        planned.times = planned.times.saturating_sub(1);
        let fault = planned.fault.clone();
        if planned.times == 0 {
            script.remove(at);
        }
        Some(fault)
    }

    /// Forgets all that is planned, and opens the gates among it.
    pub(super) fn clear(&self) {
        for planned in self.lock().drain(..) {
            if let Fault::Hold { gate } = planned.fault {
                gate.open();
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Planned>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
