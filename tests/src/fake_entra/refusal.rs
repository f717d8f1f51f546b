//! Every refusal of the fake: AADSTS number, OAuth error, HTTP status, and Microsoft's wording.
//!
//! Numbers and texts: learn.microsoft.com/entra/identity-platform/reference-error-codes, and what
//! users quote in public issues. The answer's shape is written here; when to refuse is not.

use serde_json::{Value, json};
use time::{OffsetDateTime, macros::format_description};

/// A refusal before it is written out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// AADSTS number.
    pub code: u32,
    /// What stands after the number, with what the request said filled in.
    pub text: String,
    /// Claims challenge, which some refusals carry, as JSON text.
    pub claims: Option<String>,
}

/// Ids and time that stand in a refusal.
#[derive(Debug, Clone)]
pub(super) struct Reference {
    pub(super) trace_id: String,
    pub(super) correlation_id: String,
    pub(super) now: u64,
}

impl Refusal {
    /// A refusal by number with its text.
    pub(super) fn new(code: u32, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), claims: None }
    }

    /// A refusal by number alone, as a fault script names it.
    pub fn by_number(code: u32) -> Self {
        let text = match code {
            50033 => "A transient error has occurred. Please try again.",
            50196 => {
                "The server terminated an operation because it encountered a client request loop. \
                 Please contact your app vendor."
            }
            50076 => {
                "Due to a configuration change made by your administrator, or because you moved to \
                 a new location, you must use multi-factor authentication to access the resource."
            }
            50079 => {
                "Due to a configuration change made by your administrator, or because you moved to \
                 a new location, you must enroll in multi-factor authentication to access the \
                 resource."
            }
            53003 => {
                "Access has been blocked by Conditional Access policies. The access policy does \
                 not allow token issuance."
            }
            90033 => "A transient error has occurred. Please try again.",
            90055 => "The service is too busy to process the request. Please try again.",
            700016 => {
                "Application was not found in the directory. This can happen if the application \
                 has not been installed by the administrator of the tenant or consented to by any \
                 user in the tenant."
            }
            50057 => "The user account is disabled.",
            7000112 => "Application is disabled.",
            7000215 => "Invalid client secret provided.",
            7000222 => "The provided client secret keys are expired.",
            _ => "The request was refused.",
        };
        let mut refusal = Self::new(code, text);
        if code == 53003 {
            let policy = "6e5a1c7c-0f0d-4d2c-9f0a-7a3f1f2f6b11";
            let challenge = json!({"access_token":
                {"capolids": {"essential": true, "values": [policy]}}});
            refusal.claims = Some(challenge.to_string());
        }
        refusal
    }

    /// HTTP status with which Entra answers it.
    pub fn status(&self) -> u16 {
        match self.error() {
            "invalid_client" => 401,
            "temporarily_unavailable" if self.code == 90055 => 429,
            "temporarily_unavailable" => 503,
            _ => 400,
        }
    }

    /// The OAuth 2.0 error (RFC 6749 §5.2, and Entra's own `invalid_resource`).
    pub fn error(&self) -> &'static str {
        match self.code {
            700016 | 700025 | 7000112 | 7000114 => "unauthorized_client",
            650053 | 700021 | 700023 | 700024 | 700027 | 700236 | 700211 | 700212 | 700213
            | 7000215 | 7000216 | 7000218 | 7000222 | 7002138 | 5002723 | 5002738 => {
                "invalid_client"
            }
            28000 | 70011 | 1002012 => "invalid_scope",
            50001 | 500011 => "invalid_resource",
            70003 => "unsupported_grant_type",
            50013 | 50020 | 50034 | 50057 | 50173 | 50196 | 53003 | 54005 | 65001 | 70000
            | 70008 | 240002 | 500112 | 500131 | 500133 | 501481 => "invalid_grant",
            50072 | 50074 | 50076 | 50079 | 50158 => "interaction_required",
            50033 | 90033 | 90055 => "temporarily_unavailable",
            _ => "invalid_request",
        }
    }

    /// The body, member for member.
    pub(super) fn body(&self, reference: &Reference, host: &str) -> Value {
        let Reference { trace_id, correlation_id, now } = reference;
        let timestamp = timestamp(*now);
        let description = format!(
            "AADSTS{}: {} Trace ID: {trace_id} Correlation ID: {correlation_id} \
             Timestamp: {timestamp}",
            self.code, self.text
        );
        let mut body = json!({
            "error": self.error(),
            "error_description": description,
            "error_codes": [self.code],
            "timestamp": timestamp,
            "trace_id": trace_id,
            "correlation_id": correlation_id,
            "error_uri": format!("https://{host}/error?code={}", self.code),
        });
        if let Some(claims) = &self.claims {
            body["claims"] = json!(claims);
        }
        let suberror = match self.code {
            65001 => Some("consent_required"),
            50076 | 50079 if self.claims.is_some() => Some("basic_action"),
            _ => None,
        };
        if let Some(suberror) = suberror {
            body["suberror"] = json!(suberror);
        }
        body
    }
}

/// Unix seconds as error bodies write them.
fn timestamp(seconds: u64) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]Z");
    calendar(seconds).format(format).expect("a calendar date formats")
}

/// Unix seconds as descriptions of validity write them.
pub(super) fn precise(seconds: u64) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].0000000Z");
    calendar(seconds).format(format).expect("a calendar date formats")
}

fn calendar(seconds: u64) -> OffsetDateTime {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
