//! The signing keys of the configured authorities: fetched, kept, and shown to the filter.
//!
//! Each authority has one task that fetches (`keys::upkeep`): hourly, soon again after a failure,
//! and at once when the filter met an unknown key, within the limit that Microsoft asks for. An
//! answer that is not sound changes nothing: the last known good keys stay, for 24 h. The keys go
//! to the filter, which judges each against each token.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use contract::{
    ErrorKind, Jwk, KeySet, KeySetState, KeySets, KeysRefresh, TypedError,
    route::{KEY_LIFETIME_SECONDS, REFRESH_INTERVAL_SECONDS},
};
use policy::key_store::KeyStore;
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, timeout},
};

pub(crate) mod keeping;
mod snapshot;
pub(crate) mod upkeep;

use snapshot::Restored;

use crate::{
    config::{Authority, KeySnapshot},
    failure::{failure, retry_in, sanitised},
    https::Transport,
    metrics::Metrics,
    time::Clock,
};

/// How long a request for a refresh waits: less than the 10 s that the filter gives the broker, so
/// that it learns why. The fetch goes on.
const WAIT: Duration = Duration::from_secs(8);

/// The keys of all authorities of one configuration.
pub struct Keys {
    authorities: Vec<Arc<Holding>>,
    transport: Arc<dyn Transport>,
    recoveries: watch::Receiver<u64>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    /// Told of each good fetch.
    changed: Arc<Notify>,
    /// What tokens are judged by, and what it was made of.
    trusted: Mutex<Option<(Vec<Stamp>, Arc<KeyStore>)>>,
}

/// Which of an authority's keys: how many good fetches there were, and whether they are young enough.
type Stamp = (u64, bool);

/// One authority's keys.
struct Holding {
    slot: Arc<Slot>,
    /// Ends with the owner.
    _upkeep: JoinSet<()>,
}

/// The place of one authority's keys.
struct Slot {
    authority: Authority,
    issuer: String,
    kept: Mutex<Kept>,
    /// Counts the fetches that have ended.
    ended: watch::Sender<u64>,
    wanted: Notify,
    changed: Arc<Notify>,
}

/// When keys came, by both clocks.
#[derive(Clone, Copy)]
struct Fetched {
    at: Instant,
    at_unix: u64,
    /// Their age by then, in seconds: out of a file they are not new.
    age: u64,
}

#[derive(Default)]
struct Kept {
    keys: Vec<Jwk>,
    /// Counts the good fetches.
    generation: u64,
    fetched: Option<Fetched>,
    failed: bool,
    fetching: bool,
    /// The last fetch that was started on request.
    requested: Option<Instant>,
}

impl Slot {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing panics while it holds the lock; the data is whole either way.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Seconds since the last good fetch, by the clock that says more; none when there was none,
    /// or it is too long ago.
    fn age(&self, now: Instant, unix_now: u64) -> Option<u64> {
        let Fetched { at, at_unix, age } = self.fetched?;
        let by_timer = age.saturating_add(now.saturating_duration_since(at).as_secs());
        let age = by_timer.max(unix_now.saturating_sub(at_unix));
        (age <= KEY_LIFETIME_SECONDS).then_some(age)
    }
}

impl Keys {
    /// Starts to fetch at once; until the first good fetch there is what `snapshot` holds.
    /// `recoveries` changes when Entra answers again after it did not.
    pub fn start(
        authorities: Vec<Authority>,
        snapshot: Option<&KeySnapshot>,
        transport: Arc<dyn Transport>,
        recoveries: watch::Receiver<u64>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let kept = snapshot.map_or_else(Vec::new, |snapshot| {
            keeping::load(snapshot, &authorities, clock.unix_now(), &metrics)
        });
        let none = Self {
            authorities: Vec::new(),
            transport,
            recoveries,
            clock,
            metrics,
            changed: Arc::default(),
            trusted: Mutex::default(),
        };
        none.with(authorities, kept)
    }

    /// The keys of the next configuration: an authority that is here already goes on with its keys,
    /// and with the limit on its refreshes.
    #[must_use]
    pub fn followed_by(&self, authorities: Vec<Authority>) -> Self {
        self.with(authorities, Vec::new())
    }

    fn with(&self, authorities: Vec<Authority>, mut restored: Vec<Restored>) -> Self {
        let known = |authority: &Authority| {
            self.authorities.iter().find(|holding| holding.slot.authority == *authority)
        };
        let authorities = authorities
            .into_iter()
            .map(|authority| match known(&authority) {
                Some(holding) => Arc::clone(holding),
                None => {
                    let issuer = authority.issuer();
                    let found = restored.iter().position(|set| set.issuer == issuer);
                    let restored = found.map(|index| restored.swap_remove(index));
                    Arc::new(self.hold(authority, restored))
                }
            })
            .collect();
        Self {
            authorities,
            transport: Arc::clone(&self.transport),
            recoveries: self.recoveries.clone(),
            clock: Arc::clone(&self.clock),
            metrics: Arc::clone(&self.metrics),
            changed: Arc::clone(&self.changed),
            trusted: Mutex::default(),
        }
    }

    /// Has a permit after each good fetch.
    pub(crate) fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }

    fn hold(&self, authority: Authority, restored: Option<Restored>) -> Holding {
        let mut kept = Kept { fetching: true, ..Kept::default() };
        if let Some(Restored { fetched_at, age, keys, .. }) = restored {
            kept.keys = keys;
            kept.fetched = Some(Fetched { at: Instant::now(), at_unix: fetched_at, age });
            // They are not of this broker's last fetch: stale until there is one.
            kept.failed = true;
        }
        let slot = Arc::new(Slot {
            issuer: authority.issuer(),
            authority,
            kept: Mutex::new(kept),
            ended: watch::Sender::new(0),
            wanted: Notify::new(),
            changed: Arc::clone(&self.changed),
        });
        let mut upkeep = JoinSet::new();
        upkeep.spawn(upkeep::keep(
            Arc::clone(&slot),
            Arc::clone(&self.transport),
            self.recoveries.clone(),
            Arc::clone(&self.clock),
            Arc::clone(&self.metrics),
        ));
        Holding { slot, _upkeep: upkeep }
    }

    fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.authorities.iter().map(|holding| holding.slot.as_ref())
    }

    /// Everything that is known now.
    pub fn sets(&self) -> KeySets {
        let (now, unix_now) = (Instant::now(), self.clock.unix_now());
        let key_sets = self
            .slots()
            .map(|slot| {
                let kept = slot.kept();
                let alive = kept.age(now, unix_now).is_some();
                KeySet {
                    issuer: slot.issuer.clone(),
                    fetched_at: kept.fetched.map_or(0, |fetched| fetched.at_unix),
                    state: match (alive, kept.failed) {
                        (false, _) => KeySetState::None,
                        (true, true) => KeySetState::Stale,
                        (true, false) => KeySetState::Fresh,
                    },
                    keys: if alive { kept.keys.clone() } else { Vec::new() },
                }
            })
            .collect();
        KeySets { key_sets }
    }

    /// Everything that is known now, as tokens are judged by it: made once for each change, since
    /// whoever shows a token, good or not, makes the broker look.
    pub fn trusted(&self) -> Arc<KeyStore> {
        let (now, unix_now) = (Instant::now(), self.clock.unix_now());
        // Before the keys are read: at worst newer ones are made again.
        let stamp = |slot: &Slot| {
            let kept = slot.kept();
            (kept.generation, kept.age(now, unix_now).is_some())
        };
        let stamps: Vec<Stamp> = self.slots().map(stamp).collect();
        let mut trusted = self.trusted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, keys)) = trusted.as_ref()
            && *of == stamps
        {
            return Arc::clone(keys);
        }
        let mut keys = KeyStore::default();
        keys.replace(&self.sets());
        let keys = Arc::new(keys);
        *trusted = Some((stamps, Arc::clone(&keys)));
        keys
    }

    /// Fetches the keys of an authority anew, once for all who ask at the same time, and at most
    /// once per [`REFRESH_INTERVAL_SECONDS`].
    pub async fn refresh(&self, request: &KeysRefresh) -> Result<KeySets, TypedError> {
        let Some(slot) = self.slots().find(|slot| slot.issuer == request.issuer) else {
            self.metrics.keys_refresh_requested("unknown_authority");
            return Err(failure(
                ErrorKind::Config,
                "unknown_authority: the broker's configuration does not list this authority",
            ));
        };
        let mut ended = slot.ended.subscribe();
        match slot.want(Instant::now()) {
            Wanted::Started => {
                self.metrics.keys_refresh_requested("fetched");
                tracing::info!(
                    authority = slot.issuer,
                    kid = sanitised(&request.kid),
                    "unknown key: keys fetched anew"
                );
            }
            Wanted::UnderWay => self.metrics.keys_refresh_requested("joined"),
            Wanted::Failing => {
                self.metrics.keys_refresh_requested("failing");
                return Err(not_fetched());
            }
            Wanted::Later(rest) => {
                self.metrics.keys_refresh_requested("throttled");
                let refused = failure(
                    ErrorKind::Throttled,
                    "refreshed_lately: this authority's keys were fetched a short time ago",
                );
                return Err(retry_in(refused, rest));
            }
        }
        // The old keys are no answer: who asked would take a key for unknown that may well exist.
        if timeout(WAIT, ended.changed()).await.is_err() {
            return Err(failure(ErrorKind::Transient, "entra_slow: no keys yet; ask again"));
        }
        if slot.kept().failed { Err(not_fetched()) } else { Ok(self.sets()) }
    }

    /// Per authority its issuer, the age of its keys in seconds, and their number.
    pub fn ages(&self) -> Vec<(String, Option<u64>, usize)> {
        let (now, unix_now) = (Instant::now(), self.clock.unix_now());
        self.slots()
            .map(|slot| {
                let kept = slot.kept();
                let age = kept.age(now, unix_now);
                (slot.issuer.clone(), age, age.map_or(0, |_alive| kept.keys.len()))
            })
            .collect()
    }
}

fn not_fetched() -> TypedError {
    failure(
        ErrorKind::Transient,
        "keys_not_fetched: this authority's keys could not be fetched; the broker goes on trying",
    )
}

/// What becomes of a wish for fresh keys.
enum Wanted {
    /// A fetch was started for it.
    Started,
    /// One was under way already.
    UnderWay,
    /// None may be started now, and the last one failed.
    Failing,
    /// None may be started before so long.
    Later(Duration),
}

impl Slot {
    /// Sees to it that a fetch is under way, if one may be.
    fn want(&self, now: Instant) -> Wanted {
        let mut kept = self.kept();
        // One that is under way serves all who ask, and is not theirs to account for.
        if kept.fetching {
            return Wanted::UnderWay;
        }
        if let Some(last) = kept.requested {
            let passed = now.saturating_duration_since(last);
            let rest = Duration::from_secs(REFRESH_INTERVAL_SECONDS).saturating_sub(passed);
            if !rest.is_zero() {
                return if kept.failed { Wanted::Failing } else { Wanted::Later(rest) };
            }
        }
        kept.requested = Some(now);
        kept.fetching = true;
        self.wanted.notify_one();
        Wanted::Started
    }
}
