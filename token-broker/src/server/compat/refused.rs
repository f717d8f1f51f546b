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
    error: String,
    /// For a person; nothing secret.
    description: String,
    /// Seconds.
    retry_after: Option<u64>,
    correlation_id: Option<String>,
}

impl Refused {
    pub(super) fn new(status: StatusCode, error: &str, description: impl Into<String>) -> Self {
        Self {
            status,
            error: error.to_owned(),
            description: description.into(),
            retry_after: None,
            correlation_id: None,
        }
    }

    /// The caller's fault, in IMDS's word.
    pub(super) fn invalid_request(description: impl Into<String>) -> Self {
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
            error: word.to_owned(),
            retry_after: refused.retry_after,
            correlation_id: refused.correlation_id,
            description: refused.error,
        }
    }
}

/// Whom an endpoint stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// `error` and `error_description`, as IMDS has them from Entra.
    Imds,
    /// `statusCode` and `message`.
    AppService,
}

impl Shape {
    /// By the path, for what is refused before an endpoint is found.
    pub(super) fn of(path: &str) -> Self {
        if path.starts_with("/msi/") { Self::AppService } else { Self::Imds }
    }

    pub(super) fn answer(self, refused: Refused) -> Response {
        let Refused { status, error, description, retry_after, correlation_id } = refused;
        let mut body = match self {
            Self::Imds => json!({"error": error, "error_description": description}),
            Self::AppService => json!({
                "statusCode": status.as_u16(), "message": description, "error": error,
            }),
        };
        let name = match self {
            Self::Imds => "correlation_id",
            Self::AppService => "correlationId",
        };
        if let (Some(id), Some(members)) = (correlation_id, body.as_object_mut()) {
            members.insert(name.to_owned(), Value::String(id));
        }
        let mut response = answer::json(status, &body);
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
