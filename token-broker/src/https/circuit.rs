//! Circuits: an authority that does not answer is left alone for a while, whoever wants to ask it.
//!
//! Tokens of all identities and the keys of one tenant come from the same place, so after
//! [`FAILURES`] calls in a row without an answer none is made: each fails at once. After a pause one
//! call is let through; its answer, whatever it says, closes the circuit and wakes all who were
//! refused, and without one the pause doubles. A refusal of Entra's is an answer: it opens nothing.
//!
//! The application's own tokens take turns, of each authority by itself, because all of them come
//! due together and their number has no bound but the configuration's. Keys are few and take none,
//! nor do calls on behalf of users ([`OnBehalfOf`]), which `tokens` bounds: so no user and no other
//! tenant keeps a renewal or the keys waiting.
//!
//! The machine's metadata service has no circuit: it is asked seldom, and by no one else's doing.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use contract::Secret;
use hyper::{
    Method, StatusCode,
    http::{Request, Uri},
};
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};

use super::{Answer, Boxed, Transport, TransportFailure};
use crate::{metrics::Metrics, time::later};

/// Calls in a row without an answer that open a circuit.
pub const FAILURES: u32 = 5;
/// First and longest pause.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// Turns of one authority: its calls under way at one time, of those that take one. A turn is waited
/// for before the circuit is looked at: of 200 that come together, those behind the first failures
/// are not made.
const TURNS: usize = 16;
/// A circuit that nobody has used for so long is forgotten: its authority is configured no more.
const FORGOTTEN: Duration = Duration::from_secs(3_600);

/// Marks a request (in its extensions) as one on behalf of a user: it takes no turn.
#[derive(Debug, Clone, Copy)]
pub struct OnBehalfOf;

/// A transport with a circuit for each authority.
pub struct Circuits {
    transport: Arc<dyn Transport>,
    metrics: Arc<Metrics>,
    /// By authority, while somebody has one or waits for it.
    turns: Mutex<BTreeMap<String, Weak<Semaphore>>>,
    /// Only authorities whose last call had no answer.
    failing: Mutex<BTreeMap<String, Circuit>>,
    recoveries: watch::Sender<u64>,
}

/// A circuit that is open, for the status page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// Login host and tenant.
    pub authority: String,
    /// Calls in a row without an answer.
    pub failures: u32,
    /// Until the next call may be made.
    pub pause: Duration,
}

#[derive(Debug)]
struct Circuit {
    failures: u32,
    openings: u32,
    /// The last pause.
    pause: Duration,
    state: State,
    used: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    OpenUntil(Instant),
    /// One call is under way.
    OnTrial,
}

impl Circuits {
    /// Closed circuits before `transport`.
    pub fn new(transport: Arc<dyn Transport>, metrics: Arc<Metrics>) -> Self {
        Self {
            transport,
            metrics,
            turns: Mutex::default(),
            failing: Mutex::default(),
            recoveries: watch::Sender::new(0),
        }
    }

    /// Counts how often a circuit was closed again: a reason to ask anew for whoever was refused.
    pub fn recoveries(&self) -> watch::Receiver<u64> {
        self.recoveries.subscribe()
    }

    /// Forgets all failures, and has whoever was refused ask anew: there is another way out, and what
    /// could not be reached by the one before says nothing of it.
    pub fn forget(&self) {
        for authority in std::mem::take(&mut *self.failing()).keys() {
            self.metrics.circuit_closed(authority);
        }
        self.recoveries.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// The circuits that are open.
    pub fn open(&self) -> Vec<Open> {
        let now = Instant::now();
        let open = |(authority, circuit): (&String, &Circuit)| {
            let pause = match circuit.state {
                State::Closed => return None,
                State::OpenUntil(until) => until.saturating_duration_since(now),
                State::OnTrial => Duration::ZERO,
            };
            let (authority, failures) = (authority.clone(), circuit.failures);
            Some(Open { authority, failures, pause })
        };
        self.failing().iter().filter_map(open).collect()
    }

    async fn call(
        &self,
        authority: String,
        request: Request<Secret>,
        limit: usize,
    ) -> Result<Answer, TransportFailure> {
        let turns = takes_turn(&request).then(|| self.turns(&authority));
        let _turn = match &turns {
            // Fails only when closed, which nobody does.
            Some(turns) => turns.acquire().await.ok(),
            None => None,
        };
        let mut call = self.admit(authority, Instant::now())?;
        let outcome = self.transport.send(request, limit).await;
        call.ended = true;
        match is_answer(&outcome) {
            true => self.answered(&call.authority),
            false => self.failed(&call.authority, Instant::now(), fastrand::f64()),
        }
        outcome
    }

    fn turns(&self, authority: &str) -> Arc<Semaphore> {
        let mut all = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turns) = all.get(authority).and_then(Weak::upgrade) {
            return turns;
        }
        all.retain(|_, turns| turns.strong_count() > 0);
        let turns = Arc::new(Semaphore::new(TURNS));
        all.insert(authority.to_owned(), Arc::downgrade(&turns));
        turns
    }

    /// Whether a call may be made now.
    fn admit(&self, authority: String, now: Instant) -> Result<Call<'_>, TransportFailure> {
        let mut trial = false;
        if let Some(circuit) = self.failing().get_mut(&authority) {
            circuit.used = now;
            match circuit.state {
                State::Closed => {}
                State::OpenUntil(until) if now >= until => {
                    circuit.state = State::OnTrial;
                    trial = true;
                }
                State::OpenUntil(until) => {
                    let rest = until.saturating_duration_since(now);
                    return Err(TransportFailure::NotTried(rest));
                }
                // It ends well, which wakes all, or with a longer pause.
                State::OnTrial => return Err(TransportFailure::NotTried(circuit.pause)),
            }
        }
        Ok(Call { circuits: self, authority, trial, ended: false })
    }

    fn answered(&self, authority: &str) {
        let closed = self.failing().remove(authority);
        if closed.is_some_and(|circuit| circuit.state != State::Closed) {
            self.metrics.circuit_closed(authority);
            tracing::info!(authority, "Entra answers again");
            self.recoveries.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    fn failed(&self, authority: &str, now: Instant, jitter: f64) {
        let mut failing = self.failing();
        failing.retain(|_, circuit| now.saturating_duration_since(circuit.used) < FORGOTTEN);
        let circuit = failing.entry(authority.to_owned()).or_insert_with(|| Circuit {
            failures: 0,
            openings: 0,
            pause: Duration::ZERO,
            state: State::Closed,
            used: now,
        });
        circuit.failures = circuit.failures.saturating_add(1);
        match circuit.state {
            State::Closed if circuit.failures < FAILURES => return,
            // It began before the circuit opened, and says nothing new.
            State::OpenUntil(_) => return,
            State::Closed => self.metrics.circuit_opened(authority),
            State::OnTrial => {}
        }
        circuit.openings = circuit.openings.saturating_add(1);
        circuit.pause = pause(circuit.openings, jitter);
        circuit.state = State::OpenUntil(later(now, circuit.pause));
        tracing::warn!(
            authority,
            failures = circuit.failures,
            pause_seconds = circuit.pause.as_secs(),
            "Entra does not answer: it is not called for a while"
        );
    }

    /// A trial that was given up says nothing: the next call may be one.
    fn given_up(&self, authority: &str) {
        if let Some(circuit) = self.failing().get_mut(authority) {
            circuit.state = State::OpenUntil(circuit.used);
        }
    }

    fn failing(&self) -> MutexGuard<'_, BTreeMap<String, Circuit>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transport for Circuits {
    fn send(
        &self,
        request: Request<Secret>,
        limit: usize,
    ) -> Boxed<'_, Result<Answer, TransportFailure>> {
        match authority(request.uri()) {
            Some(authority) => Box::pin(self.call(authority, request, limit)),
            None => self.transport.send(request, limit),
        }
    }
}

/// A call that is under way.
struct Call<'a> {
    circuits: &'a Circuits,
    authority: String,
    trial: bool,
    ended: bool,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if self.trial && !self.ended {
            self.circuits.given_up(&self.authority);
        }
    }
}

/// Login host and tenant: the first piece of every path there.
fn authority(uri: &Uri) -> Option<String> {
    let host = uri.authority().filter(|_| uri.scheme_str() == Some("https"))?;
    let tenant = uri.path().split('/').nth(1)?;
    Some(format!("{host}/{tenant}"))
}

/// Tokens are posted for, keys are fetched by GET.
fn takes_turn(request: &Request<Secret>) -> bool {
    request.method() == Method::POST && request.extensions().get::<OnBehalfOf>().is_none()
}

/// Whether the authority said something itself. Too large an answer is one, too.
fn is_answer(outcome: &Result<Answer, TransportFailure>) -> bool {
    match outcome {
        Ok(answer) => {
            !answer.status.is_server_error() && answer.status != StatusCode::REQUEST_TIMEOUT
        }
        Err(failure) => *failure == TransportFailure::TooLarge,
    }
}

/// Up to a quarter less, so that many brokers do not try together.
fn pause(openings: u32, jitter: f64) -> Duration {
    let doubled = 2_u32.saturating_pow(openings.saturating_sub(1).min(16));
    let pause = FIRST_PAUSE.saturating_mul(doubled).min(MAX_PAUSE);
    pause.mul_f64(1.0 - 0.25 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute() {
        let pauses: Vec<u64> = (1..=8).map(|openings| pause(openings, 0.0).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pause(u32::MAX, 1.0).as_secs(), 45);
    }

    #[test]
    fn an_authority_is_a_login_host_with_a_tenant() {
        for (uri, expected) in [
            (
                "https://login.microsoftonline.com/t/oauth2/v2.0/token",
                Some("login.microsoftonline.com/t"),
            ),
            (
                "https://login.microsoftonline.com/t/discovery/v2.0/keys",
                Some("login.microsoftonline.com/t"),
            ),
            ("https://login.microsoftonline.us/t/x", Some("login.microsoftonline.us/t")),
            ("http://169.254.169.254/metadata/identity/oauth2/token", None),
        ] {
            assert_eq!(authority(&uri.parse().unwrap()).as_deref(), expected, "{uri}");
        }
    }
}
