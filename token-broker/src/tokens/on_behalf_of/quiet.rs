//! What keeps an identity from exchanging any user's token for a while: Entra wants fewer calls, or
//! does not accept the application. Pure: time is an argument.
//!
//! Exchanges of many users are under way at one time, so their ends come in any order. What one
//! learned counts from when it came; what was asked before that is of the same burst, and says
//! nothing about the time since.

use contract::{ErrorKind, TypedError};
use tokio::time::Instant;

use crate::{
    failure::{NoToken, retry_in},
    refresh::LOOK,
    source::Fingerprint,
    time::later,
};

/// Nothing, or a refusal that stands for all users.
#[derive(Default)]
pub(super) struct Quiet {
    refused: Option<Refused>,
    failures: u32,
}

struct Refused {
    error: TypedError,
    /// When it came; of a burst the last one.
    came: Instant,
    until: Instant,
    /// The credential that was refused.
    credential: Option<Fingerprint>,
    /// When to look whether it is another one by now; never while Entra is throttling.
    look: Option<Instant>,
}

/// Whether an exchange may take place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Nothing stands against it.
    Open,
    /// One may, to learn whether Entra says the same again.
    Trial,
    /// None may.
    Shut,
}

impl Quiet {
    /// The refusal while it stands, and it is not time to look, with when to ask again.
    pub(super) fn standing(&self, now: Instant) -> Option<TypedError> {
        let refused = self.refused.as_ref()?;
        let next = refused.look.map_or(refused.until, |look| look.min(refused.until));
        (now < next).then(|| retry_in(refused.error.clone(), next.saturating_duration_since(now)))
    }

    /// Whether an exchange with this credential may take place now. Looking at the credential is
    /// done with it for a while.
    pub(super) fn stage(&mut self, credential: Option<&Fingerprint>, now: Instant) -> Stage {
        let Some(refused) = &mut self.refused else { return Stage::Open };
        if now >= refused.until {
            return Stage::Trial;
        }
        if refused.look.is_none_or(|look| now < look) {
            return Stage::Shut;
        }
        if refused.credential.as_ref() != credential {
            return Stage::Trial;
        }
        refused.look = Some(later(now, LOOK));
        Stage::Shut
    }

    /// How often in a row there is such a refusal, with one of what was `asked` then. A burst of
    /// them counts once.
    pub(super) fn failures(&self, asked: Instant) -> u32 {
        self.failures.saturating_add(u32::from(self.is_past(asked)))
    }

    /// A refusal of what was `asked` then, and is to stand until `until`.
    pub(super) fn begin(
        &mut self,
        refused: NoToken,
        asked: Instant,
        until: Instant,
        credential: Option<Fingerprint>,
        now: Instant,
    ) {
        self.failures = self.failures(asked);
        let throttled = refused.error.kind == ErrorKind::Throttled;
        if let Some(standing) = self.refused.as_mut().filter(|standing| asked <= standing.came) {
            standing.came = now;
            // Of a burst the strictest stands: above all that Entra wants fewer calls.
            if (standing.look.is_none(), standing.until) >= (throttled, until) {
                return;
            }
        }
        let look = (!throttled).then(|| later(now, LOOK));
        self.refused = Some(Refused { error: *refused.error, came: now, until, credential, look });
    }

    /// Entra has accepted the application in what was `asked` then.
    pub(super) fn end(&mut self, asked: Instant) {
        if self.is_past(asked) {
            *self = Self::default();
        }
    }

    /// Whether what was `asked` then was asked after the refusal had come.
    fn is_past(&self, asked: Instant) -> bool {
        self.refused.as_ref().is_none_or(|refused| asked > refused.came)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::failure::{failure, retry_in};

    fn after(start: Instant, seconds: u64) -> Instant {
        later(start, Duration::from_secs(seconds))
    }

    #[test]
    fn of_a_burst_the_strictest_refusal_stands_and_counts_once() {
        let start = Instant::now();
        let refusal = |kind| NoToken::from(retry_in(failure(kind, "e"), Duration::ZERO));
        let (throttled, refused) = (ErrorKind::Throttled, ErrorKind::Credential);
        for order in [
            [(refused, 300), (throttled, 60), (throttled, 50)],
            [(throttled, 50), (refused, 300), (throttled, 60)],
            [(throttled, 60), (throttled, 50), (refused, 300)],
        ] {
            let mut quiet = Quiet::default();
            for (came, (kind, until)) in (1..).zip(order) {
                quiet.begin(refusal(kind), start, after(start, until), None, after(start, came));
            }
            assert_eq!(quiet.failures, 1);
            let stage = |quiet: &mut Quiet, seconds| quiet.stage(None, after(start, seconds));
            assert_eq!(stage(&mut quiet, 59), Stage::Shut);
            assert_eq!(stage(&mut quiet, 60), Stage::Trial);
            // What was asked before the last of them came ends nothing.
            quiet.end(after(start, 3));
            assert_eq!(quiet.standing(after(start, 5)).unwrap().kind, throttled);
            quiet.end(after(start, 4));
            assert_eq!(stage(&mut quiet, 5), Stage::Open);
        }
    }
}
