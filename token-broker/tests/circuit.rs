//! An Entra that does not answer is left alone, and used again as soon as it answers.

use std::{collections::BTreeMap, fmt::Write, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use contract::{ErrorKind, Secret, TokenRequest};
use serde_json::json;
use token_broker::{
    config::{Config, Identity},
    https::TransportFailure,
};
use tokio::time::Instant;

use crate::support::{
    Broker, CLIENT, Endpoint, Entra, Reply, START, TENANT, TOKEN, ask, config, get, issue, pass,
    post, request, seconds,
};

const OTHER: &str = "11111111-86f1-41af-91ab-2d7cd011db47";

fn dead() -> Reply {
    Reply::Fail(TransportFailure::Connection("refused".to_owned()))
}

fn set(entra: &Entra, reply: Option<Reply>) {
    for endpoint in [Endpoint::Token, Endpoint::Metadata, Endpoint::Keys] {
        entra.always(endpoint, reply.clone());
    }
}

fn name(number: usize) -> String {
    format!("i{number}")
}

/// As many identities with one scope each, of one tenant.
fn many(count: usize) -> Config {
    let mut config = config();
    let identity = config.identities.remove("default").unwrap();
    let scopes = vec![crate::support::SCOPE.to_owned()];
    config.identities = (0..count)
        .map(|number| (name(number), Identity { scopes: scopes.clone(), ..identity.clone() }))
        .collect::<BTreeMap<_, _>>();
    config
}

fn calls(entra: &Entra) -> usize {
    [Endpoint::Token, Endpoint::Metadata, Endpoint::Keys]
        .map(|endpoint| entra.count(endpoint))
        .iter()
        .sum()
}

async fn page(broker: &Broker, path: &str) -> String {
    ask(&broker.admin(), get(path)).await.2
}

#[tokio::test(start_paused = true)]
async fn b08_a_dead_entra_sees_a_few_calls_however_many_wait_for_it() {
    let replies = [
        dead(),
        Reply::Fail(TransportFailure::Timeout),
        Reply::Fail(TransportFailure::Broken),
        Reply::json(503, &json!({})),
        Reply::Answer(500, Vec::new(), b"<html>".to_vec()),
        Reply::json(408, &json!({})),
    ];
    for reply in replies {
        let entra = Entra::new();
        set(&entra, Some(reply));
        entra.delay(Duration::from_millis(10));
        let broker = Broker::with_config(&entra, &many(200));
        pass(seconds(60)).await;
        // Those that were under way when the circuit opened, then 1, 2, 4, 8, 16, 32 s apart.
        let first = calls(&entra);
        assert!((16..=23).contains(&first), "{first}");
        pass(seconds(120)).await;
        let later = calls(&entra) - first;
        assert!((1..=3).contains(&later), "{later}");
        for number in [0, 199] {
            let refused =
                broker.issue(&request(&name(number), crate::support::SCOPE)).await.unwrap_err();
            assert_eq!(refused.kind, ErrorKind::Transient);
            assert!((1..=60).contains(&refused.retry_after.unwrap()));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn when_one_call_is_answered_all_are_served_at_once() {
    let entra = Entra::new();
    set(&entra, Some(dead()));
    let broker = Broker::with_config(&entra, &many(200));
    pass(seconds(600)).await;
    let opened = page(&broker, "/").await;
    assert!(
        opened.contains(&format!("login.microsoftonline.com/{TENANT} does not answer (")),
        "{opened}"
    );
    let label = format!("{{authority=\"login.microsoftonline.com/{TENANT}\"}}");
    let metrics = page(&broker, "/metrics").await;
    assert!(metrics.contains(&format!("circuit_open{label} 1\n")), "{metrics}");
    assert!(metrics.contains(&format!("circuit_openings_total{label} 1\n")), "{metrics}");
    set(&entra, None);
    let before = calls(&entra);
    while calls(&entra) == before {
        pass(Duration::from_millis(100)).await;
    }
    // The first call that was let through has been answered.
    let start = Instant::now();
    pass(seconds(1)).await;
    for number in 0..200 {
        broker.issue(&request(&name(number), crate::support::SCOPE)).await.unwrap();
    }
    assert!(broker.state.serving().keys.ages()[0].1.is_some());
    assert_eq!(start.elapsed(), seconds(1));
    assert!(!page(&broker, "/").await.contains("does not answer"));
    assert!(!page(&broker, "/metrics").await.contains("circuit_open{"));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_an_answer_and_opens_nothing() {
    for reply in [
        Reply::error(401, "invalid_client", 7_000_215),
        Reply::error(400, "invalid_grant", 53_003),
        Reply::error(429, "x", 90_055),
        Reply::json(404, &json!({})),
        Reply::Fail(TransportFailure::TooLarge),
        Reply::Answer(200, Vec::new(), b"<html>".to_vec()),
    ] {
        let entra = Entra::new();
        set(&entra, Some(reply));
        let broker = Broker::with_config(&entra, &many(20));
        pass(seconds(5)).await;
        assert!(broker.state.circuits.open().is_empty());
        assert!(entra.count(Endpoint::Token) >= 20);
    }
}

#[tokio::test(start_paused = true)]
async fn failures_that_are_not_in_a_row_open_nothing() {
    let entra = Entra::new();
    let mut config = many(1);
    config.authorities.clear();
    let broker = Broker::with_config(&entra, &config);
    broker.issue(&request("i0", crate::support::SCOPE)).await.unwrap();
    for _ in 0..3 {
        // Four failures, then an answer.
        entra.script(Endpoint::Token, vec![dead(); 4]);
        pass(seconds(2_600)).await;
        broker.issue(&request("i0", crate::support::SCOPE)).await.unwrap();
    }
    assert!(!page(&broker, "/metrics").await.contains("circuit_openings_total{"));
}

#[tokio::test(start_paused = true)]
async fn one_tenant_that_fails_does_not_disturb_another() {
    let entra = Entra::new();
    let mut config = many(1);
    let token_broker::config::Source::Application { application, credentials } =
        config.identities["i0"].source.clone()
    else {
        unreachable!()
    };
    let other = Identity {
        source: token_broker::config::Source::Application {
            application: token_broker::config::Application {
                tenant: OTHER.to_owned(),
                ..application
            },
            credentials,
        },
        ..config.identities["i0"].clone()
    };
    config.identities.insert("other".to_owned(), other);
    // Only the first tenant's keys fail.
    entra.always(Endpoint::Metadata, Some(dead()));
    let broker = Broker::with_config(&entra, &config);
    pass(seconds(120)).await;
    let open = broker.state.circuits.open();
    assert!(open.iter().all(|open| open.authority.ends_with(TENANT)), "{open:?}");
    broker.issue(&request("other", crate::support::SCOPE)).await.unwrap();
}

const ORDERS: &str = "api://orders/Read";

/// A user's token as a filter has let it pass.
fn user(number: usize) -> Secret {
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({"ver": "2.0", "tid": TENANT, "aud": CLIENT, "iat": START, "iss": "x",
        "exp": START + 7_200, "oid": "u", "sub": "u", "scp": "a", "uti": name(number)});
    let header = json!({"alg": "RS256", "kid": "k1"});
    Secret::new(format!("{}.{}.c2ln", part(&header), part(&claims)))
}

/// The one identity with so many scopes of its own, for users.
fn with_users(scopes: usize) -> Config {
    let mut config = config();
    let identity = config.identities.get_mut("default").unwrap();
    identity.scopes.truncate(scopes);
    identity.delegated_scopes = vec![ORDERS.to_owned()];
    config
}

#[tokio::test(start_paused = true)]
async fn users_keep_neither_the_keys_nor_the_applications_own_tokens_waiting() {
    let entra = Entra::new();
    let broker = Broker::with_config(&entra, &with_users(1));
    pass(seconds(1)).await;
    entra.delay(seconds(3));
    for number in 0..500 {
        let state = Arc::clone(&broker.state);
        let assertion = Some(user(number));
        let request = TokenRequest { assertion, ..request("default", ORDERS) };
        tokio::spawn(async move { issue(&state, &request).await });
    }
    pass(Duration::from_millis(10)).await;
    let start = Instant::now();
    let issuer = format!("https://login.microsoftonline.com/{TENANT}/v2.0");
    let body = json!({"issuer": issuer, "kid": "new"}).to_string();
    let api = broker.api();
    let (keys, token) =
        tokio::join!(ask(&api, post("/v1/keys/refresh", body)), send(&broker, TENANT),);
    assert_eq!(keys.0, 200, "{}", keys.2);
    token.unwrap();
    // Metadata, then the keys.
    assert_eq!(start.elapsed(), seconds(6));
}

#[tokio::test(start_paused = true)]
async fn only_a_tenants_own_tokens_wait_for_the_turns_of_its_tokens() {
    let entra = Entra::new();
    entra.delay(seconds(3));
    let broker = Broker::with_config(&entra, &many(40));
    pass(Duration::from_millis(10)).await;
    assert_eq!(entra.count(Endpoint::Token), 16);
    tokio::time::timeout(Duration::from_millis(3_001), send(&broker, OTHER))
        .await
        .unwrap()
        .unwrap();
    // Metadata, then the keys, while some of the tokens still wait for their turn.
    pass(seconds(3)).await;
    assert!(broker.state.serving().keys.ages()[0].1.is_some());
    pass(seconds(10)).await;
    for number in 0..40 {
        broker.issue(&request(&name(number), crate::support::SCOPE)).await.unwrap();
    }
}

/// A call to a tenant's token endpoint, past all that decides when to make one.
async fn send(
    broker: &Broker,
    tenant: &str,
) -> Result<token_broker::https::Answer, TransportFailure> {
    let uri = format!("https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token");
    let request = hyper::http::Request::post(uri).body(Secret::new(String::new())).unwrap();
    token_broker::https::Transport::send(broker.state.circuits.as_ref(), request, 1_000).await
}

#[tokio::test(start_paused = true)]
async fn who_would_wait_longer_by_itself_is_woken_when_another_is_answered() {
    let entra = Entra::new();
    set(&entra, Some(dead()));
    let broker = Broker::with_config(&entra, &many(1));
    while broker.state.circuits.open().is_empty() {
        pass(Duration::from_millis(100)).await;
    }
    set(&entra, None);
    pass(Duration::from_millis(1_001)).await;
    send(&broker, TENANT).await.unwrap();
    pass(Duration::from_millis(1)).await;
    assert!(broker.state.serving().keys.ages()[0].1.is_some());
    assert_eq!(broker.state.serving().tokens.states()[0].held, 1);
}

#[tokio::test(start_paused = true)]
async fn a_trial_that_is_given_up_is_followed_by_another() {
    let entra = Entra::new();
    let mut config = many(0);
    config.authorities.clear();
    set(&entra, Some(dead()));
    let broker = Broker::with_config(&entra, &config);
    for _ in 0..5 {
        send(&broker, TENANT).await.unwrap_err();
    }
    let refused = send(&broker, TENANT).await.unwrap_err();
    assert!(matches!(refused, TransportFailure::NotTried(rest) if rest <= seconds(1)));
    pass(Duration::from_millis(1_001)).await;
    set(&entra, None);
    entra.delay(seconds(5));
    tokio::time::timeout(seconds(1), send(&broker, TENANT)).await.unwrap_err();
    entra.delay(Duration::ZERO);
    send(&broker, TENANT).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn users_are_served_at_once_too_and_a_dead_entra_sees_none_of_them() {
    let mut config = with_users(0);
    config.authorities.clear();
    let entra = Entra::new();
    set(&entra, Some(dead()));
    let broker = Broker::with_config(&entra, &config);
    let exchange = async |number: usize| {
        let request = TokenRequest { assertion: Some(user(number)), ..request("default", ORDERS) };
        broker.issue(&request).await
    };
    for number in 0..300 {
        exchange(number).await.unwrap_err();
        pass(Duration::from_millis(100)).await;
    }
    let seen = calls(&entra);
    assert!((9..=11).contains(&seen), "{seen}");
    set(&entra, None);
    // Somebody finds that Entra is back: then even who was refused a moment ago is served.
    let mut number = 1_000;
    let mut text = String::new();
    while text.is_empty() {
        let _failed = exchange(5).await;
        pass(Duration::from_millis(100)).await;
        if let Ok(token) = exchange(number).await {
            write!(text, "{}", token.access_token.expose()).unwrap();
        }
        number += 1;
    }
    assert!(text.starts_with(TOKEN));
    exchange(5).await.unwrap();
}
