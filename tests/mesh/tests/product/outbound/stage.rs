//! The pod whose calls the tests watch: a destination for each test, so that none disturbs another,
//! each with a server on an address of the bridge, and the objects that the program makes of them.

use std::{
    collections::BTreeMap,
    io::Write,
    net::{IpAddr, Ipv4Addr},
    ops::Deref,
    process::Command,
    sync::LazyLock,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use e2e::{
    fake_entra::{Call, sample, service_account},
    upstream::Upstream,
};
use mesh::{Guard, poll, until};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::{
    shop::{Open, Shop},
    world::{PATIENCE, World, repository, world},
};

/// The scopes that the pod's identity may ask for.
pub(crate) const SCOPES: [&str; 2] =
    ["https://graph.microsoft.com/.default", "https://stock.contoso.com/.default"];

/// How a destination's server speaks TLS.
enum Server {
    /// As it should.
    Right,
    /// It has a certificate for this name, and refuses a handshake for another.
    Only(&'static str),
    /// It shows a certificate for this name whatever it is asked for.
    Shows(&'static str),
    /// Not at all, though on the port for it.
    Plain,
}

/// Name, host, the last byte of its address, and what is there.
const DESTINATIONS: [(&str, &str, u8, Server); 15] = [
    ("stock", "stock.contoso.com", 3, Server::Right),
    ("get", "get.contoso.example", 4, Server::Right),
    ("post", "post.contoso.example", 5, Server::Right),
    ("http2", "http2.contoso.example", 6, Server::Right),
    ("grpc", "grpc.contoso.example", 7, Server::Right),
    ("sni", "sni.contoso.example", 8, Server::Only("other.contoso.example")),
    ("san", "san.contoso.example", 9, Server::Shows("other.contoso.example")),
    ("plain", "plain.contoso.example", 10, Server::Plain),
    ("moved", "moved.contoso.example", 11, Server::Right),
    ("authority", "authority.contoso.example", 12, Server::Right),
    ("half", "half.contoso.example", 13, Server::Right),
    ("ruled", "ruled.contoso.example", 14, Server::Right),
    ("inner", "inner.contoso.example", 15, Server::Right),
    ("below", "below.contoso.example", 16, Server::Right),
    ("registered", "registered.contoso.example", 17, Server::Right),
];
/// Hears whatever comes to ports 80 and 443 of an address that no destination has.
pub(super) const THIEF: [u8; 4] = [10, 88, 0, 20];

/// The pod, its servers and its objects.
pub(crate) struct Stage {
    pub(crate) open: Open,
    servers: BTreeMap<&'static str, Upstream>,
    objects: Vec<Value>,
}

/// The stage for one test: no disruptive one runs while it lives.
pub(crate) struct Staged {
    stage: &'static Stage,
    _guard: Guard,
}

impl Deref for Staged {
    type Target = Stage;

    fn deref(&self) -> &Stage {
        self.stage
    }
}

/// The stage, made at the first call; its namespace goes at the next run's start.
pub(crate) fn stage() -> Staged {
    static STAGE: LazyLock<Stage> = LazyLock::new(Stage::make);
    let guard = world().mesh.shared().unwrap();
    Staged { stage: &STAGE, _guard: guard }
}

impl Stage {
    fn make() -> Self {
        let world = world();
        let servers = servers(world);
        // One more for each challenge, so that none is answered with another's new token.
        let names = ["default", "get", "post", "http2", "grpc"];
        let capable = |name: &str| (name.to_owned(), identity(&["cp1"]));
        let identities: Value = names.map(capable).into_iter().collect();
        let values = json!({"broker": {"config": {"identities": identities}}});
        let shop = Shop::new("outbound").values(values);
        // As `nothing` needs it: the machine's own tokens are for any process that is let there.
        let open = shop.annotation("entra-sidecar/lockdown-metadata", "true").open();
        let objects = generate(world, "outbound", &destinations());
        // As the documents tell it: the objects are a value of the chart that is installed.
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(objects.as_bytes()).unwrap();
        let chart = repository("istio/chart");
        let set = format!("outbound.objects={}", file.path().display());
        let upgrade = ["upgrade", "entra", chart.to_str().unwrap(), "--reuse-values"];
        let options = ["--namespace", "outbound", "--set-file", &set];
        let upgraded = world.mesh.helm(&[&upgrade[..], &options].concat()).unwrap();
        assert_eq!(upgraded.code, 0, "{}", upgraded.stderr);
        let stage = Self { open, servers, objects: documents(&objects) };
        for (name, ..) in DESTINATIONS {
            stage.until_there(name, true, true);
        }
        stage
    }

    /// The server of a destination; `thief` hears what comes to an address that none has.
    pub(crate) fn server(&self, name: &str) -> &Upstream {
        if name == "graph" { &self.open.world.graph } else { &self.servers[name] }
    }

    /// One of the generated objects.
    pub(super) fn object(&self, kind: &str, name: &str) -> Value {
        let is = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
        self.objects.iter().find(is).expect("an object that the program makes").clone()
    }

    /// Applies one, changed or not.
    pub(super) fn apply(&self, object: &Value) {
        self.open.world.mesh.apply(&object.to_string()).unwrap();
    }

    /// What the application gets for `mesh-app call …`, run in its container.
    pub(crate) fn call(&self, words: &[&str]) -> Value {
        call(&self.open, words)
    }

    /// The same, as soon as the answer has this status.
    pub(crate) fn until_answered(&self, words: &[&str], status: u16) -> Value {
        until_answered(&self.open, words, status)
    }

    /// Waits until the proxy has a destination's cluster and route, or has them no more.
    pub(super) fn until_there(&self, name: &str, cluster: bool, route: bool) {
        poll(&format!("{name} in the proxy"), PATIENCE, || {
            let dump = dump(&self.open);
            let own = format!("entra-{name}");
            let routed = dump.to_string().contains(&format!("\"cluster\":\"{own}\","));
            Ok(find_cluster(&dump, &own).is_some() == cluster && routed == route)
        })
        .unwrap();
    }

    /// Waits until the proxy's configuration has this text.
    pub(super) fn until_dumped(&self, text: &str) {
        poll(text, PATIENCE, || Ok(dump(&self.open).to_string().contains(text))).unwrap();
    }

    /// Waits until Istio's own cluster of a host is as it is wanted.
    pub(super) fn until_cluster(&self, host: &str, fits: impl Fn(&Value) -> bool) {
        poll(&format!("the cluster of {host}"), PATIENCE, || {
            let name = format!("outbound|80||{host}");
            Ok(find_cluster(&dump(&self.open), &name).is_some_and(|known| fits(&known)))
        })
        .unwrap();
    }
}

/// Every destination's server, and DNS that leads there.
fn servers(world: &World) -> BTreeMap<&'static str, Upstream> {
    let mut hosts = vec![("nobody.contoso.example", Ipv4Addr::from(THIEF).to_string())];
    let start = |address: [u8; 4], port: u16, server: &Server, host: &str| {
        let address = (IpAddr::from(address), port).into();
        let tls = match server {
            Server::Right => world.entra.tls_server(host),
            Server::Only(name) => world.entra.tls_server(name),
            Server::Shows(name) => world.entra.tls_server_for_any_name(name),
            Server::Plain => return world.wait_for(Upstream::start_at(address)),
        };
        world.wait_for(Upstream::start_tls_at(address, tls))
    };
    let mut servers = BTreeMap::new();
    for (name, host, last, server) in &DESTINATIONS {
        hosts.push((host, Ipv4Addr::new(10, 88, 0, *last).to_string()));
        servers.insert(*name, start([10, 88, 0, *last], 443, server, host));
    }
    servers.insert("thief", start(THIEF, 80, &Server::Plain, ""));
    servers.insert("thief443", start(THIEF, 443, &Server::Plain, ""));
    let hosts: Vec<_> = hosts.iter().map(|(name, address)| (*name, address.as_str())).collect();
    world.mesh.set_hosts(&hosts).unwrap();
    servers
}

fn destinations() -> Vec<Value> {
    let of = |(name, host, ..): &(&str, &str, u8, Server)| {
        let scope = SCOPES[usize::from(*name == "stock")];
        let challenged = ["get", "post", "http2", "grpc"].contains(name);
        let identity = if challenged { name } else { "default" };
        let protocol = if matches!(*name, "http2" | "grpc") { name } else { "http1" };
        json!({
            "name": name, "host": host, "protocol": protocol, "claims_challenges": true,
            "token": {"identity": identity, "scope": scope},
        })
    };
    let graph = json!({"name": "graph", "kind": "graph", "token": {"identity": "default"}});
    std::iter::once(graph).chain(DESTINATIONS.iter().map(of)).collect()
}

/// What `entra-sidecar istio destinations` prints for these.
pub(crate) fn generate(world: &World, namespace: &str, destinations: &[Value]) -> String {
    let digest = world.images.filter.strip_prefix("sha256:").unwrap();
    let list = json!({
        "namespace": namespace,
        "trusted_ca": "/etc/entra-ca/ca.crt",
        "module": {"image": "oci://10.88.0.1:5000/entra-sidecar/filter:0.1.0", "sha256": digest},
        "destinations": destinations,
    });
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(list.to_string().as_bytes()).unwrap();
    let program = std::env::var_os("ENTRA_SIDECAR_BIN");
    let program = program.expect("ENTRA_SIDECAR_BIN: `cargo xtask mesh test` sets it");
    let mut command = Command::new(program);
    let output = command.args(["istio", "destinations", "--config"]).arg(file.path()).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The documents of a YAML file.
pub(super) fn documents(text: &str) -> Vec<Value> {
    let documents = serde_norway::Deserializer::from_str(text);
    let documents = documents.map(|document| Value::deserialize(document).unwrap());
    documents.filter(|document| !document.is_null()).collect()
}

/// What the application of a pod gets for `mesh-app call …`, run in its container.
pub(crate) fn call(open: &Open, words: &[&str]) -> Value {
    let ran = open.shell(&[&["mesh-app", "call"], words].concat());
    let line = ran.stdout.lines().next().unwrap_or_else(|| panic!("no answer: {}", ran.stderr));
    serde_json::from_str(line).unwrap()
}

/// The same, as soon as the answer has this status.
pub(crate) fn until_answered(open: &Open, words: &[&str], status: u16) -> Value {
    until(&format!("{status} for {words:?}"), PATIENCE, || {
        let answer = call(open, words);
        if answer["status"] == status {
            return Ok(Some(answer));
        }
        let body = answer["body"].as_str().unwrap_or_default().replace("eyJ", "…");
        anyhow::bail!("{}: {body}", answer["status"])
    })
    .unwrap()
}

/// Envoy's configuration, which only Istio's own user may read.
pub(super) fn dump(open: &Open) -> Value {
    let ask = ["pilot-agent", "request", "GET", "config_dump"];
    let dump = open.world.mesh.exec(open.namespace, &open.pod, "istio-proxy", &ask).unwrap();
    assert_eq!(dump.code, 0, "{}", dump.stderr);
    // The agent's own words come first.
    let (_, json) = dump.stdout.split_once("{").unwrap();
    serde_json::from_str(&format!("{{{json}")).unwrap()
}

/// The clusters that are in use.
pub(super) fn clusters(dump: &Value) -> impl Iterator<Item = &Value> {
    let sections = dump["configs"].as_array().into_iter().flatten();
    let clusters = sections.flat_map(|section| section["dynamic_active_clusters"].as_array());
    clusters.flatten().map(|known| &known["cluster"])
}

/// One of them.
pub(super) fn find_cluster(dump: &Value, name: &str) -> Option<Value> {
    clusters(dump).find(|cluster| cluster["name"] == name).cloned()
}

/// What a token says.
pub(crate) fn claims(token: &str) -> Value {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

/// Whether a token came over the network as it is.
pub(super) fn in_clear(server: &Upstream) -> bool {
    times_in_clear(server) > 0
}

/// On how many connections one did.
pub(super) fn times_in_clear(server: &Upstream) -> usize {
    let start = b"Bearer ey";
    let has = |wire: &[u8]| wire.windows(start.len()).any(|window| window == start);
    server.connected().iter().filter(|known| has(&known.wire)).count()
}

/// An identity for the broker's configuration.
fn identity(capabilities: &[&str]) -> Value {
    json!({
        "workload_identity": {"tenant": sample::TENANT, "client_id": sample::WORKLOAD},
        "scopes": SCOPES,
        "client_capabilities": capabilities,
    })
}

/// Values of the chart with one identity.
pub(super) fn one_identity() -> Value {
    json!({"broker": {"config": {"identities": {"default": identity(&[])}}}})
}

/// What a pod's broker has asked Entra for.
pub(super) fn asked(world: &World, namespace: &str) -> Vec<Call> {
    world.entra.calls_of_subject(&service_account(namespace, "orders"))
}
