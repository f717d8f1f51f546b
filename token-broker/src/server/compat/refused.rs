//! Refusals, in the shape of whoever the endpoint stands for.
//!
//! What a client does next hangs on the status: its library repeats 429 and 5xx and takes 400 and
//! 403 for final (MSAL's `ImdsRetryPolicy`). So what passes by itself is 429 or 503 here, and what
//! a person must mend is final, unlike between filter and broker.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use contract::{ErrorKind, TypedError};
use serde_json::{Value, json};

use super::super::answer;

/// Why there is no token.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    /// One word.
    error: Box<str>,
    /// For a person; nothing secret.
    pub(super) description: Box<str>,
    /// Seconds.
    pub(super) retry_after: Option<u64>,
    correlation_id: Option<Box<str>>,
    /// What Entra wants more of a user: JSON text.
    pub(super) claims: Option<Box<str>>,
    /// For `WWW-Authenticate`.
    pub(super) challenge: Option<Box<str>>,
}

impl Refused {
    pub(super) fn new(status: StatusCode, error: &str, description: impl Into<Box<str>>) -> Self {
        Self {
            status,
            error: error.into(),
            description: description.into(),
            retry_after: None,
            correlation_id: None,
            claims: None,
            challenge: None,
        }
    }

    /// The caller's fault, in IMDS's word.
    pub(super) fn invalid_request(description: impl Into<Box<str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", description)
    }

    /// No such path, or none that the configuration asks for.
    pub(super) fn not_served() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "nothing is served under this path")
    }
}

impl From<TypedError> for Refused {
    fn from(refused: TypedError) -> Self {
        let status = match refused.kind {
            ErrorKind::Transient => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::Throttled => StatusCode::TOO_MANY_REQUESTS,
            ErrorKind::Denied => StatusCode::FORBIDDEN,
            ErrorKind::ClaimsChallenge
            | ErrorKind::Credential
            | ErrorKind::Config
            | ErrorKind::Disabled => StatusCode::BAD_REQUEST,
        };
        let word = refused.error.split([':', ' ']).next().unwrap_or_default();
        Self {
            status,
            error: word.into(),
            retry_after: refused.retry_after,
            correlation_id: refused.correlation_id.map(Into::into),
            description: refused.error.into(),
            claims: None,
            challenge: None,
        }
    }
}

/// With `about:blank` the title would have to be the status's own phrase (RFC 9457 §4.2.1). The word
/// may be Entra's: only what a URI can have of it is taken.
fn problem_type(error: &str) -> String {
    let plain = |letter: &char| letter.is_ascii_alphanumeric() || "-_.".contains(*letter);
    let word: String = error.chars().filter(plain).collect();
    format!("urn:entra-sidecar:{}", if word.is_empty() { "refused" } else { &word })
}

/// Microsoft's clients of the auth sidecar show this member and no other.
fn title(error: &str, description: &str) -> String {
    if description.starts_with(error) {
        description.to_owned()
    } else {
        format!("{error}: {description}")
    }
}

/// Whom an endpoint stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// `error` and `error_description`, as IMDS has them from Entra.
    Imds,
    /// `statusCode` and `message`.
    AppService,
    /// A problem document (RFC 9457), as ASP.NET has it.
    Problem,
}

impl Shape {
    /// By the path, for what is refused before an endpoint is found.
    pub(super) fn of(path: &str) -> Self {
        match path.split('/').nth(1) {
            Some("metadata") => Self::Imds,
            Some("msi") => Self::AppService,
            _ => Self::Problem,
        }
    }

    pub(super) fn answer(self, refused: Refused) -> Response {
        let Refused { status, error, description, correlation_id, claims, .. } = &refused;
        let (mut body, id) = match self {
            Self::Imds => {
                (json!({"error": error, "error_description": description}), "correlation_id")
            }
            Self::AppService => (
                json!({"statusCode": status.as_u16(), "message": description, "error": error}),
                "correlationId",
            ),
            Self::Problem => (
                json!({
                    "type": problem_type(error),
                    "title": title(error, description),
                    "status": status.as_u16(),
                    "detail": description,
                    "errorCode": error,
                }),
                "correlationId",
            ),
        };
        if let Some(members) = body.as_object_mut() {
            for (name, value) in [(id, correlation_id), ("claims", claims)] {
                if let Some(value) = value {
                    members.insert(name.to_owned(), Value::String(value.to_string()));
                }
            }
        }
        let mut response = answer::json(*status, &body);
        let headers = response.headers_mut();
        if self == Self::Problem {
            let problem = HeaderValue::from_static("application/problem+json");
            headers.insert(header::CONTENT_TYPE, problem);
        }
        if let Some(seconds) = refused.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(Ok(challenge)) = refused.challenge.map(|text| HeaderValue::try_from(&*text)) {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_has_a_type_of_its_own_and_says_in_its_title_what_it_is() {
        for (error, description, kind, text) in [
            ("unknown_api", "no such API", "unknown_api", "unknown_api: no such API"),
            ("not_allowed", "not_allowed: no scope", "not_allowed", "not_allowed: no scope"),
            ("a b/<c>?#%", "x", "abc", "a b/<c>?#%: x"),
            ("", "x", "refused", "x"),
        ] {
            assert_eq!(problem_type(error), format!("urn:entra-sidecar:{kind}"));
            assert_eq!(title(error, description), text);
        }
    }
}
