//! The task that owns one slot: acquires, waits until there is a reason to ask again, acquires
//! again.
//!
//! Reasons are: renewal or retry is due, somebody needs a token and nothing stands against asking,
//! a claims challenge was admitted, Entra answers again after it did not, the credential of a refused identity is another one, or another
//! slot of the identity was told that the principal is disabled.

use std::{sync::Arc, time::Duration};

use contract::{ErrorKind, TypedError};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{Slot, held};
use crate::{
    entra::{
        claims,
        token_endpoint::{Acquired, Wanted},
    },
    failure::NoToken,
    metrics::{Metrics, kind_label},
    refresh,
    source::{Fingerprint, TokenSource},
    time::{Clock, later},
};

/// What the task works with.
pub(super) struct Keeper {
    pub(super) slot: Arc<Slot>,
    pub(super) source: Arc<dyn TokenSource>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Arc<Metrics>,
    /// Shared by the identity's slots; changes when one of them is told that the principal is
    /// disabled.
    pub(super) doubt: watch::Sender<u64>,
    /// Changes when Entra answers again after it did not.
    pub(super) recoveries: watch::Receiver<u64>,
}

/// What the task remembers.
struct Plan {
    failures: u32,
    /// When to acquire without another reason.
    due: Instant,
    /// Not before, whoever needs a token: one that is short-lived is not asked for with each
    /// request, and Entra may have asked for quiet.
    earliest: Instant,
    /// When to look whether the credential has changed; only while something is refused for good.
    look: Option<Instant>,
    /// The credential with which Entra was asked last.
    credential: Option<Fingerprint>,
    doubts: watch::Receiver<u64>,
    recoveries: watch::Receiver<u64>,
}

/// Why a token is acquired.
enum Reason {
    Renewal,
    /// With these claims.
    Challenge(String),
}

impl Keeper {
    /// Runs until the broker stops.
    pub(super) async fn keep(self) {
        let now = Instant::now();
        let mut plan = Plan {
            failures: 0,
            due: now,
            earliest: now,
            look: None,
            credential: None,
            doubts: self.doubt.subscribe(),
            recoveries: self.recoveries.clone(),
        };
        if self.slot.state.borrow().dormant {
            self.slot.wanted.notified().await;
        }
        loop {
            let reason = self.next(&mut plan).await;
            self.acquire(reason, &mut plan).await;
        }
    }

    /// Waits for a reason to ask Entra.
    async fn next(&self, plan: &mut Plan) -> Reason {
        let mut sooner = false;
        loop {
            let now = Instant::now();
            if let Some(claims) = self.slot.take_challenge() {
                return Reason::Challenge(claims);
            }
            if sooner {
                plan.due = plan.due.min(plan.earliest.max(now));
            }
            if plan.due <= now {
                return Reason::Renewal;
            }
            let wake = plan.look.map_or(plan.due, |look| look.min(plan.due));
            sooner = tokio::select! {
                () = self.slot.wanted.notified() => self.is_missing(),
                Ok(()) = plan.recoveries.changed() => {
                    if self.failed_in_passing() {
                        plan.due = Instant::now();
                    }
                    false
                }
                _ = plan.doubts.changed() => !self.slot.state.borrow().is_disabled(),
                () = sleep_until(wake) => self.credential_changed(plan).await,
            };
        }
    }

    /// Whether there is no token and nothing stands against asking for one.
    fn is_missing(&self) -> bool {
        let now = Instant::now();
        let state = self.slot.state.borrow();
        state.usable(now, self.clock.unix_now()).is_none() && state.refused_until(now).is_none()
    }

    /// Whether the last renewal failed for a reason that may be gone.
    fn failed_in_passing(&self) -> bool {
        let state = self.slot.state.borrow();
        state.refused.as_ref().is_some_and(|refused| refused.error.kind == ErrorKind::Transient)
    }

    /// Whether a renewal that was refused for good is worth another try. A challenge that was
    /// refused is, too, when it comes again.
    async fn credential_changed(&self, plan: &mut Plan) -> bool {
        let now = Instant::now();
        if plan.look.is_none_or(|look| now < look) {
            return false;
        }
        let found = self.source.credential().await;
        let changed = found != plan.credential;
        plan.credential = found;
        let mut refused = false;
        self.slot.state.send_if_modified(|state| {
            refused =
                state.refused.as_ref().is_some_and(|last| refresh::is_lasting(last.error.kind));
            if changed {
                state.challenges.forget_verdicts();
            }
            plan.look =
                (refused || state.challenges.has_verdict(now)).then(|| later(now, refresh::LOOK));
            false
        });
        changed && refused
    }

    async fn acquire(&self, reason: Reason, plan: &mut Plan) {
        self.slot.state.send_modify(|state| {
            state.acquiring = true;
            state.dormant = false;
        });
        plan.credential = self.source.credential().await;
        let (asked, asked_unix) = (Instant::now(), self.clock.unix_now());
        let challenge = match &reason {
            Reason::Renewal => None,
            Reason::Challenge(claims) => Some(claims.as_str()),
        };
        let claims = claims::parameter(self.slot.capability, challenge);
        let wanted = Wanted { scope: &self.slot.scope, assertion: None, claims: claims.as_deref() };
        let outcome = self.source.acquire(wanted).await;
        let kind = outcome.as_ref().err().map(|refused| refused.error.kind);
        self.metrics.token_acquired(&self.slot.identity, kind);
        plan.earliest = later(asked, refresh::RENEWAL_FLOOR);
        match (outcome, reason) {
            (Ok(acquired), reason) => self.hold(acquired, asked, asked_unix, &reason, plan),
            (Err(refused), Reason::Renewal) => self.refuse(refused, plan),
            (Err(refused), Reason::Challenge(_)) => self.refuse_challenge(refused, plan),
        }
    }

    /// Takes the new token in and plans its renewal.
    fn hold(
        &self,
        acquired: Acquired,
        asked: Instant,
        asked_unix: u64,
        reason: &Reason,
        plan: &mut Plan,
    ) {
        let Acquired { access_token, life, refresh_in, correlation_id } = acquired;
        let pause = refresh::renew_after(life, refresh_in, fastrand::f64());
        let challenged = matches!(reason, Reason::Challenge(_));
        tracing::info!(
            identity = self.slot.identity,
            scope = self.slot.scope,
            correlation_id,
            challenged,
            life_seconds = life.as_secs(),
            renewal_in_seconds = pause.as_secs(),
            "token acquired"
        );
        plan.failures = 0;
        // The life counts from the request, and so does the renewal.
        plan.due = later(asked, pause);
        self.slot.state.send_modify(|state| {
            state.held = Some(held::Held {
                hash: held::hash(&access_token),
                access_token,
                times: held::Times {
                    life,
                    asked,
                    expires_on: asked_unix.saturating_add(life.as_secs()),
                    refresh_on: asked_unix.saturating_add(pause.as_secs()),
                },
                correlation_id,
            });
            state.refused = None;
            state.acquiring = false;
            state.ever_held = true;
            if challenged {
                state.challenges.close(None, asked);
            }
        });
    }

    /// Notes the refusal of a renewal and plans the next try.
    fn refuse(&self, refused: NoToken, plan: &mut Plan) {
        plan.failures = plan.failures.saturating_add(1);
        let pause = pause(&refused, plan.failures);
        let refused = *refused.error;
        self.log(&refused, plan.failures, pause.as_secs(), "token not acquired");
        let until = later(Instant::now(), pause);
        plan.due = until;
        if refused.kind == ErrorKind::Throttled {
            plan.earliest = plan.earliest.max(until);
        }
        self.stand(refused, until, plan);
    }

    /// Notes that Entra gave no token for a challenge. The held one stays for whom it still serves,
    /// unless the principal is disabled: that is so for all.
    fn refuse_challenge(&self, refused: NoToken, plan: &mut Plan) {
        let pause = pause(&refused, 1);
        let refused = *refused.error;
        self.log(&refused, 1, pause.as_secs(), "no token for a claims challenge");
        let (kind, until) = (refused.kind, later(Instant::now(), pause));
        let rest = until.saturating_duration_since(Instant::now()).as_secs();
        let quiet_on = self.clock.unix_now().saturating_add(rest);
        self.slot.state.send_modify(|state| {
            state.acquiring = false;
            state.challenges.close(Some(&refused), until);
            if let Some(held) = state.held.as_mut().filter(|_| kind == ErrorKind::Throttled) {
                // The renewal waits, too: nobody need ask for it before.
                held.times.refresh_on = held.times.refresh_on.max(quiet_on);
            }
        });
        match kind {
            ErrorKind::Disabled => {
                plan.due = until;
                self.stand(refused, until, plan);
            }
            // Entra has asked for quiet, whatever for.
            ErrorKind::Throttled => {
                plan.due = plan.due.max(until);
                plan.earliest = plan.earliest.max(until);
            }
            kind if refresh::is_lasting(kind) => self.plan_look(plan),
            _ => {}
        }
    }

    /// Lets a refusal stand until then.
    fn stand(&self, refused: TypedError, until: Instant, plan: &mut Plan) {
        let disabled = refused.kind == ErrorKind::Disabled;
        let rest = until.saturating_duration_since(Instant::now()).as_secs();
        let unix_now = self.clock.unix_now();
        if refresh::is_lasting(refused.kind) {
            self.plan_look(plan);
        }
        let (mut known, mut dropped) = (false, false);
        self.slot.state.send_modify(|state| {
            known = state.is_disabled();
            if disabled {
                dropped = state.held.take().is_some();
            }
            if refresh::bars_challenges(refused.kind) {
                // One that was admitted during this call, and has not been asked for.
                state.challenges.close(Some(&refused), until);
            }
            if let Some(held) = &mut state.held {
                // Nobody need ask for a newer one before the next attempt.
                let times = &mut held.times;
                times.refresh_on = unix_now.saturating_add(rest).min(times.expires_on);
            }
            state.refused = Some(held::Refused { error: refused, until });
            state.acquiring = false;
        });
        if dropped {
            tracing::error!(
                identity = self.slot.identity,
                scope = self.slot.scope,
                "principal disabled: its token is no longer handed out"
            );
        }
        // Once for each slot that learns of it, or two would ask each other for ever.
        if disabled && !known {
            self.doubt.send_modify(|times| *times = times.wrapping_add(1));
        }
    }

    fn plan_look(&self, plan: &mut Plan) {
        plan.look = Some(later(Instant::now(), refresh::LOOK));
    }

    fn log(&self, refused: &TypedError, failures: u32, retry_in_seconds: u64, what: &str) {
        tracing::warn!(
            identity = self.slot.identity,
            scope = self.slot.scope,
            error = refused.error,
            kind = kind_label(refused.kind),
            correlation_id = refused.correlation_id,
            trace_id = refused.trace_id,
            failures,
            retry_in_seconds,
            "{what}"
        );
    }
}

/// How long to wait after `failures` of these in a row.
pub(super) fn pause(refused: &NoToken, failures: u32) -> Duration {
    let NoToken { error, pace, .. } = refused;
    refresh::retry_after(error.kind, *pace, failures, error.retry_after, fastrand::f64())
}
