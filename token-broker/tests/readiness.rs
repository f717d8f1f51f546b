//! What the admin listener says, and when the broker is ready.

use serde_json::{Value, json};

use crate::support::{
    Broker, Endpoint, Entra, Reply, SECRET, TOKEN, ask, get, pass, post, seconds,
};

async fn ready(broker: &Broker) -> (u16, Value) {
    let (status, _, body) = ask(&broker.admin(), get("/readyz")).await;
    (status, serde_json::from_str(&body).unwrap())
}

#[tokio::test(start_paused = true)]
async fn b16_the_broker_is_ready_as_soon_as_entra_has_answered() {
    let entra = Entra::new();
    entra.delay(std::time::Duration::from_millis(40));
    let broker = Broker::start(&entra);
    let (status, body) = ready(&broker).await;
    assert_eq!(status, 503);
    assert_eq!(body["authorities_without_keys"].as_array().unwrap().len(), 1);
    // Metadata, then keys: two round trips, nothing more.
    pass(std::time::Duration::from_millis(81)).await;
    let (status, body) = ready(&broker).await;
    assert_eq!(status, 200);
    let expected = json!({"ready": true, "authorities_without_keys": [], "identities_refused": [],
        "challenges_refused": [], "configuration_errors": 0});
    assert_eq!(body, expected);
    // Its tokens are there before anyone has asked.
    let (_, _, page) = ask(&broker.admin(), get("/")).await;
    assert!(page.contains("default: 2 of 2 tokens held, 3599 s left"), "{page}");
}

#[tokio::test(start_paused = true)]
async fn an_identity_refused_for_good_from_the_start_keeps_it_from_being_ready() {
    let entra = Entra::new();
    entra.always(Endpoint::Token, Some(Reply::error(401, "invalid_client", 7_000_215)));
    let broker = Broker::start(&entra);
    pass(seconds(1)).await;
    let (status, body) = ready(&broker).await;
    assert_eq!(status, 503);
    let refused = &body["identities_refused"][0];
    assert_eq!(refused["identity"], "default");
    assert_eq!(refused["kind"], "credential");
    assert_eq!(refused["never_held"], true);
    assert_eq!(refused["correlation_id"], "aaaa-1");
    assert!(refused["error"].as_str().unwrap().starts_with("invalid_client AADSTS7000215"));
    // Mended in Entra: ready by itself.
    entra.always(Endpoint::Token, None);
    pass(seconds(300)).await;
    assert_eq!(ready(&broker).await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn an_identity_refused_later_is_named_and_the_pod_stays_in_service() {
    let entra = Entra::new();
    let broker = Broker::start(&entra);
    pass(seconds(1)).await;
    entra.always(Endpoint::Token, Some(Reply::error(401, "invalid_client", 7_000_222)));
    pass(seconds(3_000)).await;
    let (status, body) = ready(&broker).await;
    assert_eq!((status, &body["identities_refused"][0]["never_held"]), (200, &json!(false)));
}

#[tokio::test(start_paused = true)]
async fn an_entra_that_is_only_slow_or_busy_is_no_refusal() {
    let entra = Entra::new();
    entra.always(Endpoint::Token, Some(Reply::error(503, "temporarily_unavailable", 90033)));
    let broker = Broker::start(&entra);
    pass(seconds(1)).await;
    let (status, body) = ready(&broker).await;
    assert_eq!((status, &body["identities_refused"]), (200, &json!([])));
}

#[tokio::test(start_paused = true)]
async fn keys_that_are_too_old_end_readiness_but_not_health() {
    let entra = Entra::new();
    let broker = Broker::start(&entra);
    pass(seconds(1)).await;
    entra.always(Endpoint::Keys, Some(Reply::Answer(500, Vec::new(), Vec::new())));
    pass(seconds(86_401)).await;
    assert_eq!(ready(&broker).await.0, 503);
    assert_eq!(ask(&broker.admin(), get("/healthz")).await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn metrics_count_what_happened() {
    let entra = Entra::new();
    let broker = Broker::start(&entra);
    broker.text().await.unwrap();
    broker.text().await.unwrap();
    broker.token("x/.default").await.unwrap_err();
    ask(&broker.api(), get("/v1/keys")).await;
    ask(&broker.api(), get("/elsewhere")).await;
    pass(seconds(10)).await;
    let (status, headers, text) = ask(&broker.admin(), get("/metrics")).await;
    assert_eq!(status, 200);
    assert!(headers["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    for line in [
        r#"entra_broker_token_acquisitions_total{identity="default",outcome="issued"} 2"#,
        r#"entra_broker_token_requests_total{identity="default",outcome="waited"} 1"#,
        r#"entra_broker_token_requests_total{identity="default",outcome="cached"} 1"#,
        r#"entra_broker_token_requests_total{identity="default",outcome="denied"} 1"#,
        r#"entra_broker_token_life_seconds{identity="default"} 3590"#,
        r#",outcome="fetched"} 1"#,
        r#"/v2.0"} 10"#,
        r#"entra_broker_requests_total{listener="api",route="/v1/keys",status="200"} 1"#,
        r#"entra_broker_requests_total{listener="api",route="unknown",status="404"} 1"#,
        "entra_broker_refused_peers_total 0",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn w12_nobody_can_make_series_by_asking() {
    let broker = Broker::start(&Entra::new());
    broker.text().await.unwrap();
    let series = async || ask(&broker.admin(), get("/metrics")).await.2.lines().count();
    let ask_all = async |round: usize| {
        for number in 0..50 {
            let name = format!("name-{round}-{number}");
            let body = json!({"identity": name, "scope": name, "destination": name}).to_string();
            ask(&broker.api(), post("/v1/token", body)).await;
            ask(&broker.api(), get(&format!("/{name}"))).await;
            let body = json!({"issuer": name, "kid": name}).to_string();
            ask(&broker.api(), post("/v1/keys/refresh", body)).await;
            ask(&broker.admin(), get(&format!("/{name}"))).await;
        }
    };
    ask_all(1).await;
    // The scrape is counted too, from the second on.
    series().await;
    let before = series().await;
    ask_all(2).await;
    assert_eq!(series().await, before);
}

#[tokio::test(start_paused = true)]
async fn b12_the_admin_listener_hands_out_nothing() {
    let entra = Entra::new();
    let broker = Broker::start(&entra);
    broker.text().await.unwrap();
    for path in ["/", "/healthz", "/readyz", "/metrics", "/v1/token", "/v1/keys", "/x"] {
        for request in [get(path), post(path, "{}")] {
            let (status, _, body) = ask(&broker.admin(), request).await;
            assert!(!body.contains(TOKEN) && !body.contains(SECRET), "{path}: {body}");
            assert!(!path.starts_with("/v1") || status == 404, "{path}");
        }
    }
}
