//! Validates identities: their names, sources and scopes.

use std::{collections::BTreeMap, path::PathBuf};

use policy::cloud::{Cloud, is_tenant_id};

use super::{
    Application, Errors, Identity, SecretLocation, Source,
    document::cloud,
    environment::{self, CLIENT_ID, Environment, FEDERATED_TOKEN_FILE, TENANT_ID},
    raw::{RawClientSecret, RawIdentity, RawWorkloadIdentity},
};
use crate::entra::claims::Capability;

const MAX_NAME: usize = 64;
const MAX_SCOPE: usize = 512;
/// What an application asks for: all that it was granted on one resource
/// (learn.microsoft.com/entra/identity-platform/scopes-oidc#the-default-scope).
const DEFAULT_SCOPE: &str = "/.default";

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
        let source =
            source(identity.client_secret, identity.workload_identity, &path, environment, errors);
        let capability = capability(identity.client_capabilities, &path, errors);
        if let Some(source) = source {
            identities.insert(name, Identity { source, scopes, capability });
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
    let mut scopes = Vec::new();
    for (index, scope) in raw.into_iter().enumerate() {
        let path = format!("{path}[{index}]");
        let Some(scope) = scope else {
            errors.missing(&path, "a scope");
            continue;
        };
        check_scope(&scope, &path, errors);
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

fn source(
    client_secret: Option<RawClientSecret>,
    workload_identity: Option<RawWorkloadIdentity>,
    path: &str,
    environment: &dyn Environment,
    errors: &mut Errors,
) -> Option<Source> {
    match (client_secret, workload_identity) {
        (Some(raw), None) => {
            client_secret_source(raw, &format!("{path}.client_secret"), environment, errors)
        }
        (None, Some(raw)) => {
            workload_identity_source(raw, &format!("{path}.workload_identity"), environment, errors)
        }
        (Some(_), Some(_)) => {
            errors
                .push(path, "expected one of `client_secret` and `workload_identity`, found both");
            None
        }
        (None, None) => {
            let reported = ["client_secret", "workload_identity"]
                .iter()
                .any(|member| errors.reported_at(&format!("{path}.{member}")));
            if !reported {
                errors.push(path, "no source; expected `client_secret` or `workload_identity`");
            }
            None
        }
    }
}

fn client_secret_source(
    raw: RawClientSecret,
    path: &str,
    environment: &dyn Environment,
    errors: &mut Errors,
) -> Option<Source> {
    let cloud = chosen_cloud(raw.cloud.as_deref(), path, environment, errors);
    let tenant = guid(raw.tenant, &format!("{path}.tenant"), "a tenant id", errors);
    let client_id = guid(raw.client_id, &format!("{path}.client_id"), "a client id", errors);
    let file = raw.file.filter(|file| !file.is_empty());
    if file.is_none() {
        errors.missing(&format!("{path}.file"), "the path of the file with the secret");
    }
    Some(Source::ClientSecret {
        application: Application { cloud: cloud?, tenant: tenant?, client_id: client_id? },
        secret: SecretLocation::File(PathBuf::from(file?)),
    })
}

fn workload_identity_source(
    raw: RawWorkloadIdentity,
    path: &str,
    environment: &dyn Environment,
    errors: &mut Errors,
) -> Option<Source> {
    let cloud = chosen_cloud(raw.cloud.as_deref(), path, environment, errors);
    let mut given = |value: Option<String>, member: &str, variable: &str, what: &str| {
        let path = format!("{path}.{member}");
        let value = value.or_else(|| environment.variable(variable));
        guid(value, &path, &format!("{what} here or in {variable}"), errors)
    };
    let tenant = given(raw.tenant, "tenant", TENANT_ID, "a tenant id");
    let client_id = given(raw.client_id, "client_id", CLIENT_ID, "a client id");
    let token_file = raw.token_file.or_else(|| environment.variable(FEDERATED_TOKEN_FILE));
    if token_file.is_none() {
        let expected = format!("a path here or in {FEDERATED_TOKEN_FILE}");
        errors.missing(&format!("{path}.token_file"), &expected);
    }
    Some(Source::WorkloadIdentity {
        application: Application { cloud: cloud?, tenant: tenant?, client_id: client_id? },
        token_file: PathBuf::from(token_file?),
    })
}

/// The application that the environment alone describes.
pub(super) fn application_from_environment(
    environment: &dyn Environment,
    errors: &mut Errors,
) -> Option<Application> {
    let cloud = errors.keep(environment::cloud(environment));
    let tenant = guid(environment.variable(TENANT_ID), TENANT_ID, "a tenant id", errors);
    let client_id = guid(environment.variable(CLIENT_ID), CLIENT_ID, "a client id", errors);
    Some(Application { cloud: cloud?, tenant: tenant?, client_id: client_id? })
}

fn chosen_cloud(
    name: Option<&str>,
    path: &str,
    environment: &dyn Environment,
    errors: &mut Errors,
) -> Option<Cloud> {
    let path = format!("{path}.cloud");
    if name.is_some() || errors.reported_at(&path) {
        return cloud(name, &path, errors);
    }
    match environment::cloud(environment) {
        Ok(cloud) => Some(cloud),
        Err(error) => {
            // One variable, however many identities it concerns.
            if !errors.reported_at(&error.path) {
                errors.0.push(error);
            }
            None
        }
    }
}

fn guid(value: Option<String>, path: &str, expected: &str, errors: &mut Errors) -> Option<String> {
    // Portals and annotations show ids in either case; on the wire it is lower case.
    let Some(value) = value.map(|value| value.to_ascii_lowercase()) else {
        errors.missing(path, expected);
        return None;
    };
    if !is_tenant_id(&value) {
        errors.push(path, format!("expected {expected}: a GUID"));
        return None;
    }
    Some(value)
}
