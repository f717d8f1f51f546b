//! The configuration that the environment keys of Microsoft's auth sidecar make, so that a pod can
//! swap the image (learn.microsoft.com/entra/msidweb/agent-id-sdk/configuration).
//!
//! A key that the original knows and this broker does not honour is an error by its name: it would
//! change whose token is handed out, and nobody would see. Values that say what is done anyway are
//! taken.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use contract::Secret;
use policy::{
    claims::{Audiences, Tenants},
    cloud::Cloud,
    config::Accepted,
};

mod keys;

use keys::Keys;

use super::{
    Api, Application, AssertionAlgorithm, AuthSidecar, Authority, Callers, Compat, Config,
    ConfigError, Credential, DEFAULT_ADMIN, DownstreamApi, ENVIRONMENT_IDENTITY, Errors, Identity,
    Listen, ManagedIdentity, SecretLocation, Source, TokenOf,
    environment::{Environment, FEDERATED_TOKEN_FILE},
    full_scope,
    identity::{DEFAULT_SCOPE, check_delegated_scope, check_scope},
    source::{MAX_CREDENTIALS, guid},
};
use crate::{entra::claims::Capability, https::proxy::Proxy};

/// Where the original listens by its own documents.
const DEFAULT_ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 5000);
const CLIENT_CREDENTIALS: &str = "AzureAd__ClientCredentials__";
const DOWNSTREAM_APIS: &str = "DownstreamApis__";
const SCOPES: &str = "AzureAd__Scopes";
/// Lets tokens in that have neither a scope nor a role.
const AUTHORIZED_BY_ACL: &str = "AzureAd__AllowWebApiToBeAuthorizedByACL";

/// What may be said because it is so anyway, or concerns only what is not served.
const SO_ANYWAY: [(&str, &[&str]); 7] = [
    (AUTHORIZED_BY_ACL, &["true"]),
    ("AzureAd__EnablePiiLogging", &["false"]),
    ("Sidecar__AllowOutboundRedirects", &["false"]),
    ("Sidecar__AllowOverrides__GetAuthorizationHeader", &["true"]),
    ("Sidecar__AllowOverrides__GetAuthorizationHeaderUnauthenticated", &["false"]),
    ("Sidecar__AllowOverrides__CallDownstreamApi", &["true", "false"]),
    ("Sidecar__AllowOverrides__CallDownstreamApiUnauthenticated", &["true", "false"]),
];
/// How a downstream API is called, which is the application's own affair here.
const OF_THE_CALL: [&str; 3] = ["BaseUrl", "RelativePath", "HttpMethod"];

/// Whether the environment is one for the original.
pub(super) fn is_there(environment: &dyn Environment) -> bool {
    environment.names().iter().any(|name| keys::is_of_the_application(name))
}

/// Reads it.
pub(super) fn read(environment: &dyn Environment) -> Result<Config, Vec<ConfigError>> {
    let mut errors = Errors::default();
    let mut keys = Keys::of(environment, &mut errors);
    let proxy = errors.keep(Proxy::from_environment(environment));
    let address = address(&mut keys, &mut errors);
    let application = application(&mut keys, &mut errors);
    let audience = keys.take("AzureAd__Audience");
    let scopes = keys.take(SCOPES).unwrap_or_default();
    let scopes: Vec<String> = scopes.split_ascii_whitespace().map(str::to_owned).collect();
    if !scopes.is_empty() && keys.has(AUTHORIZED_BY_ACL) {
        let text = format!("not honoured beside {SCOPES}: a token without a scope is refused");
        errors.push(AUTHORIZED_BY_ACL, text);
        keys.forget(AUTHORIZED_BY_ACL);
    }
    let without = keys.names_after(CLIENT_CREDENTIALS).is_empty();
    let credentials = credentials(&mut keys, environment, &mut errors);
    let apis = apis(&mut keys, &mut errors);
    if without && !apis.is_empty() {
        let first = format!("{CLIENT_CREDENTIALS}0__SourceType");
        errors.missing(&first, "the credential that headers are asked for with");
    }
    for (name, values) in SO_ANYWAY {
        let value = keys.take(name).map(|value| value.trim().to_ascii_lowercase());
        if value.is_some_and(|value| !values.contains(&value.as_str())) {
            errors.push(name, format!("not honoured here; expected {}", values.join(" or ")));
        }
    }
    keys.refuse_the_rest(&mut errors);
    let (Some(application), Some(address), Some(proxy), true) =
        (application, address, proxy, errors.is_empty())
    else {
        return Err(errors.or("AzureAd__ClientId", "the environment describes no application"));
    };
    let Application { cloud, tenant, client_id } = application.clone();
    // As the original, whose tokens are by default for either (v2.0 and v1.0).
    let audiences = match audience {
        Some(audience) => vec![audience],
        None => vec![client_id.clone(), format!("api://{client_id}")],
    };
    let tenants = Tenants::Listed([tenant.clone()].into());
    let callers = Callers { accepted: Accepted::new(cloud, tenants, Audiences(audiences)), scopes };
    let identity = (!credentials.is_empty()).then(|| Identity {
        source: Source::Application { application, credentials },
        scopes: scopes_of(&apis, |api| api.scope.ends_with(DEFAULT_SCOPE)),
        delegated_scopes: scopes_of(&apis, |api| api.token == TokenOf::Caller),
        capability: Capability::None,
    });
    let apis = apis
        .into_iter()
        .map(|(name, RawApi { scope, token })| {
            let identity = ENVIRONMENT_IDENTITY.to_owned();
            (name, DownstreamApi { identity, tenant: Some(tenant.clone()), scope, token })
        })
        .collect();
    Ok(Config {
        authorities: vec![Authority { cloud, tenant: tenant.clone() }],
        identities: identity.map(|it| (ENVIRONMENT_IDENTITY.to_owned(), it)).into_iter().collect(),
        access: None,
        // Whoever swaps the image has no filter that would ask.
        listen: Listen { api: Api::Off, admin: DEFAULT_ADMIN, compat: Some(address) },
        compat: Compat {
            managed_identity: None,
            auth_sidecar: Some(AuthSidecar { callers: Some(callers), apis }),
        },
        key_snapshot: None,
        ca_file: None,
        proxy,
    })
}

/// The scopes of these APIs, each once.
fn scopes_of(apis: &BTreeMap<String, RawApi>, which: fn(&RawApi) -> bool) -> Vec<String> {
    let scopes: BTreeSet<&String> =
        apis.values().filter(|api| which(api)).map(|api| &api.scope).collect();
    scopes.into_iter().cloned().collect()
}

fn application(keys: &mut Keys, errors: &mut Errors) -> Option<Application> {
    let instance = keys.take("AzureAd__Instance");
    let host = |instance: &str| {
        let host = instance.strip_prefix("https://")?;
        Cloud::from_login_host(host.strip_suffix('/').unwrap_or(host))
    };
    let cloud = match instance.as_deref() {
        None => Some(Cloud::default()),
        Some(instance) => host(instance),
    };
    if cloud.is_none() {
        let text = "not an authority of a known cloud; expected https:// and its login host";
        errors.push("AzureAd__Instance", text);
    }
    let (tenant, client_id) = ("AzureAd__TenantId", "AzureAd__ClientId");
    let tenant = guid(keys.take(tenant), tenant, "the id of one tenant", errors);
    let client_id = guid(keys.take(client_id), client_id, "a client id", errors);
    Some(Application { cloud: cloud?, tenant: tenant?, client_id: client_id? })
}

/// The credentials in the order of their numbers, as the original tries them.
fn credentials(
    keys: &mut Keys,
    environment: &dyn Environment,
    errors: &mut Errors,
) -> Vec<Credential> {
    let entries = keys.names_after(CLIENT_CREDENTIALS);
    if entries.len() > MAX_CREDENTIALS {
        let text = format!("expected at most {MAX_CREDENTIALS} credentials");
        errors.push(CLIENT_CREDENTIALS, text);
    }
    let mut credentials = Vec::new();
    for entry in entries {
        let path = format!("{CLIENT_CREDENTIALS}{entry}__");
        if entry.parse::<u32>().is_err() {
            keys.forget(&path);
            errors.push(path, "expected a number: the credentials are tried in its order");
            continue;
        }
        let credential = credential(&path, keys, environment, errors);
        if credential.as_ref().is_some_and(|credential| credentials.contains(credential)) {
            errors.push(format!("{path}SourceType"), "this credential stands there twice");
        }
        credentials.extend(credential);
    }
    credentials
}

fn credential(
    path: &str,
    keys: &mut Keys,
    environment: &dyn Environment,
    errors: &mut Errors,
) -> Option<Credential> {
    const KINDS: &str = "`ClientSecret`, `SignedAssertionFilePath`, \
                         `SignedAssertionFromManagedIdentity` or `Path`";
    let at = |member: &str| format!("{path}{member}");
    let kind = at("SourceType");
    let Some(source_type) = keys.take(&kind) else {
        errors.missing(&kind, KINDS);
        return None;
    };
    match source_type.to_ascii_lowercase().as_str() {
        "clientsecret" => {
            let secret = keys.required(&at("ClientSecret"), "the secret", errors)?;
            Some(Credential::Secret(SecretLocation::Here(Secret::new(secret))))
        }
        "signedassertionfilepath" => {
            // The original's own examples name it both ways, and it has the webhook's default.
            let named = [at("SignedAssertionFileDiskPath"), at("SignedAssertionFilePath")];
            let [file, other] = named.each_ref().map(|name| keys.take(name));
            if file.is_some() && other.is_some() && file != other {
                errors.push(named.join(" and "), "expected one of them");
            }
            let file = file.or(other).or_else(|| environment.variable(FEDERATED_TOKEN_FILE));
            if file.is_none() {
                let [name, _] = &named;
                errors.missing(name, &format!("a path, here or in {FEDERATED_TOKEN_FILE}"));
            }
            file.map(PathBuf::from).map(Credential::ServiceAccount)
        }
        "signedassertionfrommanagedidentity" => {
            let name = at("ManagedIdentityClientId");
            let expected = "the client id of a user-assigned identity: no other can be a federated \
                            credential";
            let id = guid(keys.take(&name), &name, expected, errors)?;
            Some(Credential::ManagedIdentity(ManagedIdentity::ClientId(id)))
        }
        "path" => {
            let name = at("CertificateDiskPath");
            let file = keys.required(&name, "the path of a PEM file", errors)?;
            let lower = file.to_ascii_lowercase();
            if lower.ends_with(".pfx") || lower.ends_with(".p12") {
                let text = "PFX is not read; expected PEM with key and certificate \
                            (`openssl pkcs12 -in FILE -nodes -out FILE.pem`)";
                errors.push(name, text);
            }
            let algorithm = AssertionAlgorithm::Ps256;
            Some(Credential::Certificate { file: PathBuf::from(file), algorithm })
        }
        _ => {
            keys.forget(path);
            errors.push(kind, format!("not a credential that is used here; expected {KINDS}"));
            None
        }
    }
}

struct RawApi {
    scope: String,
    token: TokenOf,
}

fn apis(keys: &mut Keys, errors: &mut Errors) -> BTreeMap<String, RawApi> {
    let mut apis = BTreeMap::new();
    for name in keys.names_after(DOWNSTREAM_APIS) {
        let at = |member: &str| format!("{DOWNSTREAM_APIS}{name}__{member}");
        for member in OF_THE_CALL {
            let _unused = keys.take(&at(member));
        }
        let (scopes, first) = (at("Scopes"), at("Scopes__0"));
        let scope = match (keys.take(&scopes), keys.take(&first)) {
            (Some(scope), None) => Some((scope, scopes)),
            (None, Some(scope)) => Some((scope, first)),
            (Some(_), Some(_)) => {
                errors.push(scopes, format!("expected this or {first}"));
                None
            }
            (None, None) => {
                errors.missing(&first, "a scope");
                None
            }
        };
        let flag = at("RequestAppToken");
        let token = match keys.take(&flag).map(|value| value.to_ascii_lowercase()).as_deref() {
            None | Some("false") => TokenOf::Caller,
            Some("true") => TokenOf::Application,
            Some(_) => {
                errors.push(flag, "expected `true` or `false`");
                TokenOf::Caller
            }
        };
        if let Some((scope, path)) = scope {
            let scope = full_scope(&scope);
            match token {
                TokenOf::Application => check_scope(&scope, &path, errors),
                TokenOf::Caller => check_delegated_scope(&scope, &path, errors),
            }
            apis.insert(name, RawApi { scope, token });
        }
    }
    apis
}

/// Where to listen, as the original is told.
fn address(keys: &mut Keys, errors: &mut Errors) -> Option<SocketAddr> {
    const NAMES: [&str; 2] = ["Kestrel__Endpoints__Http__Url", "ASPNETCORE_URLS"];
    const EXPECTED: &str = "expected one address of the pod's own, such as \
                            http://127.0.0.1:5000: tokens do not leave it";
    let mut addresses = Vec::new();
    for name in NAMES {
        let Some(url) = keys.take(name) else { continue };
        match loopback(&url) {
            Some(address) => addresses.push(address),
            None => errors.push(name, EXPECTED),
        }
    }
    if let [one, other] = addresses.as_slice()
        && one != other
    {
        let [name, of_another] = NAMES;
        errors.push(name, format!("another address than {of_another}"));
    }
    if errors.reported_at("Kestrel__Endpoints__Http__Url") || errors.reported_at("ASPNETCORE_URLS")
    {
        return None;
    }
    Some(addresses.first().copied().unwrap_or(DEFAULT_ADDRESS))
}

fn loopback(url: &str) -> Option<SocketAddr> {
    let address = url.strip_prefix("http://")?;
    let address = address.strip_suffix('/').unwrap_or(address);
    let address = address.strip_prefix("localhost:").map_or_else(
        || address.parse::<SocketAddr>().ok(),
        |port| Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().ok()?))),
    )?;
    address.ip().is_loopback().then_some(address)
}
