//! An unknown key makes the broker fetch at once, for all who ask together, and then not again
//! for a while, whoever asks.

use contract::{ErrorKind, KeySets, KeysRefresh, TypedError};
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{Broker, Endpoint, Entra, Reply, TENANT, ask, key, pass, post, seconds};

fn issuer() -> String {
    format!("https://login.microsoftonline.com/{TENANT}/v2.0")
}

async fn refresh(broker: &Broker, kid: &str) -> Result<KeySets, TypedError> {
    let request = KeysRefresh { issuer: issuer(), kid: kid.to_owned() };
    broker.state.serving().keys.refresh(&request).await
}

#[tokio::test(start_paused = true)]
async fn k04_a_refresh_fetches_at_once_and_then_not_for_five_minutes() {
    let entra = Entra::new();
    let broker = Broker::start(&entra);
    pass(seconds(1)).await;
    entra.keys(vec![key(1, "k1"), key(2, "k2")]);
    let sets = refresh(&broker, "k2").await.unwrap();
    assert_eq!(sets.key_sets[0].keys.len(), 2);
    assert_eq!(entra.count(Endpoint::Keys), 2);
    let refused = refresh(&broker, "k3").await.unwrap_err();
    assert_eq!((refused.kind, refused.retry_after), (ErrorKind::Throttled, Some(300)));
    pass(seconds(299)).await;
    assert_eq!(refresh(&broker, "k3").await.unwrap_err().retry_after, Some(1));
    assert_eq!(entra.count(Endpoint::Keys), 2);
    pass(seconds(1)).await;
    refresh(&broker, "k3").await.unwrap();
    assert_eq!(entra.count(Endpoint::Keys), 3);
}

#[tokio::test(start_paused = true)]
async fn k04_concurrent_refreshes_share_one_fetch() {
    let entra = Entra::new();
    let broker = Broker::start(&entra);
    pass(seconds(1)).await;
    entra.delay(seconds(1));
    entra.keys(vec![key(2, "k2")]);
    let mut asking = JoinSet::new();
    for number in 0..1_000 {
        let state = broker.state.clone();
        let request = KeysRefresh { issuer: issuer(), kid: format!("k{number}") };
        asking.spawn(async move { state.serving().keys.refresh(&request).await.unwrap() });
    }
    for sets in asking.join_all().await {
        assert_eq!(sets.key_sets[0].keys[0].kid.as_deref(), Some("k2"));
    }
    assert_eq!(entra.count(Endpoint::Keys), 2);
    refresh(&broker, "k3").await.unwrap_err();
    let metrics = broker.state.metrics.text();
    for line in [
        r#"entra_broker_key_refresh_requests_total{outcome="fetched"} 1"#,
        r#"entra_broker_key_refresh_requests_total{outcome="joined"} 999"#,
        r#"entra_broker_key_refresh_requests_total{outcome="throttled"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_during_the_first_fetch_waits_for_it() {
    let entra = Entra::new();
    entra.delay(seconds(1));
    let broker = Broker::start(&entra);
    let sets = refresh(&broker, "k1").await.unwrap();
    assert_eq!(sets.key_sets[0].keys.len(), 1);
    assert_eq!(entra.count(Endpoint::Keys), 1);
    // It was not theirs: one on request is still free.
    refresh(&broker, "k2").await.unwrap();
    assert_eq!(entra.count(Endpoint::Keys), 2);
}

#[tokio::test(start_paused = true)]
async fn k07_a_refresh_that_fails_is_no_word_on_the_key() {
    let entra = Entra::new();
    let broker = Broker::start(&entra);
    pass(seconds(1)).await;
    entra.always(Endpoint::Keys, Some(Reply::Answer(500, Vec::new(), Vec::new())));
    for _ in 0..2 {
        let refused = refresh(&broker, "k2").await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Transient);
        assert!(refused.error.starts_with("keys_not_fetched:"), "{}", refused.error);
    }
    // The second one asked Entra for nothing, and the known keys stay.
    assert_eq!(entra.count(Endpoint::Keys), 2);
    let set = broker.state.serving().keys.sets().key_sets.remove(0);
    assert_eq!((set.state, set.keys.len()), (contract::KeySetState::Stale, 1));
    // Once they are fetched, the keys say again which are known.
    entra.always(Endpoint::Keys, None);
    pass(seconds(2)).await;
    assert_eq!(refresh(&broker, "k2").await.unwrap_err().kind, ErrorKind::Throttled);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_takes_long_is_answered_in_time_and_goes_on() {
    let entra = Entra::new();
    let broker = Broker::start(&entra);
    pass(seconds(1)).await;
    entra.keys(vec![key(2, "k2")]);
    entra.delay(seconds(5));
    let before = tokio::time::Instant::now();
    let refused = refresh(&broker, "k2").await.unwrap_err();
    assert_eq!(before.elapsed(), seconds(8));
    assert_eq!(refused.kind, ErrorKind::Transient);
    assert!(refused.error.starts_with("entra_slow:"), "{}", refused.error);
    pass(seconds(3)).await;
    let sets = broker.state.serving().keys.sets();
    assert_eq!(sets.key_sets[0].keys[0].kid.as_deref(), Some("k2"));
}

#[tokio::test(start_paused = true)]
async fn each_authority_has_its_own_limit() {
    let entra = Entra::new();
    let mut config = crate::support::config();
    let mut organizations = config.authorities[0].clone();
    organizations.tenant = "organizations".to_owned();
    config.authorities.push(organizations);
    let broker = Broker::with_config(&entra, &config);
    pass(seconds(1)).await;
    refresh(&broker, "k").await.unwrap();
    let template = KeysRefresh {
        issuer: "https://login.microsoftonline.com/{tenantid}/v2.0".to_owned(),
        kid: "k".to_owned(),
    };
    broker.state.serving().keys.refresh(&template).await.unwrap();
    broker.state.serving().keys.refresh(&template).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn b04_k05_only_configured_authorities_are_fetched() {
    let entra = Entra::new();
    let broker = Broker::start(&entra);
    pass(seconds(1)).await;
    let before = entra.count(Endpoint::Metadata);
    for issuer in [
        "https://login.microsoftonline.com/{tenantid}/v2.0",
        "https://login.microsoftonline.com/5a1d3a0e-8c0b-4c4f-9a37-0b1f3f7c5d11/v2.0",
        "https://evil.example/v2.0",
        "http://169.254.169.254/",
        "",
    ] {
        let body = json!({"issuer": issuer, "kid": "k"}).to_string();
        let (status, _, answer) = ask(&broker.api(), post("/v1/keys/refresh", body)).await;
        assert_eq!(status, 503, "{issuer}");
        let refused: TypedError = serde_json::from_str(&answer).unwrap();
        assert_eq!(refused.kind, ErrorKind::Config);
        assert!(!answer.contains("evil"), "{answer}");
    }
    assert_eq!(entra.count(Endpoint::Metadata), before);
}

#[tokio::test(start_paused = true)]
async fn the_limit_is_told_as_429_with_retry_after() {
    let entra = Entra::new();
    let broker = Broker::start(&entra);
    pass(seconds(1)).await;
    let body = json!({"issuer": issuer(), "kid": "k"}).to_string();
    let (status, _, answer) = ask(&broker.api(), post("/v1/keys/refresh", body.clone())).await;
    assert_eq!(status, 200);
    serde_json::from_str::<KeySets>(&answer).unwrap();
    let (status, headers, _) = ask(&broker.api(), post("/v1/keys/refresh", body)).await;
    assert_eq!((status, headers["retry-after"].to_str().unwrap()), (429, "300"));
}
