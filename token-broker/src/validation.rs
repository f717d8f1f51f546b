//! Validates a token that an application shows the broker, as the filter would: the checks and
//! their order are `policy`'s, the keys are the broker's own.
//!
//! A key that the broker does not have is asked for once, within the limit that there is for
//! everybody; what cannot be decided is never valid.

use contract::{ErrorKind, KeySets, KeysRefresh};
use policy::{
    claims::{Claims, Kind},
    decision::Reason,
    json,
    jwt::UnverifiedToken,
    key_store::{KeyStore, Lookup},
    time::UnixTime,
};
use serde_json::Value;

use crate::{config::Callers, keys::Keys, signature};

/// Tolerated difference of clocks, in seconds: the filter's default.
const CLOCK_SKEW: u64 = 60;

/// What is true of a token whose signature and claims were checked.
#[derive(Debug, PartialEq)]
pub struct Valid {
    /// Whose token.
    pub kind: Kind,
    /// Its payload, as it was signed.
    pub claims: Value,
}

/// Why a token is not valid, or not yet.
#[derive(Debug, PartialEq, Eq)]
enum Stop {
    Refused(Reason),
    UnknownKey { authority: String, kid: String },
}

impl From<Reason> for Stop {
    fn from(reason: Reason) -> Self {
        Self::Refused(reason)
    }
}

/// Judges a token at `now` (Unix seconds); the reason says why it is refused, or that it cannot be
/// judged ([`Reason::KeysUnavailable`]).
pub async fn validate(
    token: &[u8],
    accepted: &Callers,
    keys: &Keys,
    now: u64,
) -> Result<Valid, Reason> {
    let (issuer, kid) = match judge(token, accepted, &keys.sets(), now) {
        Ok(valid) => return Ok(valid),
        Err(Stop::Refused(reason)) => return Err(reason),
        Err(Stop::UnknownKey { authority, kid }) => (authority, kid),
    };
    match keys.refresh(&KeysRefresh { issuer, kid }).await {
        Ok(sets) => judge(token, accepted, &sets, now).map_err(|stop| match stop {
            Stop::Refused(reason) => reason,
            Stop::UnknownKey { .. } => Reason::KeyUnknown,
        }),
        // The keys are as new as they may be.
        Err(refused) if refused.kind == ErrorKind::Throttled => Err(Reason::KeyUnknown),
        Err(_) => Err(Reason::KeysUnavailable),
    }
}

/// In the filter's order: structure, tenant and issuer, key, signature, then what it made true.
fn judge(token: &[u8], accepted: &Callers, sets: &KeySets, now: u64) -> Result<Valid, Stop> {
    let now = UnixTime(now);
    let token = UnverifiedToken::parse(token)?;
    let payload = json::object(&token.payload).ok_or(Reason::TokenMalformed)?;
    let claims = Claims::read(&payload)?;
    claims.check_issuer(accepted.cloud, &accepted.tenants)?;
    let mut keys = KeyStore::default();
    keys.replace(sets);
    let grounds = match keys.find(accepted.cloud, &claims.tenant, &token.key_id, now) {
        Lookup::Trusted(grounds) => grounds,
        Lookup::SignsForOthers => return Err(Reason::KeyIssuerMismatch.into()),
        Lookup::UnknownKey { authority } => {
            let authority = authority.to_string();
            return Err(Stop::UnknownKey { authority, kid: token.key_id });
        }
        Lookup::NoKeys => return Err(Reason::KeysUnavailable.into()),
    };
    if !signature::verify(&grounds.key.spki, token.signed, &token.signature) {
        return Err(Reason::SignatureInvalid.into());
    }
    let kind = claims.check(&accepted.audiences, CLOCK_SKEW, now)?;
    let asked = &accepted.scopes;
    if !asked.is_empty() && !claims.scopes.iter().any(|scope| asked.contains(scope)) {
        return Err(match kind {
            Kind::User => Reason::ScopeMissing,
            Kind::Application => Reason::UserRequired,
        }
        .into());
    }
    let claims = serde_json::from_slice(&token.payload)
        .map_err(|_unreadable| Stop::Refused(Reason::TokenMalformed))?;
    Ok(Valid { kind, claims })
}
