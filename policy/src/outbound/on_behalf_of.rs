//! A call on behalf of its caller: is there a user's token to exchange, and what is it exchanged for?
//!
//! The application sends its caller's token as Authorization of the call. It passes the whole check
//! of an inbound token before anybody is asked for anything, and never goes out itself. Where it is
//! missing or refused the call is: there is no falling back to the application's own identity.

use std::rc::Rc;

use contract::{ErrorKind, TokenRequest, TypedError};

use super::Attempt;
use crate::{
    caller_tokens::{CallerTokens, Unverified, Verify},
    claims::Kind,
    config::Accepted,
    decision::{Identity, Reason},
    reply::broker_refusal::claims,
    request::credentials,
    time::UnixTime,
    token_store::{TokenAnswer, user_tokens::UserTokens},
};

/// What calls on behalf of callers are decided by.
#[derive(Debug)]
pub(super) struct OnBehalfOf {
    accepted: Rc<Accepted>,
    pub(super) callers: CallerTokens,
    pub(super) tokens: UserTokens,
    /// Where a caller gets a token that is accepted.
    pub(super) authorization_uri: String,
}

/// What an attempt gets, and who it is for, once that is verified.
pub(super) type Exchanged = (TokenAnswer, Option<Rc<Identity>>);

impl OnBehalfOf {
    pub(super) fn new(accepted: Rc<Accepted>) -> Self {
        Self {
            callers: CallerTokens::new(accepted.clone()),
            tokens: UserTokens::default(),
            authorization_uri: accepted.authorization_uri(),
            accepted,
        }
    }

    /// The token for an attempt under rule number `rule`, whose request is `wanted`; or what to do
    /// without. `ours` says whether an Authorization value is one of the application's own tokens
    /// that we hold.
    pub(super) fn exchange(
        &mut self,
        rule: usize,
        wanted: &TokenRequest,
        attempt: &Attempt<'_>,
        ours: impl Fn(&[u8]) -> bool,
        now: UnixTime,
        verify: &Verify<'_>,
    ) -> Exchanged {
        match self.try_exchange(rule, wanted, attempt, ours, now, verify) {
            Ok((answer, identity)) => (answer, Some(identity)),
            Err(Unverified::Wait) => (TokenAnswer::Wait, None),
            Err(Unverified::Refused { reason, identity }) => {
                (TokenAnswer::refused(reason), identity)
            }
        }
    }

    fn try_exchange(
        &mut self,
        rule: usize,
        wanted: &TokenRequest,
        attempt: &Attempt<'_>,
        ours: impl Fn(&[u8]) -> bool,
        now: UnixTime,
        verify: &Verify<'_>,
    ) -> Result<(TokenAnswer, Rc<Identity>), Unverified> {
        let authorization = attempt.authorization.as_deref().ok_or(Reason::TokenMissing)?;
        let remembered;
        let assertion = if attempt.injected {
            // A retried attempt carries what we set on the one before: its assertion is the one that
            // we got that with.
            let request = self.tokens.request_behind(authorization);
            // Forgotten between two attempts: the caller has done nothing wrong.
            let request = request.ok_or(Reason::TokenUnavailable)?;
            if request.destination != wanted.destination {
                return Err(Reason::AssertionRefused.into());
            }
            remembered = request.assertion.clone();
            remembered.as_ref().map_or(b"".as_slice(), |text| text.expose().as_bytes())
        } else {
            credentials(authorization)?
        };
        let known = self.tokens.holds(rule, wanted, assertion);
        if !known && !attempt.injected && (attempt.replayed || ours(authorization)) {
            return Err(Reason::AssertionRefused.into());
        }
        let verified = self.callers.verified(assertion, now, verify, &|_, _| Rc::default())?;
        let identity = verified.identity.clone();
        let refused =
            |reason| Unverified::Refused { reason, identity: Some(verified.identity.clone()) };
        if verified.kind != Kind::User {
            return Err(refused(Reason::AssertionRefused));
        }
        // What is asked in a user's name ends with it: the skew is for clocks, not for tokens that
        // are got with it.
        if now >= UnixTime(verified.expires.0.saturating_sub(self.accepted.clock_skew)) {
            return Err(refused(Reason::TokenExpired));
        }
        // A token of ours itself is never an assertion: whoever shows it is not the user it is for.
        // Searched for only with what is verified and new.
        if !known && self.tokens.request_behind(authorization).is_some() {
            return Err(refused(Reason::AssertionRefused));
        }
        let assertion = std::str::from_utf8(assertion);
        let assertion = assertion.map_err(|_binary| refused(Reason::AuthorizationMalformed))?;
        Ok((self.tokens.ask(rule, wanted, assertion, now), identity))
    }
}

/// What a refusal of the broker is, on behalf of a user: one that they can answer by signing in
/// again is not the application's to see to.
pub(super) fn reason(reason: Reason, error: Option<&TypedError>) -> Reason {
    match error.filter(|error| error.kind == ErrorKind::ClaimsChallenge) {
        Some(error) if claims(error).is_some() => Reason::ClaimsRequired,
        Some(_) => Reason::SignInRequired,
        None => reason,
    }
}
