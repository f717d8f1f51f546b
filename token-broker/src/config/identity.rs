//! Validates identities: their names and scopes, and what they can do. Their sources are
//! `config::source`'s.

use std::collections::BTreeMap;

use super::{
    Errors, Identity, Source,
    environment::Environment,
    raw::{RawCredential, RawIdentity},
    source::{Members, source},
};
use crate::entra::claims::Capability;

const MAX_NAME: usize = 64;
const MAX_SCOPE: usize = 512;
/// What an application asks for: all that it was granted on one resource
/// (learn.microsoft.com/entra/identity-platform/scopes-oidc#the-default-scope).
pub(super) const DEFAULT_SCOPE: &str = "/.default";

/// The permissions of OpenID Connect, which Entra answers with no token for a resource
/// (learn.microsoft.com/entra/identity-platform/scopes-oidc#openid-connect-scopes).
const OF_OPENID: [&str; 4] = ["openid", "profile", "email", "offline_access"];
/// Where Entra looks for a scope that names no resource (same page).
pub(super) const GRAPH: &str = "https://graph.microsoft.com/";

/// The identities of a configuration file.
pub(super) fn identities(
    raw: Option<BTreeMap<String, Option<RawIdentity>>>,
    environment: &dyn Environment,
    errors: &mut Errors,
) -> BTreeMap<String, Identity> {
    let mut identities = BTreeMap::new();
    for (name, identity) in raw.unwrap_or_default() {
        let path = format!("identities.{name}");
        if !is_name(&name) {
            errors.push(
                path.clone(),
                "expected a name of letters, digits, `-`, `_` and `.`, at most 64",
            );
        }
        let Some(identity) = identity else {
            errors.missing(&path, "a source and `scopes`");
            continue;
        };
        let scopes = scopes(identity.scopes, &path, errors);
        let delegated_scopes = delegated_scopes(identity.delegated_scopes, &path, errors);
        let capability = capability(identity.client_capabilities, &path, errors);
        let members = Members {
            one: RawCredential {
                client_secret: identity.client_secret,
                client_certificate: identity.client_certificate,
                workload_identity: identity.workload_identity,
            },
            managed_identity: identity.managed_identity,
            credentials: identity.credentials,
        };
        let source = source(members, &path, environment, errors);
        if let Some(Source::ManagedIdentity(_)) = &source {
            if capability == Capability::ClaimsChallenges {
                errors.push(
                    format!("{path}.client_capabilities"),
                    "not with a managed identity: the instance metadata service takes no claims",
                );
            }
            if !delegated_scopes.is_empty() {
                errors.push(
                    format!("{path}.delegated_scopes"),
                    "not with a managed identity: it acts for no user; an application can prove \
                     itself with one (`workload_identity.managed_identity`)",
                );
            }
        }
        if let Some(source) = source {
            identities.insert(name, Identity { source, scopes, delegated_scopes, capability });
        }
    }
    identities
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn scopes(raw: Option<Vec<Option<String>>>, path: &str, errors: &mut Errors) -> Vec<String> {
    let path = format!("{path}.scopes");
    let Some(raw) = raw else {
        errors.missing(&path, "a list of scopes; an empty one denies all");
        return Vec::new();
    };
    listed(raw, &path, check_scope, errors)
}

/// What may be asked for on behalf of a user: without a word about it nothing.
fn delegated_scopes(
    raw: Option<Vec<Option<String>>>,
    path: &str,
    errors: &mut Errors,
) -> Vec<String> {
    let path = format!("{path}.delegated_scopes");
    listed(raw.unwrap_or_default(), &path, check_delegated_scope, errors)
}

/// The scopes of a list, each of which `check` has looked at.
fn listed(
    raw: Vec<Option<String>>,
    path: &str,
    check: fn(&str, &str, &mut Errors),
    errors: &mut Errors,
) -> Vec<String> {
    let mut scopes = Vec::new();
    for (index, scope) in raw.into_iter().enumerate() {
        let path = format!("{path}[{index}]");
        let Some(scope) = scope else {
            errors.missing(&path, "a scope");
            continue;
        };
        check(&scope, &path, errors);
        if scopes.contains(&scope) {
            errors.push(path, "this scope stands there twice");
        } else {
            scopes.push(scope);
        }
    }
    scopes
}

/// `client_capabilities` as MSAL has them; Entra knows one.
fn capability(raw: Option<Vec<Option<String>>>, path: &str, errors: &mut Errors) -> Capability {
    let path = format!("{path}.client_capabilities");
    let mut capability = Capability::None;
    for (index, name) in raw.unwrap_or_default().into_iter().enumerate() {
        let path = format!("{path}[{index}]");
        match (name.as_deref(), capability) {
            (Some("cp1"), Capability::None) => capability = Capability::ClaimsChallenges,
            (Some("cp1"), Capability::ClaimsChallenges) => {
                errors.push(path, "this capability stands there twice");
            }
            (Some(_), _) => errors.push(path, "expected `cp1`, the one capability there is"),
            (None, _) => errors.missing(&path, "`cp1`"),
        }
    }
    capability
}

/// Notes what is wrong with a scope.
pub(super) fn check_scope(scope: &str, path: &str, errors: &mut Errors) {
    let resource = scope.strip_suffix(DEFAULT_SCOPE).unwrap_or_default();
    let graphic = scope.bytes().all(|byte| byte.is_ascii_graphic());
    if resource.is_empty() || !graphic || scope.len() > MAX_SCOPE {
        errors.push(path, "expected one scope of the form `<resource>/.default`");
    }
}

/// A user's permission is one of a resource's scopes, or all that were granted on it. What OpenID
/// Connect adds (`offline_access`, `openid`) is no resource's: nothing here would use it.
pub(super) fn check_delegated_scope(scope: &str, path: &str, errors: &mut Errors) {
    let named = scope.rsplit_once('/').is_some_and(|(resource, permission)| {
        !permission.is_empty()
            && !resource.is_empty()
            && !resource.trim_end_matches('/').ends_with(':')
    });
    let graphic = scope.bytes().all(|byte| byte.is_ascii_graphic());
    let of_openid = scope.strip_prefix(GRAPH).is_some_and(|scope| OF_OPENID.contains(&scope));
    if !named || !graphic || of_openid || scope.len() > MAX_SCOPE {
        errors.push(
            path,
            "expected one scope of the form `<resource>/<permission>` or `<resource>/.default`",
        );
    }
}
