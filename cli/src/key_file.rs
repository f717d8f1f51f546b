//! Signing keys out of a file: the broker's answer to `/v1/keys`, or a key set as Entra publishes
//! it.

use std::path::Path;

use contract::{Jwk, KeySet, KeySetState, KeySets};
use policy::{
    cloud::{Cloud, ORGANIZATIONS},
    time::UnixTime,
};
use serde::Deserialize;

use crate::output::{self, Failure};

/// A key set (RFC 7517 §5).
#[derive(Debug, Deserialize)]
struct PublishedKeys {
    keys: Vec<Jwk>,
}

/// Reads keys, as if they had been fetched at `now`: a file has no age.
///
/// A published set says for each key whose tokens it signs, so it is asked for every tenant.
pub(crate) fn read(path: &Path, cloud: Cloud, now: UnixTime) -> Result<KeySets, Failure> {
    let text = output::read(path)?;
    if let Ok(mut answer) = serde_json::from_str::<KeySets>(&text) {
        for set in &mut answer.key_sets {
            set.fetched_at = now.0;
        }
        return Ok(answer);
    }
    match serde_json::from_str::<PublishedKeys>(&text) {
        Ok(published) => Ok(of_organizations(published.keys, cloud, now)),
        Err(error) => Err(Failure::new(format!(
            "{}: neither a key set nor the broker's answer to /v1/keys (line {})",
            path.display(),
            error.line()
        ))),
    }
}

/// Keys for tenants that have no set of their own.
pub(crate) fn of_organizations(keys: Vec<Jwk>, cloud: Cloud, now: UnixTime) -> KeySets {
    let issuer = cloud.authority_issuer(ORGANIZATIONS);
    let set = KeySet { issuer, fetched_at: now.0, state: KeySetState::Fresh, keys };
    KeySets { key_sets: vec![set] }
}
