//! What one slot knows: the token it holds, and the refusal it had last.

use std::time::Duration;

use contract::{Secret, TypedError};
use tokio::time::Instant;

use crate::{failure::retry_in, refresh};

/// The state of one identity's token for one scope.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) held: Option<Held>,
    /// The last acquisition's refusal; none after a success.
    pub(super) refused: Option<Refused>,
    /// A call to Entra is under way.
    pub(super) acquiring: bool,
    /// There was a token at some time since the start.
    pub(super) ever_held: bool,
}

/// A token with its ends, by both clocks.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) access_token: Secret,
    pub(super) life: Duration,
    /// When it was asked for: its life counts from there.
    pub(super) asked: Instant,
    /// Unix seconds of its end.
    pub(super) expires_on: u64,
    /// Unix seconds from which asking again may give a newer one.
    pub(super) refresh_on: u64,
    pub(super) correlation_id: String,
}

/// A refusal and how long it stands.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) error: TypedError,
    pub(super) until: Instant,
}

impl State {
    /// The token, unless it has ended or is about to.
    pub(super) fn usable(&self, now: Instant, unix_now: u64) -> Option<&Held> {
        let held = self.held.as_ref()?;
        (held.rest(now, unix_now) > refresh::margin(held.life)).then_some(held)
    }

    /// How long the token can be handed out; zero without one.
    pub(super) fn life(&self, now: Instant, unix_now: u64) -> Duration {
        self.usable(now, unix_now).map_or(Duration::ZERO, |held| held.rest(now, unix_now))
    }

    /// The last refusal while it stands, with the time that is left of it.
    pub(super) fn refused_until(&self, now: Instant) -> Option<TypedError> {
        let refused = self.refused.as_ref().filter(|refused| now < refused.until)?;
        Some(retry_in(refused.error.clone(), refused.until.saturating_duration_since(now)))
    }
}

impl Held {
    /// The rest of its life, by the clock that says less: one that was set back or stood still
    /// must not lengthen it.
    fn rest(&self, now: Instant, unix_now: u64) -> Duration {
        let spent = now.saturating_duration_since(self.asked);
        let by_timer = self.life.saturating_sub(spent);
        let by_wall = Duration::from_secs(self.expires_on.saturating_sub(unix_now));
        by_timer.min(by_wall)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::later;

    fn check(life: u64, passed: f64, wall: i64, usable: bool) {
        let start: u64 = 1_000_000;
        let asked = Instant::now();
        let state = State {
            held: Some(Held {
                access_token: Secret::new("t"),
                life: Duration::from_secs(life),
                asked,
                expires_on: start.saturating_add(life),
                refresh_on: 0,
                correlation_id: String::new(),
            }),
            ..State::default()
        };
        let now = later(asked, Duration::from_secs_f64(passed));
        let unix_now = start.saturating_add_signed(wall);
        assert_eq!(state.usable(now, unix_now).is_some(), usable, "{life} {passed} {wall}");
    }

    #[tokio::test]
    async fn a_token_is_usable_until_its_margin_by_both_clocks() {
        check(3_600, 0.0, 0, true);
        check(3_600, 3_569.0, 3_569, true);
        check(3_600, 3_570.0, 3_569, false);
        check(3_600, 3_569.0, 3_570, false);
        // A clock set back by a day, one set forward, a machine that slept.
        check(3_600, 3_570.0, -86_400, false);
        check(3_600, 10.0, 86_400, false);
        check(3_600, 10.0, 3_600, false);
        check(10, 8.9, 8, true);
        check(10, 9.0, 8, false);
    }
}
