//! A VM that traps: what becomes of those who wait, of the other direction, and of the next
//! request. Nothing may pass unfiltered.

#![allow(
    clippy::expect_used,
    clippy::arithmetic_side_effects,
    reason = "a test: what goes wrong fails it"
)]

use std::time::Duration;

use contract::route;
use e2e::{
    client::{Connection, Request},
    fake_entra::sample::TENANT,
    stack::{Stack, unix_now, world::user},
    stand_in::{self, Asked, Said, StandIn},
};
use serde_json::json;

/// Requests that wait when the VM traps.
const WAITING: usize = 100;
/// The test's stream idle timeout: above what it takes to let all of them come.
const IDLE_TIMEOUT: &str = "4s";

fn answer_tokens(asked: &Asked) -> Said {
    match asked.path.as_str() {
        route::TOKEN => Said::json(&stand_in::issued(asked, "token", unix_now())),
        _ => Said::Nothing,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn w03_a_trap_ends_those_who_wait_in_time_and_lets_nothing_through() {
    let stack = Stack::builder()
        .trapping_module()
        .without_broker()
        .configure(|config| {
            let idle = "/filter_chains/0/filters/0/typed_config/stream_idle_timeout";
            *config.listener_mut("inbound").pointer_mut(idle).expect("the timeout") =
                json!(IDLE_TIMEOUT);
        })
        .start()
        .await;
    let stand_in = StandIn::start(stack.broker_socket(), answer_tokens);
    stand_in.wait_for(route::KEYS, 2).await;
    let me = Request::get("/v1.0/me");
    stack.until(stack.envoy.outbound, &me.clone().host("graph.microsoft.com"), 200).await;
    let read = Request::get("/orders/7").bearer(&user(&stack.entra, &["Orders.Read"]).sign());
    let bare = Request::get("/orders/7");

    let mut waiting = Vec::new();
    for _ in 0..WAITING {
        let mut connection = Connection::open(stack.envoy.inbound).await;
        connection.write(&read.to_bytes()).await;
        waiting.push(connection);
    }
    stack.under_way("inbound", WAITING as u64).await;
    let keys = stand_in::keys(TENANT, &stack.entra.key_set(TENANT), unix_now());
    stand_in.say(move |asked| match asked.path.as_str() {
        route::KEYS => Said::json(&keys),
        _ => answer_tokens(asked),
    });

    let trap = bare.clone().header("x-test-trap", "1").send(stack.envoy.inbound).await;
    assert_eq!(trap.status, 503);
    // The other direction is another VM.
    for _ in 0..20 {
        assert_eq!(stack.graph_passed(&me).await.bearer().as_deref(), Some("token"));
    }
    // The next request is served by a new VM, and judged.
    let refused = stack.until(stack.envoy.inbound, &bare, 401).await;
    assert!(refused.header("www-authenticate").is_some());
    stack.until(stack.envoy.inbound, &read, 200).await;
    let served = stack.application.count();
    assert_eq!(served, 1);

    // Those who wait keep waiting; Envoy ends each of them.
    for connection in &mut waiting {
        let answer = tokio::time::timeout(Duration::from_secs(20), connection.answer_or_close());
        if let Some(answer) = answer.await.expect("an end within the idle timeout") {
            assert!([408, 503, 504].contains(&answer.status), "{}", answer.status);
        }
    }
    stack.under_way("inbound", 0).await;
    assert_eq!(stack.application.count(), served, "who waited was let through");
    stack.passed(&read).await;
    stack.denied(&bare, 401, "token_missing").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w03_no_trap_however_often_lets_a_request_through() {
    let stack = Stack::builder().trapping_module().start().await;
    let bare = Request::get("/orders/7");
    let trap = bare.clone().header("x-test-trap", "1");
    let read = bare.clone().bearer(&user(&stack.entra, &["Orders.Read"]).sign());
    for _ in 0..10 {
        assert_eq!(stack.call(&trap).await.status, 503);
        for _ in 0..5 {
            let status = stack.call(&bare).await.status;
            assert!([401, 503].contains(&status), "{status}");
        }
    }
    assert_eq!((stack.application.count(), stack.application.bytes()), (0, 0));
    stack.until(stack.envoy.inbound, &read, 200).await;
    stack.denied(&bare, 401, "token_missing").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w03_a_trap_outbound_sends_nothing_and_leaves_inbound_alone() {
    let stack = Stack::builder().trapping_module().start().await;
    let me = Request::get("/v1.0/me");
    let read = Request::get("/orders/7").bearer(&user(&stack.entra, &["Orders.Read"]).sign());
    stack.passed(&read).await;
    let to_graph = me.clone().host("graph.microsoft.com");
    stack.until(stack.envoy.outbound, &to_graph, 200).await;
    let before = stack.graph.count();
    let trap = to_graph.clone().header("x-test-trap", "1").send(stack.envoy.outbound).await;
    assert_eq!(trap.status, 503);
    assert_eq!(stack.graph.count(), before);
    stack.passed(&read).await;
    stack.until(stack.envoy.outbound, &to_graph, 200).await;
    let requests = stack.graph.requests();
    assert!(requests.iter().all(|seen| seen.bearer().is_some()), "one went without a token");
}
