//! The broker's refusal as the application gets it: the only reply that says why.
//!
//! The application is the one who can mend it or tell a person, and it sees no more than what its
//! own identity was refused for. The text comes from the broker, and through it from Entra: it is
//! bounded and made plain here, whatever was done before.

use base64::{Engine, engine::general_purpose::STANDARD};
use contract::{ErrorKind, MAX_CLAIMS_BYTES, TypedError};
use serde::Serialize;

use super::Reply;
use crate::{decision::Reason, request::Protocol};

/// Longest text in words, in characters.
const MAX_TEXT: usize = 300;
/// Longest id, in characters.
const MAX_ID: usize = 64;

/// RFC 9457, with members of our own.
#[derive(Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind_of_problem: &'static str,
    title: &'static str,
    status: u16,
    /// What to do.
    detail: &'static str,
    /// Entra's `error` and AADSTS code, or the broker's own word.
    code: String,
    kind: ErrorKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    claims: Option<&'a str>,
}

impl Reply {
    /// The answer where the broker gives no token; `reason` is not of [`crate::decision::Class::Pass`].
    ///
    /// With [`Reason::ClaimsRequired`] it is a claims challenge, for whoever can have the user sign
    /// in again at `authorization_uri`: Entra's claims as they came
    /// (learn.microsoft.com/entra/identity-platform/v2-conditional-access-dev-guide, "app performing
    /// the on-behalf-of flow").
    pub fn broker_refused(
        reason: Reason,
        protocol: Protocol,
        authorization_uri: Option<&str>,
        retry_after: Option<u64>,
        error: &TypedError,
    ) -> Self {
        let mut reply = Self::new(reason, protocol, authorization_uri, retry_after);
        let plain_reply = Self::new(reason, Protocol::Http, None, None);
        let claims = claims(error);
        if let (Reason::ClaimsRequired, Some(claims)) = (reason, claims) {
            for (_, value) in reply.headers.iter_mut().filter(|(n, _)| *n == "www-authenticate") {
                value.push_str(", claims=\"");
                value.push_str(&STANDARD.encode(claims));
                value.push('"');
            }
        }
        let title = match plain_reply.status {
            401 => "Unauthorized",
            403 => "Forbidden",
            _ => "Service Unavailable",
        };
        let problem = Problem {
            kind_of_problem: "about:blank",
            title,
            status: plain_reply.status,
            detail: match reason {
                Reason::ClaimsRequired => CHALLENGE,
                Reason::SignInRequired => SIGN_IN,
                _ => advice(error.kind),
            },
            code: plain(&error.error, MAX_TEXT),
            kind: error.kind,
            correlation_id: id(error.correlation_id.as_deref()),
            trace_id: id(error.trace_id.as_deref()),
            claims,
        };
        match protocol {
            Protocol::Http => {
                // Text and numbers: nothing that could fail.
                let body = serde_json::to_string(&problem).unwrap_or_default();
                reply.body = body.into();
            }
            // Envoy makes `grpc-message` of the body.
            Protocol::Grpc => reply.body = message(&problem).into(),
            Protocol::GrpcWeb => {
                reply = reply.with_header("grpc-message", &escaped(&message(&problem)));
            }
        }
        reply
    }
}

/// One line for who reads a log of the application.
fn message(problem: &Problem<'_>) -> String {
    let mut message = format!("{}; {}", problem.code, problem.detail);
    for (name, id) in [("correlation_id", &problem.correlation_id), ("trace_id", &problem.trace_id)]
    {
        if let Some(id) = id {
            message.push_str(&format!("; {name} {id}"));
        }
    }
    message
}

/// What to do where Entra does not take a user's token.
const SIGN_IN: &str = "Entra does not let this user's token be exchanged: answer the caller with 401, so \
                       that they sign in again; `code` may say that consent is missing";
/// What to do about a challenge to a user.
const CHALLENGE: &str = "Entra wants more of this user: answer the caller with this challenge, so that \
                       they can sign in again and satisfy its claims";

/// What to do about a refusal of each kind.
fn advice(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Transient => "Entra or the way to it failed: try again later",
        ErrorKind::Throttled => "too many calls: try again after Retry-After",
        ErrorKind::ClaimsChallenge => {
            "Conditional Access does not let this identity have a token: ask the administrator \
             with the correlation id"
        }
        ErrorKind::Credential => "Entra does not accept this identity's credential: check it",
        ErrorKind::Config => "the configuration of this identity is wrong, here or in Entra",
        ErrorKind::Disabled => {
            "this identity is disabled, or not assigned to the API: ask the administrator with \
             the correlation id"
        }
        ErrorKind::Denied => "the broker's configuration does not allow this token",
    }
}

/// Text without what could be taken for markup or another line.
fn plain(text: &str, most: usize) -> String {
    let harmless = |character: char| {
        let printable = character.is_ascii_graphic() || character == ' ';
        if printable && !"<>\"\\&".contains(character) { character } else { '?' }
    };
    text.chars().take(most).map(harmless).collect()
}

fn id(text: Option<&str>) -> Option<String> {
    text.filter(|text| {
        (1..=MAX_ID).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    })
    .map(str::to_owned)
}

/// The claims that Entra challenged with. What is no JSON object of plain text is none: an
/// application would hand it on to Entra.
pub(crate) fn claims(error: &TypedError) -> Option<&str> {
    let plain = |text: &str| {
        text.len() <= MAX_CLAIMS_BYTES && text.bytes().all(|b| (b' '..=b'~').contains(&b))
    };
    let claims = error.claims.as_deref().filter(|text| plain(text));
    claims.filter(|text| crate::json::object(text.as_bytes()).is_some())
}

/// Percent-encoding of `grpc-message` (github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md);
/// the text is printable ASCII already.
fn escaped(text: &str) -> String {
    text.replace('%', "%25")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn refusal() -> TypedError {
        TypedError {
            error: "interaction_required AADSTS53003: Conditional Access does not allow it".into(),
            kind: ErrorKind::ClaimsChallenge,
            retry_after: None,
            claims: Some(
                r#"{"access_token":{"capolids":{"essential":true,"values":["g"]}}}"#.into(),
            ),
            correlation_id: Some("0a-1".into()),
            trace_id: Some("0b-2".into()),
        }
    }

    fn rendered(protocol: Protocol, error: &TypedError) -> Reply {
        Reply::broker_refused(Reason::TokenDenied, protocol, None, Some(7), error)
    }

    fn body(error: &TypedError) -> Value {
        serde_json::from_str(&rendered(Protocol::Http, error).body).unwrap()
    }

    #[test]
    fn the_application_is_told_code_ids_claims_and_what_to_do() {
        let reply = rendered(Protocol::Http, &refusal());
        assert_eq!((reply.status, reply.details), (403, "token_denied"));
        assert!(reply.headers.contains(&("content-type", "application/problem+json".into())));
        assert_eq!(
            body(&refusal()),
            json!({
                "type": "about:blank",
                "title": "Forbidden",
                "status": 403,
                "detail": advice(ErrorKind::ClaimsChallenge),
                "code": "interaction_required AADSTS53003: Conditional Access does not allow it",
                "kind": "claims_challenge",
                "correlation_id": "0a-1",
                "trace_id": "0b-2",
                "claims": r#"{"access_token":{"capolids":{"essential":true,"values":["g"]}}}"#,
            })
        );
        let bare = TypedError { claims: None, correlation_id: None, trace_id: None, ..refusal() };
        let members: Vec<_> = body(&bare).as_object().unwrap().keys().cloned().collect();
        assert_eq!(members, ["code", "detail", "kind", "status", "title", "type"]);
    }

    #[test]
    fn what_cannot_be_had_now_is_a_503_with_the_time_to_try_again() {
        let error = TypedError { kind: ErrorKind::Throttled, ..refusal() };
        let reply =
            Reply::broker_refused(Reason::TokenUnavailable, Protocol::Http, None, Some(7), &error);
        assert_eq!(reply.status, 503);
        assert!(reply.headers.contains(&("retry-after", "7".into())));
        assert!(reply.body.contains(r#""status":503"#) && reply.body.contains("Service Unavail"));
    }

    #[test]
    fn grpc_gets_the_same_in_its_message() {
        let reply = rendered(Protocol::Grpc, &refusal());
        assert_eq!(reply.grpc_status, Some(7));
        let expected = format!(
            "{}; {}; correlation_id 0a-1; trace_id 0b-2",
            refusal().error,
            advice(ErrorKind::ClaimsChallenge)
        );
        assert_eq!(reply.body, expected);
        let error = TypedError { error: "100% wrong".into(), ..refusal() };
        let web = rendered(Protocol::GrpcWeb, &error);
        assert_eq!((web.status, &*web.body), (200, ""));
        let message = web.headers.iter().find(|(name, _)| *name == "grpc-message").unwrap();
        assert!(message.1.starts_with("100%25 wrong; "), "{}", message.1);
    }

    #[test]
    fn w13_the_brokers_text_is_bounded_and_plain() {
        let strange = TypedError {
            error: format!("a\"\n\u{1b}<b>&\u{e9}\\{}", "x".repeat(10_000)),
            correlation_id: Some("0a\r\nx-evil: 1".into()),
            trace_id: Some("0".repeat(MAX_ID + 1)),
            claims: Some("{\"a\":\"\u{e9}\"}".into()),
            ..refusal()
        };
        let members = body(&strange);
        let code = members["code"].as_str().unwrap();
        assert_eq!(code.len(), MAX_TEXT);
        assert!(code.starts_with("a???") && code.contains("?b???"), "{code:.20}");
        for absent in ["correlation_id", "trace_id", "claims"] {
            assert_eq!(members.get(absent), None, "{absent}");
        }
        for claims in
            ["", "x", "[]", "{\"a\":1,\"a\":2}", &format!("{{\"a\":\"{}\"}}", "x".repeat(4_096))]
        {
            let error = TypedError { claims: Some(claims.to_owned()), ..refusal() };
            assert_eq!(body(&error).get("claims"), None, "{claims:.20}");
        }
        let longest = TypedError { trace_id: Some("0".repeat(MAX_ID)), ..refusal() };
        assert!(body(&longest).get("trace_id").is_some());
        let empty = TypedError { trace_id: Some(String::new()), ..refusal() };
        assert_eq!(body(&empty).get("trace_id"), None);
        let message = rendered(Protocol::GrpcWeb, &strange);
        let (_, text) = message.headers.iter().find(|(name, _)| *name == "grpc-message").unwrap();
        assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
    }
}
