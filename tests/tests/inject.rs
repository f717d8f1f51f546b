//! Outbound calls through a real Envoy with the shipped configuration: which token goes where, and
//! above all where none goes.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test: what goes wrong fails it"
)]

use std::collections::BTreeSet;

use e2e::{
    client::{DEADLINE, Request},
    fake_entra::{Endpoint, Fault, Lifetime, sample::WORKLOAD},
    stack::{GraphProof, Stack},
};
use serde_json::{Value, json};

fn me() -> Request {
    Request::get("/v1.0/users?$top=1")
}

/// The claims of a token; the fake Entra signed it, so nothing is verified here.
fn claims(token: &str) -> Value {
    use base64::Engine;
    let payload = token.split('.').nth(1).expect("a JWT");
    let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload);
    serde_json::from_slice(&payload.expect("base64url")).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn graph_gets_a_token_that_the_application_never_had() {
    let stack = Stack::builder().start().await;
    let answer = stack.call_graph(me()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = stack.graph.latest();
    assert_eq!(seen.target, "/v1.0/users?$top=1");
    assert_eq!(
        seen.header("host").or(Some("graph.microsoft.com".into())).as_deref(),
        Some("graph.microsoft.com")
    );
    let claims = claims(&seen.bearer().expect("a bearer token"));
    assert_eq!(claims["aud"], "https://graph.microsoft.com");
    assert_eq!(claims["appid"], WORKLOAD);
    // One token for all calls, which Entra was asked for once.
    for _ in 0..20 {
        assert_eq!(stack.call_graph(me()).await.status, 200);
    }
    let tokens: BTreeSet<_> =
        stack.graph.requests().iter().map(e2e::upstream::Recorded::bearer).collect();
    assert_eq!(tokens.len(), 1);
    assert_eq!(stack.entra.issued(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authorization_of_the_applications_own_is_treated_as_configured() {
    for (setting, status, bearer) in
        [("refuse", 403, None), ("keep", 200, Some("the-applications-own")), ("replace", 200, None)]
    {
        let stack = Stack::builder()
            .outbound("/rules/0/existing_authorization", json!(setting))
            .start()
            .await;
        let answer = stack.call_graph(me().bearer("the-applications-own")).await;
        assert_eq!(answer.status, status, "{setting}");
        if status == 403 {
            assert_eq!((stack.graph.count(), stack.graph.bytes()), (0, 0), "{setting}");
            continue;
        }
        let sent = stack.graph.latest().bearer().expect("a bearer token");
        match bearer {
            Some(own) => assert_eq!(sent, own, "{setting}"),
            None => assert_eq!(claims(&sent)["appid"], WORKLOAD, "{setting}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_clusters_own_metadata_opens_it_to_tokens() {
    let metadata = "/metadata/filter_metadata/entra_sidecar/destination";
    let stack = Stack::builder()
        .configure(|config| {
            *config.cluster_mut("graph").pointer_mut(metadata).expect("the metadata") =
                json!("elsewhere");
        })
        .start()
        .await;
    for request in [me(), me().header("x-destination", "graph")] {
        assert_eq!(stack.call_graph(request).await.status, 200);
        assert_eq!(stack.graph.latest().header("authorization"), None);
    }
    // Another host does not lead to the cluster at all.
    let answer = me().host("evil.example").send(stack.envoy.outbound).await;
    assert_eq!(answer.status, 404);
    assert_eq!(stack.graph.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_goes_to_who_does_not_prove_to_be_graph() {
    let names = "/transport_socket/typed_config/common_tls_context/validation_context\
                 /match_typed_subject_alt_names/0/matcher/exact";
    let untrusted = Stack::builder().graph_proof(GraphProof::SelfSigned);
    let misnamed = Stack::builder().configure(|config| {
        *config.cluster_mut("graph").pointer_mut(names).expect("the name") =
            json!("graph.microsoft.us");
    });
    for builder in [untrusted, misnamed] {
        let stack = builder.start().await;
        assert_eq!(stack.call_graph(me()).await.status, 503);
        assert_eq!((stack.graph.count(), stack.graph.bytes()), (0, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_tls_ends_injection() {
    let stack = Stack::builder().graph_proof(GraphProof::None).start().await;
    // The first response shows it; from then on nothing is injected.
    assert_eq!(stack.call_graph(me()).await.status, 200);
    for _ in 0..3 {
        assert_eq!(stack.call_graph(me()).await.status, 200);
        assert_eq!(stack.graph.latest().header("authorization"), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outbound_filter_on_an_inbound_listener_injects_nothing() {
    let stack = Stack::builder()
        .configure(|config| {
            *config.listener_mut("outbound").get_mut("traffic_direction").expect("a direction") =
                json!("INBOUND");
        })
        .start()
        .await;
    assert_eq!(stack.call_graph(me()).await.status, 200);
    assert_eq!(stack.graph.latest().header("authorization"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_the_call_does_not_go_out() {
    let mut stack = Stack::builder().without_broker().start().await;
    let answer = stack.call_graph(me()).await;
    assert_eq!(answer.status, 503);
    assert!(answer.header("retry-after").is_some());
    assert_eq!((stack.graph.count(), stack.graph.bytes()), (0, 0));

    stack.start_broker().await;
    eventually(&stack).await;
    let held = stack.graph.latest().bearer();

    // What is held is valid without the broker.
    stack.kill_broker();
    for _ in 0..5 {
        assert_eq!(stack.call_graph(me()).await.status, 200);
        assert_eq!(stack.graph.latest().bearer(), held);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn entras_refusal_is_no_answer_to_the_caller_and_costs_nothing_while_a_token_is_held() {
    let stack = Stack::builder()
        .entra(|entra| {
            entra.fail_next(Endpoint::Token, 2, Fault::Status { status: 500, retry_after: None });
        })
        .start()
        .await;
    // A failing Entra is never reported as an authentication failure.
    let answer = stack.call_graph(me()).await;
    assert!(matches!(answer.status, 200 | 503), "{}", answer.status);
    eventually(&stack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_renewed_before_it_ends_and_no_call_fails() {
    let stack = Stack::builder()
        .entra(|entra| {
            entra.set_lifetime(Lifetime { expires_in: 120, refresh_in: Some(2) });
        })
        .start()
        .await;
    let rotation = async {
        loop {
            assert_eq!(stack.call_graph(me()).await.status, 200);
            let requests = stack.graph.requests();
            let tokens: BTreeSet<_> = requests.iter().map(|seen| seen.bearer()).collect();
            assert!(!tokens.contains(&None), "a call went out without a token");
            if tokens.len() >= 3 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, rotation).await.expect("three tokens before the deadline");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_first_calls_ask_entra_once() {
    let stack = Stack::builder().concurrency(2).start().await;
    let calls = (0..40).map(|_| {
        let outbound = stack.envoy.outbound;
        tokio::spawn(async move { me().host("graph.microsoft.com").send(outbound).await.status })
    });
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.expect("a call"), 200);
    }
    assert_eq!(stack.entra.issued(), 1);
}

/// Calls until a call succeeds.
async fn eventually(stack: &Stack) {
    let call = async {
        while stack.call_graph(me()).await.status != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, call).await.expect("a call that succeeds");
}
