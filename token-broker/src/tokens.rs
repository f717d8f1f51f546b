//! The tokens: held, renewed before their end, and handed out.
//!
//! Which there can be is known from the configuration, so each pair of identity and scope has a
//! slot, and a task that owns its acquisition (`tokens::renewal`). That makes at most one call in
//! flight per slot, however many ask, and renews without anyone waiting. Requests only read, and
//! wait where there is nothing to read yet. A claims challenge is the one request that has a token
//! acquired; `tokens::challenges` says when. The next station is Entra, by `source`.
//!
//! An identity that answers claims challenges has a second slot for each scope: tokens that their
//! resource can refuse at any moment go only to whoever answers for it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use contract::{ErrorKind, IssuedToken, TokenRequest, TypedError};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout_at},
};

pub mod challenges;
mod guard;
mod held;
mod on_behalf_of;
mod renewal;
mod shown;
mod slot;
mod states;

pub use on_behalf_of::{Counts, Delegation};
pub use states::IdentityState;

use challenges::Challenge;
use guard::Guard;
use held::{Answer, Step};
use on_behalf_of::{Cache, Delegated};
use shown::{Shown, issued};
use slot::{Slot, Slots};

use crate::{
    entra::claims::Capability,
    failure::{failure, retry_in, sanitised},
    metrics::{ChallengeOutcome, Metrics, kind_label},
    source::TokenSource,
    time::{Clock, later},
};

/// How long a request waits where no token is held: less than the 10 s that the filter gives the
/// broker, so that it learns why. The call to Entra goes on.
const WAIT: Duration = Duration::from_secs(8);

/// What the broker may ask tokens for.
pub struct Entitlement {
    /// Where the identity's tokens come from.
    pub source: Arc<dyn TokenSource>,
    /// The scopes that may be asked for.
    pub scopes: Vec<String>,
    /// What the identity can do, beside handing out tokens.
    pub capability: Capability,
    /// What may be asked for on behalf of users.
    pub delegation: Option<Delegation>,
}

/// All tokens that there can be under one configuration.
pub struct Tokens {
    identities: BTreeMap<String, Arc<Holding>>,
    on_behalf_of: Arc<Cache>,
    recoveries: watch::Receiver<u64>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    denied: Arc<AtomicU64>,
    guard: Guard,
    /// Of these tokens alone: under another configuration each request is judged anew.
    shown: Shown,
}

/// One identity's tokens, by scope.
struct Holding {
    scopes: BTreeMap<String, Slots>,
    /// Its users' tokens, which end with it.
    delegated: Option<Arc<Delegated>>,
    /// Ends with the owner.
    _renewals: JoinSet<()>,
}

impl Tokens {
    /// Starts to acquire, at once, all that the configuration allows. `recoveries` changes when
    /// Entra answers again after it did not.
    pub fn start(
        entitlements: BTreeMap<String, Entitlement>,
        recoveries: watch::Receiver<u64>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let none = Self {
            identities: BTreeMap::new(),
            on_behalf_of: Arc::default(),
            recoveries,
            clock,
            metrics,
            denied: Arc::default(),
            guard: Guard::default(),
            shown: Shown::default(),
        };
        none.followed_by(&[], entitlements)
    }

    /// The tokens of the next configuration: the identities of `kept` go on with what they hold,
    /// those of `entitlements` start anew, and any other ends with the last request that waits for
    /// it.
    #[must_use]
    pub fn followed_by(
        &self,
        kept: &[String],
        entitlements: BTreeMap<String, Entitlement>,
    ) -> Self {
        let kept = kept.iter().filter_map(|name| self.identities.get_key_value(name));
        let mut identities: BTreeMap<_, _> =
            kept.map(|(name, holding)| (name.clone(), Arc::clone(holding))).collect();
        for (identity, entitlement) in entitlements {
            let holding = Arc::new(self.hold(&identity, entitlement));
            identities.insert(identity, holding);
        }
        Self {
            identities,
            on_behalf_of: Arc::clone(&self.on_behalf_of),
            recoveries: self.recoveries.clone(),
            clock: Arc::clone(&self.clock),
            metrics: Arc::clone(&self.metrics),
            denied: Arc::clone(&self.denied),
            guard: self.guard.clone(),
            shown: Shown::default(),
        }
    }

    /// The clock that tokens end by.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    fn hold(&self, identity: &str, entitlement: Entitlement) -> Holding {
        let mut renewals = JoinSet::new();
        let doubt = watch::Sender::new(0);
        let mut start = |slot: Slot| {
            let slot = Arc::new(slot);
            let keeper = renewal::Keeper {
                slot: Arc::clone(&slot),
                source: Arc::clone(&entitlement.source),
                clock: Arc::clone(&self.clock),
                metrics: Arc::clone(&self.metrics),
                doubt: doubt.clone(),
                recoveries: self.recoveries.clone(),
            };
            renewals.spawn(keeper.keep());
            slot
        };
        let mut scopes = BTreeMap::new();
        for scope in entitlement.scopes {
            let plain = Slot::new(identity, &scope, Capability::None);
            let of_scope = match entitlement.capability {
                Capability::None => Slots { plain: start(plain), capable: None },
                capability @ Capability::ClaimsChallenges => Slots {
                    plain: start(plain.dormant()),
                    capable: Some(start(Slot::new(identity, &scope, capability))),
                },
            };
            scopes.insert(scope, of_scope);
        }
        let Entitlement { capability, source, delegation, .. } = entitlement;
        let delegated = delegation.map(|delegation| {
            Arc::new(Delegated::new(identity, delegation, capability, source, self))
        });
        Holding { scopes, delegated, _renewals: renewals }
    }

    /// The claims challenge in a request; a request with one that there cannot be is malformed.
    pub fn challenge(&self, request: &TokenRequest) -> Result<Option<Challenge>, &'static str> {
        Challenge::of(request).inspect_err(|_malformed| {
            let known = self.identities.contains_key(&request.identity);
            let identity = known.then_some(request.identity.as_str());
            self.metrics.challenged(identity, ChallengeOutcome::Declined);
        })
    }

    /// The token that `request` asks for, if the configuration allows it. `challenge` is what
    /// [`Self::challenge`] found in it. Meanwhile other tokens may have come to serve, which
    /// [`crate::server::State::issue`] looks at.
    pub(crate) async fn issue(
        &self,
        request: &TokenRequest,
        challenge: Option<&Challenge>,
    ) -> Result<IssuedToken, TypedError> {
        let holding = self.identities.get(&request.identity);
        let outcome = match &request.assertion {
            _ if self.guard.is_shut() => Err(self.guard.refusal()),
            None => self.own(holding, request, challenge).await,
            // Never answered with the application's own token, nor the other way round.
            Some(assertion) => {
                let delegated = holding.and_then(|holding| holding.delegated.as_ref());
                match delegated.and_then(|delegated| Some((delegated, delegated.place(request)?))) {
                    Some((delegated, place)) => delegated.issue(place, assertion).await,
                    None => Err(self.denied(request)),
                }
            }
        };
        let label = match &outcome {
            Ok((_, Waited::No)) => "cached",
            Ok((_, Waited::Yes)) => "waited",
            Err(refused) => kind_label(refused.kind),
        };
        self.metrics.token_requested(holding.map(|_known| request.identity.as_str()), label);
        outcome.map(|(token, _)| self.guard.limit(token, self.clock.unix_now()))
    }

    /// A token of the application itself.
    async fn own(
        &self,
        holding: Option<&Arc<Holding>>,
        request: &TokenRequest,
        challenge: Option<&Challenge>,
    ) -> Result<(IssuedToken, Waited), TypedError> {
        let slots = holding.and_then(|holding| holding.scopes.get(&request.scope));
        match (slots.map(|slots| slots.of(request)), challenge) {
            (Some(slot), None) => self.wait_for(slot).await,
            (Some(slot), Some(challenge)) => self.answer(slot, challenge).await,
            (None, _) => Err(self.denied(request)),
        }
    }

    /// One text for an unknown identity and for a scope that is not listed: neither tells which
    /// exist.
    fn denied(&self, request: &TokenRequest) -> TypedError {
        let denied = self.denied.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        // Not a line for each: whoever is denied could fill the log.
        if denied.is_power_of_two() {
            tracing::warn!(
                identity = sanitised(&request.identity),
                scope = sanitised(&request.scope),
                destination = sanitised(&request.destination),
                denied,
                "token request denied: the configuration lists no such identity and scope"
            );
        }
        failure(
            ErrorKind::Denied,
            "not_allowed: the broker's configuration lists no such scope of such an identity",
        )
    }

    async fn wait_for(&self, slot: &Slot) -> Result<(IssuedToken, Waited), TypedError> {
        let deadline = later(Instant::now(), WAIT);
        let mut states = slot.state.subscribe();
        let mut waited = Waited::No;
        loop {
            let (now, unix_now) = (Instant::now(), self.clock.unix_now());
            {
                let state = states.borrow_and_update();
                if let Some(token) = state.usable(now, unix_now) {
                    return Ok((issued(slot, token, unix_now), waited));
                }
                if let Some(refused) = state.refused_until(now) {
                    return Err(refused);
                }
                if !state.acquiring {
                    slot.wanted.notify_one();
                }
            }
            waited = Waited::Yes;
            // An error means that the renewal has ended: the broker is stopping.
            if !matches!(timeout_at(deadline, states.changed()).await, Ok(Ok(()))) {
                return Err(slow());
            }
        }
    }

    /// A token that its resource has not refused, acquired if it must be.
    async fn answer(
        &self,
        slot: &Slot,
        challenge: &Challenge,
    ) -> Result<(IssuedToken, Waited), TypedError> {
        let deadline = later(Instant::now(), WAIT);
        let mut states = slot.state.subscribe();
        let mut ticket = None;
        let answer = loop {
            states.mark_unchanged();
            let (now, unix_now) = (Instant::now(), self.clock.unix_now());
            let mut step = Step::Wait;
            slot.state.send_if_modified(|state| {
                step = state.challenged(challenge, &mut ticket, now, unix_now);
                false
            });
            match step {
                Step::Wait => {}
                Step::Acquire => slot.wanted.notify_one(),
                Step::End(answer) => break answer,
            }
            if !matches!(timeout_at(deadline, states.changed()).await, Ok(Ok(()))) {
                break Answer::Failed(slow());
            }
        };
        let (outcome, waited) = match answer {
            Answer::New => (ChallengeOutcome::Answered, Ok(Waited::Yes)),
            Answer::Held => (ChallengeOutcome::Held, Ok(Waited::No)),
            Answer::Declined(error) => (ChallengeOutcome::Declined, Err(error)),
            Answer::Failed(error) => (ChallengeOutcome::Failed, Err(error)),
        };
        self.metrics.challenged(Some(&slot.identity), outcome);
        let waited = waited?;
        match &slot.state.borrow().held {
            Some(token) => Ok((issued(slot, token, self.clock.unix_now()), waited)),
            None => Err(slow()),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Waited {
    No,
    Yes,
}

/// There may be a token soon.
pub(crate) fn slow() -> TypedError {
    let late = failure(ErrorKind::Transient, "entra_slow: no token yet; ask again");
    retry_in(late, Duration::from_secs(1))
}
