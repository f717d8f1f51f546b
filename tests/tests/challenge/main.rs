//! Claims challenges from upstream through a real Envoy: which are answered for the application,
//! and above all which are not.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test: what goes wrong fails it"
)]

mod acquisition;
mod limits;
mod refusal;
mod replay;

use contract::route;
use e2e::{
    client::{Answer, Request},
    stack::{Builder, Stack, unix_now},
    stand_in::{self, Asked, Said, StandIn},
    upstream::{Recorded, Reply},
};
use serde_json::{Value, json};

/// A critical event: tokens issued before this time are refused.
const REVOKED: &str = r#"{"access_token":{"nbf":{"essential":true,"value":"1604106651"}}}"#;

fn me() -> Request {
    Request::get("/v1.0/me").host("graph.microsoft.com")
}

fn post() -> Request {
    Request::post("/v1.0/me/sendMail", b"{\"message\":{}}").host("graph.microsoft.com")
}

/// A broker that gives out `first`, and `second` where `first` was refused.
fn give(asked: &Asked) -> Said {
    let token = if asked.body.get("refused").is_some() { "second" } else { "first" };
    Said::json(&stand_in::issued(asked, token, unix_now()))
}

fn you() -> Value {
    json!({"you": "are in"})
}

/// Refuses `first` with a challenge, as Microsoft Graph does.
fn refuse_first(seen: &Recorded) -> Reply {
    match seen.bearer().as_deref() {
        Some("first") => Reply::challenge(REVOKED),
        _ => Reply::json(&you()),
    }
}

/// A stack whose Graph refuses the first token; the broker is a stand-in.
async fn challenged(builder: Builder) -> (Stack, StandIn) {
    let stack = builder.without_broker().start().await;
    let broker = StandIn::start(stack.broker_socket(), give);
    stack.until(stack.envoy.outbound, &me(), 200).await;
    stack.graph.respond_with(refuse_first);
    (stack, broker)
}

/// The calls with which the filter took a challenge to the broker.
fn challenges(broker: &StandIn) -> Vec<Asked> {
    let asked = broker.asked(route::TOKEN);
    asked.into_iter().filter(|asked| asked.body.get("claims").is_some()).collect()
}

/// The tokens that Graph saw since the first so many requests.
fn bearers(stack: &Stack, since: usize) -> Vec<String> {
    let requests = stack.graph.requests();
    requests[since..].iter().map(|seen| seen.bearer().unwrap_or_default()).collect()
}

/// That the application got the challenge as Graph wrote it.
fn visible(answer: &Answer) {
    assert_eq!(answer.status, 401, "{}", answer.text());
    let header = answer.header("www-authenticate").expect("the challenge");
    assert!(header.contains("insufficient_claims") && header.contains("claims=\""), "{header}");
    assert_eq!(answer.json()["error"]["code"], "InvalidAuthenticationToken");
    assert_eq!(answer.header("x-entra-retry"), None);
}

/// Waits until so many challenges were counted with an outcome. Before 1.39 Envoy counts what an
/// upstream filter counts under its cluster.
async fn counted(stack: &Stack, outcome: &str, times: u64) {
    let name = format!("entra_sidecar.outbound.challenge.{outcome}");
    let wait = async {
        loop {
            let stats = stack.envoy.stats().await;
            let ours = stats.iter().filter(|(stat, _)| stat.ends_with(&name));
            if ours.map(|(_, count)| count).sum::<u64>() == times {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let done = tokio::time::timeout(e2e::client::DEADLINE, wait).await;
    assert!(done.is_ok(), "not {times} challenges {outcome}");
}

async fn no_trap(stack: &Stack) {
    let stats = stack.envoy.stats().await;
    let reloads = stats.iter().filter(|(name, _)| name.contains("vm_reload"));
    assert_eq!(reloads.map(|(_, count)| count).sum::<u64>(), 0, "a VM trapped");
}
