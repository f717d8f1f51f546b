//! The broker's refusal as the application gets it: the only reply that says why.
//!
//! The application is the one who can mend it or tell a person, and it sees no more than what its
//! own identity was refused for. The text comes from the broker, and through it from Entra: it is
//! bounded and made plain here, whatever was done before.

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
struct Problem {
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
    claims: Option<String>,
}

impl Reply {
    /// The answer where the broker gives no token; `reason` is not of [`crate::decision::Class::Pass`].
    pub fn broker_refused(
        reason: Reason,
        protocol: Protocol,
        retry_after: Option<u64>,
        error: &TypedError,
    ) -> Self {
        let mut reply = Self::new(reason, protocol, None, retry_after);
        let plain_reply = Self::new(reason, Protocol::Http, None, None);
        let title = if plain_reply.status == 403 { "Forbidden" } else { "Service Unavailable" };
        let problem = Problem {
            kind_of_problem: "about:blank",
            title,
            status: plain_reply.status,
            detail: advice(error.kind),
            code: plain(&error.error, MAX_TEXT),
            kind: error.kind,
            correlation_id: id(error.correlation_id.as_deref()),
            trace_id: id(error.trace_id.as_deref()),
            claims: error.claims.as_deref().and_then(claims),
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
fn message(problem: &Problem) -> String {
    let mut message = format!("{}; {}", problem.code, problem.detail);
    for (name, id) in [("correlation_id", &problem.correlation_id), ("trace_id", &problem.trace_id)]
    {
        if let Some(id) = id {
            message.push_str(&format!("; {name} {id}"));
        }
    }
    message
}

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

/// What is no JSON object of plain text is left out: an application would hand it on to Entra.
fn claims(text: &str) -> Option<String> {
    let plain = text.len() <= MAX_CLAIMS_BYTES && text.bytes().all(|b| (b' '..=b'~').contains(&b));
    (plain && crate::json::object(text.as_bytes()).is_some()).then(|| text.to_owned())
}

/// Percent-encoding of `grpc-message` (github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md);
/// the text is printable ASCII already.
fn escaped(text: &str) -> String {
    text.replace('%', "%25")
}
