//! When to ask the broker for keys: at start, regularly, and when a token names an unknown one.
//!
//! One call is in flight at a time, and everybody who waits is judged anew when it is answered:
//! the schedule then gives an answer that does not wait, because the call is done. So
//! nobody waits twice for the same thing, and no waiting is recorded here.

use contract::{KeysRefresh, route::REFRESH_INTERVAL_SECONDS};

use crate::time::UnixTime;

/// Seconds between two looks at the broker's keys while all is well.
const POLL_SECONDS: u64 = 30;
/// Longest pause after failures, in seconds.
const MAX_BACKOFF_SECONDS: u64 = 5;

/// A call to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyCall {
    /// `GET /v1/keys`
    Poll,
    /// `POST /v1/keys/refresh`
    Refresh(KeysRefresh),
}

/// What came of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyAnswer {
    /// Keys came, or had not changed; `complete` says whether every authority has some.
    Keys {
        /// See [`crate::key_store::KeyStore::complete`].
        complete: bool,
    },
    /// The broker has fetched recently and will not again for so many seconds.
    Limited(u64),
    /// The broker did not answer, or not with keys.
    Failed,
}

/// What a request that lacks a key is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Wait for the next answer.
    Wait,
    /// Newer keys cannot be had: these are all there are.
    Final,
    /// The broker cannot be asked now.
    Unavailable,
}

/// The state of asking for keys.
#[derive(Debug, Default)]
pub struct KeySchedule {
    next_poll: UnixTime,
    failures: u32,
    broker_failed: bool,
    in_flight: Option<KeyCall>,
    wanted: Option<KeysRefresh>,
    limited_until: Vec<(String, UnixTime)>,
}

impl KeySchedule {
    /// A request found no usable keys at all.
    pub fn ask_for_any(&self, now: UnixTime) -> Ask {
        if self.polling(now) { Ask::Wait } else { Ask::Unavailable }
    }

    /// A request names a key that its authority does not have.
    ///
    /// `authority` comes from our own key sets: neither it nor the number of entries here is in a
    /// caller's hand.
    pub fn ask_for_newer(&mut self, authority: &str, key_id: &str, now: UnixTime) -> Ask {
        let limited = self.limited_until.iter().any(|(issuer, until)| {
            issuer == authority && ahead(*until, now, REFRESH_INTERVAL_SECONDS)
        });
        if limited && self.polling(now) {
            // The limit may be another worker's doing, whose keys the poll brings.
            return Ask::Wait;
        }
        if self.broker_failed && !self.poll_due(now) {
            return Ask::Unavailable;
        }
        if limited {
            return Ask::Final;
        }
        let under_way = |refresh: &KeysRefresh| refresh.issuer == authority;
        let in_flight = matches!(&self.in_flight, Some(KeyCall::Refresh(r)) if under_way(r));
        if !in_flight && self.wanted.is_none() {
            let (issuer, kid) = (authority.to_owned(), key_id.to_owned());
            self.wanted = Some(KeysRefresh { issuer, kid });
        }
        Ask::Wait
    }

    /// The call to make now, if any. It is in flight until [`Self::on_answer`].
    pub fn next_call(&mut self, now: UnixTime) -> Option<KeyCall> {
        if self.in_flight.is_some() {
            return None;
        }
        self.in_flight = match self.wanted.take() {
            Some(refresh) => Some(KeyCall::Refresh(refresh)),
            None => self.poll_due(now).then_some(KeyCall::Poll),
        };
        self.in_flight.clone()
    }

    /// The call in flight was answered.
    pub fn on_answer(&mut self, answer: KeyAnswer, now: UnixTime) {
        let call = self.in_flight.take();
        self.broker_failed = answer == KeyAnswer::Failed;
        match answer {
            KeyAnswer::Keys { complete } => {
                self.failures = if complete { 0 } else { self.failures.saturating_add(1) };
                self.next_poll = now.plus(if complete { POLL_SECONDS } else { self.backoff() });
                self.limit(call, REFRESH_INTERVAL_SECONDS, now);
            }
            KeyAnswer::Limited(seconds) => {
                self.limit(call, seconds.clamp(1, REFRESH_INTERVAL_SECONDS), now);
                // What another worker's refresh brought is to be had at once.
                self.next_poll = now;
            }
            KeyAnswer::Failed => {
                self.failures = self.failures.saturating_add(1);
                self.next_poll = now.plus(self.backoff());
            }
        }
    }

    fn polling(&self, now: UnixTime) -> bool {
        self.in_flight == Some(KeyCall::Poll) || self.poll_due(now)
    }

    fn poll_due(&self, now: UnixTime) -> bool {
        !ahead(self.next_poll, now, POLL_SECONDS)
    }

    fn limit(&mut self, call: Option<KeyCall>, seconds: u64, now: UnixTime) {
        if let Some(KeyCall::Refresh(refresh)) = call {
            self.limited_until.retain(|(issuer, _)| *issuer != refresh.issuer);
            self.limited_until.push((refresh.issuer, now.plus(seconds)));
        }
    }

    fn backoff(&self) -> u64 {
        1_u64
            .checked_shl(self.failures.saturating_sub(1))
            .unwrap_or(u64::MAX)
            .min(MAX_BACKOFF_SECONDS)
    }
}

/// Whether a time is still to come. One further ahead than anything is ever put off was set by a
/// clock that has been set back since: it counts as past.
fn ahead(time: UnixTime, now: UnixTime, most: u64) -> bool {
    (1..=most).contains(&time.since(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: UnixTime = UnixTime(1_000_000);
    const COMPLETE: KeyAnswer = KeyAnswer::Keys { complete: true };

    fn refresh(issuer: &str, kid: &str) -> Option<KeyCall> {
        Some(KeyCall::Refresh(KeysRefresh { issuer: issuer.to_owned(), kid: kid.to_owned() }))
    }

    fn settled() -> KeySchedule {
        let mut schedule = KeySchedule::default();
        assert_eq!(schedule.next_call(T), Some(KeyCall::Poll));
        schedule.on_answer(COMPLETE, T);
        schedule
    }

    #[test]
    fn keys_are_asked_for_at_once_and_then_regularly() {
        let mut schedule = KeySchedule::default();
        assert_eq!(schedule.ask_for_any(T), Ask::Wait);
        assert_eq!(schedule.next_call(T), Some(KeyCall::Poll));
        assert_eq!(schedule.next_call(T), None);
        assert_eq!(schedule.ask_for_any(T), Ask::Wait);
        schedule.on_answer(COMPLETE, T);
        assert_eq!(schedule.next_call(T.plus(29)), None);
        assert_eq!(schedule.next_call(T.plus(30)), Some(KeyCall::Poll));
    }

    #[test]
    fn failures_back_off_to_five_seconds_and_nobody_waits_meanwhile() {
        let mut schedule = KeySchedule::default();
        let mut now = T;
        for pause in [1, 2, 4, 5, 5] {
            assert_eq!(schedule.next_call(now), Some(KeyCall::Poll));
            schedule.on_answer(KeyAnswer::Failed, now);
            assert_eq!(schedule.ask_for_any(now.plus(pause - 1)), Ask::Unavailable);
            assert_eq!(schedule.ask_for_newer("a", "k", now.plus(pause - 1)), Ask::Unavailable);
            assert_eq!(schedule.next_call(now.plus(pause - 1)), None);
            now = now.plus(pause);
            assert_eq!(schedule.ask_for_any(now), Ask::Wait);
        }
        assert_eq!(schedule.next_call(now), Some(KeyCall::Poll));
        schedule.on_answer(COMPLETE, now);
        schedule.next_call(now.plus(30));
        schedule.on_answer(KeyAnswer::Failed, now.plus(30));
        assert_eq!(schedule.next_call(now.plus(31)), Some(KeyCall::Poll));
    }

    #[test]
    fn an_authority_without_keys_is_looked_at_again_soon() {
        let mut schedule = KeySchedule::default();
        schedule.next_call(T);
        schedule.on_answer(KeyAnswer::Keys { complete: false }, T);
        assert_eq!(schedule.ask_for_any(T), Ask::Unavailable);
        assert_eq!(schedule.next_call(T.plus(1)), Some(KeyCall::Poll));
        // An incomplete answer is an answer: another authority's unknown key is asked for.
        schedule.on_answer(KeyAnswer::Keys { complete: false }, T.plus(1));
        assert_eq!(schedule.ask_for_newer("a", "k", T.plus(1)), Ask::Wait);
    }

    #[test]
    fn k04_a_flood_of_unknown_keys_is_one_refresh_per_authority_and_five_minutes() {
        let mut schedule = settled();
        for key in 0..10_000 {
            assert_eq!(schedule.ask_for_newer("a", &key.to_string(), T), Ask::Wait);
        }
        assert_eq!(schedule.next_call(T), refresh("a", "0"));
        assert_eq!(schedule.ask_for_newer("a", "x", T), Ask::Wait);
        assert_eq!(schedule.next_call(T), None);
        schedule.on_answer(COMPLETE, T);
        for second in [0, 29, 299] {
            schedule.next_poll = T.plus(second + 1);
            assert_eq!(schedule.ask_for_newer("a", "x", T.plus(second)), Ask::Final);
        }
        assert_eq!(schedule.next_call(T.plus(299)), None);
        assert_eq!(schedule.ask_for_newer("a", "y", T.plus(300)), Ask::Wait);
        assert_eq!(schedule.next_call(T.plus(300)), refresh("a", "y"));
    }

    #[test]
    fn each_authority_has_its_own_limit() {
        let mut schedule = settled();
        assert_eq!(schedule.ask_for_newer("a", "k", T), Ask::Wait);
        assert_eq!(schedule.ask_for_newer("b", "k", T), Ask::Wait);
        assert_eq!(schedule.next_call(T), refresh("a", "k"));
        schedule.on_answer(COMPLETE, T);
        assert_eq!(schedule.ask_for_newer("a", "k", T), Ask::Final);
        assert_eq!(schedule.ask_for_newer("b", "k", T), Ask::Wait);
        assert_eq!(schedule.next_call(T), refresh("b", "k"));
    }

    #[test]
    fn k11_when_the_broker_limits_its_keys_are_fetched_before_the_answer_is_final() {
        let mut schedule = settled();
        schedule.ask_for_newer("a", "k", T);
        schedule.next_call(T);
        schedule.on_answer(KeyAnswer::Limited(120), T);
        assert_eq!(schedule.ask_for_newer("a", "k", T), Ask::Wait);
        assert_eq!(schedule.next_call(T), Some(KeyCall::Poll));
        assert_eq!(schedule.ask_for_newer("a", "k", T), Ask::Wait);
        schedule.on_answer(COMPLETE, T);
        assert_eq!(schedule.ask_for_newer("a", "k", T), Ask::Final);
        schedule.next_poll = T.plus(121);
        assert_eq!(schedule.ask_for_newer("a", "k", T.plus(119)), Ask::Final);
        assert_eq!(schedule.ask_for_newer("a", "k", T.plus(120)), Ask::Wait);
    }

    #[test]
    fn a_limit_is_never_longer_than_ours_nor_none() {
        for (seconds, expected) in [(0, 1), (1, 1), (300, 300), (u64::MAX, 300)] {
            let mut schedule = settled();
            schedule.ask_for_newer("a", "k", T);
            schedule.next_call(T);
            schedule.on_answer(KeyAnswer::Limited(seconds), T);
            schedule.next_poll = T.plus(expected + 1);
            assert_eq!(schedule.ask_for_newer("a", "k", T.plus(expected - 1)), Ask::Final);
            assert_eq!(schedule.ask_for_newer("a", "k", T.plus(expected)), Ask::Wait);
        }
    }

    #[test]
    fn a_refresh_that_fails_is_no_proof_that_the_key_is_unknown() {
        let mut schedule = settled();
        schedule.ask_for_newer("a", "k", T);
        schedule.next_call(T);
        schedule.on_answer(KeyAnswer::Failed, T);
        assert_eq!(schedule.ask_for_newer("a", "k", T), Ask::Unavailable);
        assert_eq!(schedule.ask_for_newer("a", "k", T.plus(1)), Ask::Wait);
    }
}
