//! Everything that the fake's listeners and its owner share.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    authorize::SignIns,
    calls::CallLog,
    directory::Directory,
    fault::Script,
    signing::{KeyRing, PublishedKey},
};

/// Shared state; every lock is short and never held across an await.
pub(super) struct State {
    directory: Mutex<Directory>,
    keys: Mutex<KeyRing>,
    clock_offset: AtomicI64,
    lifetime: Mutex<Lifetime>,
    /// Other host names that the proxy connects, with where they go.
    hosts: Mutex<HashMap<String, SocketAddr>>,
    connections: Mutex<Vec<String>>,
    sign_ins: Mutex<SignIns>,
    pub(super) faults: Script,
    pub(super) calls: CallLog,
}

/// How long issued tokens live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// Seconds until a token ends.
    pub expires_in: u64,
    /// Seconds until the client should renew; `None` leaves it to Entra's habit, which is half the
    /// life where that is over two hours and no member otherwise.
    pub refresh_in: Option<u64>,
}

impl Default for Lifetime {
    fn default() -> Self {
        Self { expires_in: 3599, refresh_in: None }
    }
}

impl Lifetime {
    /// Life of a token that its resource can refuse at any moment: 20 to 28 hours
    /// (learn.microsoft.com/entra/identity/conditional-access/concept-continuous-access-evaluation).
    const CAPABLE: Self = Self { expires_in: 28 * 3600 - 1, refresh_in: None };

    /// What was set, or Entra's habit for a token of this kind.
    pub(super) fn of(self, long_lived: bool) -> Self {
        if long_lived && self == Self::default() { Self::CAPABLE } else { self }
    }

    /// `refresh_in` of an answer.
    pub(super) fn refresh_in(self) -> Option<u64> {
        self.refresh_in.or_else(|| (self.expires_in > 7200).then_some(self.expires_in / 2))
    }
}

impl State {
    pub(super) fn new(directory: Directory, key_seed: u64) -> Self {
        Self {
            directory: Mutex::new(directory),
            keys: Mutex::new(KeyRing::new(key_seed)),
            clock_offset: AtomicI64::new(0),
            lifetime: Mutex::default(),
            hosts: Mutex::default(),
            connections: Mutex::default(),
            sign_ins: Mutex::default(),
            faults: Script::default(),
            calls: CallLog::default(),
        }
    }

    pub(super) fn directory(&self) -> MutexGuard<'_, Directory> {
        lock(&self.directory)
    }

    pub(super) fn keys(&self) -> MutexGuard<'_, KeyRing> {
        lock(&self.keys)
    }

    pub(super) fn sign_ins(&self) -> MutexGuard<'_, SignIns> {
        lock(&self.sign_ins)
    }

    pub(super) fn published_keys(&self) -> Vec<PublishedKey> {
        self.keys().published().to_vec()
    }

    pub(super) fn lifetime(&self) -> Lifetime {
        *lock(&self.lifetime)
    }

    pub(super) fn set_lifetime(&self, lifetime: Lifetime) {
        *lock(&self.lifetime) = lifetime;
    }

    /// Unix seconds of the fake's own clock.
    pub(super) fn now(&self) -> u64 {
        let real = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        real.saturating_add_signed(self.clock_offset.load(Ordering::Relaxed))
    }

    pub(super) fn set_clock_offset(&self, seconds: i64) {
        self.clock_offset.store(seconds, Ordering::Relaxed);
    }

    pub(super) fn map_host(&self, host: &str, address: SocketAddr) {
        lock(&self.hosts).insert(host.to_ascii_lowercase(), address);
    }

    pub(super) fn mapped(&self, host: &str) -> Option<SocketAddr> {
        lock(&self.hosts).get(host).copied()
    }

    pub(super) fn connected(&self, target: &str) {
        lock(&self.connections).push(target.to_owned());
    }

    pub(super) fn connections(&self) -> Vec<String> {
        lock(&self.connections).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
