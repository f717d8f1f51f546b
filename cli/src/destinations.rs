//! A list of destinations: where the pods of a namespace send tokens in a mesh.
//!
//! From it `istio destinations` makes everything that Istio needs for that. The policy among it is
//! read by the filter's own reader, so that what is in order here starts there. All errors are
//! found at once.

mod entry;
mod kinds;
mod names;
pub(crate) mod raw;

use std::collections::{BTreeMap, HashSet};

use policy::{
    cloud::Cloud,
    config::Config,
    document::{self, ConfigError},
};
use serde_json::Value;

use self::raw::{RawDestinations, RawModule};

/// The label that the injection template sets.
const INJECTED: (&str, &str) = ("entra-sidecar/injected", "true");
/// Where Istio's proxy image has the system's authorities.
const TRUSTED_CA: &str = "/etc/ssl/certs/ca-certificates.crt";
const BROKER: &str = "token_broker";
/// What the names of a destination's objects begin with.
pub(crate) const PREFIX: &str = "entra-";
/// Names that are others': the module's, the login hosts', and those of the chart's objects in a
/// release with the usual name.
const RESERVED: [&str; 8] =
    ["inbound", "outbound", "login", "broker", "marker", "server-first", "timeouts", "access-log"];
/// A port at which nobody listens: the module is delivered for it, and stands in no listener.
pub(crate) const NO_PORT: u16 = 1;

/// Where the pods of a namespace send tokens.
#[derive(Debug)]
pub(crate) struct Destinations {
    pub(crate) namespace: String,
    /// Labels of the pods, at least one.
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) image: String,
    pub(crate) sha256: String,
    pub(crate) pull_secret: Option<String>,
    pub(crate) cloud: Cloud,
    pub(crate) trusted_ca: String,
    pub(crate) resource: Resource,
    pub(crate) broker_cluster: String,
    pub(crate) list: Vec<Destination>,
    /// The policy that the filter gets, as it read it.
    pub(crate) policy: Config,
}

/// What brings the module to the proxies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resource {
    /// Of Istio 1.30 and later.
    TrafficExtension,
    /// Of Istio 1.28 and 1.29. Later ones translate it, and its ECDS name with it.
    WasmPlugin,
}

/// One host, and the token for it.
#[derive(Debug)]
pub(crate) struct Destination {
    pub(crate) name: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    pub(crate) identity: String,
    pub(crate) scope: String,
    /// As the policy has it.
    pub(crate) existing_authorization: String,
    pub(crate) claims_challenges: bool,
}

/// What the application speaks, and the proxy to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
    Grpc,
}

/// Reads a JSON document, or lists everything that is wrong with it.
pub(crate) fn read(text: &str) -> Result<Destinations, Vec<ConfigError>> {
    let document: Value = serde_json::from_str(text)
        .map_err(|error| vec![ConfigError::new("", error.to_string())])?;
    let (raw, found) = document::read::<RawDestinations>(document);
    let mut errors = Errors(found);
    let destinations = raw.and_then(|raw| validate(raw, &mut errors));
    match destinations {
        Some(destinations) if errors.0.is_empty() => Ok(destinations),
        _ => Err(errors.0),
    }
}

/// Collects what is found; what has an error already is not looked at twice.
struct Errors(Vec<ConfigError>);

impl Errors {
    fn add(&mut self, path: &str, message: &str) {
        if !self.0.iter().any(|error| error.path == path) {
            self.0.push(ConfigError::new(path, message));
        }
    }

    /// What is there and as it must be.
    fn text(
        &mut self,
        path: &str,
        value: Option<String>,
        expected: &str,
        fits: fn(&str) -> bool,
    ) -> Option<String> {
        match value {
            None => self.add(path, &format!("required: {expected}")),
            Some(value) if fits(&value) => return Some(value),
            Some(_) => self.add(path, &format!("expected {expected}")),
        }
        None
    }
}

fn validate(raw: RawDestinations, errors: &mut Errors) -> Option<Destinations> {
    let namespace =
        errors.text("namespace", raw.namespace, "the pods' namespace", names::is_dns_label);
    let labels = labels(raw.labels, errors);
    let module = module(raw.module, errors);
    let cloud = match raw.cloud.as_deref().map(Cloud::from_name) {
        None => Cloud::default(),
        Some(Some(cloud)) => cloud,
        Some(None) => {
            errors.add("cloud", &format!("unknown cloud; expected {}", Cloud::names()));
            Cloud::default()
        }
    };
    let trusted_ca = raw.trusted_ca.unwrap_or_else(|| TRUSTED_CA.to_owned());
    let expected = "the absolute path of a file in the proxy, of letters, digits, `.`, `_` and `-`";
    let trusted_ca = errors.text("trusted_ca", Some(trusted_ca), expected, names::is_file);
    let resource = match raw.resource.as_deref() {
        None | Some("TrafficExtension") => Resource::TrafficExtension,
        Some("WasmPlugin") => Resource::WasmPlugin,
        Some(_) => {
            errors.add("resource", "expected `TrafficExtension` or `WasmPlugin`");
            Resource::TrafficExtension
        }
    };
    let broker_cluster = match raw.broker {
        None => Some(BROKER.to_owned()),
        Some(broker) => {
            let graphic =
                |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
            let expected = "the name of the broker's cluster, without spaces";
            errors.text("broker.cluster", broker.cluster, expected, graphic)
        }
    };
    let destinations = match raw.destinations {
        None => {
            errors.add("destinations", "required: a list of destinations");
            return None;
        }
        Some(destinations) => destinations,
    };
    if destinations.is_empty() {
        errors.add("destinations", "must not be empty: without a destination no token leaves");
    }
    let (mut list, mut rules, mut hosts) = (Vec::new(), Vec::new(), HashSet::new());
    for (index, raw) in destinations.into_iter().enumerate() {
        let path = format!("destinations[{index}]");
        let Some(raw) = raw else {
            errors.add(&path, "required: a destination");
            rules.push(Value::Null);
            continue;
        };
        rules.push(entry::rule(&raw, cloud));
        list.extend(entry::destination(&path, raw, cloud, &mut hosts, errors));
    }
    let policy = entry::policy(broker_cluster.as_deref().unwrap_or(BROKER), rules, errors);
    let (image, sha256, pull_secret) = module?;
    Some(Destinations {
        namespace: namespace?,
        labels,
        image,
        sha256,
        pull_secret,
        cloud,
        trusted_ca: trusted_ca?,
        resource,
        broker_cluster: broker_cluster?,
        list,
        policy: policy?,
    })
}

fn labels(
    raw: Option<BTreeMap<String, Option<String>>>,
    errors: &mut Errors,
) -> BTreeMap<String, String> {
    let Some(raw) = raw else {
        return BTreeMap::from([(INJECTED.0.to_owned(), INJECTED.1.to_owned())]);
    };
    if raw.is_empty() {
        errors.add("labels", "must not be empty: every pod of the namespace would be meant");
    }
    let mut labels = BTreeMap::new();
    for (key, value) in raw {
        let path = format!("labels.{key}");
        if !names::is_label_key(&key) {
            errors.add("labels", "has a key that is no label's");
        } else if let Some(value) =
            errors.text(&path, value, "a label's value", names::is_label_value)
        {
            labels.insert(key, value);
        }
    }
    labels
}

type Module = (String, String, Option<String>);

fn module(raw: Option<RawModule>, errors: &mut Errors) -> Option<Module> {
    let Some(raw) = raw else {
        errors.add("module", "required: the filter's `image` and its `sha256`");
        return None;
    };
    let expected = "oci:// with registry, repository and tag; the digest goes into `sha256`";
    let image = errors.text("module.image", raw.image, expected, names::is_image);
    let expected = "the digest of the image's manifest, 64 hexadecimal digits in lower case";
    let sha256 = errors.text("module.sha256", raw.sha256, expected, names::is_sha256);
    let pull_secret = match raw.pull_secret {
        None => None,
        Some(name) => {
            let expected = "the name of a Secret";
            Some(errors.text("module.pull_secret", Some(name), expected, names::is_dns_name)?)
        }
    };
    Some((image?, sha256?, pull_secret))
}
