//! Counters, kept in the VM and handed to Envoy on each tick.
//!
//! A host call per count would cost every request a microsecond. What a VM counted since its last
//! tick, one second ago at most, is lost with it when it traps; `wasm.*.vm_reload_success` shows
//! that. Names are closed lists: nothing of a request gets into one.

use policy::decision::{Decision, Reason};

use crate::host::{self, MetricKind};

/// What is counted besides decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// A denial that was only observed.
    Observed,
    /// A token was taken from the decision cache.
    CacheHit,
    /// A token had to be verified.
    CacheMiss,
    /// A call for keys failed.
    KeysFailed,
    /// A call for a token failed.
    TokenFailed,
    /// A response showed a connection without TLS.
    Plaintext,
    /// A call with a token went to another cluster than the one that the token was for.
    Rerouted,
    /// A claims challenge was answered with a new token: the attempt is made again.
    ChallengeAnswered,
    /// A claims challenge went to the application, and the broker was not asked.
    ChallengeDeclined,
    /// A claims challenge went to the application, and the next call has another token.
    ChallengeDeferred,
    /// A claims challenge went to the application, since the broker gave no other token.
    ChallengeFailed,
    /// A host call failed where it must not; a request that needed it was refused.
    HostFailed,
}

impl Event {
    fn name(self) -> &'static str {
        match self {
            Self::Observed => "observed",
            Self::CacheHit => "cache.hit",
            Self::CacheMiss => "cache.miss",
            Self::KeysFailed => "callout.keys.failed",
            Self::TokenFailed => "callout.token.failed",
            Self::Plaintext => "plaintext",
            Self::Rerouted => "rerouted",
            Self::ChallengeAnswered => "challenge.answered",
            Self::ChallengeDeclined => "challenge.declined",
            Self::ChallengeDeferred => "challenge.deferred",
            Self::ChallengeFailed => "challenge.failed",
            Self::HostFailed => "host.failed",
        }
    }
}

/// The metrics of one configuration.
#[derive(Debug)]
pub(crate) struct Metrics {
    direction: &'static str,
    decisions: Counts<Reason>,
    events: Counts<Event>,
    ids: Vec<(String, u32)>,
}

/// A handful of counters; a list beats a map, in time and in size.
type Counts<K> = Vec<(K, u64)>;

impl Metrics {
    /// None counted yet; `direction` is part of every name.
    pub(crate) fn new(direction: &'static str) -> Self {
        Self { direction, decisions: Vec::new(), events: Vec::new(), ids: Vec::new() }
    }

    /// Counts a decision by its reason.
    pub(crate) fn decision(&mut self, decision: &Decision) {
        add(&mut self.decisions, decision.reason, 1);
        if decision.observed {
            self.event(Event::Observed, 1);
        }
    }

    /// Counts an event.
    pub(crate) fn event(&mut self, event: Event, times: u64) {
        add(&mut self.events, event, times);
    }

    /// Hands everything counted to Envoy; what it does not take is kept for the next time.
    pub(crate) fn flush(&mut self) {
        for (reason, count) in std::mem::take(&mut self.decisions) {
            if self.increment(&format!("decision.{}", reason.code()), count).is_none() {
                add(&mut self.decisions, reason, count);
            }
        }
        for (event, count) in std::mem::take(&mut self.events) {
            if self.increment(event.name(), count).is_none() {
                add(&mut self.events, event, count);
            }
        }
    }

    /// Sets a gauge, where there is something to show.
    pub(crate) fn gauge(&mut self, name: &str, value: Option<u64>) {
        let Some(value) = value else { return };
        let shown = self.id(MetricKind::Gauge, name).and_then(|id| host::record_metric(id, value));
        if shown.is_none() {
            self.event(Event::HostFailed, 1);
        }
    }

    fn increment(&mut self, name: &str, count: u64) -> Option<()> {
        host::increment_metric(self.id(MetricKind::Counter, name)?, count)
    }

    fn id(&mut self, kind: MetricKind, name: &str) -> Option<u32> {
        let name = format!("entra_sidecar.{}.{name}", self.direction);
        if let Some((_, id)) = self.ids.iter().find(|(known, _)| *known == name) {
            return Some(*id);
        }
        let id = host::define_metric(kind, &name)?;
        self.ids.push((name, id));
        Some(id)
    }
}

fn add<K: PartialEq>(counts: &mut Counts<K>, key: K, times: u64) {
    match counts.iter_mut().find(|(known, _)| *known == key) {
        Some((_, count)) => *count = count.saturating_add(times),
        None if times > 0 => counts.push((key, times)),
        None => {}
    }
}
