//! Claims challenges of one slot: which one Entra is being asked for, how each destination's ended
//! last, and whether another may be asked for.
//!
//! A resource decides when it challenges, so a hostile one challenges always. What it can cause is
//! bounded here: one acquisition per destination and [`CHALLENGE_INTERVAL`], a bounded number of
//! destinations, and none at all for what Entra has refused already. Pure: time is an argument.

use contract::{ErrorKind, TokenRequest, TypedError};
use policy::claims_challenge;
use tokio::time::Instant;

use super::held::Refused;
use crate::{
    failure::{failure, retry_in},
    refresh::{CHALLENGE_INTERVAL, LOOK, is_lasting},
    time::later,
};

/// Most destinations that are remembered, and so most acquisitions per [`CHALLENGE_INTERVAL`]. A
/// scope has few resources; whoever names more of them is refused.
const MAX_DESTINATIONS: usize = 16;
/// Longest name of a destination that challenges are remembered for, in bytes.
const MAX_DESTINATION_BYTES: usize = 256;
/// Length of a token's hash: SHA-256 in hex.
const HASH_CHARACTERS: usize = 64;

/// A resource's refusal of a token, with what a new one must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The claims, judged and written anew.
    claims: String,
    /// The hash of the refused token.
    pub(super) refused: String,
    destination: String,
}

impl Challenge {
    /// The challenge in a request, if there is one; or why it cannot be one.
    pub fn of(request: &TokenRequest) -> Result<Option<Self>, &'static str> {
        let (claims, refused) = match (&request.claims, &request.refused) {
            (None, None) => return Ok(None),
            _ if request.assertion.is_some() => {
                return Err("`claims` with `assertion`: a user answers challenges, not the broker");
            }
            (Some(claims), Some(refused)) => (claims, refused),
            _ => return Err("`claims` and `refused` come together"),
        };
        if !request.claims_challenges {
            return Err("`claims` without `claims_challenges`");
        }
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if refused.len() != HASH_CHARACTERS || !refused.bytes().all(hex) {
            return Err("`refused` is not the hash of a token");
        }
        if request.destination.len() > MAX_DESTINATION_BYTES {
            return Err("`destination` is too long");
        }
        let claims = claims_challenge::accepted(claims.as_bytes())
            .ok_or("`claims` is not what a claims challenge may ask for")?;
        let (refused, destination) = (refused.clone(), request.destination.clone());
        Ok(Some(Self { claims, refused, destination }))
    }
}

/// Names an acquisition that some wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Ticket(u64);

/// How the acquisition of a ticket ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Not yet.
    Open,
    /// There is a new token.
    Answered,
    /// Entra refused.
    Refused(TypedError),
    /// A later one has ended since, or it was refused for other claims: to be judged anew.
    Forgotten,
}

/// What is known of one slot's challenges.
#[derive(Debug, Default)]
pub(super) struct Challenges {
    last: Ticket,
    open: Option<Open>,
    closed: Option<Closed>,
    destinations: Vec<Destination>,
    /// Entra has asked to be left alone.
    quiet: Option<Refused>,
}

/// The acquisition that is to be made, or being made.
#[derive(Debug)]
struct Open {
    ticket: Ticket,
    challenge: Challenge,
    taken: bool,
}

/// The acquisition that ended last.
#[derive(Debug)]
struct Closed {
    ticket: Ticket,
    claims: String,
    refused: Option<TypedError>,
}

#[derive(Debug)]
struct Destination {
    name: String,
    /// When Entra was last asked because of it.
    asked: Instant,
    /// What Entra does not give, and will not until something has changed.
    verdict: Option<Verdict>,
}

#[derive(Debug)]
struct Verdict {
    claims: String,
    error: TypedError,
    until: Instant,
}

impl Challenges {
    /// The acquisition that replaces this token, if one is under way.
    pub(super) fn replacing(&self, refused: &str) -> Option<Ticket> {
        self.open.as_ref().filter(|open| open.challenge.refused == refused).map(|open| open.ticket)
    }

    /// A new acquisition for a challenge, or joining the one that is under way, or why not.
    pub(super) fn admit(
        &mut self,
        challenge: &Challenge,
        now: Instant,
    ) -> Result<Ticket, TypedError> {
        if let Some(open) = &self.open {
            return Ok(open.ticket);
        }
        if let Some(refused) = self.quiet(now) {
            return Err(refused);
        }
        self.find_room(challenge, now)?;
        self.last = Ticket(self.last.0.saturating_add(1));
        self.open = Some(Open { ticket: self.last, challenge: challenge.clone(), taken: false });
        Ok(self.last)
    }

    /// That Entra wants no calls now, whatever for, with when it does.
    pub(super) fn quiet(&self, now: Instant) -> Option<TypedError> {
        let Refused { error, until } = self.quiet.as_ref().filter(|quiet| now < quiet.until)?;
        Some(retry_in(error.clone(), until.saturating_duration_since(now)))
    }

    /// Notes that Entra is asked for this destination, unless that is too soon.
    fn find_room(&mut self, challenge: &Challenge, now: Instant) -> Result<(), TypedError> {
        let next = |destination: &Destination| later(destination.asked, CHALLENGE_INTERVAL);
        let known = self.destinations.iter_mut().find(|known| known.name == challenge.destination);
        if let Some(known) = known {
            let verdict = known
                .verdict
                .as_ref()
                .filter(|verdict| now < verdict.until && verdict.claims == challenge.claims);
            if let Some(Verdict { error, until, .. }) = verdict {
                let rest = until.saturating_duration_since(now).min(LOOK);
                return Err(retry_in(error.clone(), rest));
            }
            if now < next(known) {
                let what = "Entra was asked for this destination's claims challenges a moment ago";
                return Err(throttled(what, next(known), now));
            }
            known.asked = now;
            known.verdict = None;
            return Ok(());
        }
        if self.destinations.len() >= MAX_DESTINATIONS {
            let oldest = self.destinations.iter().enumerate().min_by_key(|(_, known)| known.asked);
            let Some((index, oldest)) = oldest else { return Ok(()) };
            if now < next(oldest) {
                let what = "too many destinations challenge at once";
                return Err(throttled(what, next(oldest), now));
            }
            self.destinations.swap_remove(index);
        }
        let name = challenge.destination.clone();
        self.destinations.push(Destination { name, asked: now, verdict: None });
        Ok(())
    }

    /// The claims that a token is to be acquired with now; once for each acquisition.
    pub(super) fn take(&mut self) -> Option<String> {
        let open = self.open.as_mut().filter(|open| !open.taken)?;
        open.taken = true;
        Some(open.challenge.claims.clone())
    }

    /// The acquisition has ended: with a token, or with a refusal that stands until `until`.
    pub(super) fn close(&mut self, refused: Option<&TypedError>, until: Instant) {
        let Some(Open { ticket, challenge, .. }) = self.open.take() else { return };
        let claims = challenge.claims.clone();
        self.closed = Some(Closed { ticket, claims, refused: refused.cloned() });
        self.quiet = None;
        let Some(error) = refused else { return };
        if error.kind == ErrorKind::Throttled {
            self.quiet = Some(Refused { error: error.clone(), until });
        }
        let known = self.destinations.iter_mut().find(|known| known.name == challenge.destination);
        if let Some(known) = known.filter(|_| is_lasting(error.kind)) {
            known.verdict = Some(Verdict { claims: challenge.claims, error: error.clone(), until });
        }
    }

    /// How the acquisition of this ticket ended for a challenge that waited for it.
    ///
    /// A refusal is for its claims: a resource that asks for what nobody gets must not have the
    /// challenges of others refused that came meanwhile.
    pub(super) fn outcome(&self, ticket: Ticket, challenge: &Challenge) -> Outcome {
        match &self.closed {
            Some(closed) if closed.ticket == ticket => match &closed.refused {
                None => Outcome::Answered,
                Some(error) if closed.claims == challenge.claims => Outcome::Refused(error.clone()),
                Some(_) => Outcome::Forgotten,
            },
            Some(closed) if closed.ticket > ticket => Outcome::Forgotten,
            _ => Outcome::Open,
        }
    }

    /// What Entra refused last, unless it has issued since.
    pub(super) fn last_refusal(&self) -> Option<&TypedError> {
        self.closed.as_ref().and_then(|closed| closed.refused.as_ref())
    }

    /// Whether something is refused without asking Entra.
    pub(super) fn has_verdict(&self, now: Instant) -> bool {
        let standing = |verdict: &Verdict| now < verdict.until;
        self.destinations.iter().any(|known| known.verdict.as_ref().is_some_and(standing))
    }

    /// Something has changed: Entra may be asked again what it refused.
    pub(super) fn forget_verdicts(&mut self) {
        for known in &mut self.destinations {
            known.verdict = None;
        }
    }
}

fn throttled(what: &str, until: Instant, now: Instant) -> TypedError {
    let refused = failure(ErrorKind::Throttled, format!("challenge_throttled: {what}"));
    retry_in(refused, until.saturating_duration_since(now))
}

#[cfg(test)]
mod tests;
