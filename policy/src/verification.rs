//! One token, judged from its structure to its claims: the order of the checks is here and nowhere
//! else.
//!
//! Whoever is shown a token comes through here: the filter in both directions, with the keys that it
//! holds, and the broker, with its own. What follows from a missing key is theirs to say; so is what
//! a good token may do.

use std::{rc::Rc, sync::Arc};

use crate::{
    claims::{Claims, Kind},
    config::Accepted,
    decision::{Identity, Reason},
    json::{self, Object},
    jwt::UnverifiedToken,
    key_store::{Grounds, KeyStore, Lookup},
    time::UnixTime,
};

/// Checks an RS256 signature: DER SubjectPublicKeyInfo, signed text, signature.
pub type Verify<'a> = dyn Fn(&[u8], &[u8], &[u8]) -> bool + 'a;

/// What is true of a token: its signature and its claims are good.
#[derive(Debug)]
pub struct Judged<'a> {
    /// The payload.
    pub payload: Object<'a>,
    /// Its claims.
    pub claims: Claims,
    /// Whose token.
    pub kind: Kind,
    /// The ids for the record.
    pub identity: Rc<Identity>,
    /// The key that signed it.
    pub grounds: Grounds,
}

/// Why there is no good token.
#[derive(Debug, PartialEq, Eq)]
pub enum Stop {
    /// It is refused, whatever keys there are.
    Refused {
        /// Why.
        reason: Reason,
        /// Whose token, where the signature was good.
        identity: Option<Rc<Identity>>,
    },
    /// The authority has no such key, as far as is known.
    UnknownKey {
        /// The authority to ask for newer keys.
        authority: Arc<str>,
    },
    /// The tenant's authority has no keys that are young enough.
    NoKeys,
}

impl From<Reason> for Stop {
    fn from(reason: Reason) -> Self {
        Self::Refused { reason, identity: None }
    }
}

/// Judges a token: tenant and issuer, key, signature, then what the signature made true.
pub fn judge<'a>(
    token: &'a UnverifiedToken<'_>,
    accepted: &Accepted,
    keys: &KeyStore,
    now: UnixTime,
    verify: &Verify<'_>,
) -> Result<Judged<'a>, Stop> {
    let payload = json::object(&token.payload).ok_or(Reason::TokenMalformed)?;
    let claims = Claims::read(&payload)?;
    claims.check_issuer(accepted.cloud, &accepted.tenants)?;
    let grounds = match keys.find(accepted.cloud, &claims.tenant, &token.key_id, now) {
        Lookup::Trusted(grounds) => grounds,
        Lookup::SignsForOthers => return Err(Reason::KeyIssuerMismatch.into()),
        Lookup::UnknownKey { authority } => return Err(Stop::UnknownKey { authority }),
        Lookup::NoKeys => return Err(Stop::NoKeys),
    };
    if !verify(&grounds.key.spki, token.signed, &token.signature) {
        return Err(Reason::SignatureInvalid.into());
    }
    let identity = Rc::new(Identity::new(
        &claims.tenant,
        claims.client.as_deref(),
        claims.token_id.as_deref(),
    ));
    match claims.check(&accepted.audiences, accepted.clock_skew, now) {
        Ok(kind) => Ok(Judged { payload, claims, kind, identity, grounds }),
        Err(reason) => Err(Stop::Refused { reason, identity: Some(identity) }),
    }
}
