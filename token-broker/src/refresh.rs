//! When to renew and when to try again: pure arithmetic over durations.
//!
//! `jitter` is a number from 0 to 1, chosen by the caller; it spreads many brokers that started
//! together.

use std::time::Duration;

use contract::ErrorKind;

use crate::failure::Pace;

/// Longest `Retry-After` that is honoured (as MSAL does).
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(3_600);

/// First delay after a failure.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// First delay while a person must act first: the same request has the same end until then.
const FIRST_LASTING: Duration = Duration::from_secs(30);
/// Longest delay while Entra or the way to it fails.
const MAX_TRANSIENT: Duration = Duration::from_secs(60);
/// Longest delay while a person must act first, here or on a configuration that spreads slowly
/// (a new federated credential takes minutes to work).
const MAX_LASTING: Duration = Duration::from_secs(300);
/// After Entra's verdict on a principal. Repeating the call changes nothing and Entra tells nobody
/// when a person has mended it: so seldom, and only because somebody must look.
pub const PROBE: Duration = Duration::from_secs(600);
/// How often a refused identity's credential is looked at, and after how long whoever was refused
/// may ask the broker again: neither is a call to Entra.
pub const LOOK: Duration = Duration::from_secs(30);
/// Entra is asked at most once within this time for one destination's claims challenges, whatever
/// the destination does.
pub const CHALLENGE_INTERVAL: Duration = Duration::from_secs(30);
/// Longest time for which an asker is told to keep its copy of a token without asking again. A token
/// that can live for 28 hours must not outlive by that the verdict that its principal is disabled.
pub const ASK_AGAIN: Duration = Duration::from_secs(3_600);
/// The same where `identity_access` is in force: a pod that has lost an identity must not go on with
/// its token for long.
pub const ASK_AGAIN_GUARDED: Duration = Duration::from_secs(60);
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
pub fn retry_after(
    kind: ErrorKind,
    pace: Pace,
    failures: u32,
    told: Option<u64>,
    jitter: f64,
) -> Duration {
    let told = told.map(|seconds| Duration::from_secs(seconds).clamp(FIRST_RETRY, MAX_RETRY_AFTER));
    if is_verdict(kind) {
        // Up to a tenth more, so that many brokers do not look together.
        let probe = PROBE.mul_f64(1.0 + 0.1 * jitter.clamp(0.0, 1.0));
        return told.unwrap_or_default().max(probe);
    }
    if let Some(told) = told {
        return told;
    }
    let (first, longest) = match (kind, pace) {
        (ErrorKind::Transient, _) | (_, Pace::Soon) => (FIRST_RETRY, MAX_TRANSIENT),
        (ErrorKind::Throttled, Pace::ByKind) => return THROTTLED,
        (_, Pace::ByKind) => (FIRST_LASTING, MAX_LASTING),
    };
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1).min(16));
    let delay = first.saturating_mul(doubled).min(longest);
    // Up to a quarter less, never below the first delay.
    delay.mul_f64(1.0 - 0.25 * jitter.clamp(0.0, 1.0)).max(first)
}

/// Whether Entra has judged the principal, so that the same call has the same end until something
/// changes: the credential, the claims that are asked for, or its mind.
pub fn is_verdict(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ClaimsChallenge | ErrorKind::Disabled | ErrorKind::Denied)
}

/// Whether a refusal stands until a person has acted or the credential is another one.
pub fn is_lasting(kind: ErrorKind) -> bool {
    is_verdict(kind) || matches!(kind, ErrorKind::Credential | ErrorKind::Config)
}

/// Whether a refusal is for whatever is asked, so that another claims challenge is no reason to ask:
/// Entra wants fewer calls, or the principal gets nothing at all.
pub fn bars_challenges(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Throttled | ErrorKind::Disabled)
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
        use ErrorKind::{ClaimsChallenge, Config, Credential, Disabled, Throttled, Transient};
        // kind, failures, Retry-After, jitter, expected milliseconds
        let cases = [
            (Transient, 1, None, 0.0, 1_000),
            (Transient, 1, None, 1.0, 1_000),
            (Transient, 2, None, 0.0, 2_000),
            (Transient, 6, None, 0.0, 32_000),
            (Transient, 7, None, 0.0, 60_000),
            (Transient, 7, None, 1.0, 45_000),
            (Transient, u32::MAX, None, 0.0, 60_000),
            // Not asked again quickly: a person must act, or a federated credential spread.
            (Config, 1, None, 0.0, 30_000),
            (Config, 2, None, 0.0, 60_000),
            (Credential, 4, None, 0.0, 240_000),
            (Credential, 4, None, 1.0, 180_000),
            (Credential, 10, None, 0.0, 300_000),
            (Config, 1, Some(5), 0.0, 5_000),
            (Throttled, 1, None, 0.5, 60_000),
            (Throttled, 1, Some(7), 0.5, 7_000),
            (Transient, 5, Some(0), 0.5, 1_000),
            (Throttled, 1, Some(3_600), 0.5, 3_600_000),
            (Throttled, 1, Some(3_601), 0.5, 3_600_000),
            (Throttled, 1, Some(u64::MAX), 0.5, 3_600_000),
            // A verdict is not asked for again soon, however often it was given.
            (ClaimsChallenge, 1, None, 0.0, 600_000),
            (ClaimsChallenge, 50, None, 1.0, 660_000),
            (Disabled, 1, None, 0.5, 630_000),
            (Disabled, 1, Some(1), 0.0, 600_000),
            (ClaimsChallenge, 1, Some(3_000), 0.0, 3_000_000),
        ];
        for (kind, failures, told, jitter, expected) in cases {
            let found = retry_after(kind, Pace::ByKind, failures, told, jitter).as_millis();
            assert_eq!(found, expected, "{kind:?} {failures} {told:?} {jitter}");
        }
        // What asks only this machine.
        for (kind, failures, expected) in
            [(Config, 1, 1_000), (Config, 3, 4_000), (Config, 9, 60_000), (Throttled, 2, 2_000)]
        {
            let found = retry_after(kind, Pace::Soon, failures, None, 0.0).as_millis();
            assert_eq!(found, expected, "{kind:?} {failures}");
        }
        assert_eq!(retry_after(Throttled, Pace::Soon, 1, Some(7), 0.0), seconds(7));
    }

    #[test]
    fn keys_are_fetched_about_hourly() {
        assert_eq!(keys_after(0.0), seconds(3_240));
        assert_eq!(keys_after(0.5), seconds(3_600));
        assert_eq!(keys_after(1.0), seconds(3_960));
    }
}
