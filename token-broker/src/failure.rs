//! Makes the broker's refusals: one constructor per kind that arises here.
//!
//! The text starts with one stable word (Entra's `error`, or the broker's own), so that a person
//! can search for it, and says what to do. It never holds what a stranger wrote at length:
//! [`sanitised`] is the only way for foreign text into it.

use contract::{ErrorKind, TypedError};

/// Longest piece of foreign text that is passed on, in characters.
const MAX_FOREIGN: usize = 200;

/// Why a source gives no token: what whoever asked is told, and what only the broker goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoToken {
    /// The refusal.
    pub error: Box<TypedError>,
    /// It is the credential that is refused or cannot be read: another one of the same application
    /// may do.
    pub of_credential: bool,
    /// When to try again.
    pub pace: Pace,
    /// Whom else it is for.
    pub reach: Reach,
}

/// For whom a refusal of one user's exchange is one, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// Nobody else: what one user can cause must not keep others from their tokens.
    Asker,
    /// Whoever asks for the same scope.
    Scope,
    /// Everybody, whatever the identity is asked for.
    Identity,
}

/// How soon to try again, where nobody said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// As the refusal's kind has it (`refresh::retry_after`).
    ByKind,
    /// Soon, then ever later: nobody but this machine is asked.
    Soon,
}

impl NoToken {
    /// A credential that cannot be read or made.
    pub fn local(error: TypedError) -> Self {
        Self {
            error: Box::new(error),
            of_credential: true,
            pace: Pace::Soon,
            reach: Reach::Identity,
        }
    }
}

impl From<TypedError> for NoToken {
    fn from(error: TypedError) -> Self {
        let (pace, reach) = (Pace::ByKind, Reach::Asker);
        Self { error: Box::new(error), of_credential: false, pace, reach }
    }
}

/// A refusal of this kind, with nothing else known.
pub fn failure(kind: ErrorKind, error: impl Into<String>) -> TypedError {
    TypedError::new(kind, error)
}

/// The same refusal with the whole seconds after which to ask again, at least one.
pub fn retry_in(mut failure: TypedError, delay: std::time::Duration) -> TypedError {
    let whole = delay.as_secs().saturating_add(u64::from(delay.subsec_nanos() > 0));
    failure.retry_after = Some(whole.max(1));
    failure
}

/// Foreign text made harmless: printable ASCII, and short.
pub fn sanitised(text: &str) -> String {
    text.chars()
        .take(MAX_FOREIGN)
        .map(|character| {
            let printable = character.is_ascii_graphic() || character == ' ';
            if printable { character } else { '?' }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_delay_is_told_in_whole_seconds_rounded_up() {
        let told = |millis| {
            retry_in(failure(ErrorKind::Transient, "e"), Duration::from_millis(millis)).retry_after
        };
        assert_eq!(told(0), Some(1));
        assert_eq!(told(1_000), Some(1));
        assert_eq!(told(1_001), Some(2));
    }

    #[test]
    fn w13_foreign_text_is_cut_and_cleaned() {
        assert_eq!(sanitised("a\nb\u{7f}\u{e9}"), "a?b??");
        assert_eq!(sanitised(&"x".repeat(1_000)).len(), 200);
    }
}
