//! One configuration at work: hands requests to the core, keeps those who wait, and carries the
//! core's calls to the broker.

use contract::TokenRequest;
use policy::{
    caller_tokens::CallerTokens,
    config::{Config, Mode, Position},
    inbound::Inbound,
    key_schedule::KeyCall,
    outbound::{Challenged, Injected, Outbound, RETRY_HEADER, ResponseEffect},
    time::UnixTime,
    token_store::TokenCallResult,
};

use crate::{
    apply::{self, Outcome},
    broker::{self, KeysAnswer},
    host::{self, Level},
    metrics::{Event, Metrics},
    properties::{self, Place, now},
};

mod decide;

/// Most requests that wait for the broker at one time, for one configuration in one VM.
const MAX_WAITING: usize = 256;
/// A replay waits only where fewer do: a destination that challenges must leave room for the others.
const MAX_WAITING_FOR_REPLAY: usize = MAX_WAITING / 2;
/// Tick period while nobody waits, in milliseconds.
const IDLE_TICK: u32 = 1_000;
/// Tick period to have a call dispatched at once, in milliseconds.
const URGENT_TICK: u32 = 1;

/// Filter state with the inbound decision: `%FILTER_STATE(wasm.entra:PLAIN)%`.
const INBOUND_RECORD: &str = "entra";
/// Filter state with the outbound decision: a gateway may take both on one stream.
const OUTBOUND_RECORD: &str = "entra_outbound";
/// Filter state that says that the request has been made again: `%FILTER_STATE(wasm.entra_replay:PLAIN)%`.
const REPLAY_NOTE: &str = "entra_replay";

/// The state of one configuration in one VM.
pub(crate) struct Plugin {
    root: u32,
    cluster: String,
    direction: Direction,
    /// The tag of the keys that the broker gave last.
    etag: Option<String>,
    calls: Vec<(u32, Call)>,
    waiting: Vec<u32>,
    /// Streams that a token was injected into while they waited: from here they cannot be reached.
    /// Those that did not wait keep it themselves.
    injected: Vec<(u32, Injected)>,
    metrics: Metrics,
    place: Place,
    /// Where records are written, so that a request need not allocate.
    record: String,
}

enum Direction {
    Inbound { policy: Inbound },
    Outbound { policy: Outbound },
}

impl Direction {
    /// What is known of callers' tokens, where any are verified.
    fn callers(&mut self) -> Option<&mut CallerTokens> {
        match self {
            Self::Inbound { policy } => Some(policy.callers()),
            Self::Outbound { policy } => policy.callers(),
        }
    }
}

enum Call {
    Keys,
    Token(TokenRequest),
}

impl Plugin {
    /// Starts with a configuration.
    pub(crate) fn new(root: u32, config: Config) -> Self {
        let (direction, cluster, name) = match config {
            Config::Inbound(config) => {
                let cluster = config.broker_cluster.clone();
                let policy = Inbound::new(*config);
                (Direction::Inbound { policy }, cluster, "inbound")
            }
            Config::Outbound(config) => {
                let cluster = config.broker_cluster.clone();
                (Direction::Outbound { policy: Outbound::new(config) }, cluster, "outbound")
            }
        };
        let mut plugin = Self {
            root,
            cluster,
            direction,
            etag: None,
            calls: Vec::new(),
            waiting: Vec::new(),
            injected: Vec::new(),
            metrics: Metrics::new(name),
            place: Place::default(),
            record: String::new(),
        };
        plugin.announce_observe_mode();
        plugin
    }

    /// A stream's request headers came. Says what becomes of it, and which token goes with it.
    pub(crate) fn on_request(&mut self, stream: u32) -> (Outcome, Option<Injected>) {
        let (outcome, injected) = self.decide();
        if outcome == Outcome::Held {
            self.waiting.push(stream);
            // Only the root context may dispatch, and only its tick comes without a stream.
            self.tick_at_once();
            host::act_for(stream);
        }
        (outcome, injected)
    }

    /// A stream's response headers came; `injected` is the token that went with its request.
    pub(crate) fn on_response(&mut self, stream: u32, injected: Option<Injected>) {
        let Direction::Outbound { policy } = &mut self.direction else { return };
        // Whether Envoy tries again is not the upstream's to say.
        if host::remove_response_header(RETRY_HEADER).is_none() {
            self.metrics.event(Event::HostFailed, 1);
        }
        let waited = || {
            let index = self.injected.iter().position(|(waited, _)| *waited == stream)?;
            Some(self.injected.swap_remove(index).1)
        };
        let Some(injected) = injected.or_else(waited) else { return };
        let destination = &injected.destination;
        let downstream = policy.position() == Position::Downstream;
        // A listener's filter also sees Envoy's own answers, where there was no connection.
        let tls = || properties::has_tls() || (downstream && !properties::has_connection());
        if downstream && policy.on_cluster(destination, properties::cluster().as_deref()) {
            self.metrics.event(Event::Rerouted, 1);
            let message = format!("entra-sidecar: a call to {destination} went to another cluster");
            host::log(Level::Error, &message);
        }
        if policy.on_response(destination, tls) {
            self.metrics.event(Event::Plaintext, 1);
            let message = format!(
                "entra-sidecar: connection to destination {destination} has no TLS: injection stopped"
            );
            host::log(Level::Error, &message);
        }
        if !policy.answers_challenges(destination) || !host::has_response_header("www-authenticate")
        {
            return;
        }
        // One read for status and all lines: of a header alone the host gives only the first.
        let Some(headers) = host::response_headers() else { return };
        let response = Challenged::read(headers.lines());
        let replayed = || host::property(REPLAY_NOTE).is_some();
        let may_wait = self.waiting.len() < MAX_WAITING_FOR_REPLAY;
        match policy.on_challenge(&injected, &response, replayed, may_wait, now()) {
            ResponseEffect::Pass => {}
            ResponseEffect::Declined => self.metrics.event(Event::ChallengeDeclined, 1),
            ResponseEffect::Deferred => {
                self.metrics.event(Event::ChallengeDeferred, 1);
                self.tick_at_once();
                host::act_for(stream);
            }
            ResponseEffect::Replay => {
                // The note comes first: without it there must be no second time.
                let asked = host::set_property(REPLAY_NOTE, "1")
                    .and_then(|()| host::set_response_header(RETRY_HEADER, "1"));
                if asked.is_none() {
                    self.metrics.event(Event::HostFailed, 1);
                }
                self.tick_at_once();
                host::act_for(stream);
            }
        }
    }

    /// A stream's request trailers came: identity must not arrive behind the decision.
    pub(crate) fn on_trailers(&mut self) -> Outcome {
        let Direction::Inbound { policy } = &self.direction else { return Outcome::GoesOn };
        let own = &policy.config().own_headers;
        let removed = host::request_trailers().and_then(|trailers| {
            trailers
                .lines()
                .map(|(name, _)| name)
                .filter(|name| own.contain(name) || *name == b"authorization")
                .try_for_each(host::remove_request_trailer)
        });
        if removed.is_none() {
            self.metrics.event(Event::HostFailed, 1);
            return apply::refuse();
        }
        Outcome::GoesOn
    }

    /// A stream is gone.
    pub(crate) fn forget(&mut self, stream: u32) {
        self.waiting.retain(|waiting| *waiting != stream);
        self.injected.retain(|(waited, _)| *waited != stream);
    }

    /// Makes the calls that are due, and hands the counts to Envoy.
    pub(crate) fn on_tick(&mut self) {
        host::set_tick_period(IDLE_TICK);
        let now = now();
        self.dispatch(now);
        if let Some(callers) = self.direction.callers() {
            let (hits, misses) = callers.take_cache_counts();
            self.metrics.event(Event::CacheHit, hits);
            self.metrics.event(Event::CacheMiss, misses);
            self.metrics.gauge("keys.age_seconds", callers.key_age(now));
            self.metrics.gauge("keys.missing", Some(callers.keys_missing(now)));
        }
        if let Direction::Outbound { policy } = &self.direction {
            self.metrics.gauge("token.age_seconds", policy.token_age(now));
        }
        self.metrics.flush();
    }

    /// The broker answered a call, or the host gave it up.
    pub(crate) fn on_answer(&mut self, call: u32, body_size: usize) {
        let now = now();
        let Some(index) = self.calls.iter().position(|(made, _)| *made == call) else { return };
        match self.calls.swap_remove(index).1 {
            Call::Keys => self.take_keys(broker::keys_answer(body_size), now),
            Call::Token(request) => {
                self.take_token(&request, broker::token_answer(body_size), now);
            }
        }
        self.wake();
    }

    /// Judges everybody who waits anew.
    fn wake(&mut self) {
        for stream in std::mem::take(&mut self.waiting) {
            // A stream that is gone has left the list; one that the host is just ending has not.
            if host::act_for(stream).is_none() {
                continue;
            }
            let (outcome, injected) = self.decide();
            self.injected.extend(injected.map(|injected| (stream, injected)));
            match outcome {
                Outcome::GoesOn => {
                    host::resume_request();
                }
                Outcome::Held => self.waiting.push(stream),
                Outcome::Answered => {}
            }
        }
        host::act_for(self.root);
        if !self.waiting.is_empty() {
            self.tick_at_once();
        }
    }

    fn tick_at_once(&self) {
        host::act_for(self.root);
        host::set_tick_period(URGENT_TICK);
    }

    /// Makes every call that is due.
    fn dispatch(&mut self, now: UnixTime) {
        let cluster = self.cluster.as_str();
        let mut failed = false;
        if let Some(call) = self.direction.callers().and_then(|callers| callers.next_call(now)) {
            let made = match &call {
                KeyCall::Poll => broker::poll_keys(cluster, self.etag.as_deref()),
                KeyCall::Refresh(refresh) => broker::refresh_keys(cluster, refresh),
            };
            match made {
                Some(made) => self.calls.push((made, Call::Keys)),
                None => {
                    failed = true;
                    self.take_keys(KeysAnswer::Failed, now);
                }
            }
        }
        if let Direction::Outbound { policy } = &mut self.direction {
            let due: Vec<_> = std::iter::from_fn(|| policy.next_call(now)).collect();
            for request in due {
                match broker::fetch_token(&self.cluster, &request) {
                    Some(made) => self.calls.push((made, Call::Token(request))),
                    None => {
                        failed = true;
                        self.take_token(&request, TokenCallResult::Failed, now);
                    }
                }
            }
        }
        if failed {
            self.wake();
        }
    }

    fn take_keys(&mut self, answer: KeysAnswer, now: UnixTime) {
        let Some(callers) = self.direction.callers() else { return };
        match answer {
            KeysAnswer::Keys(keys, tag) => {
                callers.on_keys(&keys, now);
                self.etag = tag;
            }
            KeysAnswer::Unchanged => callers.on_unchanged_keys(now),
            KeysAnswer::Limited(seconds) => callers.on_limit(seconds, now),
            KeysAnswer::Failed => {
                callers.on_failure(now);
                self.metrics.event(Event::KeysFailed, 1);
            }
        }
    }

    fn take_token(&mut self, request: &TokenRequest, result: TokenCallResult, now: UnixTime) {
        let Direction::Outbound { policy } = &mut self.direction else { return };
        if !matches!(result, TokenCallResult::Issued(_)) {
            self.metrics.event(Event::TokenFailed, 1);
        }
        policy.on_result(request, result, now);
    }

    /// Observing is no enforcement, and must not be mistaken for it.
    fn announce_observe_mode(&mut self) {
        let Direction::Inbound { policy } = &self.direction else { return };
        let config = policy.config();
        let observing: Vec<&str> = config
            .rules
            .iter()
            .filter(|rule| rule.mode == Mode::Observe)
            .map(|rule| rule.name.as_ref())
            .collect();
        let count = u64::try_from(observing.len()).unwrap_or(u64::MAX);
        if !observing.is_empty() {
            let names = observing.join(", ");
            let message = format!("entra-sidecar: NOT ENFORCED, only observed: rules {names}");
            host::log(Level::Warn, &message);
        }
        self.metrics.gauge("observing_rules", Some(count));
    }
}
