//! What one slot knows: the token it holds, the refusal it had last, and its claims challenges.

use std::time::Duration;

use contract::{ErrorKind, Secret, TypedError};
use ring::digest::{SHA256, digest};
use tokio::time::Instant;

use super::challenges::{Challenge, Challenges, Outcome, Ticket};
use crate::{
    failure::{failure, retry_in},
    refresh,
};

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
    /// Nobody has asked for it yet, so that none is acquired.
    pub(super) dormant: bool,
    pub(super) challenges: Challenges,
}

/// A token with its ends, by both clocks.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) access_token: Secret,
    /// Names the token without being one.
    pub(super) hash: String,
    pub(super) times: Times,
    pub(super) correlation_id: String,
}

/// When a token ends, by both clocks, and when there may be a newer one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) life: Duration,
    /// When it was asked for: its life counts from there.
    pub(super) asked: Instant,
    /// Unix seconds of its end.
    pub(super) expires_on: u64,
    /// Unix seconds of the planned renewal or retry: a newer one may be there then.
    pub(super) refresh_on: u64,
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
        held.times.is_usable(now, unix_now).then_some(held)
    }

    /// How long the token can be handed out; zero without one.
    pub(super) fn life(&self, now: Instant, unix_now: u64) -> Duration {
        self.usable(now, unix_now).map_or(Duration::ZERO, |held| held.times.rest(now, unix_now))
    }

    /// The last refusal while it stands, or else that Entra wants quiet, with when to ask again.
    /// That is not later than it is looked whether the credential has changed: to ask the broker
    /// costs no call to Entra.
    pub(super) fn refused_until(&self, now: Instant) -> Option<TypedError> {
        let Some(refused) = self.refused.as_ref().filter(|refused| now < refused.until) else {
            return self.challenges.quiet(now);
        };
        let rest = refused.until.saturating_duration_since(now);
        let lasting = refresh::is_lasting(refused.error.kind);
        Some(retry_in(refused.error.clone(), if lasting { rest.min(refresh::LOOK) } else { rest }))
    }

    /// Whether Entra has said that the principal is disabled, and nothing better since.
    pub(super) fn is_disabled(&self) -> bool {
        self.refused.as_ref().is_some_and(|refused| refused.error.kind == ErrorKind::Disabled)
    }

    /// What to do about a challenge, asked anew after each change until it is [`Step::End`].
    /// `ticket` is what the challenge waits for; it is set here.
    pub(super) fn challenged(
        &mut self,
        challenge: &Challenge,
        ticket: &mut Option<Ticket>,
        now: Instant,
        unix_now: u64,
    ) -> Step {
        if let Some(waited_for) = *ticket {
            match self.challenges.outcome(waited_for, challenge) {
                Outcome::Open => return Step::Wait,
                Outcome::Refused(error) => return Step::End(Answer::Failed(error)),
                Outcome::Answered if self.usable(now, unix_now).is_some() => {
                    return Step::End(Answer::New);
                }
                Outcome::Answered => {
                    let ended = failure(ErrorKind::Transient, "token_ended: ask again");
                    return Step::End(Answer::Failed(ended));
                }
                Outcome::Forgotten => *ticket = None,
            }
        }
        if let Some(replacing) = self.challenges.replacing(&challenge.refused) {
            *ticket = Some(replacing);
            return Step::Wait;
        }
        match self.usable(now, unix_now) {
            // It was replaced meanwhile.
            Some(held) if held.hash != challenge.refused => return Step::End(Answer::Held),
            // The token that comes is another one.
            None if self.acquiring => return Step::Wait,
            _ => {}
        }
        // Other claims change nothing about these: a challenge must not be the way around them.
        let barred = |refused: &TypedError| refresh::bars_challenges(refused.kind);
        if let Some(refused) = self.refused_until(now).filter(barred) {
            return Step::End(Answer::Declined(refused));
        }
        match self.challenges.admit(challenge, now) {
            Ok(admitted) => {
                *ticket = Some(admitted);
                Step::Acquire
            }
            Err(declined) => Step::End(Answer::Declined(declined)),
        }
    }
}

/// What becomes of a challenge.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Wait for a change.
    Wait,
    /// Tell the renewal, then wait.
    Acquire,
    /// Nothing more is to be waited for.
    End(Answer),
}

/// How a challenge ends. With a token it is the one held.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A token that was acquired for it.
    New,
    /// A token that was there already.
    Held,
    /// Nothing was asked of Entra.
    Declined(TypedError),
    /// Entra refused.
    Failed(TypedError),
}

/// How a token is named where it is refused: lower-case hex SHA-256.
pub(super) fn hash(token: &Secret) -> String {
    let digest = digest(&SHA256, token.expose().as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Times {
    /// Whether it can be handed out: it has not ended and is not about to.
    pub(super) fn is_usable(&self, now: Instant, unix_now: u64) -> bool {
        self.rest(now, unix_now) > refresh::margin(self.life)
    }

    /// Unix seconds from which whoever gets a copy now is to ask again: when there may be a newer
    /// one, but soon enough to learn that there is none any more. Always ahead, also while the
    /// renewal is late.
    pub(super) fn ask_again_on(&self, unix_now: u64) -> u64 {
        let soonest = unix_now.saturating_add(refresh::RENEWAL_FLOOR.as_secs());
        let latest = unix_now.saturating_add(refresh::ASK_AGAIN.as_secs());
        self.refresh_on.min(latest).max(soonest).min(self.expires_on)
    }

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

    #[test]
    fn who_holds_a_copy_asks_again_ahead_within_the_hour_and_before_its_end() {
        for (refresh_on, expires_on, expected) in [
            (50_400, 100_800, 4_600),
            (4_601, 100_800, 4_600),
            (4_600, 100_800, 4_600),
            (2_000, 100_800, 2_000),
            // The renewal is late, or the clock was set forward.
            (1_000, 100_800, 1_005),
            (0, 100_800, 1_005),
            // Never past the end.
            (50_400, 1_500, 1_500),
            (0, 1_003, 1_003),
        ] {
            let (life, asked) = (Duration::ZERO, Instant::now());
            let times = Times { life, asked, expires_on, refresh_on };
            assert_eq!(times.ask_again_on(1_000), expected, "{refresh_on} {expires_on}");
        }
    }

    fn check(life: u64, passed: f64, wall: i64, usable: bool) {
        let start: u64 = 1_000_000;
        let asked = Instant::now();
        let state = State {
            held: Some(Held {
                access_token: Secret::new("t"),
                hash: String::new(),
                times: Times {
                    life: Duration::from_secs(life),
                    asked,
                    expires_on: start.saturating_add(life),
                    refresh_on: 0,
                },
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
