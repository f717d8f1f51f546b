//! The signing keys that the filter holds, by authority, as the broker handed them out.

use std::{collections::HashMap, sync::Arc};

use contract::{KeySets, route::KEY_LIFETIME_SECONDS};

use crate::{
    cloud::{Cloud, ORGANIZATIONS},
    keys::TrustedKey,
    time::UnixTime,
};

/// All keys, by the issuer that names their authority; the broker's threads share them.
#[derive(Debug, Default)]
pub struct KeyStore {
    sets: HashMap<Arc<str>, StoredSet>,
}

#[derive(Debug)]
struct StoredSet {
    fetched_at: UnixTime,
    keys: HashMap<String, Arc<TrustedKey>>,
}

/// What the store knows about a key id.
#[derive(Debug, PartialEq, Eq)]
pub enum Lookup {
    /// This key may sign for the tenant.
    Trusted(Grounds),
    /// There is such a key, but it signs for others.
    SignsForOthers,
    /// The authority has no such key, as far as we know.
    UnknownKey {
        /// The authority to ask for newer keys.
        authority: Arc<str>,
    },
    /// The tenant's authority has no keys that are young enough.
    NoKeys,
}

/// What the trust in a signature rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grounds {
    /// The authority that published the key.
    pub authority: Arc<str>,
    /// The key.
    pub key: Arc<TrustedKey>,
    /// When the authority's keys get too old to be trusted.
    pub until: UnixTime,
}

impl KeyStore {
    /// Takes over what the broker handed out.
    ///
    /// A set with keys replaces the held one; an authority that is no longer listed is forgotten.
    /// A set without keys says that the broker has none, as one that has just started: then the
    /// held ones stay good for as long as they are young enough.
    pub fn replace(&mut self, key_sets: &KeySets) {
        let mut held = std::mem::take(&mut self.sets);
        let stored = key_sets.key_sets.iter().map(|set| {
            let mut keys: HashMap<String, Arc<TrustedKey>> = HashMap::new();
            let mut ambiguous = Vec::new();
            for key in set.keys.iter().filter_map(|jwk| TrustedKey::from_jwk(jwk).ok()) {
                match keys.get(&key.kid) {
                    // One id with two keys: neither can be meant.
                    Some(other) if **other != key => ambiguous.push(key.kid),
                    Some(_) => {}
                    None => {
                        keys.insert(key.kid.clone(), Arc::new(key));
                    }
                }
            }
            keys.retain(|key_id, _| !ambiguous.contains(key_id));
            let received = StoredSet { fetched_at: UnixTime(set.fetched_at), keys };
            let kept = held.remove(set.issuer.as_str()).filter(|_| set.keys.is_empty());
            (set.issuer.as_str().into(), kept.unwrap_or(received))
        });
        self.sets = stored.collect();
    }

    /// Looks a key up for a token of `tenant`.
    ///
    /// Only the tenant's own authority is asked, or that of `organizations` where the broker keeps
    /// no keys for the tenant: another tenant's keys are no keys for this one.
    pub fn find(&self, cloud: Cloud, tenant: &str, key_id: &str, now: UnixTime) -> Lookup {
        let held = |tenant| self.sets.get_key_value(cloud.authority_issuer(tenant).as_str());
        let found = held(tenant).or_else(|| held(ORGANIZATIONS));
        match found {
            Some((authority, set)) if set.usable(now) => match set.keys.get(key_id) {
                Some(key) if key.signs_for(cloud, tenant) => Lookup::Trusted(Grounds {
                    authority: authority.clone(),
                    key: key.clone(),
                    until: set.until(),
                }),
                Some(_) => Lookup::SignsForOthers,
                None => Lookup::UnknownKey { authority: authority.clone() },
            },
            Some(_) | None => Lookup::NoKeys,
        }
    }

    /// Whether the authority still publishes exactly this key.
    pub fn holds(&self, grounds: &Grounds) -> bool {
        self.sets
            .get(&*grounds.authority)
            .and_then(|set| set.keys.get(&grounds.key.kid))
            .is_some_and(|held| *held == grounds.key)
    }

    /// Whether there is an authority, and every one has keys that are young enough.
    pub fn complete(&self, now: UnixTime) -> bool {
        self.missing(now) == 0
    }

    /// How many authorities have no keys that are young enough; 1 where none is known at all.
    pub fn missing(&self, now: UnixTime) -> u64 {
        let missing = self.sets.values().filter(|set| !set.usable(now)).count();
        let missing = u64::try_from(missing).unwrap_or(u64::MAX);
        if self.sets.is_empty() { 1 } else { missing }
    }

    /// Age of the oldest set that has keys, in seconds.
    pub fn age(&self, now: UnixTime) -> Option<u64> {
        let with_keys = self.sets.values().filter(|set| !set.keys.is_empty());
        with_keys.map(|set| now.since(set.fetched_at)).max()
    }
}

impl StoredSet {
    fn until(&self) -> UnixTime {
        self.fetched_at.plus(KEY_LIFETIME_SECONDS)
    }

    fn usable(&self, now: UnixTime) -> bool {
        !self.keys.is_empty() && now <= self.until()
    }
}

#[cfg(test)]
mod tests;
