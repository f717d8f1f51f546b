//! The repository's own `envoy.yaml`, with what a machine dictates replaced.
//!
//! Only ports, paths, addresses and the certificate authority are replaced, and on request one of
//! the two policies. Everything else that tests and demo run is the file that users run. A
//! replacement that finds nothing to replace fails: the file has changed then.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

/// Our filters, by the names they have in the file.
const FILTERS: [&str; 2] = ["entra-inbound", "entra-outbound"];

/// The repository's root.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ stands in the repository").into()
}

/// An Envoy configuration that began as `envoy.yaml`.
#[derive(Debug, Clone)]
pub struct EnvoyConfig {
    value: Value,
    pushable: bool,
}

impl EnvoyConfig {
    /// Reads the shipped file.
    pub fn shipped() -> Self {
        let path = repository().join("envoy.yaml");
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let value = serde_norway::from_str(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut config = Self { value, pushable: false };
        config.rewrite_policies(|policy| {
            let text = policy.as_str().expect("a policy is JSON in a string");
            serde_json::from_str(text).unwrap_or_else(|error| panic!("policy: {error}"))
        });
        config
    }

    /// Writes the files that Envoy reads into a directory; gives the one to start it with.
    pub fn write(&self, directory: &Path) -> PathBuf {
        let mut config = self.clone();
        config.rewrite_policies(|policy| Value::String(policy.to_string()));
        if config.pushable {
            split(&mut config.value, directory);
        }
        let file = directory.join("envoy.json");
        std::fs::write(&file, config.value.to_string()).expect("a file for the configuration");
        file
    }

    /// Lets Envoy take listeners and clusters from files of their own.
    pub fn make_pushable(&mut self) {
        self.pushable = true;
    }

    /// Whether Envoy takes listeners and clusters from files of their own.
    pub fn is_pushable(&self) -> bool {
        self.pushable
    }

    /// Between two readings a policy is kept as the document that it is, not as its text.
    fn rewrite_policies(&mut self, rewrite: impl Fn(&Value) -> Value) {
        for filter in FILTERS {
            let policy = self.policy_mut(filter);
            *policy = rewrite(policy);
        }
    }

    /// The whole document, for tests that change something unusual.
    pub fn value_mut(&mut self) -> &mut Value {
        &mut self.value
    }

    /// A cluster, for tests that change something unusual.
    pub fn cluster_mut(&mut self, name: &str) -> &mut Value {
        found(named_mut(&mut self.value, "clusters", name), name)
    }

    /// A listener, for tests that change something unusual.
    pub fn listener_mut(&mut self, name: &str) -> &mut Value {
        found(named_mut(&mut self.value, "listeners", name), name)
    }

    /// The port that the file names for a listener, or for `admin`.
    pub fn port(&self, listener: &str) -> u16 {
        let owner = if listener == "admin" {
            self.value.get("admin")
        } else {
            named(&self.value, "listeners", listener)
        };
        let port = owner.and_then(|owner| owner.pointer("/address/socket_address/port_value"));
        let port = port.and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
        port.unwrap_or_else(|| panic!("envoy.yaml names no port for {listener}"))
    }

    /// Lets a listener, or `admin`, listen on the loopback address; port 0 is any free one.
    pub fn listen(&mut self, listener: &str, port: u16) {
        let owner = if listener == "admin" {
            self.value.get_mut("admin")
        } else {
            named_mut(&mut self.value, "listeners", listener)
        };
        let address = owner.and_then(|owner| owner.pointer_mut("/address/socket_address"));
        *found(address, listener) = json!({"address": "127.0.0.1", "port_value": port});
        if listener != "admin" && port != 0 {
            // By default Envoy shares a port with another Envoy, and connections go to either.
            let listener = self.listener_mut(listener).as_object_mut().expect("a listener");
            listener.insert("enable_reuse_port".to_owned(), json!(false));
        }
    }

    /// Points a cluster to one address. Its TLS settings and metadata stay.
    pub fn upstream(&mut self, cluster: &str, address: SocketAddr) {
        let cluster_value = self.cluster_mut(cluster);
        set(cluster_value, "/type", json!("STATIC"));
        set(
            cluster_value,
            "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address",
            json!({"address": address.ip().to_string(), "port_value": address.port()}),
        );
    }

    /// Sets the broker's socket.
    pub fn broker_socket(&mut self, path: &Path) {
        let cluster = self.cluster_mut("token_broker");
        set(
            cluster,
            "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/pipe/path",
            json!(path),
        );
    }

    /// Sets the file of the authorities that the API's certificate is checked against.
    pub fn trusted_ca(&mut self, cluster: &str, path: &Path) {
        set(
            self.cluster_mut(cluster),
            "/transport_socket/typed_config/common_tls_context/validation_context/trusted_ca\
             /filename",
            json!(path),
        );
    }

    /// Takes the TLS away from a cluster.
    pub fn without_tls(&mut self, cluster: &str) {
        let cluster_value = self.cluster_mut(cluster);
        let members = cluster_value.as_object_mut();
        let removed = members.and_then(|members| members.remove("transport_socket"));
        assert!(removed.is_some(), "envoy.yaml has no TLS for {cluster}");
        // Envoy takes `auto_config` only where ALPN can choose.
        self.http1_only(cluster);
    }

    /// Speaks HTTP/1.1 to a cluster, whatever it offers.
    pub fn http1_only(&mut self, cluster: &str) {
        let options = self
            .cluster_mut(cluster)
            .pointer_mut(
                "/typed_extension_protocol_options\
                 /envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            )
            .and_then(Value::as_object_mut)
            .expect("the cluster's HTTP options");
        options.remove("auto_config");
        options.insert("explicit_http_config".into(), json!({"http_protocol_options": {}}));
    }

    /// Sets the file of the filter's module, in both directions.
    pub fn module(&mut self, path: &Path) {
        for filter in FILTERS {
            set(
                self.filter_mut(filter),
                "/typed_config/config/vm_config/code/local/filename",
                json!(path),
            );
        }
    }

    /// The policy of `entra-inbound` or `entra-outbound`.
    pub fn policy_mut(&mut self, filter: &str) -> &mut Value {
        found(
            self.filter_mut(filter).pointer_mut("/typed_config/config/configuration/value"),
            "configuration",
        )
    }

    /// Lets the outbound filter have signatures verified, which nothing in the shipped policy needs.
    pub fn let_outbound_verify(&mut self) {
        let allowed = self
            .filter_mut("entra-outbound")
            .pointer_mut("/typed_config/config/capability_restriction_config/allowed_capabilities");
        let allowed = allowed.and_then(Value::as_object_mut).expect("the capabilities");
        allowed.insert("proxy_call_foreign_function".to_owned(), json!({}));
    }

    fn filter_mut(&mut self, name: &str) -> &mut Value {
        found(filter_in(&mut self.value, name), name)
    }
}

fn named<'a>(value: &'a Value, kind: &str, name: &str) -> Option<&'a Value> {
    let items = value.get("static_resources")?.get(kind)?.as_array()?;
    items.iter().find(|item| item.get("name").and_then(Value::as_str) == Some(name))
}

fn named_mut<'a>(value: &'a mut Value, kind: &str, name: &str) -> Option<&'a mut Value> {
    let items = value.get_mut("static_resources")?.get_mut(kind)?.as_array_mut()?;
    items.iter_mut().find(|item| item.get("name").and_then(Value::as_str) == Some(name))
}

/// The HTTP filter of this name, wherever in the document it stands.
pub(super) fn filter_in<'a>(value: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    let is_it = value.get("typed_config").is_some()
        && value.get("name").and_then(Value::as_str) == Some(name);
    if is_it {
        return Some(value);
    }
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| filter_in(item, name)),
        Value::Object(members) => members.values_mut().find_map(|item| filter_in(item, name)),
        _ => None,
    }
}

fn set(value: &mut Value, pointer: &str, new: Value) {
    *found(value.pointer_mut(pointer), pointer) = new;
}

fn found<'a>(value: Option<&'a mut Value>, what: &str) -> &'a mut Value {
    value.unwrap_or_else(|| panic!("envoy.yaml has no {what}"))
}

/// Moves listeners and clusters out of the static resources into files that Envoy watches.
fn split(value: &mut Value, directory: &Path) {
    let kinds = [
        ("clusters", "cds_config", "type.googleapis.com/envoy.config.cluster.v3.Cluster"),
        ("listeners", "lds_config", "type.googleapis.com/envoy.config.listener.v3.Listener"),
    ];
    let mut sources = serde_json::Map::new();
    for (kind, source, type_url) in kinds {
        let resources = found(value.pointer_mut(&format!("/static_resources/{kind}")), kind).take();
        let Value::Array(mut resources) = resources else { panic!("{kind} are no list") };
        for resource in &mut resources {
            let members = resource.as_object_mut().expect("a resource");
            members.insert("@type".to_owned(), json!(type_url));
        }
        let path = directory.join(format!("{kind}.json"));
        let partial = directory.join(format!("{kind}.partial"));
        // Envoy looks at a file again when another one is moved to its place.
        std::fs::write(&partial, json!({"resources": resources}).to_string())
            .and_then(|()| std::fs::rename(&partial, &path))
            .expect("a file for Envoy's resources");
        sources.insert(source.to_owned(), json!({"path_config_source": {"path": path}}));
    }
    set(value, "/static_resources", json!({}));
    let members = value.as_object_mut().expect("a document");
    members.insert("dynamic_resources".to_owned(), Value::Object(sources));
    members.insert("node".to_owned(), json!({"id": "tests", "cluster": "tests"}));
}
