//! How each identity is doing, for readiness, metrics and the status page: counts and refusals, no
//! token.

use std::time::Duration;

use contract::TypedError;
use tokio::time::Instant;

use super::{Counts, Slots, Tokens, held::Refused};

/// How an identity is doing, for readiness and the status page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityState {
    /// Its name.
    pub identity: String,
    /// Its tokens that are held now.
    pub held: usize,
    /// Its tokens that there are to be.
    pub wanted: usize,
    /// The least life among its tokens, 0 where one is missing.
    pub life: Duration,
    /// The last refusal of a scope whose last acquisition failed.
    pub refused: Option<TypedError>,
    /// The last refusal of a claims challenge, where none was answered since.
    pub challenge_refused: Option<TypedError>,
    /// That scope has never had a token since the start.
    pub never_held: bool,
    /// What is held on behalf of users, where the identity may act for them.
    pub on_behalf_of: Option<Counts>,
}

impl Tokens {
    /// How each identity is doing.
    pub fn states(&self) -> Vec<IdentityState> {
        let (now, unix_now) = (Instant::now(), self.clock.unix_now());
        self.identities
            .iter()
            .map(|(identity, holding)| {
                let mut state = IdentityState {
                    identity: identity.clone(),
                    held: 0,
                    wanted: 0,
                    life: Duration::MAX,
                    refused: None,
                    challenge_refused: None,
                    never_held: false,
                    on_behalf_of: holding.delegated.as_ref().map(|delegated| delegated.counts()),
                };
                for slot in holding.scopes.values().flat_map(Slots::active) {
                    let of_slot = slot.state.borrow();
                    state.wanted = state.wanted.saturating_add(1);
                    let life = of_slot.life(now, unix_now);
                    state.held = state.held.saturating_add(usize::from(!life.is_zero()));
                    state.life = state.life.min(life);
                    if let Some(Refused { error, .. }) = &of_slot.refused {
                        state.refused = Some(error.clone());
                        state.never_held |= !of_slot.ever_held;
                    }
                    if let Some(error) = of_slot.challenges.last_refusal() {
                        state.challenge_refused = Some(error.clone());
                    }
                }
                if holding.scopes.is_empty() {
                    state.life = Duration::ZERO;
                }
                if state.refused.is_none() {
                    let delegated = holding.delegated.as_ref();
                    state.refused = delegated.and_then(|delegated| delegated.refused());
                }
                state
            })
            .collect()
    }
}
