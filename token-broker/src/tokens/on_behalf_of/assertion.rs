//! What is read of a user's token that is to be exchanged. Nothing of it is trusted: the filter has
//! validated the token, and Entra does so again.

use contract::{ErrorKind, Secret, TypedError};
use policy::{claims::Claims, json, jwt::UnverifiedToken};
use ring::digest::{SHA256, digest};

use crate::failure::failure;

/// A user's token, by its digest, and when it ends.
pub(super) struct Assertion {
    /// SHA-256 of the whole token.
    pub(super) digest: [u8; 32],
    /// Unix seconds.
    pub(super) end: u64,
}

impl Assertion {
    /// Reads a token of this tenant that has not ended; anything else is refused here, without a
    /// call to Entra.
    pub(super) fn read(
        assertion: &Secret,
        tenant: &str,
        unix_now: u64,
    ) -> Result<Self, TypedError> {
        let text = assertion.expose().as_bytes();
        let claims = UnverifiedToken::parse(text)
            .ok()
            .and_then(|token| Claims::read(&json::object(&token.payload)?).ok())
            .ok_or_else(|| {
                failure(ErrorKind::Denied, "assertion_unreadable: not a token that Entra issues")
            })?;
        // The exchange is asked of the application's own tenant, and a user of another has no place
        // there (`v2-oauth2-on-behalf-of-flow`: the tenant of the user).
        if claims.tenant != tenant {
            return Err(failure(
                ErrorKind::Denied,
                "assertion_of_another_tenant: the user's token is not of the identity's tenant",
            ));
        }
        let end = claims.expires.0;
        if end <= unix_now {
            return Err(failure(
                ErrorKind::ClaimsChallenge,
                "assertion_over: the user's token has ended; the user must get a new one",
            ));
        }
        let mut whole = [0; 32];
        whole.copy_from_slice(digest(&SHA256, text).as_ref());
        Ok(Self { digest: whole, end })
    }
}
