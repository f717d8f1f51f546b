//! The sidecar's own ports: 15020 (pilot-agent), 15000 (Envoy's admin), 15090 and 15021.

use std::time::Duration;

use e2e::client::Request;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    time::timeout,
};

use super::{closed, elsewhere, forged, neighbour, nothing_arrived, open, saw};
use crate::{
    callers::{Caller, bearer, call, reply},
    shop::Open,
    world::world,
};

/// Where pilot-agent answers for the application's readiness probe.
const PROBE: &str = "/app-health/application/readyz";
const FORGED: &str = "x-entra-object-id: 00000000-0000-4000-8000-00000000beef";

fn url(shop: &Open, port: u16, path: &str) -> String {
    format!("http://{}{path}", shop.port(port))
}

/// What a caller with another address of the bridge gets.
fn from_elsewhere(shop: &Open, port: u16, request: &Request) -> Vec<u8> {
    let (address, bytes) = (shop.port(port), request.to_bytes());
    let exchange = async move {
        let socket = TcpSocket::new_v4()?;
        socket.bind(elsewhere())?;
        let mut stream = socket.connect(address).await?;
        stream.write_all(&bytes).await?;
        let mut received = vec![0; 4096];
        let length = stream.read(&mut received).await?;
        received.truncate(length);
        Ok::<_, std::io::Error>(received)
    };
    let limited = async { timeout(Duration::from_secs(5), exchange).await };
    world().wait_for(limited).map_or_else(|_| Vec::new(), Result::unwrap_or_default)
}

#[test]
fn port_15020_answers_the_node_and_no_other_address() {
    let _guard = world().mesh.shared().unwrap();
    let lines = [FORGED.to_owned(), bearer("forged"), "host: orders".to_owned()];
    for path in [PROBE, "/stats/prometheus", "/quitquitquit", "/healthz/ready"] {
        let reply = neighbour().call("GET", &url(closed(), 15020, path), &lines);
        assert_eq!(reply.status, None, "{path}: {}", reply.text);
        let received = from_elsewhere(closed(), 15020, &Request::get(path));
        assert_eq!(String::from_utf8_lossy(&received), "", "{path}");
    }
    // The tests run at the node's address, as the kubelet does: the pod would not be ready without.
    let probe = world().send(&Request::get(PROBE), closed().port(15020));
    assert_eq!(probe.status, 200, "{}", probe.text());
    nothing_arrived(&[]);
}

#[test]
fn without_the_lock_down_port_15020_carries_a_forged_identity_past_the_filter() {
    let _guard = world().mesh.shared().unwrap();
    let target = url(open(), 15020, PROBE);
    let reply = neighbour().call("GET", &target, &[FORGED.to_owned()]);
    assert_eq!(reply.status, Some(200), "{}", reply.text);
    saw(8082, "the forged identity", |event| {
        let lines = event["headers"].as_array().cloned().unwrap_or_default();
        lines.iter().any(|line| line[1] == "00000000-0000-4000-8000-00000000beef")
    });
    let received = from_elsewhere(open(), 15020, &Request::get(PROBE));
    assert!(received.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&received));
}

/// What the application's container gets from Envoy's admin.
fn admin(shop: &Open, method: &str, path: &str) -> (Option<u64>, String) {
    let target = format!("http://127.0.0.1:15000{path}");
    let reply = reply(&shop.shell(&call(method, &target, &[])));
    (reply.status, reply.text)
}

#[test]
fn envoys_admin_answers_no_application() {
    let _guard = world().mesh.shared().unwrap();
    let requests = [
        ("GET", "/config_dump"),
        ("POST", "/logging?level=debug"),
        ("POST", "/quitquitquit"),
        ("GET", "/stats"),
    ];
    for (method, path) in requests {
        let (status, text) = admin(closed(), method, path);
        assert_eq!(status, None, "{path}: {text}");
    }
    let (status, text) = admin(open(), "GET", "/config_dump?resource=static_listeners");
    assert_eq!(status, Some(200), "where it is not closed it is open: {text}");
}

#[test]
fn envoys_admin_answers_no_other_pod() {
    let _guard = world().mesh.shared().unwrap();
    for shop in [closed(), open()] {
        let reply = neighbour().call("GET", &url(shop, 15000, "/config_dump"), &[]);
        assert_eq!(reply.status, Some(403), "the filter stands before it: {}", reply.text);
        assert!(reply.text.contains("about:blank"), "it was the filter: {}", reply.text);
    }
    nothing_arrived(&[]);
}

#[test]
fn an_application_that_is_root_can_become_istio_and_then_reaches_the_admin() {
    let _guard = world().mesh.shared().unwrap();
    let start_as = |user| format!("start-stop-daemon -S -p /none -c {user} -x");
    let ask = "/usr/bin/mesh-app -- call GET http://127.0.0.1:15000/ready";
    let become_istio = format!("busybox {} {ask}", start_as("istio-proxy"));
    let finished = closed().shell(&["sh", "-c", &become_istio]);
    assert_eq!(reply(&finished).status, Some(200), "a limit that the documents name");
    // Who is not root has no way to that user.
    let nobody = start_as("nobody");
    let tries = format!("busybox {nobody} /bin/busybox -- {} {ask}", start_as("istio-proxy"));
    let finished = closed().shell(&["sh", "-c", &tries]);
    assert_ne!(finished.code, 0, "{}", finished.stdout);
    assert!(finished.stderr.contains("not permitted"), "{}", finished.stderr);
    assert_eq!(finished.stdout, "");
}

#[test]
fn the_ports_that_stay_open_show_envoys_numbers_and_readiness_and_no_more() {
    let _guard = world().mesh.shared().unwrap();
    let get = |caller: &Caller, port: u16, path: &str| {
        caller.call("GET", &url(closed(), port, path), &[FORGED.to_owned()])
    };
    let numbers = get(neighbour(), 15090, "/stats/prometheus");
    assert_eq!(numbers.status, Some(200));
    assert!(numbers.text.contains("envoy_"), "these are Envoy's");
    assert_eq!(get(neighbour(), 15021, "/healthz/ready").status, Some(200));
    let others = ["/", "/config_dump", "/logging", "/quitquitquit", PROBE, "/stats", "/orders/7"];
    for port in [15090, 15021] {
        for path in others {
            let reply = get(neighbour(), port, path);
            assert_eq!(reply.status, Some(404), "{port}{path}: {}", reply.text);
        }
    }
    nothing_arrived(&[]);
}

#[test]
fn the_ports_of_the_sidecar_itself_lead_nobody_to_the_application() {
    let _guard = world().mesh.shared().unwrap();
    // 15001 and 15006 are where Envoy takes captured connections; 15004 and 15053 pilot-agent's.
    for port in [15001, 15004, 15006, 15053] {
        let outcome = world().wait_for(super::on(closed(), port).http1(&forged()));
        nothing_arrived(&[(format!("port {port}"), outcome)]);
    }
    let healthy: Vec<Value> = closed().seen();
    assert_eq!(healthy, Vec::<Value>::new());
}
