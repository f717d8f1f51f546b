//! Asking for a token.

use serde::{Deserialize, Serialize};

use crate::Secret;

/// Longest claims challenge that is carried, in bytes.
pub const MAX_CLAIMS_BYTES: usize = 4 * 1024;

/// What the filter asks for: a token of a configured identity for one scope.
///
/// `claims` and `refused` come together or not at all: a resource has refused a token and said
/// what a new one must satisfy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// Name of an identity in the broker's configuration.
    pub identity: String,
    /// One scope, exactly as the identity's `scopes` lists it.
    pub scope: String,
    /// Name of the destination that the token is for; for the broker's log and limits.
    pub destination: String,
    /// The asker answers claims challenges, so the token may be one that its resource can refuse
    /// at any moment (`xms_cc`: `cp1`). Absent means no.
    #[serde(default, skip_serializing_if = "is_no")]
    pub claims_challenges: bool,
    /// The claims challenge of the resource: JSON text, at most [`MAX_CLAIMS_BYTES`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claims: Option<String>,
    /// The refused token, by the [`IssuedToken::token_hash`] that it came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// On whose behalf: a user's access token for the identity's own application, which is
    /// exchanged for one of the same user (OAuth 2.0 on-behalf-of). Absent, the token is the
    /// application's own; the one is never answered with the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion: Option<Secret>,
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
    /// Unix seconds at which to ask again: there may be a newer token, or none any more. At most an
    /// hour ahead, and not after `expires_on`.
    pub refresh_on: u64,
    /// Echo of the request: the filter refuses an answer to another question.
    pub scope: String,
    /// Echo of the request.
    pub identity: String,
    /// Entra's correlation id of the acquisition, as in its sign-in log.
    pub correlation_id: String,
    /// Lower-case hex SHA-256 of the access token, by which it is named where it is refused: the
    /// filter echoes it and so needs no hash function. None from a broker without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_hash: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_no(value: &bool) -> bool {
    !value
}
