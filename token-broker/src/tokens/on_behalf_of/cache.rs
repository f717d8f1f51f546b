//! What was exchanged for users, of all identities: tokens and refusals, found by the digest of the
//! user's token, and the exchanges that are under way.
//!
//! Bounded by number and by bytes; beyond that what was used longest ago is forgotten. An entry is
//! nothing but its data, in its place in the table: no task, no channel, no list. So the one used
//! longest ago is looked for, which costs less than the call to Entra that wants the room. The
//! assertions themselves are not kept.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use contract::{ErrorKind, Secret, TypedError};
use tokio::{sync::watch, time::Instant};
use uuid::Uuid;

use super::{Counts, Times, packed::Packed};
use crate::{
    failure::retry_in,
    refresh::{self, LOOK},
    time::later,
};

/// Most entries.
const MAX_ENTRIES: usize = 10_000;
/// Most bytes of tokens and refusals.
const MAX_BYTES: usize = 10 * 1024 * 1024;
/// How often what is over is swept out.
const SWEEP: Duration = Duration::from_secs(60);
/// Most exchanges under way for one identity, so that its users do not keep another's waiting.
const MAX_FLIGHTS: usize = 512;

/// What an entry is found by; compared in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) identity: u32,
    /// Place in the identity's list.
    pub(super) scope: u16,
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

struct Entry {
    /// By the count of uses.
    used: u32,
    what: What,
}

enum What {
    Held { packed: Packed, times: Compact },
    Refused(Box<Refused>),
}

/// [`Times`] in half of the room: whole seconds, and the token asked for no later than it was.
#[derive(Clone, Copy)]
struct Compact {
    /// Seconds of the cache's own life.
    asked: u32,
    life: u32,
    /// Seconds from the renewal to the end.
    refresh_before: u32,
    /// Unix seconds, which fit until 2106.
    expires_on: u32,
}

impl Compact {
    fn new(times: &Times, start: Instant) -> Self {
        let asked = times.asked.saturating_duration_since(start).as_secs();
        let short = |seconds: u64| u32::try_from(seconds).unwrap_or(u32::MAX);
        Self {
            asked: short(asked),
            life: short(times.life.as_secs()),
            refresh_before: short(times.expires_on.saturating_sub(times.refresh_on)),
            expires_on: short(times.expires_on),
        }
    }

    fn times(self, start: Instant) -> Times {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        Times {
            life: seconds(self.life),
            asked: later(start, seconds(self.asked)),
            expires_on: self.expires_on.into(),
            refresh_on: self.expires_on.saturating_sub(self.refresh_before).into(),
        }
    }
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

impl What {
    fn bytes(&self) -> usize {
        match self {
            Self::Held { packed, .. } => packed.len(),
            Self::Refused(refused) => {
                let claims = refused.error.claims.as_ref().map_or(0, String::len);
                refused.error.error.len().saturating_add(claims)
            }
        }
    }

    /// Whether it says nothing any more.
    fn is_over(&self, start: Instant, now: Instant, unix_now: u64) -> bool {
        match self {
            Self::Held { times, .. } => !times.times(start).is_usable(now, unix_now),
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
    start: Instant,
    entries: HashMap<Key, Entry>,
    bytes: usize,
    uses: u32,
    swept: Instant,
    flights: HashMap<Key, watch::Receiver<()>>,
    identities: u32,
}

impl Default for Inner {
    fn default() -> Self {
        let start = Instant::now();
        Self {
            start,
            entries: HashMap::new(),
            bytes: 0,
            uses: 0,
            swept: start,
            flights: HashMap::new(),
            identities: 0,
        }
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
        self.lock().keep(|key, _| key.identity != identity);
    }

    /// What there is for this key.
    pub(super) fn find(&self, key: &Key, recoveries: u64, now: Instant, unix_now: u64) -> Found {
        let mut inner = self.lock();
        let (start, used) = (inner.start, inner.next_use());
        if let Some(entry) = inner.entries.get_mut(key) {
            entry.used = used;
            match &entry.what {
                What::Held { packed, times } => {
                    let times = times.times(start);
                    if times.is_usable(now, unix_now) {
                        return Found::Held(Kept { packed: packed.clone(), times });
                    }
                }
                What::Refused(refused) if refused.stands(recoveries, now) => {
                    let rest = refused.until.saturating_duration_since(now);
                    let lasting = refresh::is_lasting(refused.error.kind);
                    let rest = if lasting { rest.min(LOOK) } else { rest };
                    return Found::Refused(retry_in(refused.error.clone(), rest));
                }
                What::Refused(_) => {}
            }
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
        let of_identity = inner.flights.keys().filter(|of| of.identity == key.identity);
        if of_identity.count() >= MAX_FLIGHTS {
            return None;
        }
        let (sender, receiver) = watch::channel(());
        inner.flights.insert(key, receiver.clone());
        let started = Started { cache: Arc::clone(self), key, _ends: sender };
        Some((Flight(receiver), Some(started)))
    }

    /// Keeps a token, and says how many entries had to go for it before their end.
    pub(super) fn hold(&self, key: Key, kept: Kept, now: Instant, unix_now: u64) -> usize {
        let mut inner = self.lock();
        let times = Compact::new(&kept.times, inner.start);
        inner.insert(key, What::Held { packed: kept.packed, times }, now, unix_now)
    }

    /// Keeps a refusal, and says how many entries had to go for it before their end.
    ///
    /// A token that is held goes on until its end, unless Entra has judged that this user gets none.
    pub(super) fn refuse(&self, key: Key, refused: Refused, now: Instant, unix_now: u64) -> usize {
        let mut inner = self.lock();
        let judged = refresh::is_verdict(refused.error.kind);
        let start = inner.start;
        if let Some(Entry { what: What::Held { times, .. }, .. }) = inner.entries.get_mut(&key)
            && !judged
            && times.times(start).is_usable(now, unix_now)
        {
            let refresh_on = refused.until_unix;
            *times = Compact::new(&Times { refresh_on, ..times.times(start) }, start);
            return 0;
        }
        inner.insert(key, What::Refused(Box::new(refused)), now, unix_now)
    }

    /// How often in a row an exchange for this key was refused.
    pub(super) fn failures(&self, key: &Key) -> u32 {
        self.lock().failures(key)
    }

    /// How many of an identity's are not over.
    pub(super) fn counts(&self, identity: u32, now: Instant, unix_now: u64) -> Counts {
        let mut counts = Counts { held: 0, refused: 0 };
        let inner = self.lock();
        for (key, Entry { what, .. }) in &inner.entries {
            if key.identity != identity || what.is_over(inner.start, now, unix_now) {
                continue;
            }
            let count = match what {
                What::Held { .. } => &mut counts.held,
                What::Refused(_) => &mut counts.refused,
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
        match self.entries.get(key).map(|entry| &entry.what) {
            Some(What::Refused(refused)) => refused.failures,
            _ => 0,
        }
    }

    /// A number larger than any before; after four thousand million uses the order begins anew.
    fn next_use(&mut self) -> u32 {
        if self.uses == u32::MAX {
            self.uses = 0;
            self.entries.values_mut().for_each(|entry| entry.used = 0);
        }
        self.uses = self.uses.saturating_add(1);
        self.uses
    }

    /// Forgets what is not to be kept.
    fn keep(&mut self, kept: impl Fn(&Key, &What) -> bool) {
        let bytes = &mut self.bytes;
        self.entries.retain(|key, Entry { what, .. }| {
            let kept = kept(key, what);
            if !kept {
                *bytes = bytes.saturating_sub(what.bytes());
            }
            kept
        });
    }

    fn is_full(&self) -> bool {
        self.entries.len() > MAX_ENTRIES || self.bytes > MAX_BYTES
    }

    fn insert(&mut self, key: Key, what: What, now: Instant, unix_now: u64) -> usize {
        self.bytes = self.bytes.saturating_add(what.bytes());
        let used = self.next_use();
        if let Some(before) = self.entries.insert(key, Entry { used, what }) {
            self.bytes = self.bytes.saturating_sub(before.what.bytes());
        }
        if self.is_full() || now.saturating_duration_since(self.swept) >= SWEEP {
            let start = self.start;
            self.keep(|of, what| *of == key || !what.is_over(start, now, unix_now));
            self.swept = now;
        }
        let mut evicted: usize = 0;
        while self.is_full() {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used);
            let Some(oldest) = oldest.map(|(key, _)| *key) else { break };
            self.remove(&oldest);
            evicted = evicted.saturating_add(1);
        }
        evicted
    }

    fn remove(&mut self, key: &Key) {
        if let Some(gone) = self.entries.remove(key) {
            self.bytes = self.bytes.saturating_sub(gone.what.bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_and_its_key_take_80_bytes_beside_the_token() {
        assert_eq!(size_of::<(Key, Entry)>(), 80);
    }
}
