//! A response that refuses the injected token with a claims challenge: is it answered?
//!
//! Continuous access evaluation lets an API refuse a token before its end and say what a new one
//! must satisfy. The attempt is made again at once, and the second one waits while the broker gets
//! the new token (`token_store/challenge.rs`): so no response is held, and it makes no difference
//! whether the upstream stays. The upstream writes the response, so it decides nothing here but
//! whether to be asked once more: not how often, not with what, and not whether Envoy tries again.

use std::rc::Rc;

use contract::{Secret, TypedError};

use super::{Attempt, Injected, Outbound, OutboundRule};
use crate::{claims_challenge, config::Position, effect::Effect, time::UnixTime, www_authenticate};

/// The response header by which the filter has Envoy try again (`retriable_headers` of the route).
/// From an upstream it is removed.
pub const RETRY_HEADER: &str = "x-entra-retry";

/// What becomes of a response. It is never held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseEffect {
    /// It goes to the application; it is no challenge that could be ours to answer.
    Pass,
    /// It goes to the application: a challenge that is not answered.
    Declined,
    /// It goes to the application; the broker is asked, and the next call has another token.
    Deferred,
    /// Set [`RETRY_HEADER`] on it: Envoy makes the attempt again, and that waits for the broker.
    Replay,
}

/// What is known of a response that has a `WWW-Authenticate`.
#[derive(Debug, Default)]
pub struct Challenged<'a> {
    /// `:status`
    pub status: &'a [u8],
    /// The lines of `WWW-Authenticate`.
    pub lines: Vec<&'a [u8]>,
}

impl<'a> Challenged<'a> {
    /// Reads header lines in any order.
    pub fn read(lines: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let mut found = Self::default();
        for (name, value) in lines {
            match name {
                b":status" => found.status = value,
                b"www-authenticate" => found.lines.push(value),
                _ => {}
            }
        }
        found
    }
}

impl Outbound {
    /// Whether responses from a destination are to be looked at for challenges at all.
    pub fn answers_challenges(&self, destination: &str) -> bool {
        self.challenged_rule(destination).is_some()
    }

    /// A response with a `WWW-Authenticate` came on an attempt that a token was injected into.
    ///
    /// It counts where the rule says so, the response is a 401 with claims that may be sent on, and
    /// the request has not been made again before. `may_wait` is false where too many wait already;
    /// `replayed` says whether we asked for this attempt: each request is made again once. It is
    /// only asked of what is a challenge.
    pub fn on_challenge(
        &mut self,
        injected: &Injected,
        response: &Challenged<'_>,
        replayed: impl FnOnce() -> bool,
        may_wait: bool,
        now: UnixTime,
    ) -> ResponseEffect {
        let Some(rule) = self.challenged_rule(&injected.destination) else {
            return ResponseEffect::Pass;
        };
        if response.status != b"401" {
            return ResponseEffect::Pass;
        }
        let Some(claims) = www_authenticate::claims(response.lines.iter().copied()) else {
            return ResponseEffect::Pass;
        };
        let Some(claims) = claims_challenge::accepted(claims.as_bytes()) else {
            return ResponseEffect::Declined;
        };
        // Where an attempt that is made again does not pass, none is made again, and nobody waits.
        let downstream = self.config.position == Position::Downstream;
        if self.is_stopped(&injected.destination) || (!downstream && replayed()) {
            return ResponseEffect::Declined;
        }
        let request = rule.token.clone();
        let may_wait = may_wait || downstream;
        if !self.tokens.challenge(&request, &injected.token, &claims, may_wait, now) {
            ResponseEffect::Declined
        } else if downstream {
            ResponseEffect::Deferred
        } else {
            ResponseEffect::Replay
        }
    }

    /// Whether a replay must wait: the token that it would get is the one that was refused, and the
    /// broker is being asked for another.
    pub(super) fn awaits_challenge(
        &self,
        rule: &OutboundRule,
        attempt: &Attempt<'_>,
        token: &Secret,
    ) -> bool {
        attempt.was_refused(token) && self.tokens.is_challenged(&rule.token)
    }

    /// What a replay is told whose token was refused, when the broker was refused another for good:
    /// the API knows nothing of that, and would only challenge again.
    pub(super) fn verdict(
        &self,
        rule: &OutboundRule,
        attempt: &Attempt<'_>,
        token: &Secret,
    ) -> Option<Rc<TypedError>> {
        attempt.was_refused(token).then(|| self.tokens.verdict(&rule.token)).flatten()
    }

    /// Of a replay that need not wait: whether it goes out with another token than was refused.
    /// Otherwise the application gets the broker's refusal, or the challenge from the upstream that
    /// is asked once more.
    pub fn replayed_with_newer(&self, attempt: &Attempt<'_>, effect: &Effect) -> Option<bool> {
        let newer = match effect {
            Effect::Wait => return None,
            Effect::Reply(..) => false,
            Effect::Continue(edits, _) => {
                edits.authorization.as_ref().is_some_and(|token| !attempt.carries(token))
            }
        };
        attempt.replayed.then_some(newer)
    }

    fn challenged_rule(&self, destination: &str) -> Option<&OutboundRule> {
        self.rule(destination).filter(|rule| rule.token.claims_challenges)
    }
}
