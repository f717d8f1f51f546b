//! What `identity_access` means for whoever asks, beside which identities there are.

use std::time::Duration;

use contract::{ErrorKind, IssuedToken, TypedError};

use super::Tokens;
use crate::{
    access::Standing,
    failure::{failure, retry_in, sanitised},
    refresh,
};

/// How tokens are handed out. Without `identity_access` as they are.
#[derive(Debug, Clone, Default)]
pub(super) struct Guard {
    /// Why it cannot be told what the pod is: nobody gets a token, nor is told that there is none.
    undecided: Option<String>,
    /// A pod can lose an identity at any moment: its filters do not keep a token for long without
    /// asking again.
    ask_again: Option<Duration>,
}

impl Guard {
    /// Whether nothing is handed out now.
    pub(super) fn is_shut(&self) -> bool {
        self.undecided.is_some()
    }

    /// What is said then: no verdict, and in a moment another answer.
    pub(super) fn refusal(&self) -> TypedError {
        let why = self.undecided.as_deref().unwrap_or_default();
        let text = format!("access_undecided: {}", sanitised(why));
        retry_in(failure(ErrorKind::Transient, text), Duration::from_secs(1))
    }

    /// The token as it is handed out.
    pub(super) fn limit(&self, mut token: IssuedToken, unix_now: u64) -> IssuedToken {
        if let Some(soon) = self.ask_again {
            token.refresh_on = token.refresh_on.min(unix_now.saturating_add(soon.as_secs()));
        }
        token
    }
}

impl Tokens {
    /// The same tokens, handed out as `access` says. That it allows their identities is the
    /// caller's affair.
    #[must_use]
    pub fn guarded(mut self, access: &Standing) -> Self {
        self.guard = Guard {
            undecided: match access {
                Standing::Undecided(why) => Some(why.to_string()),
                Standing::Open | Standing::Refused(_) | Standing::Decided { .. } => None,
            },
            ask_again: (*access != Standing::Open).then_some(refresh::ASK_AGAIN_GUARDED),
        };
        self
    }
}
