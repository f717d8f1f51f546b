//! Answers: JSON bodies, and refusals in the contract's shape with their status.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use contract::{ErrorKind, TypedError};
use serde::Serialize;

use crate::failure::failure;

/// The type of what the contract has.
pub const JSON: &str = "application/json";

/// A request that is refused before anything is asked of Entra.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The kind gives the status.
    Typed(TypedError),
    /// Not JSON, or not of the shape that this version has.
    Malformed(String),
    /// The body is too large, too slow, or of another type.
    Body(StatusCode, &'static str),
    /// No such path.
    UnknownPath,
    /// Another method.
    Method,
    /// A version of the contract that this broker does not speak.
    UnsupportedVersion,
}

impl From<TypedError> for Refusal {
    fn from(error: TypedError) -> Self {
        Self::Typed(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let config = |text: &str| failure(ErrorKind::Config, text);
        let (status, error) = match self {
            Self::Typed(error) => (status_of(&error), error),
            Self::Malformed(what) => {
                (StatusCode::BAD_REQUEST, config(&format!("malformed_request: {what}")))
            }
            Self::Body(status, what) => (status, config(&format!("malformed_request: {what}"))),
            Self::UnknownPath => (StatusCode::NOT_FOUND, config("unknown_path")),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, config("unknown_method")),
            Self::UnsupportedVersion => (
                StatusCode::SERVICE_UNAVAILABLE,
                config("unsupported_version: this broker speaks /v1"),
            ),
        };
        let mut response = json(status, &error);
        if let Some(seconds) = error.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

fn status_of(error: &TypedError) -> StatusCode {
    StatusCode::from_u16(error.kind.status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
}

/// A JSON answer that nobody may keep.
pub fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => with_type(status, JSON, body),
        Err(_unserialisable) => with_type(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", ""),
    }
}

/// An answer of any type that nobody may keep.
pub fn with_type(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Body>,
) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
