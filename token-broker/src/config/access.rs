//! Validates `identity_access` and `pod`: who may use which identity, and how that is known.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use hyper::http::uri::Authority as UriAuthority;

use super::{
    Errors, IdentityAccess,
    environment::Environment,
    raw::{RawAccess, RawCluster, RawPod},
};
use crate::{
    access::Entry,
    pod::{
        KeysFrom, Settings,
        cluster::ApiServer,
        names::{is_label, is_label_value, is_namespace, is_service_account},
        token::{Expected, ThisPod},
    },
};

/// The token's audience without a word about it: no other service has it.
const AUDIENCE: &str = "entra-sidecar";
/// Where the injection template puts the pod's evidence.
const DIRECTORY: &str = "/var/run/secrets/entra-pod";
/// How the kubelet names the API server to every container.
const HOST: &str = "KUBERNETES_SERVICE_HOST";
const PORT: &str = "KUBERNETES_SERVICE_PORT_HTTPS";

/// Who may use the identities of these names; nothing where the configuration does not say.
pub(super) fn access(
    raw: Option<Vec<Option<RawAccess>>>,
    pod: Option<RawPod>,
    identities: &BTreeSet<String>,
    environment: &dyn Environment,
    errors: &mut Errors,
) -> Option<IdentityAccess> {
    let Some(raw) = raw else {
        // A member that does nothing would be taken for a restriction.
        if pod.is_some() && !errors.reported_at("identity_access") {
            errors.push("pod", "goes with `identity_access`");
        }
        return None;
    };
    let mut entries: Vec<Entry> = Vec::new();
    for (index, entry) in raw.into_iter().enumerate() {
        let path = format!("identity_access[{index}]");
        let Some(entry) = entry else {
            errors.missing(&path, "pods and `identities`");
            continue;
        };
        let Some(entry) = self::entry(entry, &path, identities, errors) else { continue };
        let same = |other: &Entry| {
            (&other.namespace, &other.service_account, &other.labels)
                == (&entry.namespace, &entry.service_account, &entry.labels)
        };
        if entries.iter().any(same) {
            errors.push(path, "an entry before this one is for the same pods");
        }
        entries.push(entry);
    }
    let pod = settings(pod, environment, errors)?;
    Some(IdentityAccess { entries, pod })
}

fn entry(
    raw: RawAccess,
    path: &str,
    identities: &BTreeSet<String>,
    errors: &mut Errors,
) -> Option<Entry> {
    let RawAccess { namespace, service_account, labels, identities: named } = raw;
    let mut check = |name: &Option<String>, member: &str, is: fn(&str) -> bool, what: &str| {
        if name.as_deref().is_some_and(|name| !is(name)) {
            errors.push(format!("{path}.{member}"), format!("expected {what}, exactly"));
        }
    };
    check(&namespace, "namespace", is_namespace, "the name of a namespace");
    check(&service_account, "service_account", is_service_account, "a service account's name");
    // What was of the wrong type is told already, and was taken out.
    let reported =
        |errors: &Errors, path: &str| errors.0.iter().any(|error| error.path.starts_with(path));
    let of_labels = format!("{path}.labels");
    if labels.as_ref().is_some_and(BTreeMap::is_empty) && !reported(errors, &of_labels) {
        errors.missing(&of_labels, "labels");
    }
    let labels = labels.unwrap_or_default();
    for (name, value) in &labels {
        if !is_label(name) || !is_label_value(value) {
            let path = format!("{path}.labels.{name}");
            errors.push(path, "expected a label's name and its value, exactly");
        }
    }
    let members = ["namespace", "service_account", "labels"].map(|m| format!("{path}.{m}"));
    let for_every_pod = namespace.is_none() && service_account.is_none() && labels.is_empty();
    if for_every_pod && !members.iter().any(|member| reported(errors, member)) {
        errors.push(path, "for every pod; expected `namespace`, `service_account` or `labels`");
    }
    let path = format!("{path}.identities");
    let mut of_entry: Vec<String> = Vec::new();
    for (index, name) in named.unwrap_or_default().into_iter().enumerate() {
        let path = format!("{path}[{index}]");
        match name {
            None => errors.missing(&path, "the name of an identity"),
            Some(name) if !identities.contains(&name) => {
                errors.push(path, "no such identity under `identities`");
            }
            Some(name) if of_entry.contains(&name) => {
                errors.push(path, "this identity stands there twice");
            }
            Some(name) => of_entry.push(name),
        }
    }
    if of_entry.is_empty() && !reported(errors, &path) {
        errors.missing(&path, "names of identities");
    }
    let entry = Entry { namespace, service_account, labels, identities: of_entry };
    (!for_every_pod).then_some(entry)
}

fn settings(
    raw: Option<RawPod>,
    environment: &dyn Environment,
    errors: &mut Errors,
) -> Option<Settings> {
    let RawPod { audience, token_file, labels_file, cluster } = raw.unwrap_or_default();
    let token_file = file(token_file, "token", "pod.token_file", errors);
    let labels_file = file(labels_file, "labels", "pod.labels_file", errors);
    if audience.as_deref() == Some("") {
        errors.push("pod.audience", "empty; expected the audience of the pod's token");
    }
    let RawCluster { issuer, keys_file, ca_file, token_file: api_token_file } =
        cluster.unwrap_or_default();
    if issuer.as_deref().is_none_or(str::is_empty) {
        errors.missing("pod.cluster.issuer", "the issuer of the cluster's service account tokens");
    }
    let given = [("ca_file", ca_file.is_some()), ("token_file", api_token_file.is_some())];
    let keys = if let Some(keys_file) = keys_file {
        for (member, _) in given.into_iter().filter(|(_, given)| *given) {
            errors.push(
                format!("pod.cluster.{member}"),
                "goes with the API server's keys, not with `keys_file`",
            );
        }
        KeysFrom::File(errors.file(keys_file, "pod.cluster.keys_file"))
    } else {
        KeysFrom::ApiServer(ApiServer {
            authority: api_server(environment, errors),
            ca_file: file(ca_file, "ca.crt", "pod.cluster.ca_file", errors),
            token_file: file(api_token_file, "api-token", "pod.cluster.token_file", errors),
        })
    };
    Some(Settings {
        token_file,
        labels_file,
        expected: Expected {
            issuer: issuer?,
            audience: audience.unwrap_or_else(|| AUDIENCE.to_owned()),
            this_pod: ThisPod::from_environment(environment),
        },
        keys,
    })
}

/// The file that is given, or the one of this name where the injection template puts it.
fn file(given: Option<String>, name: &str, path: &str, errors: &mut Errors) -> PathBuf {
    match given {
        Some(given) => errors.file(given, path),
        None => PathBuf::from(DIRECTORY).join(name),
    }
}

/// Host and port of the API server. Outside a cluster there is none: that is no error of the
/// configuration, which people check on their own machines.
fn api_server(environment: &dyn Environment, errors: &mut Errors) -> Option<String> {
    let host = environment.variable(HOST)?;
    let port = environment.variable(PORT).unwrap_or_else(|| "443".to_owned());
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let authority = format!("{host}:{port}");
    let sound = authority.parse::<UriAuthority>().is_ok_and(|found| {
        found.port_u16().is_some_and(|port| port > 0) && !authority.contains('@')
    });
    if !sound {
        errors.push(HOST, format!("expected a host here, and a port in {PORT}"));
        return None;
    }
    Some(authority)
}
