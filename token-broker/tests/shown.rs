//! Answers that are written once a second: never to another request, and never with a token that is
//! no longer to be handed out.

use contract::TokenRequest;
use serde_json::{Value, json};
use token_broker::entra::claims::Capability;

use crate::support::{
    Broker, Endpoint, Entra, OTHER_SCOPE, Reply, SCOPE, ask, config, pass, post, request, seconds,
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
    let mut config = config();
    let identity = config.identities.get_mut("default").unwrap();
    identity.capability = Capability::ClaimsChallenges;
    identity.delegated_scopes = vec![SCOPE.to_owned()];
    let broker = Broker::with_config(&Entra::new(), &config);
    token(&broker, SCOPE).await;

    // All within a second. The first answer is of a challenge, the next ones are judged, too: the
    // token that is held by now is not the refused one.
    let plain = TokenRequest { claims_challenges: true, ..request("default", SCOPE) };
    let (_, refused) = asked(&broker, &plain).await;
    let claims = r#"{"access_token":{"nbf":{"essential":true,"value":"1800000000"}}}"#;
    let challenged = TokenRequest {
        claims: Some(claims.to_owned()),
        refused: refused["token_hash"].as_str().map(str::to_owned),
        ..plain
    };
    let (status, answered) = asked(&broker, &challenged).await;
    assert_eq!(status, 200, "{answered}");
    assert_ne!(answered["access_token"], refused["access_token"]);
    for _ in 0..2 {
        assert_eq!(asked(&broker, &challenged).await.1, answered);
    }
    let line = "claims_challenges_total{identity=\"default\",outcome=\"held\"} 2";
    assert!(broker.state.metrics.text().contains(line), "{}", broker.state.metrics.text());

    // Were a user's token the application's own, letter by letter, what became of the user's since
    // would still be told.
    let broker = Broker::with_config(&Entra::new(), &config);
    let same = json!({"token_type": "Bearer", "access_token": "same", "expires_in": 3_600});
    broker.entra.always(Endpoint::Token, Some(Reply::json(200, &same)));
    token(&broker, SCOPE).await;
    let of = |name| TokenRequest {
        assertion: Some(crate::on_behalf_of::user(name)),
        ..request("default", SCOPE)
    };
    assert_eq!(asked(&broker, &of("alice")).await.0, 200);
    broker.entra.script(Endpoint::Token, [Reply::error(401, "invalid_client", 7_000_112)]);
    assert_eq!(asked(&broker, &of("bob")).await.0, 403);
    assert_eq!(asked(&broker, &of("alice")).await.0, 403);
}
