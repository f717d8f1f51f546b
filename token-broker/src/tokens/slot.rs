//! The place of a token: what asks for it, what renews it and what shows it meet here.

use std::sync::Arc;

use contract::TokenRequest;
use tokio::sync::{Notify, watch};

use super::held::State;
use crate::entra::claims::Capability;

/// The places of one identity's tokens for one scope.
pub(super) struct Slots {
    pub(super) plain: Arc<Slot>,
    /// Of the token that goes to who answers challenges; none where the identity cannot.
    pub(super) capable: Option<Arc<Slot>>,
}

/// The place of one token.
pub(super) struct Slot {
    pub(super) identity: String,
    pub(super) scope: String,
    pub(super) capability: Capability,
    pub(super) state: watch::Sender<State>,
    /// Wakes the renewal when a request finds that a clock has jumped past the token's end, or
    /// has a challenge.
    pub(super) wanted: Notify,
}

impl Slot {
    pub(super) fn new(identity: &str, scope: &str, capability: Capability) -> Self {
        Self {
            identity: identity.to_owned(),
            scope: scope.to_owned(),
            capability,
            state: watch::Sender::new(State::default()),
            wanted: Notify::new(),
        }
    }

    /// Acquires nothing until somebody asks.
    pub(super) fn dormant(self) -> Self {
        self.state.send_modify(|state| state.dormant = true);
        self
    }

    /// The claims of a challenge that a token is to be acquired for now.
    pub(super) fn take_challenge(&self) -> Option<String> {
        let mut claims = None;
        self.state.send_if_modified(|state| {
            claims = state.challenges.take();
            false
        });
        claims
    }
}

impl Slots {
    /// The slot for a request, by whether its asker answers challenges.
    pub(super) fn of(&self, request: &TokenRequest) -> &Arc<Slot> {
        self.capable.as_ref().filter(|_| request.claims_challenges).unwrap_or(&self.plain)
    }

    /// Those that somebody has asked for, or the configuration.
    pub(super) fn active(&self) -> impl Iterator<Item = &Arc<Slot>> {
        let all = [Some(&self.plain), self.capable.as_ref()];
        all.into_iter().flatten().filter(|slot| !slot.state.borrow().dormant)
    }
}
