//! The tokens: held, renewed before their end, and handed out.
//!
//! Which there can be is known from the configuration, so each pair of identity and scope has one
//! task that owns its acquisition (`tokens::renewal`). That makes at most one call in flight per
//! pair, however many ask, and renews without anyone waiting. Requests only read, and wait where
//! there is nothing to read yet. The next station is Entra, by `source`.

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
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, timeout_at},
};

mod held;
mod renewal;

use held::{Held, Refused, State};

use crate::{
    failure::{failure, retry_in, sanitised},
    metrics::{Metrics, kind_label},
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
}

/// All tokens that there can be.
pub struct Tokens {
    identities: BTreeMap<String, BTreeMap<String, Arc<Slot>>>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    denied: AtomicU64,
    /// Ends with the owner.
    _renewals: JoinSet<()>,
}

/// The place of one identity's token for one scope.
struct Slot {
    identity: String,
    scope: String,
    state: watch::Sender<State>,
    /// Wakes the renewal when a request finds that a clock has jumped past the token's end.
    wanted: Notify,
}

/// How an identity is doing, for readiness and the status page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityState {
    /// Its name.
    pub identity: String,
    /// Its scopes that have a token now.
    pub held: usize,
    /// Its scopes.
    pub scopes: usize,
    /// The least life among its tokens, 0 where one is missing.
    pub life: Duration,
    /// The last refusal of a scope whose last acquisition failed.
    pub refused: Option<TypedError>,
    /// That scope has never had a token since the start.
    pub never_held: bool,
}

impl Tokens {
    /// Starts to acquire, at once, all that the configuration allows.
    pub fn start(
        entitlements: BTreeMap<String, Entitlement>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let mut renewals = JoinSet::new();
        let mut identities = BTreeMap::new();
        for (identity, entitlement) in entitlements {
            let mut slots = BTreeMap::new();
            for scope in entitlement.scopes {
                let slot = Arc::new(Slot {
                    identity: identity.clone(),
                    scope: scope.clone(),
                    state: watch::Sender::new(State::default()),
                    wanted: Notify::new(),
                });
                renewals.spawn(renewal::keep(
                    Arc::clone(&slot),
                    Arc::clone(&entitlement.source),
                    Arc::clone(&clock),
                    Arc::clone(&metrics),
                ));
                slots.insert(scope, slot);
            }
            identities.insert(identity, slots);
        }
        Self { identities, clock, metrics, denied: AtomicU64::new(0), _renewals: renewals }
    }

    /// The token that `request` asks for, if the configuration allows it.
    pub async fn issue(&self, request: &TokenRequest) -> Result<IssuedToken, TypedError> {
        let slots = self.identities.get(&request.identity);
        let outcome = match slots.and_then(|slots| slots.get(&request.scope)) {
            Some(slot) => self.wait_for(slot).await,
            None => Err(self.denied(request)),
        };
        let label = match &outcome {
            Ok((_, Waited::No)) => "cached",
            Ok((_, Waited::Yes)) => "waited",
            Err(refused) => kind_label(refused.kind),
        };
        self.metrics.token_requested(slots.map(|_known| request.identity.as_str()), label);
        outcome.map(|(token, _)| token)
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
            let now = Instant::now();
            {
                let state = states.borrow_and_update();
                if let Some(token) = state.usable(now, self.clock.unix_now()) {
                    return Ok((issued(slot, token), waited));
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
                let late = failure(ErrorKind::Transient, "entra_slow: no token yet; ask again");
                return Err(retry_in(late, Duration::from_secs(1)));
            }
        }
    }

    /// How each identity is doing.
    pub fn states(&self) -> Vec<IdentityState> {
        let (now, unix_now) = (Instant::now(), self.clock.unix_now());
        self.identities
            .iter()
            .map(|(identity, slots)| {
                let mut state = IdentityState {
                    identity: identity.clone(),
                    held: 0,
                    scopes: slots.len(),
                    life: Duration::MAX,
                    refused: None,
                    never_held: false,
                };
                for slot in slots.values() {
                    let of_slot = slot.state.borrow();
                    let life = of_slot.life(now, unix_now);
                    state.held = state.held.saturating_add(usize::from(!life.is_zero()));
                    state.life = state.life.min(life);
                    if let Some(Refused { error, .. }) = &of_slot.refused {
                        state.refused = Some(error.clone());
                        state.never_held |= !of_slot.ever_held;
                    }
                }
                if slots.is_empty() {
                    state.life = Duration::ZERO;
                }
                state
            })
            .collect()
    }
}

#[derive(Debug, Clone, Copy)]
enum Waited {
    No,
    Yes,
}

fn issued(slot: &Slot, held: &Held) -> IssuedToken {
    IssuedToken {
        access_token: held.access_token.clone(),
        token_type: "Bearer".to_owned(),
        expires_on: held.expires_on,
        refresh_on: held.refresh_on,
        scope: slot.scope.clone(),
        identity: slot.identity.clone(),
        correlation_id: held.correlation_id.clone(),
        token_hash: None,
    }
}
