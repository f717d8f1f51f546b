//! Tokens on behalf of users: a user's token (the assertion) exchanged for one of the same user for
//! another API (learn.microsoft.com/entra/identity-platform/v2-oauth2-on-behalf-of-flow).
//!
//! Which there can be is not known beforehand, so nothing is acquired ahead and no task waits: what
//! was exchanged is kept (`on_behalf_of::cache`) until the token or the assertion ends, and exchanged
//! again when somebody asks for what is due. There is one exchange at a time for one assertion,
//! however many ask. The filter has validated the assertion; here it is only read, for its end.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use contract::{ErrorKind, IssuedToken, Secret, TokenRequest, TypedError};
use tokio::{
    sync::{Mutex as AsyncMutex, Semaphore, watch},
    time::{Instant, timeout_at},
};

mod assertion;
mod cache;
mod packed;
mod quiet;

use assertion::Assertion;
pub(super) use cache::Cache;
use cache::{Flight, Found, Kept, Key, Refused};
use quiet::{Quiets, Stage};

use super::{Tokens, WAIT, Waited, held::Times, renewal, slow};
use crate::{
    entra::{
        claims::{self, Capability},
        token_endpoint::{Acquired, Wanted},
    },
    failure::{NoToken, Reach, failure, retry_in},
    metrics::{Metrics, kind_label},
    refresh,
    source::{Fingerprint, TokenSource},
    time::{Clock, later},
};

/// Exchanges of one identity that are asked of Entra at one time. The others wait for their turn,
/// and then look at what the first have learned: of 200 users who come together few present a
/// credential that Entra refuses.
const MAX_EXCHANGES: usize = 8;

/// For what an application may act on behalf of its users.
#[derive(Debug, Clone)]
pub struct Delegation {
    /// The application's tenant, which is its users'.
    pub tenant: String,
    /// The scopes that may be asked for.
    pub scopes: Vec<String>,
}

/// How many there are now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Tokens that can be handed out.
    pub held: usize,
    /// Refusals that stand.
    pub refused: usize,
}

/// What one identity may be asked for on behalf of its users. Its entries end with it.
pub(super) struct Delegated {
    identity: String,
    tenant: String,
    scopes: Vec<String>,
    capability: Capability,
    source: Arc<dyn TokenSource>,
    cache: Arc<Cache>,
    recoveries: watch::Receiver<u64>,
    /// Tells its entries from those of others, also of one with the same name that it followed.
    number: u32,
    quiets: Mutex<Quiets>,
    turns: Semaphore,
    /// Of those who have a turn, whose exchange is to show whether a refusal is over.
    trial: AsyncMutex<()>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

/// What a request is for: one of the scopes, for an asker that answers challenges or not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    scope: u16,
    capability: Capability,
}

impl Drop for Delegated {
    fn drop(&mut self) {
        self.cache.forget(self.number);
    }
}

impl Delegated {
    pub(super) fn new(
        identity: &str,
        Delegation { tenant, scopes }: Delegation,
        capability: Capability,
        source: Arc<dyn TokenSource>,
        among: &Tokens,
    ) -> Self {
        Self {
            identity: identity.to_owned(),
            tenant,
            scopes,
            capability,
            source,
            cache: Arc::clone(&among.on_behalf_of),
            recoveries: among.recoveries.clone(),
            number: among.on_behalf_of.number(),
            quiets: Mutex::default(),
            turns: Semaphore::new(MAX_EXCHANGES),
            trial: AsyncMutex::default(),
            clock: Arc::clone(&among.clock),
            metrics: Arc::clone(&among.metrics),
        }
    }

    /// Where a request belongs, if its scope is listed.
    pub(super) fn place(&self, request: &TokenRequest) -> Option<Place> {
        let scope = self.scopes.iter().position(|scope| *scope == request.scope)?;
        let capability = if request.claims_challenges { self.capability } else { Capability::None };
        Some(Place { scope: u16::try_from(scope).ok()?, capability })
    }

    /// The user's token for a scope of the allow-list.
    pub(super) async fn issue(
        self: &Arc<Self>,
        place: Place,
        assertion: &Secret,
    ) -> Result<(IssuedToken, Waited), TypedError> {
        let deadline = later(Instant::now(), WAIT);
        let read = Assertion::read(assertion, &self.tenant, self.clock.unix_now())?;
        let key = Key {
            identity: self.number,
            scope: place.scope,
            capable: place.capability == Capability::ClaimsChallenges,
            assertion: read.digest,
        };
        let mut waited = Waited::No;
        loop {
            let (now, unix_now) = (Instant::now(), self.clock.unix_now());
            let mut flight = match self.cache.find(&key, self.recoveries(), now, unix_now) {
                Found::Held(kept) => {
                    if unix_now >= kept.times.refresh_on
                        && self.quiets().standing(place.scope, now).is_none()
                    {
                        // Nobody waits for it: what is held serves until then.
                        self.start(key, place, &read, assertion);
                    }
                    return Ok((self.issued(place, &kept, unix_now), waited));
                }
                Found::Refused(refused) => return Err(refused),
                Found::UnderWay(flight) => flight,
                Found::Nothing => {
                    // One that waited has had its exchange.
                    if let Waited::Yes = waited {
                        return Err(self.quiets().standing(place.scope, now).unwrap_or_else(slow));
                    }
                    if let Some(refused) = self.quiets().standing(place.scope, now) {
                        return Err(refused);
                    }
                    match self.start(key, place, &read, assertion) {
                        Some(flight) => flight,
                        None => return Err(crowded()),
                    }
                }
            };
            waited = Waited::Yes;
            if timeout_at(deadline, flight.ended()).await.is_err() {
                return Err(slow());
            }
        }
    }

    /// Starts an exchange unless one is under way; none where there are too many.
    fn start(
        self: &Arc<Self>,
        key: Key,
        place: Place,
        read: &Assertion,
        assertion: &Secret,
    ) -> Option<Flight> {
        let (flight, started) = self.cache.start(key)?;
        if let Some(started) = started {
            let (this, assertion, end) = (Arc::clone(self), assertion.clone(), read.end);
            tokio::spawn(async move {
                this.exchange(key, place, &assertion, end).await;
                // Last: whoever waits then finds how it ended.
                drop(started);
            });
        }
        Some(flight)
    }

    /// One exchange, in its turn, unless it is known by then that it would be refused.
    async fn exchange(&self, key: Key, place: Place, assertion: &Secret, end: u64) {
        // Fails only when closed, which nobody does.
        let _turn = self.turns.acquire().await;
        let mut trial = None;
        let credential = loop {
            let credential = self.source.credential().await;
            let stage = self.quiets().stage(place.scope, credential.as_ref(), Instant::now());
            match stage {
                Stage::Shut => return,
                Stage::Trial if trial.is_none() => trial = Some(self.trial.lock().await),
                Stage::Trial => break credential,
                Stage::Open => {
                    drop(trial.take());
                    break credential;
                }
            }
        };
        let Some(scope) = self.scope(place) else { return };
        let (asked, asked_unix) = (Instant::now(), self.clock.unix_now());
        let claims = claims::parameter(place.capability, None);
        let wanted = Wanted { scope, assertion: Some(assertion), claims: claims.as_deref() };
        let outcome = self.source.acquire(wanted).await;
        self.metrics.exchanged(&self.identity, outcome.as_ref().err().map(|no| no.error.kind));
        match outcome {
            Ok(acquired) => self.hold(key, scope, acquired, end, asked, asked_unix),
            Err(refused) => self.refuse(key, scope, refused, credential, asked),
        }
    }

    /// Keeps a token until its end or the assertion's, whichever comes first.
    fn hold(
        &self,
        key: Key,
        scope: &str,
        acquired: Acquired,
        end: u64,
        asked: Instant,
        asked_unix: u64,
    ) {
        let Acquired { access_token, life, refresh_in, correlation_id } = acquired;
        let rest = Duration::from_secs(end.saturating_sub(asked_unix));
        let capped = life.min(rest);
        // A newer one of the same assertion would end no later; but Entra may want to be asked.
        let pause = match refresh_in {
            None if rest <= life => capped,
            _ => refresh::renew_after(capped, refresh_in, fastrand::f64()).min(capped),
        };
        tracing::info!(
            identity = self.identity,
            scope,
            correlation_id,
            life_seconds = capped.as_secs(),
            "token acquired on behalf of a user"
        );
        self.quiets().end(key.scope, asked);
        let times = Times {
            life: capped,
            asked,
            expires_on: asked_unix.saturating_add(capped.as_secs()),
            refresh_on: asked_unix.saturating_add(pause.as_secs()),
        };
        let kept = Kept::new(&access_token, times, &correlation_id);
        let (now, unix_now) = (Instant::now(), self.clock.unix_now());
        self.metrics.evicted(self.cache.hold(key, kept, now, unix_now));
    }

    fn refuse(
        &self,
        key: Key,
        scope: &str,
        refused: NoToken,
        credential: Option<Fingerprint>,
        asked: Instant,
    ) {
        let (now, unix_now) = (Instant::now(), self.clock.unix_now());
        if refused.reach == Reach::Identity && refused.error.kind == ErrorKind::Disabled {
            // The application itself is: what it holds for users is no longer handed out.
            self.cache.forget(self.number);
        }
        if let Some(quiet) = self.quiets().of(refused.reach, key.scope) {
            let until = later(now, renewal::pause(&refused, quiet.failures(asked)));
            self.log(scope, &refused, until);
            quiet.begin(refused, asked, until, credential, now);
            return;
        }
        if refresh::is_verdict(refused.error.kind) {
            // Entra has judged the user, and so has accepted the application.
            self.quiets().end(key.scope, asked);
        }
        let failures = self.cache.failures(&key).saturating_add(1);
        let pause = renewal::pause(&refused, failures);
        self.log(scope, &refused, later(now, pause));
        let refused = Refused {
            error: *refused.error,
            until: later(now, pause),
            until_unix: unix_now.saturating_add(pause.as_secs()),
            failures,
            recoveries: self.recoveries(),
        };
        self.metrics.evicted(self.cache.refuse(key, refused, now, unix_now));
    }

    fn log(&self, scope: &str, refused: &NoToken, until: Instant) {
        tracing::warn!(
            identity = self.identity,
            scope,
            error = refused.error.error,
            kind = kind_label(refused.error.kind),
            correlation_id = refused.error.correlation_id,
            trace_id = refused.error.trace_id,
            retry_in_seconds = until.saturating_duration_since(Instant::now()).as_secs(),
            "no token on behalf of a user"
        );
    }

    fn scope(&self, place: Place) -> Option<&str> {
        self.scopes.get(usize::from(place.scope)).map(String::as_str)
    }

    fn issued(&self, place: Place, kept: &Kept, unix_now: u64) -> IssuedToken {
        let token = kept.token();
        IssuedToken {
            token_hash: Some(super::held::hash(&token)),
            access_token: token,
            token_type: "Bearer".to_owned(),
            expires_on: kept.times.expires_on,
            refresh_on: kept.times.ask_again_on(unix_now),
            scope: self.scope(place).unwrap_or_default().to_owned(),
            identity: self.identity.clone(),
            correlation_id: kept.correlation_id(),
        }
    }

    /// How many there are now.
    pub(super) fn counts(&self) -> Counts {
        self.cache.counts(self.number, Instant::now(), self.clock.unix_now())
    }

    /// What keeps every user from a token now.
    pub(super) fn refused(&self) -> Option<TypedError> {
        self.quiets().any(Instant::now())
    }

    /// How often Entra has answered again by now. What failed in passing before that is forgotten.
    fn recoveries(&self) -> u64 {
        *self.recoveries.borrow()
    }

    fn quiets(&self) -> MutexGuard<'_, Quiets> {
        self.quiets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn crowded() -> TypedError {
    let what = "too_many_exchanges: too many users' tokens are being exchanged; ask again";
    retry_in(failure(ErrorKind::Transient, what), Duration::from_secs(1))
}
