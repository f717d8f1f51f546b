//! What challenges cost Entra, through the real broker.

use std::time::Instant;

use e2e::fake_entra::{
    Endpoint, FakeEntra, Standing,
    sample::{TENANT, WORKLOAD},
};

use super::*;

/// The product with tokens that can be refused at any moment; Graph has served one call.
async fn capable(builder: Builder) -> Stack {
    let stack = builder.capable().start().await;
    stack.until(stack.envoy.outbound, &me(), 200).await;
    stack
}

/// Ends the tokens of the workload; Graph refuses them from now on, as the fake Entra would have it.
fn revoke(stack: &Stack) {
    let entra = &stack.entra;
    // Later than any token of this second.
    entra.revoke_tokens(TENANT, WORKLOAD);
    let old = stack.graph.latest().bearer().expect("the token");
    let valid_from = entra.revoke_tokens(TENANT, WORKLOAD);
    let claims = match entra.standing(&old) {
        Standing::Challenged(claims) => Some(claims),
        Standing::Good | Standing::Revoked => None,
    };
    let claims = claims.expect("a token that is to be challenged");
    assert!(claims.contains(&valid_from.to_string()), "{claims}");
    stack.graph.respond_with(move |seen| {
        let token = seen.bearer().unwrap_or_default();
        if token == old { Reply::challenge(&claims) } else { Reply::json(&you()) }
    });
}

/// How often Entra was asked for a token with this in its claims.
fn acquisitions(entra: &FakeEntra, claim: &str) -> usize {
    let calls = entra.calls_of(Endpoint::Token);
    calls
        .iter()
        .filter(|call| call.form_member("claims").is_some_and(|c| c.contains(claim)))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn o07_a_revoked_token_is_replaced_and_the_call_replayed() {
    let stack = capable(Stack::builder()).await;
    revoke(&stack);
    let before = stack.graph.count();
    let answer = post().send(stack.envoy.outbound).await;
    assert_eq!((answer.status, answer.json()), (200, you()));
    let tokens = bearers(&stack, before);
    assert_eq!(tokens.len(), 2);
    assert!(matches!(stack.entra.standing(&tokens[0]), Standing::Challenged(_)));
    assert_eq!(stack.entra.standing(&tokens[1]), Standing::Good);
    assert_eq!(acquisitions(&stack.entra, "nbf"), 1);
    let answered =
        "entra_broker_claims_challenges_total{identity=\"default\",outcome=\"answered\"}";
    assert_eq!(stack.broker().metric(answered).await as u64, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn o07_a_thousand_challenged_requests_make_one_acquisition() {
    for workers in [1, 2] {
        let stack = capable(Stack::builder().concurrency(workers)).await;
        revoke(&stack);
        let (before, started) = (stack.graph.count(), Instant::now());
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..1_000 {
            let outbound = stack.envoy.outbound;
            calls.spawn(async move { me().send(outbound).await });
        }
        let (mut served, mut challenged) = (0, 0);
        while let Some(answer) = calls.join_next().await {
            let answer = answer.expect("an answer");
            if answer.status == 200 {
                served += 1;
            } else {
                visible(&answer);
                challenged += 1;
            }
        }
        let acquired = acquisitions(&stack.entra, "nbf");
        println!(
            "{workers} workers: 1000 challenged requests, {acquired} acquisition at Entra; {served} \
             served, {challenged} saw the challenge, {} attempts, {} ms",
            stack.graph.count() - before,
            started.elapsed().as_millis()
        );
        assert_eq!(acquired, 1);
        assert!(served >= 128, "{served}");
        assert!(stack.graph.count() - before <= 2_000);
        no_trap(&stack).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn o07_an_upstream_that_challenges_everything_costs_one_acquisition_in_30_seconds() {
    let stack = capable(Stack::builder().concurrency(2)).await;
    stack.graph.respond_with(|_| Reply::challenge(REVOKED));
    let (before, started) = (stack.graph.count(), Instant::now());
    let mut calls = 0;
    while calls < 200 {
        visible(&me().send(stack.envoy.outbound).await);
        calls += 1;
    }
    assert!(started.elapsed().as_secs() < 30, "too slow to say anything");
    assert_eq!(acquisitions(&stack.entra, "nbf"), 1);
    let attempts = stack.graph.count() - before;
    println!("200 calls, {attempts} attempts, 1 acquisition");
    // One replay of each worker, which then has the newest token and is told to wait.
    assert!(attempts <= calls + 2, "{attempts}");
    no_trap(&stack).await;
}
