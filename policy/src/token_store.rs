//! The tokens that the outbound filter holds, and when to ask the broker for others.
//!
//! A token is fetched before anybody needs it and renewed while it is still good, so that requests
//! find one. Everybody who waits for the same token waits for the same call, and so does everybody
//! whose response refused it (`token_store/challenge.rs`).

use std::rc::Rc;

use contract::{ErrorKind, IssuedToken, Secret, TokenRequest, TypedError};

use crate::{decision::Reason, decision_cache::end, time::UnixTime};

mod challenge;
pub(crate) mod user_tokens;

use challenge::Challenge;

/// A token is not used in its last seconds: it must still be good when it arrives.
const MARGIN_SECONDS: u64 = 30;
/// Pause after an answer that brought nothing newer, in seconds.
const SAME_TOKEN_SECONDS: u64 = 5;
/// Longest pause after failures that say nothing about when to come back, in seconds.
const MAX_BACKOFF_SECONDS: u64 = 30;
/// Longest pause that the broker can ask for, in seconds.
const MAX_RETRY_AFTER_SECONDS: u64 = 300;

/// The tokens of all rules.
#[derive(Debug)]
pub struct TokenStore {
    /// One per rule: few enough that comparing beats hashing.
    slots: Vec<(TokenRequest, Slot)>,
}

#[derive(Debug, Default)]
struct Slot {
    current: Option<Held>,
    /// The header value before this one: a retried attempt may still carry it.
    previous: Option<Rc<Secret>>,
    in_flight: bool,
    next_fetch: UnixTime,
    failures: u32,
    refusal: Option<Refusal>,
    challenge: Challenge,
}

/// What a request that finds no token is told.
#[derive(Debug)]
struct Refusal {
    reason: Reason,
    /// In the broker's words; in ours where it said none.
    error: Rc<TypedError>,
}

#[derive(Debug)]
struct Held {
    header: Rc<Secret>,
    /// What the broker calls this token when it is refused; an older broker gives it no name.
    hash: Option<String>,
    fetched_at: UnixTime,
    expires_on: UnixTime,
    /// What was said of the last challenge to it, where no waiting can mend that.
    verdict: Option<Rc<TypedError>>,
}

/// What a request that needs a token is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenAnswer {
    /// Set this Authorization value.
    Authorization(Rc<Secret>),
    /// Wait for the broker.
    Wait,
    /// There is none, and asking again makes sense after so many seconds.
    Refused {
        /// [`Reason::TokenUnavailable`] or [`Reason::TokenDenied`].
        reason: Reason,
        /// Seconds.
        retry_after: u64,
        /// What was said the last time, where the broker has been asked at all.
        error: Option<Rc<TypedError>>,
    },
}

impl TokenAnswer {
    /// A refusal of our own.
    pub(crate) fn refused(reason: Reason) -> Self {
        Self::Refused { reason, retry_after: 1, error: None }
    }
}

/// What came of a call.
#[derive(Debug)]
pub enum TokenCallResult {
    /// The broker issued a token.
    Issued(IssuedToken),
    /// The broker refused.
    Refused(TypedError),
    /// The broker did not answer, or not in our language.
    Failed,
}

impl TokenStore {
    /// Slots for these tokens and no others.
    pub fn new(requests: impl IntoIterator<Item = TokenRequest>) -> Self {
        let slots = requests.into_iter().map(|request| (request, Slot::default())).collect();
        Self { slots }
    }

    /// The token for a request, or what to do without.
    pub fn ask(&self, request: &TokenRequest, now: UnixTime) -> TokenAnswer {
        let Some(slot) = self.slot(request) else {
            let reason = Reason::TokenDenied;
            return TokenAnswer::Refused { reason, retry_after: 1, error: None };
        };
        slot.answer(now)
    }

    /// Whether an Authorization value is one that we set, on an earlier attempt of the request that
    /// may have gone to another destination.
    pub fn is_ours(&self, authorization: &[u8]) -> bool {
        self.slots.iter().any(|(_, slot)| slot.has_set(authorization))
    }

    /// A call to make now, if any. It is in flight until [`Self::on_result`].
    pub fn next_call(&mut self, now: UnixTime) -> Option<TokenRequest> {
        let challenged =
            self.slots.iter_mut().find_map(|(request, slot)| slot.challenge.call(request));
        if challenged.is_some() {
            return challenged;
        }
        let due = self.slots.iter_mut().find(|(_, slot)| !slot.in_flight && slot.due(now));
        due.map(|(request, slot)| {
            slot.in_flight = true;
            request.clone()
        })
    }

    /// A call was answered.
    pub fn on_result(&mut self, request: &TokenRequest, result: TokenCallResult, now: UnixTime) {
        let slot = self.slots.iter_mut().find(|(held, _)| is_for(request, held));
        let Some((_, slot)) = slot else { return };
        if request.claims.is_some() {
            return slot.on_challenge_result(request, result, now);
        }
        slot.take(request, result, now);
    }

    fn slot(&self, request: &TokenRequest) -> Option<&Slot> {
        self.slots.iter().find(|(held, _)| held == request).map(|(_, slot)| slot)
    }

    /// Age of the oldest token held, in seconds.
    pub fn age(&self, now: UnixTime) -> Option<u64> {
        let held = self.slots.iter().filter_map(|(_, slot)| slot.current.as_ref());
        held.map(|held| now.since(held.fetched_at)).max()
    }
}

impl Slot {
    /// The token, or what to do without.
    fn answer(&self, now: UnixTime) -> TokenAnswer {
        match &self.current {
            Some(held) if held.usable(now) => TokenAnswer::Authorization(held.header.clone()),
            _ if self.in_flight || self.due(now) => TokenAnswer::Wait,
            _ => TokenAnswer::Refused {
                reason: self.refusal.as_ref().map_or(Reason::TokenUnavailable, |r| r.reason),
                retry_after: self.next_fetch.since(now).max(1),
                error: self.refusal.as_ref().map(|refusal| refusal.error.clone()),
            },
        }
    }

    /// The header values that an attempt which is under way may carry.
    fn headers(&self) -> impl Iterator<Item = &Rc<Secret>> {
        self.current.iter().map(|held| &held.header).chain(&self.previous)
    }

    fn has_set(&self, authorization: &[u8]) -> bool {
        self.headers().any(|header| {
            let header = header.expose().as_bytes();
            // Tokens of one issuer begin alike.
            end(header) == end(authorization) && header == authorization
        })
    }

    /// The call for another token was answered.
    fn take(&mut self, request: &TokenRequest, result: TokenCallResult, now: UnixTime) {
        self.in_flight = false;
        let of_user = request.assertion.is_some();
        match result {
            TokenCallResult::Issued(token) if acceptable(&token, request, now) => {
                self.hold(&token, now);
            }
            TokenCallResult::Issued(_) | TokenCallResult::Failed => {
                self.refuse(Rc::new(unreachable()), of_user, now);
            }
            TokenCallResult::Refused(error) => self.refuse(Rc::new(error), of_user, now),
        }
    }

    /// Whether the broker is to be asked now.
    fn due(&self, now: UnixTime) -> bool {
        let pause = self.next_fetch.since(now);
        let held = self.current.as_ref().is_some_and(|held| held.usable(now));
        // A clock that has been set back since the fetch says nothing about how old the token is;
        // and with nothing usable, a pause beyond the longest was set by such a clock.
        let set_back = self.current.as_ref().is_some_and(|held| now < held.fetched_at);
        pause == 0 || (!held && pause > MAX_RETRY_AFTER_SECONDS) || set_back
    }

    fn hold(&mut self, token: &IssuedToken, now: UnixTime) {
        let header = Rc::new(Secret::new(format!("Bearer {}", token.access_token.expose())));
        let same = self.current.as_ref().is_some_and(|held| held.header == header);
        let fetched_at = match &self.current {
            Some(held) if same => held.fetched_at.min(now),
            _ => now,
        };
        let expires_on = UnixTime(token.expires_on);
        let hash = token.token_hash.clone();
        let held = Held { header, hash, fetched_at, expires_on, verdict: None };
        let before = self.current.replace(held);
        if !same {
            self.previous = before.map(|held| held.header);
        }
        self.failures = 0;
        self.refusal = None;
        let pause = if same { SAME_TOKEN_SECONDS } else { 1 };
        // At the latest when the token is no longer used, whatever the answer says.
        let last = token.expires_on.saturating_sub(MARGIN_SECONDS);
        self.next_fetch = UnixTime(token.refresh_on.min(last)).max(now.plus(pause));
    }

    /// Another token was refused. The one that is held stays good, except of a principal that
    /// somebody has switched off, that this pod may use no longer, or of a user whose session was
    /// ended: to go on with it for hours would undo that. (While the broker has a valid token and
    /// may hand it out, it does.)
    fn refuse(&mut self, error: Rc<TypedError>, of_user: bool, now: UnixTime) {
        let signed_out =
            of_user && error.kind == ErrorKind::ClaimsChallenge && error.claims.is_none();
        if (signed_out || matches!(error.kind, ErrorKind::Disabled | ErrorKind::Denied))
            && let Some(held) = self.current.take()
        {
            self.previous = Some(held.header);
        }
        self.failures = self.failures.saturating_add(1);
        let backoff = 1_u64.checked_shl(self.failures.saturating_sub(1)).unwrap_or(u64::MAX);
        let pause = error.retry_after.map_or(backoff.min(MAX_BACKOFF_SECONDS), |seconds| {
            seconds.clamp(1, MAX_RETRY_AFTER_SECONDS)
        });
        self.refusal = Some(Refusal { reason: reason_of(error.kind), error });
        self.next_fetch = now.plus(pause);
    }
}

impl Held {
    fn usable(&self, now: UnixTime) -> bool {
        now.plus(MARGIN_SECONDS) < self.expires_on
    }
}

/// Whether a call, perhaps with a challenge, was for this slot's token.
fn is_for(call: &TokenRequest, held: &TokenRequest) -> bool {
    call.assertion == held.assertion && same_place(call, held)
}

/// Whether two requests are for the same identity's token for one scope and destination.
fn same_place(one: &TokenRequest, other: &TokenRequest) -> bool {
    (&one.identity, &one.scope, &one.destination)
        == (&other.identity, &other.scope, &other.destination)
}

/// Whether the answer is to our question, and a header can carry it.
fn acceptable(token: &IssuedToken, request: &TokenRequest, now: UnixTime) -> bool {
    let text = token.access_token.expose();
    token.identity == request.identity
        && token.scope == request.scope
        && token.token_type.eq_ignore_ascii_case("Bearer")
        && now.plus(MARGIN_SECONDS) < UnixTime(token.expires_on)
        // What was to be exchanged must not leave in place of what it is exchanged for.
        && request.assertion.as_ref() != Some(&token.access_token)
        && !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}

/// What is said of a broker that said nothing, or nothing of use.
fn unreachable() -> TypedError {
    let text = "broker_unavailable: the token broker gave no usable answer";
    TypedError::new(ErrorKind::Transient, text)
}

/// What a caller is told: only what no waiting can mend is "denied".
fn reason_of(kind: ErrorKind) -> Reason {
    match kind {
        ErrorKind::Transient | ErrorKind::Throttled | ErrorKind::Credential | ErrorKind::Config => {
            Reason::TokenUnavailable
        }
        ErrorKind::ClaimsChallenge | ErrorKind::Disabled | ErrorKind::Denied => Reason::TokenDenied,
    }
}

#[cfg(test)]
mod tests;
