//! Conditional Access: what a tenant demands of a user who goes to a resource, and whether a token
//! shows that it was met (learn.microsoft.com/entra/identity-platform/v2-conditional-access-dev-guide).
//!
//! In the real Entra the sign-in's session says what was met. Here the token itself does: `amr` of a
//! version 1.0 token, `acrs` of either, where `p1` stands for a policy that the sign-in satisfied.

use serde_json::{Map, Value, json};

use super::refusal::Refusal;

/// What stands in `acrs` of a token whose sign-in satisfied a policy.
pub const SATISFIED: &str = "p1";

/// A standing policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The policy's GUID, which claims challenges name.
    pub id: String,
    /// What it demands.
    pub demand: Demand,
}

/// What a policy demands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Demand {
    /// A second factor.
    SecondFactor,
    /// A second factor, which the user has not registered.
    Enrolment,
    /// An authentication context, such as `c1`.
    Context(String),
}

impl Policy {
    /// A policy of a GUID.
    pub fn new(id: &str, demand: Demand) -> Self {
        Self { id: id.to_owned(), demand }
    }

    /// Holds when the sign-in behind these claims satisfied it; else it is refused with what a new
    /// sign-in has to bring.
    pub(super) fn check(&self, claims: &Value, resource: &str) -> Result<(), Refusal> {
        let is_met = match &self.demand {
            Demand::SecondFactor | Demand::Enrolment => {
                has(claims, "amr", "mfa") || has(claims, "acrs", SATISFIED)
            }
            Demand::Context(context) => has(claims, "acrs", context),
        };
        if is_met {
            return Ok(());
        }
        let essential = json!({"essential": true, "values": [self.id]});
        let mut wanted = Map::from_iter([("capolids".to_owned(), essential)]);
        let code = match &self.demand {
            Demand::SecondFactor => 50076,
            Demand::Enrolment => 50079,
            Demand::Context(context) => {
                let acrs = json!({"essential": true, "value": context});
                wanted = Map::from_iter([("acrs".to_owned(), acrs)]);
                50076
            }
        };
        Err(interaction_required(code, &Value::Object(wanted), resource))
    }
}

/// Holds when the sign-in reached every context that a claims request names.
pub(super) fn check_contexts(
    contexts: &[String],
    claims: &Value,
    resource: &str,
) -> Result<(), Refusal> {
    match contexts.iter().find(|context| !has(claims, "acrs", context)) {
        None => Ok(()),
        Some(context) => {
            let wanted = json!({"acrs": {"essential": true, "value": context}});
            Err(interaction_required(50076, &wanted, resource))
        }
    }
}

fn interaction_required(code: u32, wanted: &Value, resource: &str) -> Refusal {
    let action = if code == 50079 { "enroll in" } else { "use" };
    let mut refusal = Refusal::new(
        code,
        format!(
            "Due to a configuration change made by your administrator, or because you moved to a \
             new location, you must {action} multi-factor authentication to access '{resource}'."
        ),
    );
    refusal.claims = Some(json!({"access_token": wanted}).to_string());
    refusal
}

fn has(claims: &Value, name: &str, wanted: &str) -> bool {
    claims[name].as_array().is_some_and(|values| values.iter().any(|value| value == wanted))
}
