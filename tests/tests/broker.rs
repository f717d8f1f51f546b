//! The broker as a process, asked over its socket as Envoy asks, with the fake Entra behind it:
//! what claims challenges and Entra's verdicts look like on the wire.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test: what goes wrong fails it"
)]

use e2e::{
    broker::{Broker, BrokerIdentity, BrokerSettings, ask, own_directory},
    fake_entra::{
        Endpoint, FakeEntra, Standing,
        sample::{TENANT, WORKLOAD},
    },
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

const SCOPE: &str = "https://graph.microsoft.com/.default";

struct Running {
    entra: FakeEntra,
    broker: Broker,
    socket: std::path::PathBuf,
    _directory: tempfile::TempDir,
}

/// A broker with the sample's workload as its one identity, which answers claims challenges.
async fn start() -> Running {
    let (entra, cluster) = FakeEntra::sample();
    let directory = own_directory();
    let sample = (&entra, &cluster);
    let identity = BrokerIdentity::federated(directory.path(), sample, WORKLOAD, SCOPE);
    let mut settings = BrokerSettings::new(directory.path(), &identity, &entra);
    settings.config_mut()["identities"]["default"]["client_capabilities"] = json!(["cp1"]);
    let broker = Broker::start(&settings).await;
    Running { entra, broker, socket: settings.socket, _directory: directory }
}

fn request(destination: &str) -> Value {
    json!({"identity": "default", "scope": SCOPE, "destination": destination,
        "claims_challenges": true})
}

fn challenged(destination: &str, refused: &Value, claims: &str) -> Value {
    let mut request = request(destination);
    request["claims"] = json!(claims);
    request["refused"] = refused["token_hash"].clone();
    request
}

fn token(answer: &Value) -> &str {
    answer["access_token"].as_str().expect("a token")
}

/// Ends all tokens until now; the claims with which Graph then refuses this one.
fn revoke(entra: &FakeEntra, answer: &Value) -> String {
    entra.revoke_tokens(TENANT, WORKLOAD);
    match entra.standing(token(answer)) {
        Standing::Challenged(claims) => claims,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn o07_a_storm_of_a_thousand_challenges_costs_entra_one_acquisition() {
    let Running { entra, broker, socket, _directory } = start().await;
    let (status, first) = ask(&socket, &request("graph")).await;
    assert_eq!(status, 200, "{first}");
    assert_eq!(entra.standing(token(&first)), Standing::Good);
    let life = first["expires_on"].as_u64().expect("seconds").saturating_sub(entra.now());
    assert!((100_000..=100_800).contains(&life), "a token of 28 hours: {life}");
    let pause = first["refresh_on"].as_u64().expect("seconds").saturating_sub(entra.now());
    assert!((1..=3_600).contains(&pause), "a copy is asked about within the hour: {pause}");
    let claims = revoke(&entra, &first);
    let before = entra.count(Endpoint::Token);
    let mut asking = JoinSet::new();
    for _ in 0..100 {
        let (socket, request) = (socket.clone(), challenged("graph", &first, &claims));
        asking.spawn(async move {
            let mut answers = Vec::new();
            for _ in 0..10 {
                answers.push(ask(&socket, &request).await);
            }
            answers
        });
    }
    let answers: Vec<_> = asking.join_all().await.into_iter().flatten().collect();
    assert_eq!(answers.len(), 1_000);
    // When to ask again is told anew each time.
    let same = |body: &Value| body["access_token"] == answers[0].1["access_token"];
    assert!(answers.iter().all(|(status, body)| *status == 200 && same(body)));
    assert_eq!(entra.count(Endpoint::Token), before + 1);
    assert_eq!(entra.standing(token(&answers[0].1)), Standing::Good);
    let counted = async |outcome: &str| {
        let labels = format!("{{identity=\"default\",outcome=\"{outcome}\"}}");
        broker.metric(&format!("entra_broker_claims_challenges_total{labels}")).await
    };
    assert_eq!(counted("answered").await + counted("held").await, 1_000.0);
    // The next one comes too soon.
    let claims = revoke(&entra, &answers[0].1);
    let (status, body) = ask(&socket, &challenged("graph", &answers[0].1, &claims)).await;
    assert_eq!((status, &body["kind"]), (429, &json!("throttled")), "{body}");
    assert_eq!(entra.count(Endpoint::Token), before + 1);
    assert_eq!(counted("declined").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conditional_access_block_reaches_the_asker_as_entra_gave_it() {
    let Running { entra, broker, socket, _directory } = start().await;
    let (_, first) = ask(&socket, &request("graph")).await;
    let claims = revoke(&entra, &first);
    entra.directory(|directory| {
        directory.application_mut(TENANT, WORKLOAD).expect("the workload").blocked = true;
    });
    let asked = challenged("graph", &first, &claims);
    let (status, refused) = ask(&socket, &asked).await;
    assert_eq!((status, &refused["kind"]), (403, &json!("claims_challenge")), "{refused}");
    let error = refused["error"].as_str().expect("a text");
    assert!(error.starts_with("invalid_grant AADSTS53003: "), "{error}");
    let calls = entra.calls_of(Endpoint::Token);
    let last = calls.last().expect("a call");
    assert_eq!(refused["correlation_id"].as_str(), last.header("client-request-id"));
    assert!(refused["trace_id"].is_string());
    let wanted = refused["claims"].as_str().expect("claims");
    assert!(wanted.contains("capolids"), "{wanted}");
    // The same again asks Entra nothing, and others keep the token they have.
    assert_eq!(ask(&socket, &asked).await.0, 403);
    assert_eq!(entra.count(Endpoint::Token), calls.len());
    assert_eq!(token(&ask(&socket, &request("mail")).await.1), token(&first));
    let page = broker.admin("/").await.text();
    assert!(page.contains("last challenge refused: invalid_grant AADSTS53003"), "{page}");
}
