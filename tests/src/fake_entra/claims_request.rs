//! The `claims` parameter of the token endpoint, read as strictly as Entra does, and what it changes
//! in the token (OpenID Connect Core §5.5; learn.microsoft.com/entra/identity-platform/claims-challenge).
//!
//! Claims that nobody knows change nothing, as the standard has it. What is not of the standard's
//! form is refused with the number that Entra has for it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::refusal::Refusal;

/// Largest parameter that is read.
const MAX_BYTES: usize = 8 * 1024;
/// How far ahead of the clock a token may be asked to begin, in seconds.
const MAX_AHEAD: u64 = 300;

/// What a token is to have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ClaimsRequest {
    /// `xms_cc`: what the client says that it can do, as it spells it; known capabilities only.
    pub(super) capabilities: Vec<String>,
    /// `nbf`: the token is to be issued no earlier.
    not_before: Option<u64>,
    /// `acrs`: authentication contexts.
    pub(super) contexts: Vec<String>,
    /// `capolids`: policies of Conditional Access that a sign-in is to satisfy.
    pub(super) policies: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Document {
    access_token: Option<BTreeMap<String, Option<Individual>>>,
    #[serde(rename = "id_token")]
    _id_token: Option<BTreeMap<String, Option<Individual>>>,
    #[serde(rename = "userinfo")]
    _userinfo: Option<BTreeMap<String, Option<Individual>>>,
}

/// A map and no struct: serde takes a list for a struct, too.
type Individual = BTreeMap<String, Value>;

impl ClaimsRequest {
    /// Reads the parameter; none asks for nothing.
    pub(super) fn read(parameter: Option<&str>, now: u64) -> Result<Self, Refusal> {
        let Some(parameter) = parameter else { return Ok(Self::default()) };
        if parameter.len() > MAX_BYTES || !parameter.trim_start().starts_with('{') {
            return Err(malformed());
        }
        // Typed at once: by way of a value, the last of two members of one name would win.
        let document: Document = serde_json::from_str(parameter).map_err(|_other| malformed())?;
        let mut request = Self::default();
        for (name, individual) in document.access_token.unwrap_or_default() {
            // Null asks for whatever is usual.
            let Some(individual) = individual else { continue };
            let is_essential = individual.get("essential") == Some(&Value::Bool(true));
            let wanted = wanted(individual)?;
            match name.as_str() {
                "xms_cc" => {
                    let known = |name: &String| name.eq_ignore_ascii_case("cp1");
                    request.capabilities = wanted.into_iter().filter(known).collect();
                }
                "nbf" => {
                    let [seconds] = wanted.as_slice() else { return Err(malformed()) };
                    let seconds = seconds.parse().map_err(|_other| malformed())?;
                    if seconds > now + MAX_AHEAD {
                        return Err(malformed());
                    }
                    request.not_before = Some(seconds);
                }
                // As APIs ask for it, and in no other way.
                "acrs" if !is_essential || wanted.len() != 1 => return Err(malformed()),
                "acrs" if !wanted.iter().all(|context| is_context(context)) => {
                    return Err(malformed());
                }
                "acrs" => request.contexts = wanted,
                "capolids" => request.policies = wanted,
                _ => {}
            }
        }
        Ok(request)
    }

    /// Whether the client takes tokens that can be refused at any moment.
    pub(super) fn is_capable(&self) -> bool {
        !self.capabilities.is_empty()
    }

    /// Makes a token's claims what was asked for.
    pub(super) fn apply(&self, claims: &mut Map<String, Value>) {
        if self.is_capable() {
            claims.insert("xms_cc".into(), json!(self.capabilities));
        }
        if !self.contexts.is_empty() {
            claims.insert("acrs".into(), json!(self.contexts));
        }
        self.begin(claims);
    }

    /// Makes a token begin when it was asked to.
    pub(super) fn begin(&self, claims: &mut Map<String, Value>) {
        let issued = claims.get("iat").and_then(Value::as_u64);
        if let Some(not_before) = self.not_before.filter(|wanted| issued < Some(*wanted)) {
            // Entra dates tokens back; not before what they must be newer than.
            claims.insert("iat".into(), json!(not_before));
            claims.insert("nbf".into(), json!(not_before));
        }
    }
}

/// The values of one claim (OpenID Connect Core §5.5.1).
fn wanted(individual: Individual) -> Result<Vec<String>, Refusal> {
    let mut wanted = Vec::new();
    for (member, value) in individual {
        match (member.as_str(), value) {
            ("essential", Value::Bool(_)) => {}
            ("value", Value::String(value)) => wanted.push(value),
            ("values", Value::Array(values)) => {
                for value in values {
                    let Value::String(value) = value else { return Err(malformed()) };
                    wanted.push(value);
                }
            }
            _ => return Err(malformed()),
        }
    }
    Ok(wanted)
}

/// `c1` to `c99`.
pub(super) fn is_context(text: &str) -> bool {
    text.strip_prefix('c').is_some_and(|number| {
        matches!(number.len(), 1 | 2)
            && !number.starts_with('0')
            && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

fn malformed() -> Refusal {
    Refusal::new(50117, "Failed to deserialize policy specified in the request's claim parameter.")
}
