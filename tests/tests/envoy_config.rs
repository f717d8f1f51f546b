//! Configurations that come and go: pushed under load, refused while the old one stays, and a
//! module that is not there.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test: what goes wrong fails it"
)]

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use e2e::{
    client::Request,
    envoy::EnvoyConfig,
    stack::{Stack, world::user},
};
use serde_json::{Value, json};

const LISTENERS_TAKEN: &str = "listener_manager.lds.update_success";
const LISTENERS_REFUSED: &str = "listener_manager.lds.update_rejected";
const CLUSTERS_TAKEN: &str = "cluster_manager.cds.update_success";
const CLUSTERS_REFUSED: &str = "cluster_manager.cds.update_rejected";

/// How often a new configuration is pushed under load.
const PUSHES: u64 = 30;

fn me() -> Request {
    Request::get("/v1.0/me").host("graph.microsoft.com")
}

/// Names the rules anew, so that both filters are other ones than before.
fn renamed(config: &EnvoyConfig, number: u64) -> EnvoyConfig {
    let mut config = config.clone();
    for filter in ["entra-inbound", "entra-outbound"] {
        let rules = config.policy_mut(filter)["rules"].as_array_mut().expect("rules");
        for rule in rules {
            rule["name"] = json!(format!("{}-{number}", rule["name"].as_str().expect("a name")));
        }
    }
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn w08_configurations_pushed_under_load_change_no_answer() {
    let stack = Stack::builder().pushable().concurrency(2).start().await;
    let token = user(&stack.entra, &["Orders.Read"]).sign();
    stack.passed(&Request::get("/orders/7").bearer(&token)).await;
    stack.graph_passed(&me()).await;

    let rows = [
        (stack.envoy.inbound, Request::get("/orders/7").bearer(&token), 200),
        (stack.envoy.inbound, Request::get("/orders/7"), 401),
        (stack.envoy.inbound, Request::new("DELETE", "/orders/7").bearer(&token), 403),
        (stack.envoy.outbound, me(), 200),
    ];
    let done = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let load: Vec<_> = rows
        .into_iter()
        .map(|(listener, request, status)| {
            let (done, answered) = (Arc::clone(&done), Arc::clone(&answered));
            tokio::spawn(async move {
                while !done.load(Ordering::SeqCst) {
                    let answer = request.send(listener).await;
                    assert_eq!(answer.status, status, "{request:?}: {}", answer.text());
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();

    let stats = stack.envoy.stats().await;
    let (listeners, clusters) = (stats[LISTENERS_TAKEN], stats[CLUSTERS_TAKEN]);
    for number in 1..=PUSHES {
        stack.envoy.push(&renamed(&stack.config, number));
        stack.stat(LISTENERS_TAKEN, |taken| taken == listeners + number).await;
        stack.stat(CLUSTERS_TAKEN, |taken| taken == clusters + number).await;
    }
    done.store(true, Ordering::SeqCst);
    for load in load {
        load.await.expect("only right answers");
    }
    assert!(answered.load(Ordering::SeqCst) as u64 > PUSHES);
    assert!(stack.graph.requests().iter().all(|seen| seen.bearer().is_some()));
    // The last one is in force.
    let rule = format!("read-{PUSHES}");
    let (_, record) = stack.call_recorded(&Request::get("/orders/7").bearer(&token)).await;
    assert_eq!(record.get("rule"), Some(rule.as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn w07_a_bad_configuration_is_refused_with_every_error_and_the_old_one_stays() {
    let stack = Stack::builder().pushable().start().await;
    let read = Request::get("/orders/7").bearer(&user(&stack.entra, &["Orders.Read"]).sign());
    stack.passed(&read).await;
    stack.graph_passed(&me()).await;
    let set = |filter: &str, members: &[(&str, Value)]| {
        let mut config = stack.config.clone();
        for (pointer, value) in members {
            let (parent, member) = pointer.rsplit_once('/').expect("a JSON pointer");
            let parent = config.policy_mut(filter).pointer_mut(parent).expect("a member");
            parent[member] = value.clone();
        }
        config
    };
    let inbound = [
        ("/tenants", json!([])),
        ("/audiences", json!([])),
        ("/unheard_of", json!(true)),
        ("/clock_skew_seconds", json!(301)),
        ("/rules/0/allow", json!([])),
        ("/rules/3/allow", json!([{}])),
    ];
    let outbound = [
        ("/unheard_of", json!(true)),
        ("/rules/0/token/scope", json!("")),
        ("/rules/0/existing_authorization", json!("perhaps")),
    ];
    let rows = [
        ("entra-inbound", LISTENERS_REFUSED, &inbound[..]),
        ("entra-outbound", CLUSTERS_REFUSED, &outbound[..]),
    ];
    for (filter, refused, members) in rows {
        let before = stack.envoy.log().len();
        stack.envoy.push(&set(filter, members));
        stack.stat(refused, |count| count == 1).await;
        let log = stack.envoy.log().split_off(before);
        for (pointer, _) in members {
            let path = format!("configuration: {}", path_of(pointer));
            assert!(log.contains(&path), "{filter}: no {path} in\n{log}");
        }
        stack.passed(&read).await;
        stack.denied(&Request::get("/orders/7"), 401, "token_missing").await;
        assert!(stack.graph_passed(&me()).await.bearer().is_some());
    }
}

/// A JSON pointer as the filter writes paths: `rules[3].allow`.
fn path_of(pointer: &str) -> String {
    let mut path = String::new();
    for part in pointer.split('/').skip(1) {
        if part.bytes().all(|byte| byte.is_ascii_digit()) {
            path.push_str(&format!("[{part}]"));
        } else {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(part);
        }
    }
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn w07_envoy_does_not_start_with_a_policy_that_says_nothing() {
    let rows = [
        ("/tenants", json!([])),
        ("/audiences", json!([])),
        ("/rules", json!([])),
        ("/audience", json!("api://orders")),
        ("/direction", json!("sideways")),
        ("/identity_headers", json!({"authorization": "oid"})),
        ("/mode", json!("off")),
    ];
    for (pointer, value) in rows {
        let log = Stack::builder().inbound(pointer, value.clone()).refused().await;
        assert!(log.contains("entra-sidecar: configuration:"), "{pointer} {value}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn w09_without_the_module_envoy_does_not_start() {
    let folder = tempfile::tempdir().expect("a directory");
    let not_wasm = folder.path().join("not.wasm");
    std::fs::write(&not_wasm, b"\0asm is what it is not").expect("a file");
    for module in [Path::new("/nowhere/entra_filter.wasm"), &not_wasm] {
        let log = Stack::builder().module_file(module).refused().await;
        assert!(log.to_lowercase().contains("wasm"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn w09_a_module_that_is_gone_is_no_reason_to_serve_without_it() {
    let stack = Stack::builder().pushable().start().await;
    let read = Request::get("/orders/7").bearer(&user(&stack.entra, &["Orders.Read"]).sign());
    stack.passed(&read).await;
    let mut config = stack.config.clone();
    config.module(Path::new("/nowhere/entra_filter.wasm"));
    stack.envoy.push(&config);
    stack.stat(LISTENERS_REFUSED, |count| count == 1).await;
    stack.passed(&read).await;
    stack.denied(&Request::get("/orders/7"), 401, "token_missing").await;
    assert!(stack.graph_passed(&me()).await.bearer().is_some());
}
