//! What is not answered: challenges that do not count, an upstream that asks for replays itself,
//! a broker that has nothing, callers who leave.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use e2e::client::Connection;
use tokio::sync::watch;

use super::*;

/// A call whose challenge must reach the application, after one attempt and without the broker.
async fn check_not_answered(builder: Builder, request: &Request, reply: Reply) {
    let (stack, broker) = challenged(builder).await;
    stack.graph.respond_with(move |_| reply.clone());
    let before = stack.graph.count();
    for _ in 0..3 {
        visible(&request.send(stack.envoy.outbound).await);
    }
    assert_eq!(stack.graph.count(), before + 3, "an attempt was made again");
    assert_eq!(challenges(&broker).len(), 0);
    no_trap(&stack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o07_a_destination_that_does_not_say_so_is_not_answered() {
    let builder = Stack::builder().outbound("/rules/0/claims_challenges", json!(false));
    check_not_answered(builder, &me(), Reply::challenge(REVOKED)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o07_a_challenge_to_the_applications_own_token_is_not_answered() {
    let builder = Stack::builder().outbound("/rules/0/existing_authorization", json!("keep"));
    check_not_answered(builder, &me().bearer("own"), Reply::challenge(REVOKED)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o07_claims_that_no_api_has_to_ask_for_are_not_sent_to_entra() {
    let claims = r#"{"access_token":{"roles":{"values":["Directory.ReadWrite.All"]}}}"#;
    check_not_answered(Stack::builder(), &me(), Reply::challenge(claims)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o07_an_upstream_cannot_ask_for_a_replay_itself() {
    let stack =
        Stack::builder().outbound("/rules/0/existing_authorization", json!("keep")).start().await;
    for status in [200, 401, 403, 500, 503] {
        stack.graph.respond_with(move |_| {
            Reply::status(status).header("x-entra-retry", "1").header("X-Entra-Retry", "2")
        });
        for request in [me(), post(), me().bearer("own")] {
            let before = stack.graph.count();
            let answer = request.send(stack.envoy.outbound).await;
            assert_eq!((answer.status, answer.header("x-entra-retry")), (status, None));
            let answer = request.send_http2(stack.envoy.outbound).await;
            assert_eq!((answer.status, answer.header("x-entra-retry")), (status, None));
            assert_eq!(stack.graph.count(), before + 2, "{status}: an attempt was made again");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn o07_an_upstream_that_gets_no_token_cannot_ask_for_a_replay_either() {
    let stack = Stack::builder()
        .configure(|config| {
            let metadata = "/metadata/filter_metadata/entra_sidecar/destination";
            *config.cluster_mut("graph").pointer_mut(metadata).expect("the metadata") = json!("x");
        })
        .start()
        .await;
    stack.graph.respond_with(|_| Reply::challenge(REVOKED).header("x-entra-retry", "1"));
    visible(&me().send(stack.envoy.outbound).await);
    assert_eq!(stack.graph.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn o07_a_second_challenge_to_one_request_is_the_applications() {
    let (stack, broker) = challenged(Stack::builder()).await;
    stack.graph.respond_with(|_| Reply::challenge(REVOKED));
    let before = stack.graph.count();
    visible(&me().send(stack.envoy.outbound).await);
    assert_eq!(bearers(&stack, before), ["first", "second"]);
    // And whoever comes next is not made again at all: the broker was asked a moment ago.
    for _ in 0..20 {
        visible(&me().send(stack.envoy.outbound).await);
    }
    assert_eq!(stack.graph.count(), before + 22);
    assert_eq!(challenges(&broker).len(), 1);
    no_trap(&stack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o07_one_replay_per_request_however_many_envoy_would_make() {
    let stack = Stack::builder()
        .without_broker()
        .configure(|config| {
            let policy = "/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0\
                          /routes/0/route/retry_policy/num_retries";
            let retries = config.listener_mut("outbound").pointer_mut(policy);
            *retries.expect("the retry policy") = json!(10);
        })
        .start()
        .await;
    // Each token is refused, and when that is known the filter always holds another, for which it
    // need not ask: tokens are renewed every second.
    let issued = Arc::new(AtomicUsize::new(0));
    let number = Arc::clone(&issued);
    let _broker = StandIn::start(stack.broker_socket(), move |asked| {
        let number = number.fetch_add(1, Ordering::SeqCst);
        let mut token = stand_in::issued(asked, &format!("token-{number}"), unix_now());
        token["refresh_on"] = json!(unix_now());
        Said::json(&token)
    });
    stack.until(stack.envoy.outbound, &me(), 200).await;
    stack.graph.respond_with(move |_| {
        let before = issued.load(Ordering::SeqCst);
        tokio::task::block_in_place(|| {
            // Two VMs ask, each once in a second: the worker among them has another by now.
            while issued.load(Ordering::SeqCst) < before + 3 {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Reply::challenge(REVOKED)
    });
    let before = stack.graph.count();
    visible(&me().send(stack.envoy.outbound).await);
    assert_eq!(stack.graph.count(), before + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn o07_without_the_broker_the_challenge_is_seen() {
    for broker_says in [None, Some("throttled"), Some("config")] {
        let (stack, broker) = challenged(Stack::builder()).await;
        match broker_says {
            None => {
                drop(broker);
                std::fs::remove_file(stack.broker_socket()).expect("the broker's socket");
            }
            Some(kind) => {
                let error = json!({"error": "no", "kind": kind, "retry_after": 30}).to_string();
                broker.say(move |_| Said::Answer(503, error.clone()));
            }
        }
        let before = stack.graph.count();
        visible(&me().send(stack.envoy.outbound).await);
        assert_eq!(bearers(&stack, before), ["first", "first"], "{broker_says:?}");
        // The next ones cost nobody anything.
        visible(&me().send(stack.envoy.outbound).await);
        assert_eq!(stack.graph.count(), before + 3);
        counted(&stack, "failed", 1).await;
        // The replay's challenge, and that of the call after it.
        counted(&stack, "declined", 2).await;
        // Where nothing is challenged the token is as good as it was.
        stack.graph.respond_with(|_| Reply::json(&you()));
        assert_eq!(me().send(stack.envoy.outbound).await.status, 200);
    }
}

/// A broker that is silent on challenges until the gate opens.
async fn held(stack: &Stack, broker: &StandIn) -> watch::Sender<bool> {
    let (gate, opened) = watch::channel(false);
    broker.say(move |asked| {
        let second = stand_in::issued(asked, "second", unix_now()).to_string();
        Said::Once(opened.clone(), second)
    });
    stack.graph.respond_with(refuse_first);
    gate
}

#[tokio::test(flavor = "multi_thread")]
async fn o07_who_leaves_while_waiting_is_not_replayed_and_the_others_are() {
    let (stack, broker) = challenged(Stack::builder()).await;
    let gate = held(&stack, &broker).await;
    let before = stack.graph.count();
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let mut connection = Connection::open(stack.envoy.outbound).await;
        connection.write(&post().to_bytes()).await;
        waiting.push(connection);
    }
    stack.graph.wait_for(before + 20).await;
    broker.wait_for(route::TOKEN, challenges_before(&broker) + 1).await;
    drop(waiting.drain(..10));
    stack.under_way("outbound", 10).await;
    gate.send_replace(true);
    for connection in &mut waiting {
        assert_eq!(connection.answer().await.status, 200);
    }
    assert_eq!(challenges(&broker).len(), 1, "one call for all");
    assert_eq!(stack.graph.count(), before + 30, "who left was replayed");
    no_trap(&stack).await;
}

/// How often the broker had been asked for tokens that nobody refused.
fn challenges_before(broker: &StandIn) -> usize {
    broker.asked(route::TOKEN).len() - challenges(broker).len()
}

#[tokio::test(flavor = "multi_thread")]
async fn o07_no_more_than_128_wait_for_the_answer_and_the_rest_see_the_challenge() {
    let (stack, broker) = challenged(Stack::builder()).await;
    let gate = held(&stack, &broker).await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..300 {
        let outbound = stack.envoy.outbound;
        calls.spawn(async move { me().send(outbound).await });
    }
    // The others are answered meanwhile, and as many places are left for other destinations.
    for _ in 0..172 {
        let answer = tokio::time::timeout(Duration::from_secs(20), calls.join_next()).await;
        visible(&answer.expect("an answer in time").expect("a call").expect("an answer"));
    }
    stack.under_way("outbound", 128).await;
    gate.send_replace(true);
    while let Some(answer) = calls.join_next().await {
        assert_eq!(answer.expect("an answer").status, 200);
    }
    assert_eq!(challenges(&broker).len(), 1);
    no_trap(&stack).await;
}
