//! Validates one way to be allowed.

use super::{Errors, raw::RawAlternative};
use crate::{
    claims::ClientCredential,
    cloud::{Cloud, is_tenant_id},
    step_up::StepUp,
    workload,
};

/// One way to be allowed; empty lists ask for nothing, and one of the first three is not empty.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Alternative {
    /// One of these scopes, in a user's token.
    pub scopes: Vec<String>,
    /// One of these roles.
    pub roles: Vec<String>,
    /// One of these clients.
    pub clients: Vec<String>,
    /// One of these groups.
    pub groups: Vec<String>,
    /// At least this credential.
    pub client_credential: Option<ClientCredential>,
    /// One of these SPIFFE ids.
    pub caller_workload: Vec<String>,
    /// This authentication context; only where there are scopes.
    pub step_up: Option<StepUp>,
}

pub(super) fn alternative(
    errors: &mut Errors,
    path: &str,
    raw: RawAlternative,
    challenges: &Challenges<'_>,
) -> Alternative {
    // Any application of a tenant can get a token for an API that does not demand assignment.
    if raw.scopes.is_none() && raw.roles.is_none() && raw.clients.is_none() {
        errors.add(path, "must name scopes, roles or clients: any valid token is no rule");
    }
    let value = |text: &str| {
        (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()))
            .then(|| text.to_owned())
    };
    let id = |text: &str| is_tenant_id(text).then(|| text.to_owned());
    let client_credential = match raw.client_credential.as_deref() {
        None => None,
        Some("secret") => Some(ClientCredential::Secret),
        Some("certificate") => Some(ClientCredential::Certificate),
        Some(_) => {
            errors.add(&format!("{path}.client_credential"), "expected `secret` or `certificate`");
            None
        }
    };
    let step_up = raw.authentication_context.and_then(|context| {
        let path = format!("{path}.authentication_context");
        if raw.scopes.is_none() {
            errors.add(&path, "needs `scopes` beside it: only users can sign in again");
        }
        challenges.step_up(errors, &path, &context)
    });
    Alternative {
        scopes: errors.list(
            &format!("{path}.scopes"),
            raw.scopes,
            "a scope without spaces",
            &value,
        ),
        roles: errors.list(&format!("{path}.roles"), raw.roles, "a role without spaces", &value),
        clients: errors.list(&format!("{path}.clients"), raw.clients, "a client id (GUID)", &id),
        groups: errors.list(&format!("{path}.groups"), raw.groups, "an object id (GUID)", &id),
        client_credential,
        caller_workload: errors.list(
            &format!("{path}.caller_workload"),
            raw.caller_workload,
            "a SPIFFE id, as in spiffe://cluster.local/ns/shop/sa/till",
            &|text| workload::is_spiffe_id(text).then(|| text.to_owned()),
        ),
        step_up,
    }
}

/// What a claims challenge says beside the authentication context.
pub(super) struct Challenges<'a> {
    pub(super) cloud: Cloud,
    pub(super) tenant: &'a str,
    pub(super) audiences: &'a [String],
}

impl Challenges<'_> {
    fn step_up(&self, errors: &mut Errors, path: &str, context: &str) -> Option<StepUp> {
        if !StepUp::is_context(context) {
            errors.add(path, "expected `c1` to `c99`");
            return None;
        }
        let mut ids = self.audiences.iter().filter(|id| is_tenant_id(id));
        let first = ids.next();
        let Some(api) = first.filter(|first| ids.all(|id| id == *first)) else {
            // Of audiences that are wrong themselves enough is said.
            if errors.0.iter().any(|error| error.path.starts_with("audiences")) {
                return None;
            }
            let message =
                "needs exactly one client id (GUID) in `audiences`: the challenge names it";
            errors.add(path, message);
            return None;
        };
        Some(StepUp::new(context, self.cloud, self.tenant, api))
    }
}
