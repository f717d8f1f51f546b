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
    identity_headers::Header,
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
    /// The authentication contexts that the sign-in satisfied.
    pub contexts: Vec<String>,
    /// Whether the client answers claims challenges.
    pub answers_challenges: bool,
    /// The identity headers and the permit marker, ready to add.
    pub headers: Rc<[Header]>,
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
        let lists = [&self.scopes, &self.roles, &self.contexts];
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
    /// By the token's end. No two tokens share it: it is the end of their signatures.
    entries: LruCache<End, Entry, EndHash>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    token: Box<[u8]>,
    verified: Rc<Verified>,
    bytes: usize,
}

impl Default for DecisionCache {
    fn default() -> Self {
        Self { entries: LruCache::unbounded_with_hasher(EndHash), bytes: 0 }
    }
}

impl DecisionCache {
    /// What is known of this token, compared in full; nothing where it can no longer be believed.
    pub fn get(&mut self, token: &[u8], now: UnixTime) -> Option<Rc<Verified>> {
        let end = end(token);
        let entry = self.entries.get(&end)?;
        if !same(&entry.token, token) {
            return None;
        }
        if entry.verified.fresh(now) {
            return Some(entry.verified.clone());
        }
        self.remove(end);
        None
    }

    /// Remembers a verified token, and forgets those used longest ago beyond the limit.
    pub fn insert(&mut self, token: &[u8], verified: Rc<Verified>) {
        let end = end(token);
        self.remove(end);
        let bytes = verified.bytes(token);
        self.entries.push(end, Entry { token: token.into(), verified, bytes });
        self.bytes = self.bytes.saturating_add(bytes);
        while self.bytes > MAX_BYTES {
            let Some((_, entry)) = self.entries.pop_lru() else { break };
            self.bytes = self.bytes.saturating_sub(entry.bytes);
        }
    }

    /// Forgets the tokens whose key is no longer trusted.
    pub fn retain_keys(&mut self, trusted: impl Fn(&Grounds) -> bool) {
        let gone = self.entries.iter().filter(|(_, entry)| !trusted(&entry.verified.grounds));
        let gone: Vec<End> = gone.map(|(end, _)| *end).collect();
        for end in gone {
            self.remove(end);
        }
    }

    fn remove(&mut self, end: End) {
        if let Some(entry) = self.entries.pop(&end) {
            self.bytes = self.bytes.saturating_sub(entry.bytes);
        }
    }
}

/// The last characters of a token: 96 bits of its signature.
pub(crate) type End = [u8; 16];

pub(crate) fn end(token: &[u8]) -> End {
    token.last_chunk().copied().unwrap_or_default()
}

/// Compares in full, eight bytes at a time: wasm has no fast `memcmp`.
fn same(one: &[u8], other: &[u8]) -> bool {
    let (ones, one_rest) = one.as_chunks::<8>();
    let (others, other_rest) = other.as_chunks::<8>();
    let word = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
    ones.len() == others.len()
        && ones.iter().map(word).eq(others.iter().map(word))
        && one_rest == other_rest
}

/// The end of a signature is as good as random, and nobody can choose it: only tokens that Entra
/// signed get in.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct EndHash;

impl BuildHasher for EndHash {
    type Hasher = EndHasher;

    fn build_hasher(&self) -> EndHasher {
        EndHasher(0)
    }
}

pub(crate) struct EndHasher(u64);

impl Hasher for EndHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().rev() {
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
