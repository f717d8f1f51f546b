//! No way in around the filter: each attack goes to a pod as the chart closes it, where nothing may
//! arrive, and to one where everything that closes is off, where it must: so each attack is real.
//!
//! The closed namespace has a policy of its own that allows everything. All hold beside it.

mod bytes;
mod ports;
mod stolen;

use std::{net::SocketAddr, sync::LazyLock, time::Duration};

use e2e::{
    client::Request,
    hostile::{Attack, Outcome},
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    callers::Caller,
    shop::{Open, Shop},
    world::{named, world},
};

/// HTTP that the Service declares.
const DECLARED: u16 = 8080;
/// HTTP on a port that is in no Service: Istio finds the protocol out.
const UNDECLARED: u16 = 9090;
/// TCP that the Service declares, and that it does not.
const TCP: [u16; 2] = [7000, 7001];
/// Servers that speak first: declared as TCP, and not at all.
const BANNERS: [u16; 2] = [7100, 7101];
/// The application's words on those.
const BANNER: &str = "220 ready";
/// Long enough within one machine, and short where a connection just stays open.
const PATIENCE: Duration = Duration::from_secs(3);

/// Every port of the application that a caller could try.
fn ports() -> [u16; 6] {
    [DECLARED, UNDECLARED, TCP[0], TCP[1], BANNERS[0], BANNERS[1]]
}

fn shop(namespace: &'static str) -> Shop {
    Shop::new(namespace)
        .application(&["--http", "9090", "--tcp", "7000", "--tcp", "7001"])
        .application(&["--banner", "7100", "--banner", "7101", "--http", "8082"])
        .port("tcp-raw", TCP[0])
        .port("tcp-banner", BANNERS[0])
}

/// As the chart closes it, beside a policy that allows everything. Nothing may ever arrive there,
/// so no test sends a good token.
fn closed() -> &'static Open {
    static CLOSED: LazyLock<Open> = LazyLock::new(|| {
        let allow_all = json!({
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": named("allow-all", "closed"),
            "spec": {"action": "ALLOW", "rules": [{}]},
        });
        shop("closed").object(allow_all).open()
    });
    &CLOSED
}

/// The same filter and the same application with nothing that closes.
fn open() -> &'static Open {
    static OPEN: LazyLock<Open> = LazyLock::new(|| {
        shop("open")
            .values(json!({"closed": {
                "policy": false, "marker": false, "serverFirst": {"enabled": false},
            }}))
            .annotation("entra-sidecar/lockdown-admin", "false")
            .annotation("entra-sidecar/lockdown-status", "false")
            // A port of the application that writes down what comes, also from the kubelet.
            .probe(8082)
            .open()
    });
    &OPEN
}

/// A pod without a sidecar in the closed namespace.
fn neighbour() -> &'static Caller {
    static NEIGHBOUR: LazyLock<Caller> = LazyLock::new(|| {
        closed();
        Caller::bare("closed", "neighbour")
    });
    &NEIGHBOUR
}

/// What an attacker asks for, with an identity of the attacker's choice.
fn forged() -> Request {
    Request::get("/orders/7")
        .header("x-entra-object-id", "00000000-0000-4000-8000-00000000beef")
        .header("x-entra-client-id", "00000000-0000-4000-8000-00000000beef")
        .header("x-entra-permit", "1")
}

/// An attack on a port of a shop.
fn on(shop: &Open, port: u16) -> Attack {
    Attack::on(shop.port(port)).patience(PATIENCE)
}

/// Sends all of it at once; what came of each, by its name.
pub(crate) fn all(attacks: Vec<(String, Attack, Vec<u8>)>) -> Vec<(String, Outcome)> {
    world().wait_for(async {
        let mut running = JoinSet::new();
        for (name, attack, bytes) in attacks {
            running.spawn(async move { (name, attack.send(&bytes).await) });
        }
        running.join_all().await
    })
}

/// Nobody was served, and the application saw no connection, no byte and no request.
fn nothing_arrived(outcomes: &[(String, Outcome)]) {
    for (name, outcome) in outcomes {
        assert!(!outcome.was_served(), "{name} was served: {}", outcome.text());
        assert!(!outcome.text().contains(BANNER), "{name}: the application spoke");
    }
    assert_eq!(closed().seen(), Vec::<Value>::new(), "something reached the application");
}

/// Waits until the application of the open shop has seen something on a port that holds.
fn saw(port: u16, what: &str, holds: impl Fn(&Value) -> bool) {
    let seen = || Ok(open().seen().iter().any(|event| event["port"] == port && holds(event)));
    mesh::poll(what, PATIENCE, seen).unwrap();
}

/// An event of bytes that contain this text.
fn has_text(event: &Value, text: &str) -> bool {
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    event["hex"].as_str().is_some_and(|shown| shown.contains(&hex))
}

/// An address of the bridge that is not the node's own.
fn elsewhere() -> SocketAddr {
    "10.88.0.9:0".parse().unwrap()
}
