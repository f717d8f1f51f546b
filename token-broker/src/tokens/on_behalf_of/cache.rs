//! What was exchanged for users, of all identities: tokens and refusals, found by the digest of the
//! user's token, and the exchanges that are under way.
//!
//! Bounded by number and by bytes; beyond that what was used longest ago is forgotten. An entry is
//! nothing but its data: no task, no channel. The assertions themselves are not kept.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use contract::{ErrorKind, Secret, TypedError};
use lru::LruCache;
use tokio::{sync::watch, time::Instant};
use uuid::Uuid;

use super::{Counts, Times, packed::Packed};
use crate::{
    failure::retry_in,
    refresh::{self, LOOK},
};

/// Most entries.
const MAX_ENTRIES: usize = 10_000;
/// Most bytes of tokens and refusals.
const MAX_BYTES: usize = 10 * 1024 * 1024;
/// Most exchanges under way.
const MAX_FLIGHTS: usize = 512;

/// What an entry is found by; compared in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) identity: u32,
    /// Place in the identity's list.
    pub(super) scope: u32,
    /// Asked for as one that its resource can refuse at any moment.
    pub(super) capable: bool,
    /// SHA-256 of the user's token.
    pub(super) assertion: [u8; 32],
}

/// A token on behalf of a user.
#[derive(Clone)]
pub(super) struct Kept {
    /// With Entra's id of the exchange, which is a GUID.
    packed: Packed,
    pub(super) times: Times,
}

impl Kept {
    pub(super) fn new(token: &Secret, times: Times, correlation_id: &str) -> Self {
        let correlation_id = Uuid::try_parse(correlation_id).unwrap_or_default();
        Self { packed: Packed::new(token, correlation_id.into_bytes()), times }
    }

    /// The token.
    pub(super) fn token(&self) -> Secret {
        self.packed.token()
    }

    /// Entra's id of the exchange; all zero where it was none.
    pub(super) fn correlation_id(&self) -> String {
        Uuid::from_bytes(self.packed.beside()).to_string()
    }
}

enum Entry {
    Held(Kept),
    Refused(Box<Refused>),
}

/// That Entra gave no token.
pub(super) struct Refused {
    pub(super) error: TypedError,
    pub(super) until: Instant,
    pub(super) until_unix: u64,
    /// How often in a row.
    pub(super) failures: u32,
    /// How often Entra had answered again by then.
    pub(super) recoveries: u64,
}

impl Refused {
    fn stands(&self, recoveries: u64, now: Instant) -> bool {
        let passing = self.error.kind == ErrorKind::Transient;
        now < self.until && !(passing && self.recoveries != recoveries)
    }
}

impl Entry {
    fn bytes(&self) -> usize {
        match self {
            Self::Held(kept) => kept.packed.len(),
            Self::Refused(refused) => {
                let claims = refused.error.claims.as_ref().map_or(0, String::len);
                refused.error.error.len().saturating_add(claims)
            }
        }
    }

    /// Whether it says nothing any more.
    fn is_over(&self, now: Instant, unix_now: u64) -> bool {
        match self {
            Self::Held(kept) => !kept.times.is_usable(now, unix_now),
            Self::Refused(refused) => now >= refused.until,
        }
    }
}

/// What there is for a key.
pub(super) enum Found {
    Held(Kept),
    Refused(TypedError),
    UnderWay(Flight),
    Nothing,
}

/// An exchange that is under way, for whoever waits for its end.
pub(super) struct Flight(watch::Receiver<()>);

impl Flight {
    /// Returns when it has ended, however.
    pub(super) async fn ended(&mut self) {
        // Nothing is ever sent: the channel closes.
        while self.0.changed().await.is_ok() {}
    }
}

/// An exchange that has been started; it is under way until this is dropped.
pub(super) struct Started {
    cache: Arc<Cache>,
    key: Key,
    /// Closes after the exchange is no longer to be found.
    _ends: watch::Sender<()>,
}

impl Drop for Started {
    fn drop(&mut self) {
        self.cache.lock().flights.remove(&self.key);
    }
}

/// All identities' entries.
#[derive(Default)]
pub(in super::super) struct Cache(Mutex<Inner>);

struct Inner {
    entries: LruCache<Key, Entry>,
    bytes: usize,
    flights: HashMap<Key, watch::Receiver<()>>,
    identities: u32,
}

impl Default for Inner {
    fn default() -> Self {
        Self { entries: LruCache::unbounded(), bytes: 0, flights: HashMap::new(), identities: 0 }
    }
}

impl Cache {
    /// A number that no other identity has had.
    pub(super) fn number(&self) -> u32 {
        let mut inner = self.lock();
        inner.identities = inner.identities.wrapping_add(1);
        inner.identities
    }

    /// Forgets all of an identity.
    pub(super) fn forget(&self, identity: u32) {
        let mut inner = self.lock();
        let of_it: Vec<Key> = inner
            .entries
            .iter()
            .map(|(key, _)| *key)
            .filter(|key| key.identity == identity)
            .collect();
        for key in of_it {
            inner.remove(&key);
        }
    }

    /// What there is for this key; what is over is forgotten.
    pub(super) fn find(&self, key: &Key, recoveries: u64, now: Instant, unix_now: u64) -> Found {
        let mut inner = self.lock();
        match inner.entries.get(key) {
            Some(Entry::Held(kept)) if kept.times.is_usable(now, unix_now) => {
                return Found::Held(kept.clone());
            }
            Some(Entry::Refused(refused)) if refused.stands(recoveries, now) => {
                let rest = refused.until.saturating_duration_since(now);
                let lasting = refresh::is_lasting(refused.error.kind);
                let rest = if lasting { rest.min(LOOK) } else { rest };
                return Found::Refused(retry_in(refused.error.clone(), rest));
            }
            // Its failures still count.
            Some(Entry::Refused(_)) | None => {}
            Some(Entry::Held(_)) => inner.remove(key),
        }
        inner.flight(key).map_or(Found::Nothing, Found::UnderWay)
    }

    /// The exchange for this key, and what it ends by where it is to be started; nothing where there
    /// are too many.
    pub(super) fn start(self: &Arc<Self>, key: Key) -> Option<(Flight, Option<Started>)> {
        let mut inner = self.lock();
        if let Some(flight) = inner.flight(&key) {
            return Some((flight, None));
        }
        if inner.flights.len() >= MAX_FLIGHTS {
            return None;
        }
        let (sender, receiver) = watch::channel(());
        inner.flights.insert(key, receiver.clone());
        let started = Started { cache: Arc::clone(self), key, _ends: sender };
        Some((Flight(receiver), Some(started)))
    }

    /// Keeps a token, and says how many entries had to go for it before their end.
    pub(super) fn hold(&self, key: Key, kept: Kept, now: Instant, unix_now: u64) -> usize {
        self.lock().insert(key, Entry::Held(kept), now, unix_now)
    }

    /// Keeps a refusal, and says how many entries had to go for it before their end.
    ///
    /// A token that is held goes on until its end, unless Entra has judged that this user gets none.
    pub(super) fn refuse(&self, key: Key, refused: Refused, now: Instant, unix_now: u64) -> usize {
        let mut inner = self.lock();
        let judged = refresh::is_verdict(refused.error.kind);
        if let Some(Entry::Held(kept)) = inner.entries.get_mut(&key)
            && !judged
            && kept.times.is_usable(now, unix_now)
        {
            kept.times.refresh_on = refused.until_unix;
            return 0;
        }
        inner.insert(key, Entry::Refused(Box::new(refused)), now, unix_now)
    }

    /// How often in a row an exchange for this key was refused.
    pub(super) fn failures(&self, key: &Key) -> u32 {
        self.lock().failures(key)
    }

    /// How many of an identity's are not over.
    pub(super) fn counts(&self, identity: u32, now: Instant, unix_now: u64) -> Counts {
        let mut counts = Counts { held: 0, refused: 0 };
        for (key, entry) in &self.lock().entries {
            if key.identity != identity || entry.is_over(now, unix_now) {
                continue;
            }
            let count = match entry {
                Entry::Held(_) => &mut counts.held,
                Entry::Refused(_) => &mut counts.refused,
            };
            *count = count.saturating_add(1);
        }
        counts
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn flight(&self, key: &Key) -> Option<Flight> {
        self.flights.get(key).cloned().map(Flight)
    }

    fn failures(&self, key: &Key) -> u32 {
        match self.entries.peek(key) {
            Some(Entry::Refused(refused)) => refused.failures,
            _ => 0,
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some(gone) = self.entries.pop(key) {
            self.bytes = self.bytes.saturating_sub(gone.bytes());
        }
    }

    fn insert(&mut self, key: Key, entry: Entry, now: Instant, unix_now: u64) -> usize {
        self.bytes = self.bytes.saturating_add(entry.bytes());
        if let Some(before) = self.entries.put(key, entry) {
            self.bytes = self.bytes.saturating_sub(before.bytes());
        }
        let mut evicted: usize = 0;
        while let Some((last, oldest)) = self.entries.peek_lru() {
            let over = oldest.is_over(now, unix_now);
            let full = self.entries.len() > MAX_ENTRIES || self.bytes > MAX_BYTES;
            if !over && !full {
                break;
            }
            let last = *last;
            self.remove(&last);
            evicted = evicted.saturating_add(usize::from(!over));
        }
        evicted
    }
}
