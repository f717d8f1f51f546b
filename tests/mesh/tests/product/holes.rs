//! One thing taken away at a time: what still holds, and what no longer does.
//!
//! One namespace for all of it, so these tests take turns, and each puts back what it took.

use std::{
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use e2e::{
    client::Request,
    hostile::{Attack, Outcome, Tls, payload::spellings},
};
use serde_json::{Value, json};

use crate::{
    callers::Caller,
    closed::all,
    shop::{Open, Shop, install},
    world::{PATIENCE, World, world},
};

/// A server that speaks first, on a port that is in no Service.
const BANNER: u16 = 7101;
/// "raw bytes" and a line feed, as the application writes it down.
const RAW: &str = "7261772062797465730a";
const SHORT: Duration = Duration::from_secs(2);

/// The namespace, whole again.
fn whole() -> MutexGuard<'static, Open> {
    static SHOP: LazyLock<Mutex<Open>> = LazyLock::new(|| {
        let shop = Shop::new("holes");
        Mutex::new(shop.application(&["--banner", "7101", "--udp-echo", "5300"]).open())
    });
    let shop = SHOP.lock().unwrap_or_else(PoisonError::into_inner);
    label(&shop, "true");
    // What was deleted comes back; what was changed by hand does not, so it is made anew.
    if selector(&shop).is_some_and(|selector| selector.contains("another")) {
        kubectl(&shop, &["delete", "trafficextension", "entra-inbound"]);
    }
    become_with(&shop, &[]);
    let token = shop.world.token();
    until(&shop, "the filter to let a token pass", Some(200), |request| request.bearer(&token));
    until(&shop, "the filter to refuse who has none", Some(401), |request| request);
    shop
}

/// The labels that the plugin selects, if there is a plugin.
fn selector(shop: &Open) -> Option<String> {
    let plugin = shop.world.mesh.get("holes", &["trafficextension", "entra-inbound"]).ok()?;
    Some(plugin["spec"]["selector"].to_string())
}

/// The chart again, with these values.
fn become_with(shop: &Open, values: &[Value]) {
    install(shop.world, shop.namespace, values);
}

/// Deletes or changes an object of the chart.
fn kubectl(shop: &Open, arguments: &[&str]) {
    shop.world.mesh.kubectl(&[arguments, &["--namespace", shop.namespace]].concat()).unwrap();
}

/// Sets the label that selects the filter and the policies, or removes it (`-`).
fn label(shop: &Open, value: &str) {
    let label = match value {
        "-" => "entra-sidecar/injected-".to_owned(),
        value => format!("entra-sidecar/injected={value}"),
    };
    kubectl(shop, &["label", "pod", &shop.pod, &label, "--overwrite"]);
}

fn attack(world: &World, shop: &Open, request: &Request) -> Outcome {
    world.wait_for(Attack::on(shop.port(8080)).patience(SHORT).http1(request))
}

/// Waits until a request has this answer, as changes take seconds to arrive.
fn until(shop: &Open, what: &str, status: Option<u16>, request: impl Fn(Request) -> Request) {
    let mut last = None;
    let asked = mesh::poll(what, PATIENCE, || {
        last = attack(shop.world, shop, &request(Request::get("/orders/7"))).status();
        Ok(last == status)
    });
    asked.unwrap_or_else(|error| panic!("{error}; the last answer was {last:?}"));
}

/// All spellings of the marker, each refused, and nothing of them seen.
fn no_marker_passes(shop: &Open) {
    let before = shop.seen();
    let attacks = spellings("x-entra-permit", "1").into_iter().map(|(name, lines)| {
        let request = lines
            .iter()
            .fold(Request::get("/orders/7"), |request, (name, value)| request.header(name, value));
        let attack = Attack::on(shop.port(8080)).patience(SHORT);
        (name.to_owned(), attack, request.to_bytes())
    });
    for (name, outcome) in all(attacks.collect()) {
        assert!(!outcome.was_served(), "{name}: {}", outcome.text());
    }
    assert_eq!(shop.seen(), before, "something reached the application");
}

#[test]
fn with_the_plugin_deleted_the_right_marker_opens_nothing() {
    let _guard = world().mesh.shared().unwrap();
    let shop = whole();
    let token = shop.world.token();
    kubectl(&shop, &["delete", "trafficextension", "entra-inbound"]);
    until(&shop, "nobody to pass", Some(403), |request| request.bearer(&token));
    no_marker_passes(&shop);
}

#[test]
fn without_the_early_removal_the_right_marker_is_a_key_while_the_plugin_is_gone() {
    let _guard = world().mesh.shared().unwrap();
    let shop = whole();
    become_with(&shop, &[json!({"closed": {"marker": false}})]);
    // With the plugin in place it still is none: the filter takes it away.
    no_marker_passes(&shop);
    kubectl(&shop, &["delete", "trafficextension", "entra-inbound"]);
    until(&shop, "the marker to open", Some(200), |request| request.header("x-entra-permit", "1"));
    until(&shop, "others to be refused", Some(403), |request| request);
}

#[test]
fn an_image_that_is_missing_lets_nobody_in() {
    let _guard = world().mesh.shared().unwrap();
    let shop = whole();
    let token = shop.world.token();
    let digest = format!("sha256:{}", "0".repeat(64));
    become_with(&shop, &[json!({"filter": {"digest": digest}})]);
    let before = shop.seen().len();
    // Whoever comes before the change arrives has the filter's answer; after it nobody passes.
    until(&shop, "nobody to pass", Some(403), |request| request.bearer(&token));
    let after = shop.seen().len();
    no_marker_passes(&shop);
    assert_eq!(shop.seen().len(), after, "before the change: {before}");
}

#[test]
fn a_plugin_whose_selector_misses_leaves_the_pod_closed() {
    let _guard = world().mesh.shared().unwrap();
    let shop = whole();
    let token = shop.world.token();
    let miss = json!({"spec": {"selector": {"matchLabels": {"app": "another"}}}}).to_string();
    kubectl(&shop, &["patch", "trafficextension", "entra-inbound", "--type=merge", "-p", &miss]);
    until(&shop, "nobody to pass", Some(403), |request| request.bearer(&token));
    no_marker_passes(&shop);
}

#[test]
fn a_pod_that_every_selector_misses_is_open_so_admission_must_hold_its_label() {
    let _guard = world().mesh.shared().unwrap();
    let shop = whole();
    label(&shop, "-");
    // Nothing in the mesh protects it now: what prevents this is the admission policy
    // (admission.rs: `labels_that_select_the_filter_cannot_be_taken_from_a_running_pod`).
    until(&shop, "the pod to be open", Some(200), |request| request);
    label(&shop, "true");
    until(&shop, "the pod to be closed", Some(401), |request| request);
}

#[test]
fn without_its_patch_a_server_that_speaks_first_talks_to_a_denied_caller() {
    let _guard = world().mesh.shared().unwrap();
    let shop = whole();
    // By the handshake alone the connection is for the application; no byte need follow.
    let tls = Tls::alpn(&["istio"]).identity(&Caller::injected("holes", "victim").steal());
    let banner = || {
        let attack = Attack::on(shop.port(BANNER)).patience(Duration::from_secs(1));
        let outcome = shop.world.wait_for(attack.tls(tls.clone()).wait());
        Ok(outcome.text().contains("220 ready"))
    };
    assert!(!banner().unwrap(), "closed at first");
    become_with(&shop, &[json!({"closed": {"serverFirst": {"enabled": false}}})]);
    mesh::poll("the banner to reach a denied caller", PATIENCE, banner).unwrap();
}

#[test]
fn without_the_policy_raw_bytes_arrive_though_the_filter_is_there() {
    let _guard = world().mesh.shared().unwrap();
    let shop = whole();
    become_with(&shop, &[json!({"closed": {"policy": false}})]);
    mesh::poll("raw bytes to arrive", PATIENCE, || {
        let attack = Attack::on(shop.port(BANNER)).patience(Duration::from_secs(1));
        let _said = shop.world.wait_for(attack.send(b"raw bytes\n"));
        Ok(shop.seen().iter().any(|event| event["hex"] == RAW))
    })
    .unwrap();
    until(&shop, "HTTP still to be the filter's", Some(401), |request| request);
}

#[test]
fn udp_passes_all_of_it_as_the_documents_say() {
    let _guard = world().mesh.shared().unwrap();
    let shop = whole();
    // A NetworkPolicy (chart: networkPolicy.ingress) would stop it where the network enforces
    // them; the bridge of these tests does not.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(SHORT)).unwrap();
    socket.send_to(b"hello", shop.port(5300)).unwrap();
    let mut answer = [0; 64];
    let length = socket.recv(&mut answer).unwrap();
    assert_eq!(&answer[..length], b"hello");
    assert!(shop.seen().iter().any(|event| event["event"] == "datagram"));
}
