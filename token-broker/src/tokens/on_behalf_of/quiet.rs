//! What keeps an identity from exchanging any user's token for a while: Entra wants fewer calls, or
//! does not accept the application, or has no such resource. Pure: time is an argument.
//!
//! Exchanges of many users are under way at one time, so their ends come in any order. What one
//! learned counts from when it came; what was asked before that is of the same burst, and says
//! nothing about the time since.

use std::collections::BTreeMap;

use contract::{ErrorKind, TypedError};
use tokio::time::Instant;

use crate::{
    failure::{NoToken, Reach, retry_in},
    refresh::LOOK,
    source::Fingerprint,
    time::later,
};

/// An identity's refusals that stand for all users.
#[derive(Default)]
pub(super) struct Quiets {
    identity: Quiet,
    /// Only those of scopes, which leave the others alone.
    scopes: BTreeMap<u16, Quiet>,
}

impl Quiets {
    /// As [`Quiet::standing`], for a scope.
    pub(super) fn standing(&self, scope: u16, now: Instant) -> Option<TypedError> {
        let of_scope = || self.scopes.get(&scope).and_then(|quiet| quiet.standing(now));
        self.identity.standing(now).or_else(of_scope)
    }

    /// Any that stands, for the status page.
    pub(super) fn any(&self, now: Instant) -> Option<TypedError> {
        let of_scopes = || self.scopes.values().find_map(|quiet| quiet.standing(now));
        self.identity.standing(now).or_else(of_scopes)
    }

    /// As [`Quiet::stage`], for a scope.
    pub(super) fn stage(
        &mut self,
        scope: u16,
        credential: Option<&Fingerprint>,
        now: Instant,
    ) -> Stage {
        let of_scope = self.scopes.get_mut(&scope);
        let of_scope = of_scope.map_or(Stage::Open, |quiet| quiet.stage(credential, now));
        self.identity.stage(credential, now).max(of_scope)
    }

    /// What a refusal belongs to; nothing where it is one user's.
    pub(super) fn of(&mut self, reach: Reach, scope: u16) -> Option<&mut Quiet> {
        match reach {
            Reach::Asker => None,
            Reach::Scope => Some(self.scopes.entry(scope).or_default()),
            Reach::Identity => Some(&mut self.identity),
        }
    }

    /// As [`Quiet::end`], for a scope.
    pub(super) fn end(&mut self, scope: u16, asked: Instant) {
        self.identity.end(asked);
        if let Some(of_scope) = self.scopes.get_mut(&scope) {
            of_scope.end(asked);
        }
    }
}

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
