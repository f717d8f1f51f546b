//! Hostile traffic at a real Envoy with the shipped configuration. Each test is named by its row
//! in docs/threats.md.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test: what goes wrong fails it"
)]

mod framing;
mod headers;
mod leaks;
mod upstream;

use e2e::{
    client::Request,
    stack::{Stack, world::user},
};

fn read() -> Request {
    Request::get("/orders/7")
}

/// A good token that the rule `read` asks for.
fn token(stack: &Stack) -> String {
    user(&stack.entra, &["Orders.Read"]).sign()
}

/// How many requests and bytes the application has seen.
fn seen(stack: &Stack) -> (usize, u64) {
    (stack.application.count(), stack.application.bytes())
}

/// No VM of Envoy trapped.
async fn no_trap(stack: &Stack) {
    let stats = stack.envoy.stats().await;
    let reloads = stats.iter().filter(|(name, _)| name.contains("vm_reload"));
    assert_eq!(reloads.map(|(_, count)| count).sum::<u64>(), 0, "a VM trapped");
}
