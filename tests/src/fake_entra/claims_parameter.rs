//! The `claims` parameter: what a client asks to be in the access token beyond the usual.
//!
//! OpenID Connect Core §5.5, in the two shapes that Entra documents for access tokens
//! (learn.microsoft.com/entra/identity-platform/claims-challenge): an authentication context by
//! `acrs`, and the client's capabilities by `xms_cc`. Any other form of these two is refused.

use serde_json::{Map, Value};

use super::{refusal::Refusal, token_endpoint::malformed};

/// The capabilities that Entra knows: the client answers claims challenges.
const CAPABILITIES: [&str; 1] = ["cp1"];

/// What was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ClaimsParameter {
    /// The authentication context that the token must have.
    pub(super) context: Option<String>,
    /// What the client says that it can do.
    pub(super) capabilities: Vec<String>,
}

impl ClaimsParameter {
    /// Reads the parameter's text; none is none.
    pub(super) fn read(text: Option<&str>) -> Result<Self, Refusal> {
        let Some(text) = text else { return Ok(Self::default()) };
        Self::of(text).ok_or_else(malformed)
    }

    fn of(text: &str) -> Option<Self> {
        let places: Map<String, Value> = serde_json::from_str(text).ok()?;
        let known = |place: &String| ["access_token", "id_token", "userinfo"].contains(&&**place);
        if !places.keys().all(known) {
            return None;
        }
        let Some(claims) = places.get("access_token") else { return Some(Self::default()) };
        let claims = claims.as_object()?;
        Some(Self {
            context: match claims.get("acrs") {
                Some(asked) => Some(context(asked.as_object()?)?),
                None => None,
            },
            capabilities: match claims.get("xms_cc") {
                Some(asked) => capabilities(asked.as_object()?)?,
                None => Vec::new(),
            },
        })
    }
}

/// `{"essential":true,"value":"c2"}`, and nothing beside it.
fn context(asked: &Map<String, Value>) -> Option<String> {
    let value = asked.get("value")?.as_str()?;
    let number = value.strip_prefix('c')?;
    let is_context = !number.starts_with('0')
        && number.bytes().all(|byte| byte.is_ascii_digit())
        && matches!(number.len(), 1 | 2);
    let essential = asked.get("essential") == Some(&Value::Bool(true));
    (is_context && essential && asked.len() == 2).then(|| value.to_owned())
}

/// `{"values":["cp1"]}`; capabilities that nobody knows are left out of the token.
fn capabilities(asked: &Map<String, Value>) -> Option<Vec<String>> {
    let values = asked.get("values")?.as_array()?;
    let values: Option<Vec<&str>> = values.iter().map(Value::as_str).collect();
    let known = values?.into_iter().filter(|value| CAPABILITIES.contains(value));
    Some(known.map(str::to_owned).collect())
}
