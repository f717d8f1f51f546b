//! Verified tokens, so that a token's signature is checked once and not per request.
//!
//! It holds what is true of a token, never what a rule said about it: rules are asked for each
//! request. Only verified tokens get in, so a flood of bad ones changes nothing here.

use std::{
    hash::{BuildHasher, Hasher},
    rc::Rc,
};

use lru::LruCache;

use crate::{
    claims::{ClientCredential, Groups, Kind},
    decision::Identity,
    key_store::Grounds,
    time::UnixTime,
};

/// Longest time that a token is believed without being verified again, in seconds.
const MAX_AGE_SECONDS: u64 = 300;
/// What all entries may take, in bytes, by [`Verified::bytes`].
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// What is true of a token whose signature and claims were checked.
#[derive(Debug, Clone)]
pub struct Verified {
    /// Whose token.
    pub kind: Kind,
    /// The user's delegated permissions.
    pub scopes: Vec<String>,
    /// Roles.
    pub roles: Vec<String>,
    /// Groups.
    pub groups: Groups,
    /// The client application.
    pub client: Option<String>,
    /// How the client authenticated.
    pub client_credential: Option<ClientCredential>,
    /// The identity headers, ready to set.
    pub headers: Vec<(Rc<str>, Rc<str>)>,
    /// The ids for the record.
    pub identity: Rc<Identity>,
    /// The key that signed it.
    pub grounds: Grounds,
    /// When it was verified.
    pub verified_at: UnixTime,
    /// The token's own end: `exp` and the skew.
    pub expires: UnixTime,
}

impl Verified {
    /// Whether all this can be believed without verifying again.
    ///
    /// A clock that was set back makes ages unknown.
    fn fresh(&self, now: UnixTime) -> bool {
        let until =
            self.verified_at.plus(MAX_AGE_SECONDS).min(self.expires).min(self.grounds.until);
        self.verified_at <= now && now <= until
    }

    /// What the entry takes, estimated from above: text, and a fixed sum per allocation.
    fn bytes(&self, token: &[u8]) -> usize {
        const PER_ENTRY: usize = 1024;
        const PER_TEXT: usize = 48;
        let lists = [&self.scopes, &self.roles];
        let groups = match &self.groups {
            Groups::Listed(groups) => groups.as_slice(),
            Groups::Overage => &[],
        };
        let texts = lists.into_iter().flatten().chain(groups).map(String::len);
        let headers = self.headers.iter().map(|(_, value)| value.len());
        texts.chain(headers).fold(token.len().saturating_add(PER_ENTRY), |sum, length| {
            sum.saturating_add(length).saturating_add(PER_TEXT)
        })
    }
}

/// The verified tokens of one configuration.
#[derive(Debug)]
pub struct DecisionCache {
    entries: LruCache<Box<[u8]>, Entry, SignatureHash>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    verified: Rc<Verified>,
    bytes: usize,
}

impl Default for DecisionCache {
    fn default() -> Self {
        Self { entries: LruCache::unbounded_with_hasher(SignatureHash), bytes: 0 }
    }
}

impl DecisionCache {
    /// What is known of this token, compared in full; nothing where it can no longer be believed.
    pub fn get(&mut self, token: &[u8], now: UnixTime) -> Option<Rc<Verified>> {
        let verified = &self.entries.get(token)?.verified;
        if verified.fresh(now) {
            return Some(verified.clone());
        }
        self.remove(token);
        None
    }

    /// Remembers a verified token, and forgets those used longest ago beyond the limit.
    pub fn insert(&mut self, token: &[u8], verified: Rc<Verified>) {
        self.remove(token);
        let bytes = verified.bytes(token);
        self.entries.push(token.into(), Entry { verified, bytes });
        self.bytes = self.bytes.saturating_add(bytes);
        while self.bytes > MAX_BYTES {
            let Some((_, entry)) = self.entries.pop_lru() else { break };
            self.bytes = self.bytes.saturating_sub(entry.bytes);
        }
    }

    /// Forgets the tokens whose key is no longer trusted.
    pub fn retain_keys(&mut self, trusted: impl Fn(&Grounds) -> bool) {
        let gone: Vec<Box<[u8]>> = self
            .entries
            .iter()
            .filter(|(_, entry)| !trusted(&entry.verified.grounds))
            .map(|(token, _)| token.clone())
            .collect();
        for token in gone {
            self.remove(&token);
        }
    }

    fn remove(&mut self, token: &[u8]) {
        if let Some(entry) = self.entries.pop(token) {
            self.bytes = self.bytes.saturating_sub(entry.bytes);
        }
    }
}

/// Hashes a token by its end, which is its signature and as good as random.
///
/// Nobody can choose where a token lands: only tokens that Entra signed get in. Equality is of
/// the whole token, whatever the hash says.
#[derive(Debug, Clone, Copy, Default)]
struct SignatureHash;

impl BuildHasher for SignatureHash {
    type Hasher = EndOfToken;

    fn build_hasher(&self) -> EndOfToken {
        EndOfToken(0)
    }
}

struct EndOfToken(u64);

impl Hasher for EndOfToken {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().rev().take(16) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        // The table takes its buckets from the low bits and its tags from the high ones.
        self.0 ^ self.0.rotate_left(32)
    }
}

#[cfg(test)]
mod tests;
