//! Answers as they go over the wire, each written once a second however often it is asked for.
//!
//! Whose request is byte for byte one that was answered in the same second, with a token that is
//! still held, gets the same bytes. The one thing in an answer that time changes is when to ask
//! again, and that is told in seconds. Nothing is decided here: what is remembered is what
//! [`Tokens::issue`] has said, under the same configuration.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::body::Bytes;
use contract::{IssuedToken, TokenRequest};
use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;

use super::{Slot, Tokens, held::Held};

/// Answers that are remembered. A pod asks for fewer tokens than that; who makes up destinations
/// gains nothing.
const MAX_ANSWERS: usize = 64;

/// The answers of one second, by the request's body.
#[derive(Default)]
pub(super) struct Shown(Mutex<OfSecond>);

#[derive(Default)]
struct OfSecond {
    unix_second: u64,
    answers: HashMap<Box<[u8]>, Answer>,
}

struct Answer {
    body: Bytes,
    slot: Arc<Slot>,
    /// The token's.
    hash: String,
    counted: Counter,
}

impl Shown {
    /// What was answered in this second.
    fn now(&self, unix_now: u64) -> MutexGuard<'_, OfSecond> {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.unix_second != unix_now {
            *shown = OfSecond { unix_second: unix_now, answers: HashMap::new() };
        }
        shown
    }
}

impl Tokens {
    /// The answer to a request that was answered already in this second.
    pub fn shown(&self, request: &[u8]) -> Option<Bytes> {
        let unix_now = self.clock.unix_now();
        let shown = self.shown.now(unix_now);
        let answer = shown.answers.get(request)?;
        let state = answer.slot.state.borrow();
        let held = state.usable(Instant::now(), unix_now)?;
        // It may have been replaced, or taken back, within the second.
        (held.hash == answer.hash).then(|| {
            answer.counted.inc();
            answer.body.clone()
        })
    }

    /// Writes the answer, and remembers it where it is the same for whoever asks so. `body` is what
    /// `request` was read from.
    pub fn show(
        &self,
        body: &[u8],
        request: &TokenRequest,
        token: &IssuedToken,
    ) -> serde_json::Result<Bytes> {
        // At once as long as it becomes: what grows is copied.
        let length = token.access_token.expose().len().saturating_add(512);
        let mut written = Vec::with_capacity(length);
        serde_json::to_writer(&mut written, token)?;
        let written = Bytes::from(written);
        let TokenRequest { identity, scope, claims, assertion, .. } = request;
        // `refused` is not without `claims`: that is malformed.
        if claims.is_some() || assertion.is_some() {
            return Ok(written);
        }
        let slots = self.identities.get(identity).and_then(|held| held.scopes.get(scope));
        if let (Some(slots), Some(hash)) = (slots, &token.token_hash) {
            let mut shown = self.shown.now(self.clock.unix_now());
            if shown.answers.len() < MAX_ANSWERS {
                let answer = Answer {
                    body: written.clone(),
                    slot: Arc::clone(slots.of(request)),
                    hash: hash.clone(),
                    counted: self.metrics.cached_token_requests(identity),
                };
                shown.answers.insert(body.into(), answer);
            }
        }
        Ok(written)
    }
}

/// The answer with a token that is held.
pub(super) fn issued(slot: &Slot, held: &Held, unix_now: u64) -> IssuedToken {
    IssuedToken {
        access_token: held.access_token.clone(),
        token_type: "Bearer".to_owned(),
        expires_on: held.times.expires_on,
        refresh_on: held.times.ask_again_on(unix_now),
        scope: slot.scope.clone(),
        identity: slot.identity.clone(),
        correlation_id: held.correlation_id.clone(),
        token_hash: Some(held.hash.clone()),
    }
}
