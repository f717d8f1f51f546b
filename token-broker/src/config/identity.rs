//! Validates identities: their names, sources and scopes.

use std::{collections::BTreeMap, path::PathBuf};

use policy::cloud::{Cloud, is_tenant_id};

use super::{
    Application, AssertionAlgorithm, Errors, Identity, ManagedIdentity, SecretLocation, Source,
    document::cloud,
    environment::{self, CLIENT_ID, Environment, FEDERATED_TOKEN_FILE, TENANT_ID},
    raw::{
        RawClientCertificate, RawClientSecret, RawIdentity, RawManagedIdentity, RawWorkloadIdentity,
    },
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
        let capability = capability(identity.client_capabilities, &path, errors);
        let sources = Sources {
            client_secret: identity.client_secret,
            client_certificate: identity.client_certificate,
            workload_identity: identity.workload_identity,
            managed_identity: identity.managed_identity,
        };
        let source = source(sources, &path, environment, errors);
        if let (Some(Source::ManagedIdentity(_)), Capability::ClaimsChallenges) =
            (&source, capability)
        {
            errors.push(
                format!("{path}.client_capabilities"),
                "not with a managed identity: the instance metadata service takes no claims",
            );
        }
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

/// The members of which an identity has exactly one.
struct Sources {
    client_secret: Option<RawClientSecret>,
    client_certificate: Option<RawClientCertificate>,
    workload_identity: Option<RawWorkloadIdentity>,
    managed_identity: Option<RawManagedIdentity>,
}

const SOURCES: [&str; 4] =
    ["client_secret", "client_certificate", "workload_identity", "managed_identity"];

fn source(
    sources: Sources,
    path: &str,
    environment: &dyn Environment,
    errors: &mut Errors,
) -> Option<Source> {
    let Sources { client_secret, client_certificate, workload_identity, managed_identity } =
        sources;
    let given = [
        client_secret.is_some(),
        client_certificate.is_some(),
        workload_identity.is_some(),
        managed_identity.is_some(),
    ];
    let paths = SOURCES.map(|member| format!("{path}.{member}"));
    let [secret, certificate, workload, managed] = &paths;
    match given.iter().filter(|given| **given).count() {
        0 => {
            if !paths.iter().any(|member| errors.reported_at(member)) {
                errors.push(path, format!("no source; expected one of {}", named(&SOURCES)));
            }
            None
        }
        1 => client_secret
            .and_then(|raw| client_secret_source(raw, secret, environment, errors))
            .or_else(|| {
                client_certificate_source(client_certificate?, certificate, environment, errors)
            })
            .or_else(|| workload_identity_source(workload_identity?, workload, environment, errors))
            .or_else(|| managed_identity_source(managed_identity?, managed, errors)),
        _ => {
            errors.push(path, format!("expected one of {}, found more", named(&SOURCES)));
            None
        }
    }
}

fn named(members: &[&str]) -> String {
    let members: Vec<String> = members.iter().map(|member| format!("`{member}`")).collect();
    members.join(", ")
}

fn managed_identity_source(
    raw: RawManagedIdentity,
    path: &str,
    errors: &mut Errors,
) -> Option<Source> {
    const MEMBERS: [&str; 4] = ["client_id", "object_id", "resource_id", "system_assigned: true"];
    let RawManagedIdentity { client_id, object_id, resource_id, system_assigned } = raw;
    let system_assigned = system_assigned.unwrap_or(false);
    let given = [client_id.is_some(), object_id.is_some(), resource_id.is_some(), system_assigned];
    if given.iter().filter(|given| **given).count() != 1 {
        errors.push(path, format!("expected exactly one of {}", named(&MEMBERS)));
        return None;
    }
    let identity = if client_id.is_some() {
        let path = format!("{path}.client_id");
        ManagedIdentity::ClientId(guid(client_id, &path, "a client id", errors)?)
    } else if object_id.is_some() {
        let path = format!("{path}.object_id");
        ManagedIdentity::ObjectId(guid(object_id, &path, "an object id", errors)?)
    } else if let Some(id) = resource_id {
        if !is_resource_id(&id) {
            errors.push(
                format!("{path}.resource_id"),
                "expected `/subscriptions/…/providers/Microsoft.ManagedIdentity/\
                 userAssignedIdentities/…`",
            );
            return None;
        }
        ManagedIdentity::ResourceId(id)
    } else {
        ManagedIdentity::SystemAssigned
    };
    Some(Source::ManagedIdentity(identity))
}

/// Azure Resource Manager takes ids in any case.
fn is_resource_id(id: &str) -> bool {
    const PROVIDER: &str = "/providers/microsoft.managedidentity/userassignedidentities/";
    let lower = id.to_ascii_lowercase();
    let name = lower.split_once(PROVIDER).map(|(_, name)| name);
    lower.starts_with("/subscriptions/")
        && id.len() <= MAX_SCOPE
        && id.bytes().all(|byte| byte.is_ascii_graphic())
        && name.is_some_and(|name| !name.is_empty() && !name.contains('/'))
}

fn client_secret_source(
    raw: RawClientSecret,
    path: &str,
    environment: &dyn Environment,
    errors: &mut Errors,
) -> Option<Source> {
    let named = (raw.cloud, raw.tenant, raw.client_id);
    let application = application(named, path, environment, errors);
    let file = required_file(raw.file, path, "the secret", errors);
    Some(Source::ClientSecret { application: application?, secret: SecretLocation::File(file?) })
}

fn client_certificate_source(
    raw: RawClientCertificate,
    path: &str,
    environment: &dyn Environment,
    errors: &mut Errors,
) -> Option<Source> {
    let named = (raw.cloud, raw.tenant, raw.client_id);
    let application = application(named, path, environment, errors);
    let file = required_file(raw.file, path, "the key and the certificate", errors);
    let algorithm = match raw.algorithm.as_deref() {
        None | Some("ps256") => Some(AssertionAlgorithm::Ps256),
        Some("rs256") => Some(AssertionAlgorithm::Rs256),
        Some(_) => {
            errors.push(format!("{path}.algorithm"), "expected `ps256` or `rs256`");
            None
        }
    };
    Some(Source::ClientCertificate {
        application: application?,
        file: file?,
        algorithm: algorithm?,
    })
}

/// The application of cloud, tenant and client id.
fn application(
    (cloud, tenant, client_id): (Option<String>, Option<String>, Option<String>),
    path: &str,
    environment: &dyn Environment,
    errors: &mut Errors,
) -> Option<Application> {
    let cloud = chosen_cloud(cloud.as_deref(), path, environment, errors);
    let tenant = guid(tenant, &format!("{path}.tenant"), "a tenant id", errors);
    let client_id = guid(client_id, &format!("{path}.client_id"), "a client id", errors);
    Some(Application { cloud: cloud?, tenant: tenant?, client_id: client_id? })
}

fn required_file(
    file: Option<String>,
    path: &str,
    holds: &str,
    errors: &mut Errors,
) -> Option<PathBuf> {
    let file = file.filter(|file| !file.is_empty());
    if file.is_none() {
        errors.missing(&format!("{path}.file"), &format!("the path of the file with {holds}"));
    }
    file.map(PathBuf::from)
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
