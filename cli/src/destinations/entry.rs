//! One destination of the list, and its rule in the filter's policy.

use std::collections::HashSet;

use policy::{cloud::Cloud, config::Config};
use serde_json::{Value, json};

use super::{
    Destination, Errors, NO_PORT, PREFIX, Protocol, RESERVED,
    kinds::{Kind, STORAGE_SERVICES},
    names,
    raw::RawDestination,
};

/// The destination's rule for the filter, as far as it is written; its reader says what is wrong.
pub(super) fn rule(raw: &RawDestination, cloud: Cloud) -> Value {
    let token = raw.token.as_ref().map(|token| {
        let known = raw.kind.as_deref().and_then(Kind::from_name);
        let scope = token.scope.clone().or_else(|| known?.scope(cloud));
        object([("identity", token.identity.as_deref().into()), ("scope", scope.into())])
    });
    object([
        ("name", raw.name.as_deref().into()),
        ("match", object([("destination", raw.name.as_deref().into())])),
        ("token", token.into()),
        ("existing_authorization", raw.existing_authorization.as_deref().into()),
        ("claims_challenges", raw.claims_challenges.into()),
    ])
}

/// An object without the members that are null.
fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    let present = members.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(present.map(|(name, value)| (name.to_owned(), value)).collect())
}

/// The filter's policy, read by the filter's reader: its errors are said of the list.
pub(super) fn policy(cluster: &str, rules: Vec<Value>, errors: &mut Errors) -> Option<Config> {
    let document = json!({"direction": "outbound", "broker": {"cluster": cluster}, "rules": rules});
    match Config::read(document.to_string().as_bytes()) {
        Ok(policy) => Some(policy),
        Err(found) => {
            for error in found {
                match error.path.strip_prefix("rules") {
                    // A rule's destination is its name, of which that has been said.
                    Some(rest) if rest.contains("].match") => {}
                    Some(rest) => errors.add(&format!("destinations{rest}"), &error.message),
                    None => errors.add(&error.path, &error.message),
                }
            }
            None
        }
    }
}

/// Reads one; the hosts are those of the earlier ones.
pub(super) fn destination(
    path: &str,
    raw: RawDestination,
    cloud: Cloud,
    hosts: &mut HashSet<String>,
    errors: &mut Errors,
) -> Option<Destination> {
    let name_path = format!("{path}.name");
    let expected = "1 to 57 lower-case letters, digits and `-`, as the names of objects have them";
    let fits =
        |name: &str| names::is_dns_label(name) && names::is_dns_label(&format!("{PREFIX}{name}"));
    let name = errors.text(&name_path, raw.name, expected, fits);
    if name.as_deref().is_some_and(|name| RESERVED.contains(&name)) {
        errors.add(&name_path, "is the name of other objects of Entra Sidecar");
    }
    let host = host(path, raw.host, raw.kind.as_deref(), raw.account, raw.service, cloud, errors);
    if let Some(host) = &host {
        if Cloud::from_login_host(host).is_some() {
            errors.add(&format!("{path}.host"), "is where tokens come from: it is given none");
        }
        if !hosts.insert(host.clone()) {
            errors.add(path, "has the host of an earlier destination");
        }
    }
    let protocol = match raw.protocol.as_deref() {
        None | Some("http1") => Protocol::Http1,
        Some("http2") => Protocol::Http2,
        Some("grpc") => Protocol::Grpc,
        Some(_) => {
            errors.add(&format!("{path}.protocol"), "expected `http1`, `http2` or `grpc`");
            Protocol::Http1
        }
    };
    let port = raw.port.unwrap_or(80);
    let port_path = format!("{path}.port");
    match port {
        0 | NO_PORT => errors.add(&port_path, "is no port that an application calls"),
        443 => errors.add(&port_path, "is for TLS: the application calls without, as on port 80"),
        15000..=15099 => errors.add(&port_path, "is one of Istio's own"),
        _ => {}
    }
    // The filter's reader says of these what is wrong.
    let scope = || Kind::from_name(raw.kind.as_deref()?)?.scope(cloud);
    let token = raw.token?;
    Some(Destination {
        name: name?,
        host: host?,
        port,
        protocol,
        identity: token.identity?,
        scope: token.scope.or_else(scope)?,
        existing_authorization: raw.existing_authorization.unwrap_or_else(|| "refuse".to_owned()),
        claims_challenges: raw.claims_challenges.unwrap_or(false),
    })
}

/// The host as it is written, or of a kind.
fn host(
    path: &str,
    host: Option<String>,
    kind: Option<&str>,
    account: Option<String>,
    service: Option<String>,
    cloud: Cloud,
    errors: &mut Errors,
) -> Option<String> {
    let known = kind.and_then(Kind::from_name);
    if kind.is_some() && known.is_none() {
        errors.add(&format!("{path}.kind"), "expected `graph`, `key_vault` or `storage`");
        return None;
    }
    if account.is_some() && !matches!(known, Some(Kind::KeyVault | Kind::Storage)) {
        errors.add(&format!("{path}.account"), "is for `kind: key_vault` and `kind: storage` only");
    }
    if service.is_some() && known != Some(Kind::Storage) {
        errors.add(&format!("{path}.service"), "is for `kind: storage` only");
    }
    let Some(known) = known else {
        let expected = "a whole host name in lower case, outside the cluster, or a `kind`";
        return errors.text(&format!("{path}.host"), host, expected, names::is_host);
    };
    if host.is_some() {
        errors.add(&format!("{path}.host"), "stands beside `kind`, of which the host follows");
    }
    let service = service.unwrap_or_else(|| "blob".to_owned());
    if !STORAGE_SERVICES.contains(&service.as_str()) {
        let expected = "expected `blob`, `queue`, `table`, `file` or `dfs`";
        errors.add(&format!("{path}.service"), expected);
    }
    if known == Kind::Graph {
        return known.host(cloud, "", "");
    }
    let (expected, fits): (&str, fn(&str) -> bool) = match known {
        Kind::KeyVault => {
            ("the vault's name, in lower case", |name| Kind::KeyVault.is_account(name))
        }
        _ => ("the storage account's name", |name| Kind::Storage.is_account(name)),
    };
    let account = errors.text(&format!("{path}.account"), account, expected, fits)?;
    let host = known.host(cloud, &account, &service);
    if host.is_none() {
        let what = "its hosts in this cloud are not known; write `host` and `token.scope`";
        errors.add(&format!("{path}.kind"), what);
    }
    host
}
