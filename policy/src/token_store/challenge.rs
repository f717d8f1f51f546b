//! A token that its destination refused with a claims challenge: the broker is asked for another.
//!
//! One call per token at one time, for everybody whose response challenged it, and none
//! for a while after its answer: a destination that challenges everything must not set the pace.
//! Which challenges count at all is decided in `outbound`; the broker limits what reaches Entra.

use std::rc::Rc;

use contract::{ErrorKind, Secret, TokenRequest, TypedError};

use super::{MAX_RETRY_AFTER_SECONDS, Slot, TokenCallResult, TokenStore, acceptable, reason_of};
use crate::{decision::Reason, time::UnixTime};

/// Pause after an answer that does not say how long, in seconds: the broker's own for acquisitions
/// that are challenged. The shortest where Entra is slow or away, when everybody waited for long.
const PAUSE_SECONDS: u64 = 30;
/// Pause after a call that found no broker, in seconds.
const FAILED_PAUSE_SECONDS: u64 = 5;

/// What is being done about the challenge to a slot's token.
#[derive(Debug, Default)]
pub(super) struct Challenge {
    state: State,
    /// Until then no challenge is taken to the broker.
    pause: Option<Pause>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    None,
    /// To be asked on the next tick: the claims, and the hash of the refused token.
    Due(String, String),
    InFlight,
}

#[derive(Debug)]
struct Pause {
    from: UnixTime,
    seconds: u64,
}

impl TokenStore {
    /// A response refused `token`, which was this store's for the request, and challenged with
    /// `claims`. Says whether an attempt that is made again finds something else: another token, a
    /// broker that is being asked for one, or what it said to that.
    ///
    /// `may_wait` is false where too many wait already.
    pub fn challenge(
        &mut self,
        request: &TokenRequest,
        token: &Secret,
        claims: &str,
        may_wait: bool,
        now: UnixTime,
    ) -> bool {
        let slot = self.slots.iter_mut().find(|(held, _)| held == request);
        let Some((_, slot)) = slot else { return false };
        match &slot.current {
            Some(held) if !held.usable(now) => false,
            Some(held) if *held.header != *token => true,
            Some(held) if held.verdict.is_some() && slot.challenge.pauses(now) => true,
            Some(_) => may_wait && (slot.challenge.is_open() || slot.ask_with(claims, now)),
            // Dropped while the attempt was under way.
            None => {
                slot.refusal.as_ref().is_some_and(|refusal| refusal.reason == Reason::TokenDenied)
            }
        }
    }

    /// What was said of the challenge to the token that is held, where no waiting can mend that.
    pub fn verdict(&self, request: &TokenRequest) -> Option<Rc<TypedError>> {
        let slot = self.slot(request).filter(|slot| !slot.challenge.is_open())?;
        slot.current.as_ref()?.verdict.clone()
    }

    /// Whether the broker is being asked for another token than the one that is held.
    pub fn is_challenged(&self, request: &TokenRequest) -> bool {
        self.slot(request).is_some_and(|slot| slot.challenge.is_open())
    }
}

impl Slot {
    /// Has the broker asked for a token that satisfies the claims, instead of the one that is
    /// held. False where that cannot be now.
    fn ask_with(&mut self, claims: &str, now: UnixTime) -> bool {
        // Without a name for the refused token an older broker would give out the same again.
        let hash = self.current.as_ref().and_then(|held| held.hash.clone());
        let Some(hash) = hash else { return false };
        if self.challenge.pauses(now) {
            return false;
        }
        self.challenge.state = State::Due(claims.to_owned(), hash);
        true
    }

    /// A call with a challenge was answered. Whatever came, nobody asks again at once.
    pub(super) fn on_challenge_result(
        &mut self,
        request: &TokenRequest,
        result: TokenCallResult,
        now: UnixTime,
    ) {
        let mut verdict = None;
        let seconds = match result {
            TokenCallResult::Issued(token) => {
                if acceptable(&token, request, now) {
                    self.hold(&token, now);
                }
                PAUSE_SECONDS
            }
            TokenCallResult::Refused(error) => {
                let error = Rc::new(error);
                if error.kind == ErrorKind::Disabled {
                    self.refuse(error.clone(), false, now);
                }
                let seconds = error.retry_after.unwrap_or(PAUSE_SECONDS);
                let shortest = if error.kind == ErrorKind::Transient { PAUSE_SECONDS } else { 1 };
                verdict = (reason_of(error.kind) == Reason::TokenDenied).then_some(error);
                seconds.max(shortest)
            }
            TokenCallResult::Failed => FAILED_PAUSE_SECONDS,
        };
        // A renewal may have brought another token meanwhile, of which nothing was said.
        if let Some(held) = self.current.as_mut().filter(|held| held.hash == request.refused) {
            held.verdict = verdict;
        }
        let seconds = seconds.clamp(1, MAX_RETRY_AFTER_SECONDS);
        self.challenge =
            Challenge { state: State::None, pause: Some(Pause { from: now, seconds }) };
    }
}

impl Challenge {
    fn is_open(&self) -> bool {
        !matches!(self.state, State::None)
    }

    fn pauses(&self, now: UnixTime) -> bool {
        self.pause.as_ref().is_some_and(|pause| pause.lasts(now))
    }

    /// The call to make, once.
    pub(super) fn call(&mut self, request: &TokenRequest) -> Option<TokenRequest> {
        match std::mem::take(&mut self.state) {
            State::Due(claims, refused) => {
                self.state = State::InFlight;
                let (claims, refused) = (Some(claims), Some(refused));
                Some(TokenRequest { claims, refused, ..request.clone() })
            }
            other => {
                self.state = other;
                None
            }
        }
    }
}

impl Pause {
    /// A clock that was set back says nothing about how long it has been.
    fn lasts(&self, now: UnixTime) -> bool {
        self.from <= now && now.since(self.from) < self.seconds
    }
}
