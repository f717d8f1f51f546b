//! The main job once through: with one worker and with two, and on every minor of Envoy that a
//! supported Istio carries (`docs/envoy-versions.md`).

#![allow(clippy::expect_used, reason = "a test: what goes wrong fails it")]

use e2e::{
    client::Request,
    fake_entra::sample::{STOCK_API, TENANT, ada},
    stack::{
        Builder, Stack,
        world::{WEB, user},
    },
};

async fn check(builder: Builder) {
    let stack = builder.start().await;
    let read = || Request::get("/orders/7");
    stack.denied(&read(), 401, "token_missing").await;
    let other = stack.entra.token(TENANT, WEB, STOCK_API).user(&ada(), &["Orders.Read"]).sign();
    stack.denied(&read().bearer(&other), 401, "audience_mismatch").await;
    let reader = user(&stack.entra, &["Orders.Read"]).sign();
    let pay = Request::post("/orders/7/pay", b"{}");
    stack.denied(&pay.bearer(&reader), 403, "scope_missing").await;
    stack.denied(&Request::get("/orders/../healthz"), 400, "path_ambiguous").await;

    // Often enough that each worker is met.
    for _ in 0..16 {
        let spoofed = read().bearer(&reader).header("x-entra-object-id", "spoofed");
        let seen = stack.passed(&spoofed).await;
        assert_eq!(seen.header("x-entra-object-id"), Some(ada().object_id));
        assert_eq!(seen.header("x-entra-tenant-id").as_deref(), Some(TENANT));
        assert_eq!(seen.header("x-entra-client-id").as_deref(), Some(WEB));
        assert_eq!(seen.header("authorization"), None);
        assert_eq!(seen.header("x-entra-permit"), None);
        assert!(stack.graph_passed(&Request::get("/v1.0/me")).await.bearer().is_some());
    }
    assert_eq!(stack.entra.issued(), 1, "one token for all workers");
    let own = Request::get("/v1.0/me").bearer("own");
    stack.graph_denied(&own, 403, "authorization_refused").await;
    let stats = stack.envoy.stats().await;
    let reloads = stats.iter().filter(|(name, _)| name.contains("vm_reload"));
    assert_eq!(reloads.map(|(_, count)| count).sum::<u64>(), 0, "a VM trapped");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_main_job_with_one_worker() {
    check(Stack::builder()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_main_job_with_two_workers() {
    check(Stack::builder().concurrency(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_main_job_on_the_oldest_envoy() {
    check(Stack::builder().oldest_envoy().concurrency(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_main_job_on_envoy_1_37() {
    check(Stack::builder().envoy("ENVOY_1_37").concurrency(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_main_job_on_envoy_1_38() {
    check(Stack::builder().envoy("ENVOY_1_38").concurrency(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_main_job_on_envoy_1_39() {
    check(Stack::builder().envoy("ENVOY_1_39").concurrency(2)).await;
}
