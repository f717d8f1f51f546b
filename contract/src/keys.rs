//! Signing keys, per authority.

use serde::{Deserialize, Serialize};

/// Everything the broker knows of signing keys.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KeySets {
    /// One set per configured authority, also for those that have no keys yet.
    pub key_sets: Vec<KeySet>,
}

/// The keys of one authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySet {
    /// The authority as configured: the v2.0 issuer of its tenant, or the template
    /// `https://…/{tenantid}/v2.0` for `organizations`.
    pub issuer: String,
    /// Unix seconds of the last good fetch; 0 when there was none.
    pub fetched_at: u64,
    /// How good the keys are.
    pub state: KeySetState,
    /// The keys as published, members that no check reads left out.
    pub keys: Vec<Jwk>,
}

/// How good a key set is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeySetState {
    /// The last fetch succeeded.
    Fresh,
    /// The last fetch failed; these are the last known good keys, younger than 24 h.
    Stale,
    /// No keys: never fetched, or too old.
    None,
}

/// A key as Entra publishes it (RFC 7517 §4, and Entra's own `issuer` and `cloud_instance_name`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Jwk {
    /// Key id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// Key type; only `RSA` is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kty: Option<String>,
    /// Intended use; `sig` or absent.
    #[serde(default, rename = "use", skip_serializing_if = "Option::is_none")]
    pub usage: Option<String>,
    /// Algorithm; `RS256` or absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alg: Option<String>,
    /// RSA modulus, base64url without padding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<String>,
    /// RSA public exponent, base64url without padding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub e: Option<String>,
    /// Whose tokens the key may sign: an issuer, or the template with `{tenantid}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Entra's name of the cloud instance the key belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_instance_name: Option<String>,
}

/// The filter met a `kid` that it does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeysRefresh {
    /// The configured authority ([`KeySet::issuer`]), never anything out of a token.
    pub issuer: String,
    /// The unknown key id, for the broker's log only.
    pub kid: String,
}
