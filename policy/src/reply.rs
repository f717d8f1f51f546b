//! The answer to a refused request.
//!
//! It tells the caller what to do next and nothing about why: the reason is in the access log.

use std::borrow::Cow;

use crate::{
    decision::{Class, Reason},
    request::Protocol,
};

/// What the filter answers in the application's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The reason code, as Envoy's response code details.
    pub details: &'static str,
    /// HTTP status.
    pub status: u16,
    /// The status for gRPC callers; Envoy puts it where gRPC looks for it.
    pub grpc_status: Option<u32>,
    /// Headers.
    pub headers: Vec<(&'static str, String)>,
    /// Body.
    pub body: Cow<'static, str>,
}

pub(crate) mod broker_refusal;

/// Seconds after which to try again where nothing better is known.
const RETRY_AFTER_SECONDS: u64 = 1;

impl Reply {
    /// Renders the answer for a reason whose class is not [`Class::Pass`].
    ///
    /// `authorization_uri` is where the caller can get a token (inbound only); `retry_after` is in
    /// seconds.
    pub fn new(
        reason: Reason,
        protocol: Protocol,
        authorization_uri: Option<&str>,
        retry_after: Option<u64>,
    ) -> Self {
        // RFC 9457 problem documents; gRPC codes as in the gRPC authentication guides.
        let (status, grpc_status, error, body) = match reason.class() {
            Class::BadRequest => {
                (400, 3, None, r#"{"type":"about:blank","title":"Bad Request","status":400}"#)
            }
            Class::TokenRequired => {
                (401, 16, None, r#"{"type":"about:blank","title":"Unauthorized","status":401}"#)
            }
            Class::InvalidToken => (
                401,
                16,
                Some("invalid_token"),
                r#"{"type":"about:blank","title":"Unauthorized","status":401}"#,
            ),
            Class::InsufficientClaims => (
                401,
                16,
                Some("insufficient_claims"),
                r#"{"type":"about:blank","title":"Unauthorized","status":401}"#,
            ),
            Class::Forbidden => (
                403,
                7,
                Some("insufficient_scope"),
                r#"{"type":"about:blank","title":"Forbidden","status":403}"#,
            ),
            // A reason to pass is never rendered; if it were, this is the safe answer.
            Class::Unavailable | Class::Pass => (
                503,
                14,
                None,
                r#"{"type":"about:blank","title":"Service Unavailable","status":503}"#,
            ),
        };
        let mut headers = Vec::with_capacity(3);
        if let (Some(uri), 401 | 403) = (authorization_uri, status) {
            // RFC 6750 §3.
            let error = error.map(|error| format!(", error=\"{error}\"")).unwrap_or_default();
            headers
                .push(("www-authenticate", format!("Bearer authorization_uri=\"{uri}\"{error}")));
        }
        if status == 503 {
            let seconds = retry_after.unwrap_or(RETRY_AFTER_SECONDS).max(1);
            headers.push(("retry-after", seconds.to_string()));
        }
        let body = Cow::Borrowed(body);
        let reply = Self { details: reason.code(), status, grpc_status: None, headers, body };
        match protocol {
            Protocol::Http => reply.with_header("content-type", "application/problem+json"),
            Protocol::Grpc => {
                Self { grpc_status: Some(grpc_status), body: Cow::Borrowed(""), ..reply }
            }
            // A response without body carries the status in its headers
            // (github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md).
            Protocol::GrpcWeb => Self { status: 200, body: Cow::Borrowed(""), ..reply }
                .with_header("content-type", "application/grpc-web+proto")
                .with_header("grpc-status", &grpc_status.to_string()),
        }
    }

    /// With this challenge in place of the usual one.
    #[must_use]
    pub fn challenging(mut self, challenge: &str) -> Self {
        for (name, value) in &mut self.headers {
            if *name == "www-authenticate" {
                challenge.clone_into(value);
            }
        }
        self
    }

    fn with_header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}
