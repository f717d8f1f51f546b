//! What keeps an identity from exchanging any user's token for a while: Entra wants fewer calls, or
//! does not accept the application's credential. Pure: time is an argument.

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
    until: Instant,
    /// The credential that was refused.
    credential: Option<Fingerprint>,
    /// When to look whether it is another one by now; never while Entra is throttling.
    look: Option<Instant>,
}

impl Quiet {
    /// The refusal while it stands, and it is not time to look, with when to ask again.
    pub(super) fn standing(&self, now: Instant) -> Option<TypedError> {
        let refused = self.refused.as_ref().filter(|refused| now < refused.until)?;
        let next = refused.look.map_or(refused.until, |look| look.min(refused.until));
        (now < next).then(|| retry_in(refused.error.clone(), next.saturating_duration_since(now)))
    }

    /// Whether the refusal still stands, so that the next one who asks is to look at the credential.
    pub(super) fn looks(&self, now: Instant) -> bool {
        self.refused.as_ref().is_some_and(|refused| now < refused.until)
    }

    /// Whether this credential is the one that was refused.
    pub(super) fn is_of(&self, credential: Option<&Fingerprint>) -> bool {
        self.refused.as_ref().is_some_and(|refused| refused.credential.as_ref() == credential)
    }

    pub(super) fn look_later(&mut self, now: Instant) {
        if let Some(refused) = &mut self.refused {
            refused.look = Some(later(now, LOOK));
        }
    }

    /// How often in a row there was such a refusal.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    pub(super) fn begin(
        &mut self,
        refused: NoToken,
        until: Instant,
        credential: Option<Fingerprint>,
        now: Instant,
    ) {
        self.failures = self.failures.saturating_add(1);
        let throttled = refused.error.kind == ErrorKind::Throttled;
        let look = (!throttled).then(|| later(now, LOOK));
        self.refused = Some(Refused { error: *refused.error, until, credential, look });
    }

    /// Entra has given a token.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }
}
