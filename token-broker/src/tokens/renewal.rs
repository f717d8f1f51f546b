//! The task that owns one slot: acquires, waits until renewal or retry is due, acquires again.

use std::{sync::Arc, time::Duration};

use contract::TypedError;
use tokio::time::{Instant, sleep};

use super::{Held, Refused, Slot, State};
use crate::{
    entra::token_endpoint::Acquired,
    metrics::{Metrics, kind_label},
    refresh,
    source::TokenSource,
    time::{Clock, later},
};

/// Runs until the broker stops.
pub(super) async fn keep(
    slot: Arc<Slot>,
    source: Arc<dyn TokenSource>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
) {
    let mut failures: u32 = 0;
    loop {
        slot.state.send_modify(|state| state.acquiring = true);
        let (asked, asked_unix) = (Instant::now(), clock.unix_now());
        let outcome = source.acquire(&slot.scope).await;
        metrics.token_acquired(&slot.identity, outcome.as_ref().err().map(|refused| refused.kind));
        let pause = match outcome {
            Ok(acquired) => {
                failures = 0;
                hold(&slot, acquired, asked, asked_unix)
            }
            Err(refused) => {
                failures = failures.saturating_add(1);
                refuse(&slot, refused, failures, clock.unix_now())
            }
        };
        wait(&slot, pause, later(asked, refresh::RENEWAL_FLOOR), clock.as_ref()).await;
    }
}

/// Takes the new token in; says after how long to renew it.
fn hold(slot: &Slot, acquired: Acquired, asked: Instant, asked_unix: u64) -> Duration {
    let Acquired { access_token, life, refresh_in, correlation_id } = acquired;
    let pause = refresh::renew_after(life, refresh_in, fastrand::f64());
    tracing::info!(
        identity = slot.identity,
        scope = slot.scope,
        correlation_id,
        life_seconds = life.as_secs(),
        renewal_in_seconds = pause.as_secs(),
        "token acquired"
    );
    slot.state.send_modify(|state| {
        *state = State {
            held: Some(Held {
                access_token,
                life,
                asked,
                expires_on: asked_unix.saturating_add(life.as_secs()),
                refresh_on: asked_unix.saturating_add(pause.as_secs()),
                correlation_id,
            }),
            refused: None,
            acquiring: false,
            ever_held: true,
        };
    });
    // The life counts from the request, and so does the renewal.
    pause.saturating_sub(asked.elapsed())
}

/// Notes the refusal and keeps what is held; says after how long to try again.
fn refuse(slot: &Slot, refused: TypedError, failures: u32, unix_now: u64) -> Duration {
    let pause = refresh::retry_after(refused.kind, failures, refused.retry_after, fastrand::f64());
    tracing::warn!(
        identity = slot.identity,
        scope = slot.scope,
        error = refused.error,
        kind = kind_label(refused.kind),
        correlation_id = refused.correlation_id,
        trace_id = refused.trace_id,
        failures,
        retry_in_seconds = pause.as_secs(),
        "token not acquired"
    );
    slot.state.send_modify(|state| {
        if let Some(held) = &mut state.held {
            // Nobody need ask for a newer one before the next attempt.
            held.refresh_on = unix_now.saturating_add(pause.as_secs()).min(held.expires_on);
        }
        state.refused = Some(Refused { error: refused, until: later(Instant::now(), pause) });
        state.acquiring = false;
    });
    pause
}

/// Sleeps until the next acquisition is due, or until someone needs a token and nothing stands
/// against asking. That never is before `earliest`: a token that is short-lived is not asked for
/// with each request.
async fn wait(slot: &Slot, pause: Duration, earliest: Instant, clock: &dyn Clock) {
    let due = sleep(pause);
    tokio::pin!(due);
    loop {
        tokio::select! {
            () = &mut due => return,
            () = slot.wanted.notified() => {
                let now = Instant::now();
                let state = slot.state.borrow();
                let missing = state.usable(now, clock.unix_now()).is_none();
                if missing && state.refused_until(now).is_none() {
                    if earliest <= now {
                        return;
                    }
                    let sooner = earliest.min(due.deadline());
                    due.as_mut().reset(sooner);
                }
            }
        }
    }
}
