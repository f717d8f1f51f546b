//! Validates where an identity's tokens come from: a managed identity, or an application with what
//! proves that the broker is it.
//!
//! An application may have several credentials, tried in order; that all are of one application is
//! what keeps a failing one from changing who the broker is.

use std::path::PathBuf;

use policy::cloud::{Cloud, is_tenant_id};

use super::{
    Application, AssertionAlgorithm, Credential, Errors, ManagedIdentity, SecretLocation, Source,
    document::cloud,
    environment::{self, CLIENT_ID, Environment, FEDERATED_TOKEN_FILE, TENANT_ID},
    raw::{
        RawClientCertificate, RawClientSecret, RawCredential, RawManagedIdentity,
        RawWorkloadIdentity,
    },
};

/// Longest id of an Azure resource.
const MAX_RESOURCE_ID: usize = 512;
/// Most credentials of one application.
pub(super) const MAX_CREDENTIALS: usize = 8;

/// The members of which an identity has exactly one.
pub(super) struct Members {
    /// An application's only credential.
    pub(super) one: RawCredential,
    pub(super) managed_identity: Option<RawManagedIdentity>,
    /// An application's credentials, in order.
    pub(super) credentials: Option<Vec<Option<RawCredential>>>,
}

const CREDENTIALS: [&str; 3] = ["client_secret", "client_certificate", "workload_identity"];
const SOURCES: [&str; 5] =
    ["client_secret", "client_certificate", "workload_identity", "managed_identity", "credentials"];

/// An application with one of its credentials.
type Proven = (Application, Credential);

/// The source of an identity.
pub(super) fn source(
    members: Members,
    path: &str,
    environment: &dyn Environment,
    errors: &mut Errors,
) -> Option<Source> {
    let Members { one, managed_identity, credentials } = members;
    let given = [
        one.client_secret.is_some(),
        one.client_certificate.is_some(),
        one.workload_identity.is_some(),
        managed_identity.is_some(),
        credentials.is_some(),
    ];
    exactly_one(&SOURCES, &given, "source", path, errors)?;
    if let Some(raw) = managed_identity {
        let path = format!("{path}.managed_identity");
        return Some(Source::ManagedIdentity(managed_identity_of(raw, &path, errors)?));
    }
    if let Some(raw) = credentials {
        return ladder(raw, &format!("{path}.credentials"), environment, errors);
    }
    let (application, credential) = credential(one, path, environment, errors)?;
    Some(Source::Application { application, credentials: vec![credential] })
}

/// Several credentials of one application.
fn ladder(
    raw: Vec<Option<RawCredential>>,
    path: &str,
    environment: &dyn Environment,
    errors: &mut Errors,
) -> Option<Source> {
    if raw.is_empty() || raw.len() > MAX_CREDENTIALS {
        errors.push(path, format!("expected one to {MAX_CREDENTIALS} credentials"));
        return None;
    }
    let count = raw.len();
    let mut proven: Vec<Proven> = Vec::new();
    for (index, entry) in raw.into_iter().enumerate() {
        let path = format!("{path}[{index}]");
        let Some(entry) = entry else {
            errors.missing(&path, "a credential");
            continue;
        };
        let given = [
            entry.client_secret.is_some(),
            entry.client_certificate.is_some(),
            entry.workload_identity.is_some(),
        ];
        // What stands there instead is reported already.
        let misspelt = errors.0.iter().any(|error| error.path.starts_with(&format!("{path}.")));
        if misspelt && given == [false; 3] {
            continue;
        }
        if exactly_one(&CREDENTIALS, &given, "credential", &path, errors).is_none() {
            continue;
        }
        let Some((application, credential)) = credential(entry, &path, environment, errors) else {
            continue;
        };
        match proven.first() {
            Some((first, _)) if *first != application => {
                errors.push(
                    path,
                    "of another application than the first: cloud, tenant or client id",
                );
            }
            _ if proven.iter().any(|(_, known)| *known == credential) => {
                errors.push(path, "this credential stands there twice");
            }
            _ => proven.push((application, credential)),
        }
    }
    if proven.len() < count {
        return None;
    }
    let application = proven.first()?.0.clone();
    let credentials = proven.into_iter().map(|(_, credential)| credential).collect();
    Some(Source::Application { application, credentials })
}

/// The one credential that is given.
fn credential(
    raw: RawCredential,
    path: &str,
    environment: &dyn Environment,
    errors: &mut Errors,
) -> Option<Proven> {
    let RawCredential { client_secret, client_certificate, workload_identity } = raw;
    let [secret, certificate, workload] = CREDENTIALS.map(|member| format!("{path}.{member}"));
    if let Some(raw) = client_secret {
        client_secret_of(raw, &secret, environment, errors)
    } else if let Some(raw) = client_certificate {
        client_certificate_of(raw, &certificate, environment, errors)
    } else {
        workload_identity_of(workload_identity?, &workload, environment, errors)
    }
}

/// Notes that not one of these members is given, but none or several.
fn exactly_one(
    members: &[&str],
    given: &[bool],
    what: &str,
    path: &str,
    errors: &mut Errors,
) -> Option<()> {
    match given.iter().filter(|given| **given).count() {
        1 => return Some(()),
        0 if members.iter().any(|member| errors.reported_at(&format!("{path}.{member}"))) => {}
        0 => errors.push(path, format!("no {what}; expected one of {}", named(members))),
        _ => errors.push(path, format!("expected one of {}, found more", named(members))),
    }
    None
}

fn named(members: &[&str]) -> String {
    let members: Vec<String> = members.iter().map(|member| format!("`{member}`")).collect();
    members.join(", ")
}

fn managed_identity_of(
    raw: RawManagedIdentity,
    path: &str,
    errors: &mut Errors,
) -> Option<ManagedIdentity> {
    const MEMBERS: [&str; 4] = ["client_id", "object_id", "resource_id", "system_assigned: true"];
    let RawManagedIdentity { client_id, object_id, resource_id, system_assigned } = raw;
    let system_assigned = system_assigned.unwrap_or(false);
    let given = [client_id.is_some(), object_id.is_some(), resource_id.is_some(), system_assigned];
    if given.iter().filter(|given| **given).count() != 1 {
        errors.push(path, format!("expected exactly one of {}", named(&MEMBERS)));
        return None;
    }
    Some(if client_id.is_some() {
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
    })
}

/// Azure Resource Manager takes ids in any case.
fn is_resource_id(id: &str) -> bool {
    const PROVIDER: &str = "/providers/microsoft.managedidentity/userassignedidentities/";
    let lower = id.to_ascii_lowercase();
    let name = lower.split_once(PROVIDER).map(|(_, name)| name);
    lower.starts_with("/subscriptions/")
        && id.len() <= MAX_RESOURCE_ID
        && id.bytes().all(|byte| byte.is_ascii_graphic())
        && name.is_some_and(|name| !name.is_empty() && !name.contains('/'))
}

fn client_secret_of(
    raw: RawClientSecret,
    path: &str,
    environment: &dyn Environment,
    errors: &mut Errors,
) -> Option<Proven> {
    let named = (raw.cloud, raw.tenant, raw.client_id);
    let application = application(named, path, environment, errors);
    let file = required_file(raw.file, path, "the secret", errors);
    Some((application?, Credential::Secret(SecretLocation::File(file?))))
}

fn client_certificate_of(
    raw: RawClientCertificate,
    path: &str,
    environment: &dyn Environment,
    errors: &mut Errors,
) -> Option<Proven> {
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
    Some((application?, Credential::Certificate { file: file?, algorithm: algorithm? }))
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

fn workload_identity_of(
    raw: RawWorkloadIdentity,
    path: &str,
    environment: &dyn Environment,
    errors: &mut Errors,
) -> Option<Proven> {
    let cloud = chosen_cloud(raw.cloud.as_deref(), path, environment, errors);
    let mut given = |value: Option<String>, member: &str, variable: &str, what: &str| {
        let path = format!("{path}.{member}");
        let value = value.or_else(|| environment.variable(variable));
        guid(value, &path, &format!("{what} here or in {variable}"), errors)
    };
    let tenant = given(raw.tenant, "tenant", TENANT_ID, "a tenant id");
    let client_id = given(raw.client_id, "client_id", CLIENT_ID, "a client id");
    let proof = match raw.managed_identity {
        Some(_) if raw.token_file.is_some() => {
            errors.push(path, "expected one of `token_file` and `managed_identity`, found both");
            None
        }
        Some(identity) => federated_identity(identity, path, cloud, errors),
        None => {
            let token_file = raw.token_file.or_else(|| environment.variable(FEDERATED_TOKEN_FILE));
            if token_file.is_none() {
                let expected =
                    format!("a path here or in {FEDERATED_TOKEN_FILE}, or `managed_identity`");
                errors.missing(&format!("{path}.token_file"), &expected);
            }
            token_file.map(|file| Credential::ServiceAccount(PathBuf::from(file)))
        }
    };
    let application = Application { cloud: cloud?, tenant: tenant?, client_id: client_id? };
    Some((application, proof?))
}

/// A managed identity as an application's federated credential
/// (learn.microsoft.com/entra/workload-id/workload-identity-federation-config-app-trust-managed-identity).
fn federated_identity(
    raw: RawManagedIdentity,
    path: &str,
    cloud: Option<Cloud>,
    errors: &mut Errors,
) -> Option<Credential> {
    let path = format!("{path}.managed_identity");
    let identity = managed_identity_of(raw, &path, errors)?;
    if identity == ManagedIdentity::SystemAssigned {
        errors.push(path, "only a user-assigned identity can be a federated credential");
        return None;
    }
    cloud.map(|_known| Credential::ManagedIdentity(identity))
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

pub(super) fn guid(
    value: Option<String>,
    path: &str,
    expected: &str,
    errors: &mut Errors,
) -> Option<String> {
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
