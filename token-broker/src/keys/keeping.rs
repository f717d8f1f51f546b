//! Reads the file with the keys at the start, and writes it whenever there are newer ones.

use std::{path::Path, sync::Weak, time::Duration};

use tokio::{
    task::spawn_blocking,
    time::{sleep, timeout},
};

use super::snapshot::{self, Restored};
use crate::{
    config::{Authority, KeySnapshot},
    failure::sanitised,
    metrics::Metrics,
    server::State,
};

/// Least time between two writes: the authorities' keys come one after the other.
const PAUSE: Duration = Duration::from_secs(2);
/// Before a write that failed is tried again, and the longest that this grows to.
const FIRST_RETRY: Duration = Duration::from_secs(60);
const LONGEST_RETRY: Duration = Duration::from_secs(600);

/// The keys that the file holds for these authorities; what is wrong with it is told and counted.
pub(super) fn load(
    settings: &KeySnapshot,
    authorities: &[Authority],
    unix_now: u64,
    metrics: &Metrics,
) -> Vec<Restored> {
    let file = settings.file.display();
    match snapshot::read(settings, authorities, unix_now) {
        Ok(None) => {
            metrics.key_snapshot("absent");
            Vec::new()
        }
        Ok(Some((taken, left))) => {
            for (issuer, refused) in left {
                metrics.key_snapshot(refused.label());
                let authority = sanitised(&issuer);
                tracing::warn!(%file, authority, reason = %refused, "kept keys not taken");
            }
            for Restored { issuer, age, keys, .. } in &taken {
                metrics.key_snapshot("read");
                let keys = keys.len();
                tracing::info!(%file, authority = issuer, age, keys, "kept keys taken");
            }
            taken
        }
        Err(refused) => {
            metrics.key_snapshot(refused.label());
            tracing::warn!(%file, reason = %refused, "kept keys not taken");
            Vec::new()
        }
    }
}

/// Writes the file after each change, until the broker stops. That it cannot be written is no reason
/// to stop, but one to try again before the next change, which is about an hour away: until then the
/// next start would be without these keys.
pub(crate) async fn keep(settings: KeySnapshot, state: Weak<State>) {
    let mut written = Vec::new();
    // How long to wait for another change, since the last write failed.
    let mut retry: Option<Duration> = None;
    let Some(changed) = state.upgrade().map(|state| state.serving().keys.changed()) else { return };
    loop {
        match retry {
            None => changed.notified().await,
            Some(pause) => {
                let _retried_or_changed = timeout(pause, changed.notified()).await;
            }
        }
        let Some(state) = state.upgrade() else { return };
        let Ok(text) = snapshot::document(state.serving().keys.sets()) else { continue };
        if text != written {
            let outcome = put(&settings.file, text.clone()).await;
            state.metrics.key_snapshot(if outcome.is_ok() { "written" } else { "not_written" });
            retry = match (outcome, retry) {
                (Ok(()), _) => {
                    written = text;
                    None
                }
                // Said once, and not each time while the disk is full.
                (Err(kind), None) => {
                    let file = settings.file.display();
                    tracing::error!(%file, reason = %kind, "keys not written to the file");
                    Some(FIRST_RETRY)
                }
                (Err(_again), Some(pause)) => Some(pause.saturating_mul(2).min(LONGEST_RETRY)),
            };
        }
        drop(state);
        sleep(PAUSE).await;
    }
}

async fn put(file: &Path, text: Vec<u8>) -> Result<(), std::io::ErrorKind> {
    let file = file.to_owned();
    match spawn_blocking(move || snapshot::write(&file, &text)).await {
        Ok(written) => written.map_err(|error| error.kind()),
        Err(_stopping) => Err(std::io::ErrorKind::Other),
    }
}
