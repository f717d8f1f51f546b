//! The checks of a request in the order in which they are made, each with the reasons that end it
//! there.
//!
//! For who explains a decision: its reason says which check decided, and so which ones were passed
//! before and which were never made. Nothing is decided here, so nothing here can disagree with
//! what was; that the order is the real one is tested in `inbound`.

use crate::decision::Reason;

/// One check.
#[derive(Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// What it decides when it is not passed.
    pub reasons: &'static [Reason],
}

/// What became of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The request went on to the next.
    Passed,
    /// It decided.
    Decided,
    /// An earlier one had decided.
    NotReached,
}

const fn check(name: &'static str, reasons: &'static [Reason]) -> Check {
    Check { name, reasons }
}

const AUTHORIZATION: Check =
    check("authorization", &[Reason::TokenMissing, Reason::AuthorizationMalformed]);
const TOKEN: Check = check(
    "token",
    &[
        Reason::TokenTooLarge,
        Reason::TokenMalformed,
        Reason::AlgorithmRefused,
        Reason::HeaderRefused,
        Reason::KeyIdMissing,
    ],
);
const CLAIMS: Check = check("claims", &[Reason::ClaimsMalformed]);
const TENANT: Check = check("tenant", &[Reason::TenantRefused]);
const ISSUER: Check = check("issuer", &[Reason::IssuerMismatch]);
const KEY: Check = check(
    "key",
    &[
        Reason::KeyIssuerMismatch,
        Reason::KeyUnknown,
        Reason::KeysUnavailable,
        Reason::TooManyWaiting,
    ],
);
const SIGNATURE: Check = check("signature", &[Reason::SignatureInvalid]);
const AUDIENCE: Check = check("audience", &[Reason::AudienceMismatch]);
const END: Check = check("end", &[Reason::TokenExpired]);
const START: Check = check("start", &[Reason::TokenNotYetValid]);
const LIFETIME: Check = check("lifetime", &[Reason::LifetimeExcessive]);
const KIND: Check = check("kind", &[Reason::TokenKindUnknown]);

/// The checks of an inbound request.
pub const INBOUND: &[Check] = &[
    check("path", &[Reason::PathAmbiguous]),
    check("host", &[Reason::HostMalformed]),
    check("rule", &[Reason::NoRule, Reason::AllowedAnyone]),
    check("query", &[Reason::TokenInQuery]),
    AUTHORIZATION,
    TOKEN,
    CLAIMS,
    TENANT,
    ISSUER,
    KEY,
    SIGNATURE,
    AUDIENCE,
    END,
    START,
    LIFETIME,
    KIND,
    check(
        "allow",
        &[
            Reason::UserRequired,
            Reason::ApplicationRequired,
            Reason::ScopeMissing,
            Reason::RoleMissing,
            Reason::ClientRefused,
            Reason::ClientCredentialWeak,
            Reason::GroupMissing,
            Reason::GroupsOverage,
            Reason::CallerWorkloadRefused,
            Reason::AuthenticationContextMissing,
            Reason::StepUpRequired,
        ],
    ),
];

const DESTINATION: Check = check("destination", &[Reason::NoDestination]);
const LISTENER: Check = check("listener", &[Reason::Misplaced]);
const TLS: Check = check("tls", &[Reason::InjectionStopped]);

/// The checks of an outbound attempt.
pub const OUTBOUND: &[Check] = &[
    DESTINATION,
    LISTENER,
    TLS,
    check("authorization", &[Reason::AuthorizationKept, Reason::AuthorizationRefused]),
    check("token", &[Reason::TokenDenied, Reason::TokenUnavailable, Reason::TooManyWaiting]),
];

/// The checks of an outbound attempt on behalf of its caller.
pub const ON_BEHALF_OF: &[Check] = &[
    DESTINATION,
    LISTENER,
    TLS,
    AUTHORIZATION,
    TOKEN,
    CLAIMS,
    TENANT,
    ISSUER,
    KEY,
    SIGNATURE,
    AUDIENCE,
    END,
    START,
    LIFETIME,
    KIND,
    check("user", &[Reason::AssertionRefused]),
    check(
        "exchange",
        &[
            Reason::ClaimsRequired,
            Reason::SignInRequired,
            Reason::TokenDenied,
            Reason::TokenUnavailable,
        ],
    ),
];

/// What became of each check of a request that ended with this reason.
pub fn verdicts(
    checks: &'static [Check],
    reason: Reason,
) -> impl Iterator<Item = (&'static Check, Verdict)> {
    let decided = checks.iter().position(|check| check.reasons.contains(&reason));
    checks.iter().enumerate().map(move |(index, check)| {
        let verdict = match decided {
            Some(decided) if index == decided => Verdict::Decided,
            Some(decided) if index > decided => Verdict::NotReached,
            Some(_) | None => Verdict::Passed,
        };
        (check, verdict)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_belongs_to_one_check_of_its_direction() {
        for reason in Reason::ALL {
            let holders = |checks: &[Check]| {
                checks.iter().filter(|check| check.reasons.contains(reason)).count()
            };
            let expected = match reason {
                // All checks are passed.
                Reason::Allowed | Reason::Injected => (0, 0),
                Reason::TooManyWaiting => (1, 1),
                Reason::AssertionRefused | Reason::ClaimsRequired | Reason::SignInRequired => {
                    (0, 0)
                }
                _ if holders(OUTBOUND) == 1 => (0, 1),
                _ => (1, 0),
            };
            assert_eq!((holders(INBOUND), holders(OUTBOUND)), expected, "{reason:?}");
            // On behalf of a caller: whatever a token is refused for, and what the broker says.
            let only_inbound = |check: &Check| {
                ["path", "host", "rule", "query", "allow"].contains(&check.name)
                    && check.reasons.contains(reason)
            };
            let never = [Reason::Allowed, Reason::Injected]
                .into_iter()
                .chain([Reason::AuthorizationKept, Reason::AuthorizationRefused])
                .any(|other| other == *reason);
            let expected = usize::from(!never && !INBOUND.iter().any(only_inbound));
            assert_eq!(holders(ON_BEHALF_OF), expected, "{reason:?}");
        }
    }

    #[test]
    fn what_comes_after_the_deciding_check_was_not_made() {
        let of = |reason| verdicts(INBOUND, reason).map(|(_, verdict)| verdict).collect::<Vec<_>>();
        assert!(of(Reason::Allowed).iter().all(|verdict| *verdict == Verdict::Passed));
        let verdicts = of(Reason::NoRule);
        assert_eq!(verdicts[..3], [Verdict::Passed, Verdict::Passed, Verdict::Decided]);
        assert!(verdicts[3..].iter().all(|verdict| *verdict == Verdict::NotReached));
    }
}
