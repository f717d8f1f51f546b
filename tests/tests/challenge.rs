//! Claims challenges from upstream through a real Envoy: which are answered for the application,
//! and above all which are not.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test: what goes wrong fails it"
)]

use contract::route;
use e2e::{
    client::Request,
    stack::{Builder, Stack, unix_now},
    stand_in::{self, Asked, Said, StandIn},
    upstream::{Recorded, Reply},
};
use serde_json::{Value, json};

/// A critical event: tokens issued before this time are refused.
fn revoked() -> Value {
    json!({"access_token": {"nbf": {"essential": true, "value": "1604106651"}}})
}

fn me() -> Request {
    Request::get("/v1.0/me").host("graph.microsoft.com")
}

/// A broker that gives out `first`, and `second` where `first` was refused.
fn answer(asked: &Asked) -> Said {
    let token = if asked.body.get("refused").is_some() { "second" } else { "first" };
    Said::json(&stand_in::issued(asked, token, unix_now()))
}

/// Refuses `first` with a challenge, as Microsoft Graph does.
fn refuse_first(seen: &Recorded) -> Reply {
    match seen.bearer().as_deref() {
        Some("first") => Reply::challenge(&revoked()),
        _ => Reply::json(&json!({"you": "are in"})),
    }
}

/// A stack whose Graph refuses the first token; the broker is a stand-in.
async fn challenged(builder: Builder) -> (Stack, StandIn) {
    let stack = builder.without_broker().start().await;
    let broker = StandIn::start(stack.broker_socket(), answer);
    stack.until(stack.envoy.outbound, &me(), 200).await;
    stack.graph.respond_with(refuse_first);
    (stack, broker)
}

/// The calls with which the filter took a challenge to the broker.
fn challenges(broker: &StandIn) -> Vec<Asked> {
    let asked = broker.asked(route::TOKEN);
    asked.into_iter().filter(|asked| asked.body.get("claims").is_some()).collect()
}

/// A call that is challenged once; the application sees nothing of it.
async fn check_replay(builder: Builder) {
    let (stack, broker) = challenged(builder).await;
    let before = stack.graph.count();
    let answer = me().send(stack.envoy.outbound).await;
    assert_eq!((answer.status, answer.json()), (200, json!({"you": "are in"})));
    assert_eq!(answer.header("x-entra-retry"), None);
    assert_eq!(answer.header("www-authenticate"), None);
    let sent: Vec<_> = stack.graph.requests()[before..].iter().map(Recorded::bearer).collect();
    assert_eq!(sent, [Some("first".to_owned()), Some("second".to_owned())]);
    let asked = challenges(&broker);
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].body["claims"], revoked().to_string());
    assert_eq!(asked[0].body["refused"], stand_in::hash_of("first"));
    assert_eq!(asked[0].body["claims_challenges"], true);
    no_trap(&stack).await;
}

async fn no_trap(stack: &Stack) {
    let stats = stack.envoy.stats().await;
    let reloads = stats.iter().filter(|(name, _)| name.contains("vm_reload"));
    assert_eq!(reloads.map(|(_, count)| count).sum::<u64>(), 0, "a VM trapped");
}

#[tokio::test(flavor = "multi_thread")]
async fn o07_a_challenged_call_is_replayed_with_a_new_token() {
    check_replay(Stack::builder()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o07_a_challenged_call_is_replayed_on_the_oldest_envoy() {
    check_replay(Stack::builder().oldest_envoy()).await;
}
