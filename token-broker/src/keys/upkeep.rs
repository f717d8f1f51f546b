//! The task that owns one authority's keys: fetches, waits, fetches again.

use std::{sync::Arc, time::Duration};

use contract::{ErrorKind, Jwk};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{Fetched, Slot};
use crate::{
    entra::discovery::{self, NoKeys},
    failure::Pace,
    https::{Transport, TransportFailure},
    metrics::Metrics,
    refresh,
    time::Clock,
};

/// Runs until the broker stops.
pub(super) async fn keep(
    slot: Arc<Slot>,
    transport: Arc<dyn Transport>,
    mut recoveries: watch::Receiver<u64>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
) {
    let mut failures: u32 = 0;
    loop {
        slot.kept().fetching = true;
        let outcome = discovery::fetch(transport.as_ref(), &slot.authority).await;
        metrics.keys_fetched(&slot.issuer, outcome.as_ref().err().map_or("fetched", NoKeys::label));
        let pause = match outcome {
            Ok(keys) => {
                failures = 0;
                take(&slot, keys, clock.unix_now())
            }
            Err(refused) => {
                failures = failures.saturating_add(1);
                leave(&slot, &refused, failures)
            }
        };
        slot.ended.send_modify(|ended| *ended = ended.wrapping_add(1));
        tokio::select! {
            () = wait(pause, clock.as_ref()) => {}
            () = slot.wanted.notified() => {}
            () = revived(&slot, &mut recoveries) => {}
        }
    }
}

/// Waits until Entra answers somebody after the last fetch here failed.
async fn revived(slot: &Slot, recoveries: &mut watch::Receiver<u64>) {
    while recoveries.changed().await.is_ok() {
        if slot.kept().failed {
            return;
        }
    }
    // Nobody can say so any more: the broker is stopping.
    std::future::pending().await
}

/// Waits until `pause` is over by either clock: a machine that slept wakes with old keys, and the
/// timer alone does not know.
pub(crate) async fn wait(pause: Duration, clock: &dyn Clock) {
    const SLICE: Duration = Duration::from_secs(60);
    let (start, start_unix) = (Instant::now(), clock.unix_now());
    loop {
        let by_timer = start.elapsed();
        let by_wall = Duration::from_secs(clock.unix_now().saturating_sub(start_unix));
        let rest = pause.saturating_sub(by_timer.max(by_wall));
        if rest.is_zero() {
            return;
        }
        sleep(rest.min(SLICE)).await;
    }
}

fn take(slot: &Slot, keys: Vec<Jwk>, unix_now: u64) -> Duration {
    let pause = refresh::keys_after(fastrand::f64());
    let mut kept = slot.kept();
    // Said when something is new, not every hour.
    if kept.failed || kept.keys != keys {
        tracing::info!(authority = slot.issuer, keys = keys.len(), "keys fetched");
    }
    kept.keys = keys;
    kept.generation = kept.generation.wrapping_add(1);
    kept.fetched = Some(Fetched { at: Instant::now(), at_unix: unix_now, age: 0 });
    kept.failed = false;
    kept.fetching = false;
    slot.changed.notify_one();
    pause
}

fn leave(slot: &Slot, refused: &NoKeys, failures: u32) -> Duration {
    let pause = match refused {
        NoKeys::Transport(TransportFailure::NotTried(rest)) => *rest,
        _ => {
            let kind = ErrorKind::Transient;
            refresh::retry_after(kind, Pace::ByKind, failures, None, fastrand::f64())
        }
    };
    tracing::warn!(
        authority = slot.issuer,
        reason = %refused,
        failures,
        retry_in_seconds = pause.as_secs(),
        "keys not fetched; the last known good ones stay"
    );
    let mut kept = slot.kept();
    kept.failed = true;
    kept.fetching = false;
    pause
}
