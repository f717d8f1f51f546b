//! A response that refuses the injected token with a claims challenge: is it answered?
//!
//! Continuous access evaluation lets an API refuse a token before its end and say what a new one
//! must satisfy. The broker gets the new one (`token_store/challenge.rs`); then the attempt is made
//! again. The upstream writes the response, so it decides nothing here but whether to be asked
//! once: not how often, not with what, and not whether Envoy tries again.

use super::{Injected, Outbound, OutboundRule};
use crate::{claims_challenge, time::UnixTime, token_store::ChallengeAnswer, www_authenticate};

/// The response header by which the filter has Envoy try again (`retriable_headers` of the route).
/// From an upstream it is removed.
pub const RETRY_HEADER: &str = "x-entra-retry";

/// What becomes of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseEffect {
    /// It goes to the application as it is; it holds no challenge that could be ours to answer.
    Pass,
    /// Keep it until the broker has answered, then ask [`Outbound::on_challenge_answer`].
    Hold,
    /// Set [`RETRY_HEADER`] on it: Envoy makes the attempt again.
    Replay,
    /// It goes to the application: the challenge was not taken to the broker.
    Declined,
    /// It goes to the application: the broker gave no other token.
    Failed,
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
        self.rule(destination).is_some_and(|rule| rule.token.claims_challenges)
    }

    /// A response with a `WWW-Authenticate` came on an attempt that a token was injected into.
    ///
    /// `may_wait` is false where too many wait already; `replayed` says whether we asked for this
    /// attempt: each request is made again once. It is only asked of what is a challenge.
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
        if self.stopped.contains(&injected.destination) || replayed() {
            return ResponseEffect::Declined;
        }
        let request = rule.token.clone();
        match self.tokens.challenge(&request, &injected.token, &claims, may_wait, now) {
            ChallengeAnswer::Replay => ResponseEffect::Replay,
            ChallengeAnswer::Wait => ResponseEffect::Hold,
            ChallengeAnswer::None => ResponseEffect::Declined,
        }
    }

    /// The broker has answered somebody: what becomes of a response that was held?
    pub fn on_challenge_answer(&self, injected: &Injected, now: UnixTime) -> ResponseEffect {
        let Some(rule) = self.challenged_rule(&injected.destination) else {
            return ResponseEffect::Failed;
        };
        match self.tokens.challenged(&rule.token, &injected.token, now) {
            ChallengeAnswer::Replay => ResponseEffect::Replay,
            ChallengeAnswer::Wait => ResponseEffect::Hold,
            ChallengeAnswer::None => ResponseEffect::Failed,
        }
    }

    fn challenged_rule(&self, destination: &str) -> Option<&OutboundRule> {
        self.rule(destination).filter(|rule| rule.token.claims_challenges)
    }
}
