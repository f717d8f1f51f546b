//! One outbound attempt: which token, if any, may go to this destination?
//!
//! The destination is what the cluster's own metadata says, never a header: an application can
//! write headers. Without a rule for it there is no token. Where the configuration says so, host
//! and cluster together stand for it ([`downstream`]).

use std::rc::Rc;

use contract::{Secret, TokenRequest};

use crate::{
    caller_tokens::{CallerTokens, Verify},
    config::{ExistingAuthorization, OutboundConfig, OutboundRule},
    decision::{Class, Decision, Reason},
    effect::{Edits, Effect},
    reply::Reply,
    request::Protocol,
    time::UnixTime,
    token_store::{TokenAnswer, TokenCallResult, TokenStore},
};

mod challenge;
mod downstream;
mod on_behalf_of;

use on_behalf_of::OnBehalfOf;

pub use challenge::{Challenged, RETRY_HEADER, ResponseEffect};

/// Everything that decides about outbound attempts, and what it holds.
#[derive(Debug)]
pub struct Outbound {
    config: Rc<OutboundConfig>,
    tokens: TokenStore,
    on_behalf_of: Option<OnBehalfOf>,
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
    /// Whether an earlier attempt of the request went out with a token of ours.
    pub injected: bool,
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
        // Nobody asks for a token of the application's own where a rule wants a user's.
        let own = config.rules.iter().filter(|rule| !rule.on_behalf_of_caller);
        Self {
            tokens: TokenStore::new(own.map(|rule| rule.token.clone())),
            on_behalf_of: config.accepted.clone().map(OnBehalfOf::new),
            config: Rc::new(config),
            stopped: Vec::new(),
        }
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
        &mut self,
        attempt: &Attempt<'_>,
        may_wait: bool,
        now: UnixTime,
        protocol: impl FnOnce() -> Protocol,
        verify: &Verify<'_>,
    ) -> Effect {
        let config = self.config.clone();
        let mut rules = config.rules.iter().enumerate();
        let found = rules.find(|(_, rule)| Some(&*rule.token.destination) == attempt.destination);
        let for_caller = found.is_some_and(|(_, rule)| rule.on_behalf_of_caller);
        // A retried attempt still carries what we set on the one before: it is not the
        // application's, and goes nowhere without being judged anew.
        let present = attempt.authorization.as_deref();
        let ours = !for_caller && present.is_some_and(|present| self.is_ours(attempt, present));
        let foreign = present.is_some() && !ours;
        let without_token = |reason, rule| {
            // A caller's token is for us alone.
            let remove_authorization = ours || (for_caller && foreign);
            let edits = Edits { remove_authorization, ..Edits::default() };
            Effect::Continue(edits, decision(reason, rule))
        };
        let Some((index, rule)) = found else { return without_token(Reason::NoDestination, None) };
        // Callers from outside would get the application's tokens.
        if attempt.inbound_listener {
            return without_token(Reason::Misplaced, Some(rule));
        }
        if self.is_stopped(&rule.token.destination) {
            return without_token(Reason::InjectionStopped, Some(rule));
        }
        let mut identity = None;
        let asked = match (&mut self.on_behalf_of, rule.existing_authorization) {
            (Some(on_behalf_of), _) if for_caller => {
                let ours = |authorization: &[u8]| self.tokens.is_ours(authorization);
                let asked = on_behalf_of.exchange(index, &rule.token, attempt, ours, now, verify);
                identity = asked.1;
                asked.0
            }
            (_, ExistingAuthorization::Keep) if foreign => {
                return without_token(Reason::AuthorizationKept, Some(rule));
            }
            (_, ExistingAuthorization::Refuse) if foreign => {
                TokenAnswer::refused(Reason::AuthorizationRefused)
            }
            _ => self.tokens.ask(&rule.token, now),
        };
        let (reason, retry_after, error) = match asked {
            TokenAnswer::Authorization(header)
                if may_wait && self.awaits_challenge(rule, attempt, &header) =>
            {
                return Effect::Wait;
            }
            TokenAnswer::Authorization(header) => match self.verdict(rule, attempt, &header) {
                Some(error) => (Reason::TokenDenied, None, Some(error)),
                None => {
                    let edits = Edits { authorization: Some(header), ..Edits::default() };
                    let decision = decision(Reason::Injected, Some(rule));
                    return Effect::Continue(edits, Decision { identity, ..decision });
                }
            },
            TokenAnswer::Wait if may_wait => return Effect::Wait,
            TokenAnswer::Wait => (Reason::TooManyWaiting, None, None),
            TokenAnswer::Refused { reason, retry_after, error } => {
                (reason, Some(retry_after), error)
            }
        };
        let on_behalf_of = self.on_behalf_of.as_ref().filter(|_| for_caller);
        let reason = match on_behalf_of {
            Some(_) => on_behalf_of::reason(reason, error.as_deref()),
            None => reason,
        };
        // Only a 401 can be answered by getting another token.
        let uri = on_behalf_of.filter(|_| reason.class() != Class::Forbidden);
        let uri = uri.map(|on_behalf_of| on_behalf_of.authorization_uri.as_str());
        let reply = match error {
            Some(error) => Reply::broker_refused(reason, protocol(), uri, retry_after, &error),
            None => Reply::new(reason, protocol(), uri, retry_after),
        };
        Effect::Reply(reply, Decision { identity, ..decision(reason, Some(rule)) })
    }

    /// Whether what an attempt carries is what we set on an earlier one, that may have gone to
    /// another destination.
    fn is_ours(&self, attempt: &Attempt<'_>, authorization: &[u8]) -> bool {
        attempt.replayed || attempt.injected || self.tokens.is_ours(authorization)
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

    /// What is known of callers' tokens, where a rule asks on behalf of callers.
    pub fn callers(&mut self) -> Option<&mut CallerTokens> {
        self.on_behalf_of.as_mut().map(|on_behalf_of| &mut on_behalf_of.callers)
    }

    /// The call for a token to make now, if any; to be asked until there is none.
    pub fn next_call(&mut self, now: UnixTime) -> Option<TokenRequest> {
        let own = self.tokens.next_call(now);
        own.or_else(|| self.on_behalf_of.as_mut()?.tokens.next_call())
    }

    /// A call was answered.
    pub fn on_result(&mut self, request: &TokenRequest, result: TokenCallResult, now: UnixTime) {
        match &mut self.on_behalf_of {
            Some(on_behalf_of) if request.assertion.is_some() => {
                let mut rules = self.config.rules.iter();
                let rule = rules.position(|rule| rule.token.destination == request.destination);
                on_behalf_of.tokens.on_result(rule.unwrap_or(usize::MAX), request, result, now);
            }
            _ => self.tokens.on_result(request, result, now),
        }
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
