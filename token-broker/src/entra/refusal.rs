//! Entra's refusals: reads the error answer and says of what kind it is and what to do.
//!
//! `error` and the status decide; AADSTS codes are a hint, because Microsoft may change them
//! (learn.microsoft.com/entra/identity-platform/reference-error-codes). `error_description` is
//! never passed on: it is long, and could hold what was sent.

use contract::{ErrorKind, TypedError};
use hyper::{HeaderMap, StatusCode, http::header::RETRY_AFTER};
use serde::Deserialize;

use crate::{
    failure::{NoToken, Pace, Reach, failure},
    https::Answer,
};

/// Longest claims challenge that is passed on.
const MAX_CLAIMS_BYTES: usize = 4 * 1024;
/// The application is looping.
const LOOP: u64 = 50196;
/// After that Entra wants quiet, and does not say how long.
const LOOP_PAUSE_SECONDS: u64 = 300;

/// An assertion's signature or audience does not hold.
const ASSERTION_REFUSED: u64 = 50013;
/// No federated credential of the application fits the assertion; a new one takes minutes to work.
const FEDERATION_UNMATCHED: [u64; 5] = [70021, 700_211, 700_212, 700_213, 700_229];

#[derive(Default, Deserialize)]
struct ErrorAnswer {
    error: Option<String>,
    #[serde(default)]
    error_codes: Vec<u64>,
    correlation_id: Option<String>,
    trace_id: Option<String>,
    claims: Option<String>,
}

/// Whose tokens a request carries that Entra checks the signature of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assertions {
    /// At most the application's proof.
    OfApplication,
    /// The user's; an application that signs its proof itself is told with other codes.
    OfUser,
    /// The user's, and somebody else's that proves the application.
    OfBoth,
}

/// What a non-200 answer means, to a request with these assertions.
pub fn read(answer: &Answer, assertions: Assertions) -> NoToken {
    let body: ErrorAnswer = serde_json::from_slice(&answer.body).unwrap_or_default();
    // The same code for the application's federated token and for a user's. Where both are there
    // it is taken for the application's: the filter has verified the user's, and a person who signs
    // in again would not mend it. But it is not certain, so it holds for nobody else.
    let unsigned = body.error_codes.contains(&ASSERTION_REFUSED);
    let of_user = unsigned && assertions == Assertions::OfUser;
    let uncertain = unsigned && assertions == Assertions::OfBoth;
    let unmatched = body.error_codes.iter().any(|code| FEDERATION_UNMATCHED.contains(code));
    // Entra tells loops by the user's token: whoever makes one is the only one in it.
    let looping = body.error_codes.contains(&LOOP);
    let codes = body.error_codes.clone();
    let error = refused(answer, body, of_user);
    let of_credential =
        error.kind == ErrorKind::Credential || (error.kind == ErrorKind::Config && unmatched);
    let alone = looping || uncertain;
    let reach = if alone { Reach::Asker } else { reach(&error, of_credential, &codes) };
    NoToken { error: Box::new(error), of_credential, pace: Pace::ByKind, reach }
}

/// What is about the application or the resource is so for every user. Of what is not known it is
/// not taken to be so: one user could keep the others from their tokens with it.
fn reach(refused: &TypedError, of_credential: bool, codes: &[u64]) -> Reach {
    let code = codes.iter().find(|code| kind_of_code(**code).is_some());
    match refused.kind {
        ErrorKind::Throttled => Reach::Identity,
        _ if of_credential => Reach::Identity,
        ErrorKind::Config | ErrorKind::Disabled => match code {
            Some(70001 | 7_000_112 | 700_016 | 90002 | 7_000_218 | 9_001_023) => Reach::Identity,
            Some(50001 | 70011 | 500_011 | 700_022) => Reach::Scope,
            _ => Reach::Asker,
        },
        _ => Reach::Asker,
    }
}

fn refused(answer: &Answer, body: ErrorAnswer, of_user: bool) -> TypedError {
    let error = body.error.as_deref().filter(|error| is_word(error)).unwrap_or_default();
    let kind = match of_user {
        true => ErrorKind::ClaimsChallenge,
        false => kind(answer.status, error, &body.error_codes, body.claims.is_some()),
    };
    let text = match of_user {
        true => format!("{error} AADSTS{ASSERTION_REFUSED}: the user's token is not accepted"),
        false => text(answer.status, error, &body.error_codes, kind),
    };
    let mut refused = failure(kind, text);
    refused.retry_after = retry_after(&answer.headers)
        .or_else(|| body.error_codes.contains(&LOOP).then_some(LOOP_PAUSE_SECONDS));
    if kind == ErrorKind::ClaimsChallenge {
        refused.claims = body.claims.filter(|claims| is_challenge(claims));
    }
    refused.correlation_id =
        body.correlation_id.filter(|id| is_id(id)).or_else(|| correlation_id(&answer.headers));
    refused.trace_id = body.trace_id.filter(|id| is_id(id));
    refused
}

/// The echo of `client-request-id`.
pub fn correlation_id(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("client-request-id")?.to_str().ok()?;
    is_id(value).then(|| value.to_owned())
}

fn kind(status: StatusCode, error: &str, codes: &[u64], claims: bool) -> ErrorKind {
    if status == StatusCode::TOO_MANY_REQUESTS {
        return ErrorKind::Throttled;
    }
    if let Some(kind) = codes.iter().find_map(|code| kind_of_code(*code)) {
        return kind;
    }
    if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT {
        return ErrorKind::Transient;
    }
    match error {
        "temporarily_unavailable" | "server_error" => ErrorKind::Transient,
        "interaction_required" => ErrorKind::ClaimsChallenge,
        "invalid_grant" if claims => ErrorKind::ClaimsChallenge,
        "invalid_client" => ErrorKind::Credential,
        // Another status than Entra's own refusals (a proxy's page, a redirect): not its verdict.
        "" => ErrorKind::Transient,
        _ => ErrorKind::Config,
    }
}

fn kind_of_code(code: u64) -> Option<ErrorKind> {
    Some(match code {
        50033 | 50087 | 90006 | 90012 | 90024 | 90033 | 90090 => ErrorKind::Transient,
        90055 | 50196 => ErrorKind::Throttled,
        // More is wanted of the user or the device, or a policy blocks.
        50072 | 50074 | 50076 | 50078 | 50079 | 50097 | 50131 | 50158 => ErrorKind::ClaimsChallenge,
        53000..=53004 | 530_032 | 65001 | 700_020 => ErrorKind::ClaimsChallenge,
        // A user's session has ended: the user signs in again.
        50132 | 50133 | 50173 | 70008 | 70043 | 500_133 | 700_082 | 700_084 => {
            ErrorKind::ClaimsChallenge
        }
        50057 | 50105 | 70001 | 7_000_112 => ErrorKind::Disabled,
        50013 | 700_024 | 700_027 | 1_000_502 | 7_000_214 | 7_000_215 | 7_000_222 | 7_000_274
        | 7_000_277 => ErrorKind::Credential,
        50001 | 70011 | 70021 | 90002 | 500_011 | 700_016 | 700_022 | 700_211 | 700_212
        | 700_213 | 700_229 | 7_000_218 | 9_001_023 => ErrorKind::Config,
        _ => return None,
    })
}

/// Entra's `error`, its codes, and a hint for the person who must act.
fn text(status: StatusCode, error: &str, codes: &[u64], kind: ErrorKind) -> String {
    if error.is_empty() {
        return format!("entra_status_{}: not an answer of the token endpoint", status.as_u16());
    }
    let codes: Vec<u64> = codes.iter().copied().take(3).collect();
    let shown: String = codes.iter().map(|code| format!(" AADSTS{code}")).collect();
    let hint = codes.iter().find_map(|code| hint(*code)).unwrap_or(match kind {
        ErrorKind::Transient | ErrorKind::Throttled => "asked again later",
        ErrorKind::ClaimsChallenge => "Conditional Access does not allow it",
        ErrorKind::Credential => "check the identity's credential",
        ErrorKind::Disabled => "the application is disabled or not assigned",
        ErrorKind::Config | ErrorKind::Denied => "check tenant, client id and scope",
    });
    format!("{error}{shown}: {hint}")
}

fn hint(code: u64) -> Option<&'static str> {
    Some(match code {
        50072 | 50079 | 53004 => "the user must register for multifactor authentication",
        50074 | 50076 | 50078 | 50158 => "the user must pass multifactor authentication",
        50097 => "the device must authenticate itself",
        50131 => "Conditional Access blocks it: not from here, not from this device, or not now",
        53000 => "Conditional Access wants a compliant device",
        53001 => "Conditional Access wants a joined device",
        53002 => "Conditional Access wants another client application",
        53003 => "a Conditional Access policy blocks it; the sign-in log names the policy",
        530_032 => "the tenant's security policy blocks it",
        65001 => "an administrator must grant the application this permission",
        700_020 => "a user must interact; an application alone cannot",
        50132 | 50133 | 50173 | 70008 | 70043 | 500_133 | 700_082 | 700_084 => {
            "the session has ended; the user must sign in again"
        }
        50057 => "the user is disabled",
        50013 => {
            "the federated token's signature is not its issuer's; are the issuer's keys public?"
        }
        700_027 => "the certificate's signature is refused; is it the registered one?",
        1_000_502 => "the certificate has expired or is not yet valid",
        7_000_214 | 7_000_274 | 7_000_277 => "the certificate is not the application's",
        7_000_218 => "the application must prove itself with a secret or an assertion",
        700_022 | 9_001_023 => "not a request that this tenant's endpoint takes; check the tenant",
        700_229 => "only an application's own token can be a federated credential",
        50033 | 50087 | 90006 | 90012 | 90024 | 90033 | 90090 => "Entra fails for now",
        90055 => "Entra is too busy",
        7_000_215 => "not the application's secret; use its value, not its id",
        7_000_222 => "the secret has expired; create a new one",
        700_024 => {
            "the federated token is outside its time; is its file renewed, is the clock right?"
        }
        70021 | 700_211 | 700_212 | 700_213 => {
            "no federated credential fits the token's issuer, subject and audience"
        }
        700_016 => "no such application in this tenant",
        90002 => "no such tenant",
        500_011 | 50001 => "no such resource in this tenant; check the scope",
        70011 => "not a valid scope",
        7_000_112 => {
            "the application is disabled; enable its service principal (Enterprise \
                      applications, Properties, Enabled for users to sign in)"
        }
        70001 => "the application is disabled or not in this tenant",
        50105 => "the application is not assigned to the resource",
        50196 => "the same request came too often",
        _ => return None,
    })
}

/// `Retry-After` in seconds, from either of its forms (RFC 9110 §10.2.3).
pub(super) fn retry_after(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    value.parse().ok().or_else(|| {
        let until = httpdate::parse_http_date(value).ok()?;
        let date = headers.get(hyper::header::DATE).and_then(|date| date.to_str().ok());
        // From Entra's own clock where it says so: ours may be off.
        let now = date
            .and_then(|date| httpdate::parse_http_date(date).ok())
            .unwrap_or_else(std::time::SystemTime::now);
        Some(until.duration_since(now).unwrap_or_default().as_secs())
    })
}

fn is_word(text: &str) -> bool {
    text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

fn is_challenge(text: &str) -> bool {
    text.len() <= MAX_CLAIMS_BYTES
        && serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use hyper::http::HeaderValue;
    use zeroize::Zeroizing;

    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: Zeroizing::new(body.as_bytes().to_vec()),
        }
    }

    fn app(answer: &Answer) -> TypedError {
        *read(answer, Assertions::OfApplication).error
    }

    #[test]
    fn b08_every_class_of_refusal_has_its_kind() {
        use ErrorKind::{ClaimsChallenge, Config, Credential, Disabled, Throttled, Transient};
        let cases = [
            (429, r#"{"error":"invalid_client","error_codes":[7000215]}"#, Throttled),
            (400, r#"{"error":"invalid_request","error_codes":[90055]}"#, Throttled),
            (400, r#"{"error":"invalid_grant","error_codes":[50196]}"#, Throttled),
            (500, "<html>", Transient),
            (503, r#"{"error":"temporarily_unavailable"}"#, Transient),
            (408, "", Transient),
            (400, r#"{"error":"invalid_request","error_codes":[90033]}"#, Transient),
            (302, "", Transient),
            (403, "<html>proxy</html>", Transient),
            (400, r#"{"error":"interaction_required"}"#, ClaimsChallenge),
            (400, r#"{"error":"invalid_grant","claims":"{}"}"#, ClaimsChallenge),
            (400, r#"{"error":"invalid_grant","error_codes":[53003]}"#, ClaimsChallenge),
            (401, r#"{"error":"invalid_client","error_codes":[7000215]}"#, Credential),
            (401, r#"{"error":"invalid_client","error_codes":[7000222]}"#, Credential),
            (401, r#"{"error":"invalid_client","error_codes":[700024]}"#, Credential),
            (401, r#"{"error":"invalid_client"}"#, Credential),
            (400, r#"{"error":"unauthorized_client","error_codes":[700016]}"#, Config),
            (401, r#"{"error":"invalid_client","error_codes":[700213]}"#, Config),
            (400, r#"{"error":"invalid_request","error_codes":[90002]}"#, Config),
            (400, r#"{"error":"invalid_scope","error_codes":[70011]}"#, Config),
            (400, r#"{"error":"invalid_resource","error_codes":[500011]}"#, Config),
            (400, r#"{"error":"something_new"}"#, Config),
            (401, r#"{"error":"invalid_client","error_codes":[7000112]}"#, Disabled),
            (400, r#"{"error":"unauthorized_client","error_codes":[7000112]}"#, Disabled),
            // Entra's words alone never make a verdict worse than its code says.
            (400, r#"{"error":"interaction_required","error_codes":[7000215]}"#, Credential),
            (400, r#"{"error":"interaction_required","error_codes":[1]}"#, ClaimsChallenge),
            (401, r#"{"error":"invalid_client","claims":"{}"}"#, Credential),
        ];
        for (status, body, expected) in cases {
            assert_eq!(app(&answer(status, body)).kind, expected, "{status} {body}");
        }
    }

    /// Every code that Microsoft's libraries and documents tell apart, with its kind.
    #[test]
    fn b08_every_known_code_has_its_kind_and_says_what_to_do() {
        use ErrorKind::{ClaimsChallenge, Config, Credential, Disabled, Throttled, Transient};
        let classes: [(ErrorKind, &[u64]); 6] = [
            (Transient, &[50033, 50087, 90006, 90012, 90024, 90033, 90090]),
            (Throttled, &[50196, 90055]),
            (
                ClaimsChallenge,
                &[
                    50072, 50074, 50076, 50078, 50079, 50097, 50131, 50158, 53000, 53001, 53002,
                    53003, 53004, 530_032, 65001, 700_020, 50132, 50133, 50173, 70008, 70043,
                    500_133, 700_082, 700_084,
                ],
            ),
            (Disabled, &[50057, 50105, 70001, 7_000_112]),
            (
                Credential,
                &[
                    50013, 700_024, 700_027, 1_000_502, 7_000_214, 7_000_215, 7_000_222, 7_000_274,
                    7_000_277,
                ],
            ),
            (
                Config,
                &[
                    50001, 70011, 70021, 90002, 500_011, 700_016, 700_022, 700_211, 700_212,
                    700_213, 700_229, 7_000_218, 9_001_023,
                ],
            ),
        ];
        for (kind, codes) in classes {
            for code in codes {
                let body = format!(r#"{{"error":"invalid_request","error_codes":[{code}]}}"#);
                let refused = app(&answer(400, &body));
                assert_eq!(refused.kind, kind, "{code}");
                let hint = hint(*code).unwrap_or_else(|| panic!("{code} does not say what to do"));
                assert_eq!(refused.error, format!("invalid_request AADSTS{code}: {hint}"));
            }
        }
    }

    #[test]
    fn only_what_another_credential_could_mend_is_of_the_credential() {
        let cases = [
            (7_000_215, true),
            (7_000_222, true),
            (700_024, true),
            (700_027, true),
            (1_000_502, true),
            (50_013, true),
            (70_021, true),
            (700_213, true),
            // The application itself, the scope, the tenant, a policy, load.
            (700_016, false),
            (70_011, false),
            (90_002, false),
            (500_011, false),
            (53_003, false),
            (7_000_112, false),
            (90_055, false),
            (90_033, false),
        ];
        for (code, expected) in cases {
            let body = format!(r#"{{"error":"invalid_request","error_codes":[{code}]}}"#);
            assert_eq!(
                read(&answer(400, &body), Assertions::OfApplication).of_credential,
                expected,
                "{code}"
            );
        }
        assert!(!read(&answer(503, ""), Assertions::OfApplication).of_credential);
    }

    #[test]
    fn what_one_user_can_cause_is_no_refusal_of_another() {
        let known: Vec<u64> =
            (50_000..100_000).chain(500_000..1_100_000).chain(7_000_000..9_100_000).collect();
        let mut reaches = [(Reach::Asker, vec![]), (Reach::Scope, vec![])];
        for code in known.into_iter().filter(|code| kind_of_code(*code).is_some()) {
            let body = format!(r#"{{"error":"invalid_grant","error_codes":[{code}]}}"#);
            let reach = read(&answer(400, &body), Assertions::OfUser).reach;
            for (of, codes) in &mut reaches {
                if *of == reach {
                    codes.push(code);
                }
            }
        }
        let [(_, asker), (_, scope)] = reaches;
        assert_eq!(scope, [50_001, 70_011, 500_011, 700_022]);
        assert_eq!(
            asker,
            [
                50_013, 50_033, 50_057, 50_072, 50_074, 50_076, 50_078, 50_079, 50_087, 50_097,
                50_105, 50_131, 50_132, 50_133, 50_158, 50_173, 50_196, 53_000, 53_001, 53_002,
                53_003, 53_004, 65_001, 70_008, 70_043, 90_006, 90_012, 90_024, 90_033, 90_090,
                500_133, 530_032, 700_020, 700_082, 700_084
            ]
        );
        // Not known, whatever it is called.
        for error in ["invalid_grant", "invalid_resource", "something_new"] {
            let body = format!(r#"{{"error":"{error}","error_codes":[1]}}"#);
            assert_eq!(read(&answer(400, &body), Assertions::OfUser).reach, Reach::Asker);
        }
    }

    #[test]
    fn a_users_refused_token_is_the_users_to_renew_unless_the_application_proves_itself_so() {
        let body = r#"{"error":"invalid_grant","error_codes":[50013]}"#;
        let refused = read(&answer(400, body), Assertions::OfUser);
        assert_eq!(
            (refused.error.kind, refused.of_credential),
            (ErrorKind::ClaimsChallenge, false)
        );
        assert!(refused.error.error.starts_with("invalid_grant AADSTS50013: the user's token"));
        for (assertions, reach) in
            [(Assertions::OfApplication, Reach::Identity), (Assertions::OfBoth, Reach::Asker)]
        {
            let refused = read(&answer(400, body), assertions);
            assert_eq!(
                (refused.error.kind, refused.of_credential, refused.reach),
                (ErrorKind::Credential, true, reach)
            );
        }
    }

    #[test]
    fn the_text_names_error_code_and_remedy_and_never_the_description() {
        let refused = app(&answer(
            401,
            r#"{"error":"invalid_client","error_codes":[7000215],
                "error_description":"AADSTS7000215: Invalid client secret 'hunter2'",
                "correlation_id":"0a-1","trace_id":"bad id"}"#,
        ));
        assert_eq!(
            refused.error,
            "invalid_client AADSTS7000215: not the application's secret; use its value, not its id"
        );
        assert_eq!(refused.correlation_id.as_deref(), Some("0a-1"));
        assert_eq!(refused.trace_id, None);
        let odd = app(&answer(400, r#"{"error":"Bearer eyJ0"}"#));
        assert_eq!(odd.error, "entra_status_400: not an answer of the token endpoint");
    }

    #[test]
    fn claims_are_passed_on_only_with_a_challenge_and_only_as_small_json() {
        let claims = |body: &str| app(&answer(400, body)).claims;
        let asked = r#"{"error":"interaction_required","claims":"{\"access_token\":{}}"}"#;
        assert_eq!(claims(asked).as_deref(), Some(r#"{"access_token":{}}"#));
        assert_eq!(claims(r#"{"error":"interaction_required","claims":"x"}"#), None);
        assert_eq!(claims(r#"{"error":"invalid_client","claims":"{}"}"#), None);
        let long = format!(r#"{{\"a\":\"{}\"}}"#, "x".repeat(4_096));
        assert_eq!(
            claims(&format!(r#"{{"error":"interaction_required","claims":"{long}"}}"#)),
            None
        );
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let told = |value: &'static str, date: Option<&'static str>| {
            let mut answer = answer(429, "{}");
            answer.headers.insert(RETRY_AFTER, HeaderValue::from_static(value));
            if let Some(date) = date {
                answer.headers.insert(hyper::header::DATE, HeaderValue::from_static(date));
            }
            app(&answer).retry_after
        };
        let date = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(told("120", None), Some(120));
        assert_eq!(told("Sun, 06 Nov 1994 08:50:37 GMT", date), Some(60));
        assert_eq!(told("Sun, 06 Nov 1994 08:40:37 GMT", date), Some(0));
        assert_eq!(told("soon", None), None);
        assert_eq!(told("-1", None), None);
        let looping = app(&answer(400, r#"{"error":"invalid_grant","error_codes":[50196]}"#));
        assert_eq!(looping.retry_after, Some(300));
    }
}
