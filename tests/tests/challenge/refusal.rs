//! Entra's own refusals reach the application as they are.

use e2e::fake_entra::{Endpoint, Fault};

use super::*;

const CLAIMS: &str = r#"{"access_token":{"capolids":{"essential":true,"values":["5ce770ea-8690-4747-aa73-c5b3cd509cd4"]}}}"#;

/// The product with an Entra that refuses the identity from the start.
async fn refused(body: Value) -> Stack {
    let stack = Stack::builder()
        .entra(move |entra| {
            let (status, headers, body) = (400, Vec::new(), body.to_string());
            entra.fail_next(Endpoint::Token, 1_000, Fault::Answer { status, headers, body });
        })
        .start()
        .await;
    // Until Entra has said no, nobody knows why there is no token.
    let wait = async {
        loop {
            let answer = me().send(stack.envoy.outbound).await;
            if answer.json().get("correlation_id").is_some() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(e2e::client::DEADLINE, wait).await.expect("Entra's refusal in time");
    stack
}

fn blocked() -> Value {
    json!({
        "error": "interaction_required",
        "error_description": "AADSTS53003: Access has been blocked for canary-user\n",
        "error_codes": [53003],
        "correlation_id": "0000aaaa-11bb-cccc-dd22-eeeeee333333",
        "trace_id": "1111bbbb-22cc-dddd-ee33-ffffff444444",
        "claims": CLAIMS,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn b08_a_conditional_access_block_reaches_the_application_with_code_ids_and_claims() {
    let stack = refused(blocked()).await;
    let answer = stack.graph_denied(&Request::get("/v1.0/me"), 403, "token_denied").await;
    assert_eq!(answer.header("content-type").as_deref(), Some("application/problem+json"));
    let problem = answer.json();
    let code = problem["code"].as_str().expect("a code");
    assert!(code.starts_with("interaction_required AADSTS53003"), "{code}");
    assert_eq!(problem["kind"], "claims_challenge");
    assert_eq!(problem["correlation_id"], "0000aaaa-11bb-cccc-dd22-eeeeee333333");
    assert_eq!(problem["trace_id"], "1111bbbb-22cc-dddd-ee33-ffffff444444");
    assert_eq!(problem["claims"], CLAIMS);
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("administrator")));
    assert!(!answer.text().contains("canary"), "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn b08_a_grpc_call_is_told_the_same_in_its_message() {
    let stack = refused(blocked()).await;
    let call = Request::post("/graph.Users/Me", &[0, 0, 0, 0, 0])
        .host("graph.microsoft.com")
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let answer = call.send_http2(stack.envoy.outbound).await;
    let told = |name| answer.header(name).or(answer.trailer(name));
    assert_eq!(told("grpc-status").as_deref(), Some("7"));
    let message = told("grpc-message").expect("a message");
    assert!(message.starts_with("interaction_required AADSTS53003"), "{message}");
    assert!(message.contains("correlation_id 0000aaaa-11bb-cccc-dd22-eeeeee333333"), "{message}");
    assert_eq!(stack.graph.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn b08_a_disabled_application_is_told_so() {
    let stack = refused(json!({
        "error": "unauthorized_client",
        "error_codes": [7_000_112],
        "correlation_id": "0000aaaa-11bb-cccc-dd22-eeeeee333333",
    }))
    .await;
    let answer = stack.graph_denied(&Request::get("/v1.0/me"), 403, "token_denied").await;
    assert_eq!(answer.json()["kind"], "disabled");
    assert!(answer.json()["code"].as_str().is_some_and(|code| code.contains("AADSTS7000112")));
}

/// The product with a token that Graph refuses, and a broker that is refused another.
async fn refused_another(error: Value) -> (Stack, StandIn) {
    let (stack, broker) = challenged(Stack::builder()).await;
    broker.say(move |_| Said::Answer(403, error.to_string()));
    (stack, broker)
}

#[tokio::test(flavor = "multi_thread")]
async fn b08_a_block_that_answers_a_challenge_reaches_the_application_and_not_the_apis_401() {
    let (stack, broker) = refused_another(json!({
        "error": "interaction_required AADSTS53003: Conditional Access does not allow it",
        "kind": "claims_challenge",
        "retry_after": 30,
        "claims": CLAIMS,
        "correlation_id": "0000aaaa-11bb-cccc-dd22-eeeeee333333",
    }))
    .await;
    let before = stack.graph.count();
    for calls in 1..=3 {
        let answer = post().send(stack.envoy.outbound).await;
        assert_eq!(answer.status, 403, "{}", answer.text());
        assert_eq!(answer.header("content-type").as_deref(), Some("application/problem+json"));
        assert_eq!(answer.header("www-authenticate"), None);
        assert_eq!(answer.header("x-entra-retry"), None);
        let problem = answer.json();
        let code = problem["code"].as_str().expect("a code");
        assert!(code.starts_with("interaction_required AADSTS53003"), "{code}");
        assert_eq!(problem["kind"], "claims_challenge");
        assert_eq!(problem["correlation_id"], "0000aaaa-11bb-cccc-dd22-eeeeee333333");
        assert_eq!(problem["claims"], CLAIMS);
        // Graph is not asked to say it twice.
        assert_eq!(stack.graph.count(), before + calls);
    }
    assert_eq!(challenges(&broker).len(), 1);
    counted(&stack, "failed", 3).await;
    // Where nothing is challenged the token is as good as it was.
    stack.graph.respond_with(|_| Reply::json(&you()));
    assert_eq!(me().send(stack.envoy.outbound).await.status, 200);
    no_trap(&stack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b08_when_a_challenge_finds_the_principal_disabled_its_token_is_not_used_again() {
    let (stack, _broker) = refused_another(json!({
        "error": "unauthorized_client AADSTS7000112: the application is disabled",
        "kind": "disabled",
        "retry_after": 30,
    }))
    .await;
    let before = stack.graph.count();
    for _ in 0..3 {
        let answer = me().send(stack.envoy.outbound).await;
        assert_eq!((answer.status, &answer.json()["kind"]), (403, &json!("disabled")));
    }
    assert_eq!(bearers(&stack, before), ["first"]);
    no_trap(&stack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b08_without_the_broker_the_application_is_told_what_to_do_too() {
    let stack = Stack::builder().without_broker().start().await;
    let answer = stack.graph_denied(&Request::get("/v1.0/me"), 503, "token_unavailable").await;
    assert_eq!(answer.header("content-type").as_deref(), Some("application/problem+json"));
    assert_eq!(answer.json()["kind"], "transient");
    assert!(answer.json()["code"].as_str().is_some_and(|code| code.contains("broker")));
    assert!(answer.json()["detail"].is_string());
}
