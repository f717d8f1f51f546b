//! Validates a token that an application shows the broker: the checks and their order are `policy`'s,
//! as in the filter, the keys are the broker's own.
//!
//! A key that the broker does not have is asked for once, within the limit that there is for
//! everybody; what cannot be decided is never valid.

use contract::{ErrorKind, KeysRefresh};
use policy::{
    claims::Kind,
    decision::Reason,
    jwt::UnverifiedToken,
    key_store::KeyStore,
    time::UnixTime,
    verification::{self, Judged},
};
use serde_json::Value;

use crate::{config::Callers, keys::Keys, signature};

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
    callers: &Callers,
    keys: &Keys,
    now: u64,
) -> Result<Valid, Reason> {
    let (issuer, kid) = match judge(token, callers, &keys.trusted(), now) {
        Ok(valid) => return Ok(valid),
        Err(Stop::Refused(reason)) => return Err(reason),
        Err(Stop::UnknownKey { authority, kid }) => (authority, kid),
    };
    match keys.refresh(&KeysRefresh { issuer, kid }).await {
        Ok(_fetched) => judge(token, callers, &keys.trusted(), now).map_err(|stop| match stop {
            Stop::Refused(reason) => reason,
            Stop::UnknownKey { .. } => Reason::KeyUnknown,
        }),
        // The keys are as new as they may be.
        Err(refused) if refused.kind == ErrorKind::Throttled => Err(Reason::KeyUnknown),
        Err(_) => Err(Reason::KeysUnavailable),
    }
}

/// As the filter judges; and the scopes, which are the rule here.
fn judge(token: &[u8], callers: &Callers, keys: &KeyStore, now: u64) -> Result<Valid, Stop> {
    let token = UnverifiedToken::parse(token)?;
    let judged =
        verification::judge(&token, &callers.accepted, keys, UnixTime(now), &signature::verify);
    let Judged { claims, kind, .. } = judged.map_err(|stop| match stop {
        verification::Stop::Refused { reason, .. } => Stop::Refused(reason),
        verification::Stop::NoKeys => Stop::Refused(Reason::KeysUnavailable),
        verification::Stop::UnknownKey { authority } => {
            Stop::UnknownKey { authority: authority.to_string(), kid: token.key_id.clone() }
        }
    })?;
    let asked = &callers.scopes;
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
