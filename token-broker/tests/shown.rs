//! Answers that are written once a second: never to another request, and never with a token that is
//! no longer to be handed out.

use contract::TokenRequest;
use serde_json::Value;

use crate::support::{
    Broker, Endpoint, Entra, OTHER_SCOPE, Reply, SCOPE, ask, pass, post, request, seconds,
};

async fn asked(broker: &Broker, request: &TokenRequest) -> (u16, Value) {
    let body = serde_json::to_string(request).unwrap();
    let (status, _, answer) = ask(&broker.api(), post("/v1/token", body)).await;
    (status, serde_json::from_str(&answer).unwrap())
}

async fn token(broker: &Broker, scope: &str) -> String {
    let (status, answer) = asked(broker, &request("default", scope)).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["scope"], scope);
    answer["access_token"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn the_same_request_is_answered_alike_and_each_answer_is_counted() {
    let broker = Broker::start(&Entra::new());
    let first = asked(&broker, &request("default", SCOPE)).await;
    for _ in 0..3 {
        assert_eq!(asked(&broker, &request("default", SCOPE)).await, first);
    }
    let metrics = broker.state.metrics.text();
    for line in [
        "token_requests_total{identity=\"default\",outcome=\"waited\"} 1",
        "token_requests_total{identity=\"default\",outcome=\"cached\"} 3",
        "requests_total{listener=\"api\",route=\"/v1/token\",status=\"200\"} 4",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    assert_ne!(token(&broker, SCOPE).await, token(&broker, OTHER_SCOPE).await);
    // Of a token that is asked for by so many names, each asker still has its answer.
    for number in 0..200 {
        let mut request = request("default", SCOPE);
        request.destination = format!("destination-{number}");
        assert_eq!(asked(&broker, &request).await.1["access_token"], first.1["access_token"]);
    }
}

#[tokio::test(start_paused = true)]
async fn b09_a_second_that_comes_twice_brings_no_old_answer_back() {
    let entra = Entra::new();
    let broker = Broker::start(&entra);
    let first = token(&broker, SCOPE).await;
    // The token is renewed; then the clock is set back into the second of the first answer.
    pass(seconds(3_000)).await;
    broker.clock.jump(-3_000);
    let second = token(&broker, SCOPE).await;
    assert_ne!(second, first);
    // No newer one comes; by the timer its end is there.
    entra.always(Endpoint::Token, Some(Reply::error(503, "server_error", 90_033)));
    pass(seconds(3_600)).await;
    broker.clock.jump(-3_600);
    assert_eq!(asked(&broker, &request("default", SCOPE)).await.0, 503);
}

#[tokio::test(start_paused = true)]
async fn b05_neither_claims_nor_an_assertion_is_answered_with_what_another_got() {
    let broker = Broker::start(&Entra::new());
    token(&broker, SCOPE).await;
    let mut on_behalf = request("default", SCOPE);
    on_behalf.assertion = Some(contract::Secret::new("canary-assertion"));
    for _ in 0..2 {
        assert_eq!(asked(&broker, &on_behalf).await.0, 403);
    }
    let unlisted = request("default", "https://graph.microsoft.com/Mail.Read");
    assert_eq!(asked(&broker, &unlisted).await.0, 403);
}
