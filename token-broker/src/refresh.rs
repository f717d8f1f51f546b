//! When to renew and when to try again: pure arithmetic over durations.
//!
//! `jitter` is a number from 0 to 1, chosen by the caller; it spreads many brokers that started
//! together.

use std::time::Duration;

use contract::ErrorKind;

/// Longest `Retry-After` that is honoured (as MSAL does).
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(3_600);

/// First delay after a failure.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Longest delay while Entra or the way to it fails.
const MAX_TRANSIENT: Duration = Duration::from_secs(60);
/// Longest delay while a person must act first.
const MAX_LASTING: Duration = Duration::from_secs(300);
/// Delay after 429 without `Retry-After` (as MSAL does).
const THROTTLED: Duration = Duration::from_secs(60);
/// Entra is not asked for a token again sooner than this after it gave one, however short its life
/// is said to be.
pub const RENEWAL_FLOOR: Duration = Duration::from_secs(5);
/// How often keys are fetched: hourly, as Microsoft asks
/// (learn.microsoft.com/entra/identity-platform/signing-key-rollover).
const KEYS_INTERVAL: Duration = Duration::from_secs(3_600);
/// A token with less life left than this is not handed out: it could end on its way.
const MARGIN: Duration = Duration::from_secs(30);

/// How long after its arrival a token is renewed: before its end, unless it ends within
/// [`RENEWAL_FLOOR`].
///
/// At Entra's `refresh_in`, up to a tenth of it later; without one, between half and 70 % of life.
pub fn renew_after(life: Duration, refresh_in: Option<Duration>, jitter: f64) -> Duration {
    let jitter = jitter.clamp(0.0, 1.0);
    let latest = life.mul_f64(0.9);
    let pause = match refresh_in {
        Some(told) if !told.is_zero() && told < latest => {
            told.saturating_add(told.mul_f64(0.1 * jitter)).min(latest)
        }
        _ => life.mul_f64(0.5 + 0.2 * jitter),
    };
    pause.max(RENEWAL_FLOOR)
}

/// The rest of life with which a token is no longer handed out.
///
/// Short-lived tokens have a tenth of their life for it, so that they can be used at all.
pub fn margin(life: Duration) -> Duration {
    MARGIN.min(life.mul_f64(0.1))
}

/// How long to wait after `failures` failures in a row, the last one of `kind`.
///
/// What Entra asked for is honoured, with a bound: a wrong header must not stop the broker for
/// ever.
pub fn retry_after(kind: ErrorKind, failures: u32, told: Option<u64>, jitter: f64) -> Duration {
    if let Some(seconds) = told {
        return Duration::from_secs(seconds).clamp(FIRST_RETRY, MAX_RETRY_AFTER);
    }
    let longest = match kind {
        ErrorKind::Throttled => return THROTTLED,
        ErrorKind::Transient => MAX_TRANSIENT,
        ErrorKind::ClaimsChallenge
        | ErrorKind::Credential
        | ErrorKind::Config
        | ErrorKind::Disabled
        | ErrorKind::Denied => MAX_LASTING,
    };
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1).min(16));
    let delay = FIRST_RETRY.saturating_mul(doubled).min(longest);
    // Up to a quarter less, never below the first delay.
    delay.mul_f64(1.0 - 0.25 * jitter.clamp(0.0, 1.0)).max(FIRST_RETRY)
}

/// How long after a good fetch the keys are fetched again: an hour, give or take a tenth.
pub fn keys_after(jitter: f64) -> Duration {
    KEYS_INTERVAL.mul_f64(0.9 + 0.2 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(value: u64) -> Duration {
        Duration::from_secs(value)
    }

    #[test]
    fn tokens_are_renewed_when_entra_says_else_past_half_of_their_life() {
        // life, refresh_in, jitter, expected
        let cases = [
            (3_600, None, 0.0, 1_800),
            (3_600, None, 1.0, 2_520),
            (86_400, Some(43_200), 0.0, 43_200),
            (86_400, Some(43_200), 1.0, 47_520),
            // At or after the latest moment: no advice.
            (3_600, Some(3_240), 0.0, 1_800),
            (3_600, Some(3_239), 0.0, 3_239),
            (3_600, Some(3_239), 1.0, 3_240),
            (3_600, Some(0), 0.0, 1_800),
            (3_600, Some(90_000), 0.0, 1_800),
            (10, None, 0.0, 5),
            // As the demo has it.
            (90, Some(5), 0.0, 5),
            // No more often than the floor allows.
            (3_600, Some(1), 0.0, 5),
            (6, None, 0.0, 5),
            (1, Some(1), 0.0, 5),
        ];
        for (life, refresh_in, jitter, expected) in cases {
            let found = renew_after(seconds(life), refresh_in.map(seconds), jitter);
            assert_eq!(found.as_secs(), expected, "{life} {refresh_in:?} {jitter}");
            assert!(found < seconds(life).max(Duration::from_millis(5_001)));
        }
    }

    #[test]
    fn the_margin_is_half_a_minute_or_a_tenth_of_a_short_life() {
        assert_eq!(margin(seconds(3_600)), seconds(30));
        assert_eq!(margin(seconds(300)), seconds(30));
        assert_eq!(margin(seconds(299)), Duration::from_millis(29_900));
        assert_eq!(margin(seconds(10)), seconds(1));
    }

    #[test]
    fn retries_back_off_by_kind_and_honour_what_entra_said() {
        use ErrorKind::{Config, Credential, Throttled, Transient};
        // kind, failures, Retry-After, jitter, expected milliseconds
        let cases = [
            (Transient, 1, None, 0.0, 1_000),
            (Transient, 1, None, 1.0, 1_000),
            (Transient, 2, None, 0.0, 2_000),
            (Transient, 6, None, 0.0, 32_000),
            (Transient, 7, None, 0.0, 60_000),
            (Transient, 7, None, 1.0, 45_000),
            (Transient, u32::MAX, None, 0.0, 60_000),
            (Config, 9, None, 0.0, 256_000),
            (Credential, 10, None, 0.0, 300_000),
            (Throttled, 1, None, 0.5, 60_000),
            (Throttled, 1, Some(7), 0.5, 7_000),
            (Transient, 5, Some(0), 0.5, 1_000),
            (Throttled, 1, Some(3_600), 0.5, 3_600_000),
            (Throttled, 1, Some(3_601), 0.5, 3_600_000),
            (Throttled, 1, Some(u64::MAX), 0.5, 3_600_000),
        ];
        for (kind, failures, told, jitter, expected) in cases {
            let found = retry_after(kind, failures, told, jitter).as_millis();
            assert_eq!(found, expected, "{kind:?} {failures} {told:?} {jitter}");
        }
    }

    #[test]
    fn keys_are_fetched_about_hourly() {
        assert_eq!(keys_after(0.0), seconds(3_240));
        assert_eq!(keys_after(0.5), seconds(3_600));
        assert_eq!(keys_after(1.0), seconds(3_960));
    }
}
