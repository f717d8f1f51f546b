//! Which host calls a request costs, by name and in their order: each takes about a microsecond.
//! ARCHITECTURE.md lists their numbers; a call that is added there must be added here.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test: what goes wrong fails it"
)]

use contract::route;
use e2e::{
    client::{DEADLINE, Request},
    envoy::EnvoyConfig,
    fake_entra::sample::{ORDERS_API, TENANT},
    stack::{Stack, unix_now, world::user},
    stand_in::{self, Said, StandIn},
};
use serde_json::json;

const ALL_HEADERS: &str = "proxy_get_header_map_pairs";
const ONE_HEADER: &str = "proxy_get_header_map_value";
const TIME: &str = "proxy_get_current_time_nanoseconds";
const RECORD: &str = "proxy_set_property";
const REMOVE: &str = "proxy_remove_header_map_value";
const ADD: &str = "proxy_add_header_map_value";
const SET: &str = "proxy_replace_header_map_value";
const PROPERTY: &str = "proxy_get_property";
const REPLY: &str = "proxy_send_local_response";
const FOREIGN: &str = "proxy_call_foreign_function";

/// The callbacks that a request is served in.
const CALLBACKS: [&str; 2] = ["proxy_on_request_headers", "proxy_on_response_headers"];

/// Sends one request and checks which host calls it took.
async fn check(stack: &Stack, listener: &str, request: &Request, expected: &[&str]) {
    stack.envoy.log_level("wasm", "trace").await;
    let before = stack.envoy.log().len();
    match listener {
        "inbound" => stack.call(request).await,
        _ => stack.call_graph(request.clone()).await,
    };
    // The end of the stream's context comes after everything that the request cost.
    let log = async {
        loop {
            let log = stack.envoy.log().split_off(before);
            if log.contains("[host<-vm] proxy_on_delete") {
                return log;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let log = tokio::time::timeout(DEADLINE, log).await.expect("the end of the stream");
    stack.envoy.log_level("wasm", "info").await;
    assert_eq!(host_calls(&log), expected, "{listener} {request:?}");
}

/// The names of the calls within [`CALLBACKS`]; ticks come in between, and are nobody's request.
fn host_calls(log: &str) -> Vec<&str> {
    let mut within = false;
    let mut calls = Vec::new();
    for line in log.lines() {
        let is_callback = |mark: &str| {
            let name = line.split_once(mark).map(|(_, name)| name);
            name.is_some_and(|name| CALLBACKS.iter().any(|callback| name.starts_with(callback)))
        };
        if is_callback("[host->vm] ") {
            within = true;
        } else if is_callback("[host<-vm] ") {
            within = false;
        } else if let Some((_, call)) = line.split_once("[vm->host] env.")
            && within
        {
            calls.push(call.split('(').next().unwrap_or(call));
        }
    }
    calls
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_calls_of_each_path_are_these_and_no_more() {
    let stack = Stack::builder().start().await;
    let read = || Request::get("/orders/7");
    let token = || user(&stack.entra, &["Orders.Read"]).sign();
    let cached = read().bearer(&token());
    stack.passed(&cached).await;
    stack.graph_passed(&Request::get("/v1.0/me")).await;
    // Three identity headers and the marker.
    let passed = [REMOVE, ADD, ADD, ADD, ADD, RECORD];

    let hit = [&[ALL_HEADERS, TIME][..], &passed].concat();
    check(&stack, "inbound", &cached, &hit).await;
    let miss = [&[ALL_HEADERS, TIME, FOREIGN][..], &passed].concat();
    check(&stack, "inbound", &read().bearer(&token()), &miss).await;
    let anyone = [ALL_HEADERS, TIME, ADD, RECORD];
    check(&stack, "inbound", &Request::get("/healthz"), &anyone).await;
    let refused = [ALL_HEADERS, TIME, RECORD, REPLY];
    check(&stack, "inbound", &read(), &refused).await;
    let spoofed = cached.clone().header("x-entra-object-id", "x").header("x_entra_permit", "1");
    let removed = [&[ALL_HEADERS, TIME, REMOVE, REMOVE][..], &passed].concat();
    check(&stack, "inbound", &spoofed, &removed).await;

    let attempt = [PROPERTY, ONE_HEADER, PROPERTY, TIME];
    // On the response: no retry of the upstream's asking, TLS, no challenge.
    let injected = [&attempt[..], &[SET, RECORD, REMOVE, PROPERTY, ONE_HEADER]].concat();
    check(&stack, "outbound", &Request::get("/v1.0/me"), &injected).await;
    // Who brings an Authorization is asked whether it is ours, from an attempt before.
    let refused = [PROPERTY, ONE_HEADER, PROPERTY, PROPERTY, TIME, ONE_HEADER, RECORD, REPLY];
    check(&stack, "outbound", &Request::get("/v1.0/me").bearer("own"), &refused).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_behalf_of_a_caller_two_calls_tell_whose_the_authorization_is() {
    let stack = Stack::builder()
        .without_broker()
        .configure(|config| {
            config.let_outbound_verify();
            let policy = config.policy_mut("entra-outbound");
            policy["tenants"] = json!([TENANT]);
            policy["audiences"] = json!([ORDERS_API]);
            policy["rules"][0] = json!({
                "name": "graph", "match": {"destination": "graph"},
                "token": {"identity": "default", "scope": "s", "on_behalf_of": "caller"},
            });
        })
        .start()
        .await;
    let keys = stand_in::keys(TENANT, &stack.entra.key_set(TENANT), unix_now());
    let _broker = StandIn::start(stack.broker_socket(), move |asked| match asked.path.as_str() {
        route::TOKEN => Said::json(&stand_in::issued(asked, "exchanged", unix_now())),
        _ => Said::json(&keys),
    });
    let call = Request::get("/v1.0/me").bearer(&user(&stack.entra, &["Orders.Read"]).sign());
    let warm = call.clone().host("graph.microsoft.com");
    stack.until(stack.envoy.outbound, &warm, 200).await;
    // Destination; Authorization; whether made again, or injected before; the listener.
    let attempt = [PROPERTY, ONE_HEADER, PROPERTY, PROPERTY, PROPERTY, TIME];
    let injected = [&attempt[..], &[SET, RECORD, REMOVE, PROPERTY]].concat();
    check(&stack, "outbound", &call, &injected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_beside_costs_one_call_and_two_in_the_downstream_position() {
    let builder = Stack::builder().configure(EnvoyConfig::move_outbound_downstream);
    let stack = builder.inbound("/log_caller_workload", json!(true)).start().await;
    stack.graph_passed(&Request::get("/v1.0/me")).await;
    // The certificate's name, of which there is none.
    let refused = [ALL_HEADERS, PROPERTY, TIME, RECORD, REPLY];
    check(&stack, "inbound", &Request::get("/orders/7"), &refused).await;
    // Host and cluster instead of the destination; the cluster once more on the response.
    let attempt = [ONE_HEADER, PROPERTY, ONE_HEADER, PROPERTY, TIME];
    let injected = [&attempt[..], &[SET, RECORD, REMOVE, PROPERTY, PROPERTY, ONE_HEADER]].concat();
    check(&stack, "outbound", &Request::get("/v1.0/me"), &injected).await;
}
