//! What the broker counts: every metric's name and help are in this file.
//!
//! Labels come from the configuration or from closed lists, never from a request, so the number
//! of series is bounded. No label and no value is secret.

use contract::ErrorKind;
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::access::Standing;

mod labels;

pub use labels::kind_label;
use labels::{
    Build, ByAuthority, ByCredential, ByIdentity, ByOutcome, ByRoute, OfAuthority, OfIdentity,
    OfListener,
};

/// Requests that the api listener answers with a token.
const TOKENS_ANSWERED: ByRoute =
    ByRoute { listener: "api", route: contract::route::TOKEN, status: 200 };

/// Stands for an identity or authority that is not configured.
const UNKNOWN: &str = "unknown";

/// How a claims challenge ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChallengeOutcome {
    /// With a token that was acquired for it.
    Answered,
    /// With a token that was held already and is not the refused one.
    Held,
    /// Without a call to Entra: too soon, refused before, or no challenge that there can be.
    Declined,
    /// Entra refused, or did not answer in time.
    Failed,
}

/// All counters and gauges, and the registry that shows them.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    acquisitions: Family<ByIdentity, Counter>,
    credential_uses: Family<ByCredential, Counter>,
    token_requests: Family<ByIdentity, Counter>,
    token_life: Family<OfIdentity, Gauge>,
    exchanges: Family<ByIdentity, Counter>,
    delegated_tokens: Family<OfIdentity, Gauge>,
    evictions: Counter,
    challenges: Family<ByIdentity, Counter>,
    key_fetches: Family<ByAuthority, Counter>,
    key_set_age: Family<OfAuthority, Gauge>,
    key_set_keys: Family<OfAuthority, Gauge>,
    key_refreshes: Family<ByOutcome, Counter>,
    key_snapshots: Family<ByOutcome, Counter>,
    refused_peers: Counter,
    access_decisions: Family<ByIdentity, Counter>,
    configurations: Family<ByOutcome, Counter>,
    configuration_errors: Gauge,
    circuit_openings: Family<OfAuthority, Counter>,
    open_circuits: Family<OfAuthority, Gauge>,
    requests: Family<ByRoute, Counter>,
    /// Of `requests`, what most of them are: not looked up each time.
    tokens_answered: Counter,
    connections: Family<OfListener, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("entra_broker");
        let build = Family::<Build, Gauge>::default();
        build.get_or_create(&Build { version: env!("CARGO_PKG_VERSION") }).set(1);
        registry.register("build", "Version of the broker, always 1", build);
        let requests = Family::<ByRoute, Counter>::default();
        let tokens_answered = requests.get_or_create(&TOKENS_ANSWERED).clone();
        let metrics = Self {
            acquisitions: Family::default(),
            credential_uses: Family::default(),
            token_requests: Family::default(),
            token_life: Family::default(),
            exchanges: Family::default(),
            delegated_tokens: Family::default(),
            evictions: Counter::default(),
            challenges: Family::default(),
            key_fetches: Family::default(),
            key_set_age: Family::default(),
            key_set_keys: Family::default(),
            key_refreshes: Family::default(),
            key_snapshots: Family::default(),
            refused_peers: Counter::default(),
            access_decisions: Family::default(),
            configurations: Family::default(),
            configuration_errors: Gauge::default(),
            circuit_openings: Family::default(),
            open_circuits: Family::default(),
            requests,
            tokens_answered,
            connections: Family::default(),
            registry: Registry::default(),
        };
        registry.register(
            "token_acquisitions",
            "Tokens asked of Entra, by identity and outcome (issued, or the kind of refusal)",
            metrics.acquisitions.clone(),
        );
        registry.register(
            "credential_uses",
            "Uses of an application's credentials, by identity, place in `credentials` and outcome (issued, or the kind of refusal)",
            metrics.credential_uses.clone(),
        );
        registry.register(
            "token_requests",
            "Tokens asked of the broker, by identity and outcome (cached, waited, or the kind of refusal)",
            metrics.token_requests.clone(),
        );
        registry.register(
            "token_life_seconds",
            "Seconds until the first of an identity's tokens ends; 0 where one is missing",
            metrics.token_life.clone(),
        );
        registry.register(
            "on_behalf_of_exchanges",
            "Users' tokens exchanged at Entra, by identity and outcome (issued, or the kind of refusal)",
            metrics.exchanges.clone(),
        );
        registry.register(
            "on_behalf_of_tokens",
            "Tokens held on behalf of users, by identity",
            metrics.delegated_tokens.clone(),
        );
        registry.register(
            "on_behalf_of_evictions",
            "Tokens and refusals on behalf of users that were forgotten before their end, for want of room",
            metrics.evictions.clone(),
        );
        registry.register(
            "claims_challenges",
            "Claims challenges that filters sent on, by identity and outcome (answered, held, declined, failed)",
            metrics.challenges.clone(),
        );
        registry.register(
            "key_fetches",
            "Key sets asked of Entra, by authority and outcome (fetched, or what was wrong)",
            metrics.key_fetches.clone(),
        );
        registry.register(
            "key_set_age_seconds",
            "Seconds since the last good fetch of an authority's keys; -1 without keys",
            metrics.key_set_age.clone(),
        );
        registry.register(
            "key_set_keys",
            "Keys held of an authority",
            metrics.key_set_keys.clone(),
        );
        registry.register(
            "key_refresh_requests",
            "Refreshes asked of the broker, by outcome (fetched, joined, failing, throttled, unknown_authority)",
            metrics.key_refreshes.clone(),
        );
        registry.register(
            "key_snapshots",
            "Reads and writes of key_snapshot.file, by outcome (read, absent, written, not_written, or why not read)",
            metrics.key_snapshots.clone(),
        );
        registry.register(
            "refused_peers",
            "Connections to the api socket that were refused for their user id",
            metrics.refused_peers.clone(),
        );
        registry.register(
            "identity_access_decisions",
            "Decisions whether the pod may use an identity, at each change, by outcome (allowed, denied, undecided)",
            metrics.access_decisions.clone(),
        );
        registry.register(
            "configurations",
            "Changes of the configuration on disk, by outcome (applied, refused)",
            metrics.configurations.clone(),
        );
        registry.register(
            "configuration_errors",
            "Errors of the configuration on disk; while there are any, the one before is in force",
            metrics.configuration_errors.clone(),
        );
        registry.register(
            "circuit_openings",
            "Times that an authority, which did not answer, was no longer called",
            metrics.circuit_openings.clone(),
        );
        registry.register(
            "circuit_open",
            "1 while an authority is not called; nothing otherwise",
            metrics.open_circuits.clone(),
        );
        registry.register(
            "requests",
            "Requests by listener, route and status",
            metrics.requests.clone(),
        );
        registry.register(
            "connections",
            "Open connections by listener",
            metrics.connections.clone(),
        );
        Self { registry, ..metrics }
    }
}

impl Metrics {
    /// Entra answered (or failed to) when asked for a token.
    pub fn token_acquired(&self, identity: &str, refused: Option<ErrorKind>) {
        let outcome = refused.map_or("issued", kind_label);
        self.acquisitions
            .get_or_create(&ByIdentity { identity: identity.to_owned(), outcome })
            .inc();
    }

    /// An application proved itself, or failed to, with the credential at this place (from 0).
    pub fn credential_used(&self, identity: &str, place: usize, outcome: &'static str) {
        let position = u32::try_from(place).unwrap_or(u32::MAX).saturating_add(1);
        let label = ByCredential { identity: identity.to_owned(), position, outcome };
        self.credential_uses.get_or_create(&label).inc();
    }

    /// Entra answered (or failed to) when asked for a token on behalf of a user.
    pub fn exchanged(&self, identity: &str, refused: Option<ErrorKind>) {
        let outcome = refused.map_or("issued", kind_label);
        let label = ByIdentity { identity: identity.to_owned(), outcome };
        self.exchanges.get_or_create(&label).inc();
    }

    /// Tokens that are held on behalf of an identity's users.
    pub fn delegated_tokens(&self, identity: &str, held: usize) {
        let label = OfIdentity { identity: identity.to_owned() };
        self.delegated_tokens.get_or_create(&label).set(i64::try_from(held).unwrap_or(i64::MAX));
    }

    /// So many entries were forgotten before their end.
    pub fn evicted(&self, entries: usize) {
        self.evictions.inc_by(u64::try_from(entries).unwrap_or(u64::MAX));
    }

    /// A token request of a configured identity (or of none) was answered.
    pub fn token_requested(&self, identity: Option<&str>, outcome: &'static str) {
        let identity = identity.unwrap_or(UNKNOWN).to_owned();
        self.token_requests.get_or_create(&ByIdentity { identity, outcome }).inc();
    }

    /// Counts the requests of a configured identity's tokens that are held.
    pub fn cached_token_requests(&self, identity: &str) -> Counter {
        let label = ByIdentity { identity: identity.to_owned(), outcome: "cached" };
        self.token_requests.get_or_create(&label).clone()
    }

    /// A claims challenge of a configured identity's token (or of none) was dealt with.
    pub fn challenged(&self, identity: Option<&str>, outcome: ChallengeOutcome) {
        let identity = identity.unwrap_or(UNKNOWN).to_owned();
        let outcome = match outcome {
            ChallengeOutcome::Answered => "answered",
            ChallengeOutcome::Held => "held",
            ChallengeOutcome::Declined => "declined",
            ChallengeOutcome::Failed => "failed",
        };
        self.challenges.get_or_create(&ByIdentity { identity, outcome }).inc();
    }

    /// The least life among an identity's tokens, in seconds.
    pub fn token_life(&self, identity: &str, seconds: u64) {
        self.token_life
            .get_or_create(&OfIdentity { identity: identity.to_owned() })
            .set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    /// A fetch of keys ended.
    pub fn keys_fetched(&self, authority: &str, outcome: &'static str) {
        self.key_fetches
            .get_or_create(&ByAuthority { authority: authority.to_owned(), outcome })
            .inc();
    }

    /// The age in seconds and the number of an authority's keys.
    pub fn key_set(&self, authority: &str, age: Option<u64>, keys: usize) {
        let label = OfAuthority { authority: authority.to_owned() };
        let age = age.map_or(-1, |age| i64::try_from(age).unwrap_or(i64::MAX));
        self.key_set_age.get_or_create(&label).set(age);
        self.key_set_keys.get_or_create(&label).set(i64::try_from(keys).unwrap_or(i64::MAX));
    }

    /// A refresh of keys was asked for.
    pub fn keys_refresh_requested(&self, outcome: &'static str) {
        self.key_refreshes.get_or_create(&ByOutcome { outcome }).inc();
    }

    /// The file with the keys was read or written.
    pub fn key_snapshot(&self, outcome: &'static str) {
        self.key_snapshots.get_or_create(&ByOutcome { outcome }).inc();
    }

    /// A connection was refused for its user id; how many so far.
    pub fn peer_refused(&self) -> u64 {
        self.refused_peers.inc().saturating_add(1)
    }

    /// It was decided whether the pod may use a configured identity.
    pub fn access_decided(&self, identity: &str, access: &Standing) {
        let outcome = match access {
            Standing::Undecided(_) => "undecided",
            _ if access.allows(identity) => "allowed",
            _ => "denied",
        };
        let identity = identity.to_owned();
        self.access_decisions.get_or_create(&ByIdentity { identity, outcome }).inc();
    }

    /// The configuration on disk has changed; for so many errors it is not in force.
    pub fn configuration_changed(&self, errors: usize) {
        let outcome = if errors == 0 { "applied" } else { "refused" };
        self.configurations.get_or_create(&ByOutcome { outcome }).inc();
        self.configuration_errors.set(i64::try_from(errors).unwrap_or(i64::MAX));
    }

    /// Errors of the configuration on disk.
    pub fn configuration_errors(&self) -> i64 {
        self.configuration_errors.get()
    }

    /// An identity is no longer configured: what it holds is no longer shown.
    pub fn forget_identity(&self, identity: &str) {
        let label = OfIdentity { identity: identity.to_owned() };
        self.token_life.remove(&label);
        self.delegated_tokens.remove(&label);
    }

    /// An authority is no longer configured: what is held of it is no longer shown.
    pub fn forget_authority(&self, authority: &str) {
        let label = OfAuthority { authority: authority.to_owned() };
        self.key_set_age.remove(&label);
        self.key_set_keys.remove(&label);
    }

    /// An authority is no longer called.
    pub fn circuit_opened(&self, authority: &str) {
        let label = OfAuthority { authority: authority.to_owned() };
        self.circuit_openings.get_or_create(&label).inc();
        self.open_circuits.get_or_create(&label).set(1);
    }

    /// An authority is called again.
    pub fn circuit_closed(&self, authority: &str) {
        self.open_circuits.remove(&OfAuthority { authority: authority.to_owned() });
    }

    /// A request was answered.
    pub fn request_answered(&self, listener: &'static str, route: &'static str, status: u16) {
        match (ByRoute { listener, route, status }) {
            TOKENS_ANSWERED => self.tokens_answered.inc(),
            other => self.requests.get_or_create(&other).inc(),
        };
    }

    /// A connection was opened; it counts until the guard is dropped.
    pub fn connection(&self, listener: &'static str) -> Connection {
        let gauge = self.connections.get_or_create(&OfListener { listener }).clone();
        gauge.inc();
        Connection(gauge)
    }

    /// All of it in the text format of Prometheus (OpenMetrics 1.0).
    pub fn text(&self) -> String {
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(_full) => String::new(),
        }
    }
}

/// Counts one open connection.
#[derive(Debug)]
pub struct Connection(Gauge);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.dec();
    }
}
