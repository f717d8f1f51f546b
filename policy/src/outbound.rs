//! One outbound attempt: which token, if any, may go to this destination?
//!
//! The destination is what the cluster's own metadata says, never a header: an application can
//! write headers. Without a rule for it there is no token. Where the configuration says so, host
//! and cluster together stand for it ([`downstream`]).

use std::rc::Rc;

use contract::{Secret, TokenRequest, TypedError};

use crate::{
    config::{ExistingAuthorization, OutboundConfig, OutboundRule},
    decision::{Decision, Reason},
    effect::{Edits, Effect},
    reply::Reply,
    request::Protocol,
    time::UnixTime,
    token_store::{TokenAnswer, TokenCallResult, TokenStore},
};

mod challenge;
mod downstream;

pub use challenge::{Challenged, RETRY_HEADER, ResponseEffect};

/// Everything that decides about outbound attempts, and what it holds.
#[derive(Debug)]
pub struct Outbound {
    config: OutboundConfig,
    tokens: TokenStore,
    /// Destinations that were seen without TLS, or not to be where a token went.
    stopped: Vec<String>,
}

/// What is known of an attempt.
#[derive(Default)]
pub struct Attempt<'a> {
    /// What the cluster's metadata names, or in the downstream position what
    /// [`Outbound::destination`] says; none where it names nothing.
    pub destination: Option<&'a str>,
    /// Whether the listener says that it is an inbound one.
    pub inbound_listener: bool,
    /// The Authorization header, its lines joined by the host.
    pub authorization: Option<Vec<u8>>,
    /// Whether we asked for this attempt, after a challenge to the one before.
    pub replayed: bool,
}

/// A token went with an attempt: where to, and which.
#[derive(Debug, Clone)]
pub struct Injected {
    /// The destination.
    pub destination: String,
    /// The header value.
    pub token: Rc<Secret>,
}

impl std::fmt::Debug for Attempt<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = formatter.debug_struct("Attempt");
        shown.field("destination", &self.destination).finish_non_exhaustive()
    }
}

impl Attempt<'_> {
    fn carries(&self, token: &Secret) -> bool {
        self.authorization.as_deref() == Some(token.expose().as_bytes())
    }

    /// Whether this is the replay of an attempt whose challenge was to this token.
    fn was_refused(&self, token: &Secret) -> bool {
        self.replayed && self.carries(token)
    }
}

impl Outbound {
    /// Starts with nothing but the configuration.
    pub fn new(config: OutboundConfig) -> Self {
        let tokens = TokenStore::new(config.rules.iter().map(|rule| rule.token.clone()));
        Self { config, tokens, stopped: Vec::new() }
    }

    /// The configuration.
    pub fn config(&self) -> &OutboundConfig {
        &self.config
    }

    /// Judges an attempt. After [`Effect::Wait`] and the broker's answer it is judged again.
    ///
    /// `may_wait` is false where too many wait already.
    /// `protocol` says how a refusal must look; it is only asked for one.
    pub fn on_request(
        &self,
        attempt: &Attempt<'_>,
        may_wait: bool,
        now: UnixTime,
        protocol: impl FnOnce() -> Protocol,
    ) -> Effect {
        // A retried attempt still carries what we set on the one before: it is not the
        // application's, and goes nowhere without being judged anew.
        let present = attempt.authorization.as_deref();
        let ours = present
            .is_some_and(|authorization| attempt.replayed || self.tokens.is_ours(authorization));
        let foreign = present.is_some() && !ours;
        let answer = |reason, rule: &OutboundRule, retry_after, error: Option<&TypedError>| {
            let reply = match error {
                Some(error) => Reply::broker_refused(reason, protocol(), retry_after, error),
                None => Reply::new(reason, protocol(), None, retry_after),
            };
            Effect::Reply(reply, decision(reason, Some(rule)))
        };
        let without_token = |reason, rule| {
            let edits = Edits { remove_authorization: ours, ..Edits::default() };
            Effect::Continue(edits, decision(reason, rule))
        };
        let Some(rule) = attempt.destination.and_then(|name| self.rule(name)) else {
            return without_token(Reason::NoDestination, None);
        };
        // Callers from outside would get the application's tokens.
        if attempt.inbound_listener {
            return without_token(Reason::Misplaced, Some(rule));
        }
        if self.is_stopped(&rule.token.destination) {
            return without_token(Reason::InjectionStopped, Some(rule));
        }
        match rule.existing_authorization {
            ExistingAuthorization::Keep if foreign => {
                return without_token(Reason::AuthorizationKept, Some(rule));
            }
            ExistingAuthorization::Refuse if foreign => {
                return answer(Reason::AuthorizationRefused, rule, None, None);
            }
            _ => {}
        }
        match self.tokens.ask(&rule.token, now) {
            TokenAnswer::Authorization(header)
                if may_wait && self.awaits_challenge(rule, attempt, &header) =>
            {
                Effect::Wait
            }
            TokenAnswer::Authorization(header) => {
                if let Some(error) = self.verdict(rule, attempt, &header) {
                    return answer(Reason::TokenDenied, rule, None, Some(&error));
                }
                let edits = Edits { authorization: Some(header), ..Edits::default() };
                Effect::Continue(edits, decision(Reason::Injected, Some(rule)))
            }
            TokenAnswer::Wait if may_wait => Effect::Wait,
            TokenAnswer::Wait => answer(Reason::TooManyWaiting, rule, None, None),
            TokenAnswer::Refused { reason, retry_after, error } => {
                answer(reason, rule, Some(retry_after), error.as_deref())
            }
        }
    }

    /// A response came on an attempt that a token was injected into; `tls` tells whether the
    /// connection had it. Says whether injection was stopped by this.
    ///
    /// Every response is asked: the endpoints of one cluster need not be alike.
    pub fn on_response(&mut self, destination: &str, tls: impl FnOnce() -> bool) -> bool {
        match self.rule(destination) {
            Some(rule) if !rule.plaintext && !tls() => self.stop(destination),
            _ => false,
        }
    }

    /// The call for a token to make now, if any; to be asked until there is none.
    pub fn next_call(&mut self, now: UnixTime) -> Option<TokenRequest> {
        self.tokens.next_call(now)
    }

    /// A call was answered.
    pub fn on_result(&mut self, request: &TokenRequest, result: TokenCallResult, now: UnixTime) {
        self.tokens.on_result(request, result, now);
    }

    /// Age of the oldest token held, in seconds.
    pub fn token_age(&self, now: UnixTime) -> Option<u64> {
        self.tokens.age(now)
    }

    /// Gives a destination no more tokens; false where that is so already.
    fn stop(&mut self, destination: &str) -> bool {
        let goes_on = !self.is_stopped(destination);
        if goes_on {
            self.stopped.push(destination.to_owned());
        }
        goes_on
    }

    fn is_stopped(&self, destination: &str) -> bool {
        self.stopped.iter().any(|stopped| stopped == destination)
    }

    fn rule(&self, destination: &str) -> Option<&OutboundRule> {
        self.config.rules.iter().find(|rule| rule.token.destination == destination)
    }
}

fn decision(reason: Reason, rule: Option<&OutboundRule>) -> Decision {
    Decision { rule: rule.map(|rule| rule.name.clone()), ..Decision::new(reason) }
}

#[cfg(test)]
mod tests;
