//! Asking for a token.

use serde::{Deserialize, Serialize};

use crate::Secret;

/// What the filter asks for: a token of a configured identity for one scope.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// Name of an identity in the broker's configuration.
    pub identity: String,
    /// One scope, exactly as the identity's `scopes` lists it.
    pub scope: String,
    /// Name of the destination that the token is for; for the broker's log and limits.
    pub destination: String,
}

/// A token, with when it ends and when to ask again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedToken {
    /// The token itself.
    pub access_token: Secret,
    /// Always `Bearer`.
    pub token_type: String,
    /// Unix seconds after which the token must not be used.
    pub expires_on: u64,
    /// Unix seconds from which a newer token can be had; before `expires_on`.
    pub refresh_on: u64,
    /// Echo of the request: the filter refuses an answer to another question.
    pub scope: String,
    /// Echo of the request.
    pub identity: String,
    /// Entra's correlation id of the acquisition, as in its sign-in log.
    pub correlation_id: String,
}
