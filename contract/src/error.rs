//! Refusals of the broker.

use serde::{Deserialize, Serialize};

/// Why there is no answer, in words for a person and a kind for the program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypedError {
    /// What happened, without secrets; for Entra's refusals its `error` and AADSTS code.
    pub error: String,
    /// What to do about it.
    pub kind: ErrorKind,
    /// Seconds after which to ask again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// The claims that Entra challenged with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claims: Option<String>,
    /// Entra's correlation id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// Entra's trace id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}

impl TypedError {
    /// A refusal of this kind, with nothing else known.
    pub fn new(kind: ErrorKind, error: impl Into<String>) -> Self {
        Self {
            error: error.into(),
            kind,
            retry_after: None,
            claims: None,
            correlation_id: None,
            trace_id: None,
        }
    }
}

/// The closed list of kinds; each has one HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// Entra or the way to it failed; asking again may help.
    Transient,
    /// Too many calls; ask again after `retry_after`.
    Throttled,
    /// Entra wants more from the user (`claims`).
    ClaimsChallenge,
    /// Entra did not accept the broker's credential.
    Credential,
    /// The configuration, here or in Entra, is wrong; a person must act.
    Config,
    /// The principal is disabled or not assigned.
    Disabled,
    /// The broker's configuration does not allow this request.
    Denied,
}

impl ErrorKind {
    /// The HTTP status that carries this kind.
    ///
    /// Nothing that Entra's absence or load causes is a 401 or 403.
    pub fn status(self) -> u16 {
        match self {
            Self::Transient | Self::Credential | Self::Config => 503,
            Self::Throttled => 429,
            Self::ClaimsChallenge | Self::Disabled | Self::Denied => 403,
        }
    }
}
