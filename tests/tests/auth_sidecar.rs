//! The endpoints of Microsoft's auth sidecar for callers' tokens, with an Entra that judges them:
//! whose token is valid, whose header comes of it, and how a caller learns to sign in again.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::arithmetic_side_effects,
    reason = "a test: what goes wrong fails it"
)]

use std::net::SocketAddr;

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use e2e::{
    broker::{Broker, BrokerIdentity, BrokerSettings, own_directory},
    client::{Answer, Request},
    fake_entra::{
        Demand, Endpoint, FakeEntra, Policy, TokenBuilder,
        sample::{GRAPH, GRAPH_URI, ORDERS_API, STOCK_URI, TENANT, TILL, ada},
    },
};
use serde_json::{Value, json};

struct Sidecar {
    entra: FakeEntra,
    address: SocketAddr,
    broker: Broker,
    _directory: tempfile::TempDir,
}

impl Sidecar {
    /// A broker beside the orders API, which reads users' profiles on their behalf.
    async fn start() -> Self {
        let (entra, cluster) = FakeEntra::sample();
        let directory = own_directory();
        let sample = (&entra, &cluster);
        let identity = BrokerIdentity::federated(
            directory.path(),
            sample,
            ORDERS_API,
            &format!("{GRAPH_URI}/.default"),
        );
        let mut settings = BrokerSettings::new(directory.path(), &identity, &entra);
        let profile = format!("{GRAPH_URI}/User.Read");
        settings.config_mut()["identities"]["default"]["delegated_scopes"] = json!([profile]);
        let address = settings.compat(json!({"auth_sidecar": {
            "callers": {"tenants": [TENANT], "audiences": [ORDERS_API], "scopes": ["Orders.Read"]},
            "apis": {"me": {"identity": "default", "scope": profile}},
        }}));
        let broker = Broker::start(&settings).await;
        broker.ready().await;
        Self { entra, address, broker, _directory: directory }
    }

    async fn get(&self, path: &str, token: &str) -> Answer {
        let host = self.address.to_string();
        Request::get(path).host(&host).bearer(token).send(self.address).await
    }

    /// Ada's token for the orders API, which the till got.
    fn adas(&self) -> TokenBuilder {
        self.entra.token(TENANT, TILL, "api://orders").user(&ada(), &["Orders.Read"])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_is_validated_and_gets_their_own_header_or_entras_demand() {
    let sidecar = Sidecar::start().await;
    let entra = &sidecar.entra;
    let good = sidecar.adas().sign();
    let answer = sidecar.get("/Validate", &good).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["claims"]["oid"], json!(ada().object_id));

    let answer = sidecar.get("/AuthorizationHeader/me", &good).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let header = answer.json()["authorizationHeader"].as_str().expect("a header").to_owned();
    let payload = header.split('.').nth(1).expect("three parts");
    let claims: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).expect("base64url")).expect("JSON");
    assert_eq!((&claims["oid"], &claims["scp"]), (&json!(ada().object_id), &json!("User.Read")));
    assert_eq!((&claims["appid"], &claims["aud"]), (&json!(ORDERS_API), &json!(GRAPH_URI)));

    // Nobody's token but a user's for this very API leads anywhere.
    let before = entra.count(Endpoint::Token);
    let stranger = sidecar.adas().signed_by(&tokens::SigningKey::new(99, "k", "")).sign();
    let stock = entra.token(TENANT, TILL, STOCK_URI).user(&ada(), &["Orders.Read"]).sign();
    let ended = sidecar.adas().age(7200).lifetime(3600).sign();
    for (case, token, reason) in [
        ("not Entra's", stranger, "key_unknown"),
        ("for another API", stock, "audience_mismatch"),
        ("ended", ended, "token_expired"),
        ("an application's", entra.token(TENANT, TILL, "api://orders").sign(), "user_required"),
        ("no token", "secret".to_owned(), "token_malformed"),
    ] {
        for path in ["/Validate", "/AuthorizationHeader/me"] {
            let answer = sidecar.get(path, &token).await;
            let found = (answer.status, answer.json()["errorCode"].clone());
            assert_eq!(found, (401, json!(reason)), "{case} {path}");
        }
    }
    assert_eq!(entra.count(Endpoint::Token), before, "Entra was asked for none of them");

    // What Conditional Access demands reaches the caller, who comes back with a stronger token.
    let policy = Policy::new("3a1c7c6e-0f0d-4d2c-9f0a-7a3f1f2f6b22", Demand::SecondFactor);
    entra.directory(|directory| {
        let graph = directory.application_mut(TENANT, GRAPH).expect("Graph");
        *graph = graph.clone().policy(policy.clone());
    });
    let answer =
        sidecar.get("/AuthorizationHeader/me", &sidecar.adas().lifetime(1800).sign()).await;
    assert_eq!(answer.status, 401, "{}", answer.text());
    let wanted = answer.json()["claims"].as_str().expect("claims as JSON text").to_owned();
    assert!(wanted.contains("capolids") && wanted.contains(&policy.id), "{wanted}");
    let challenge = answer.header("www-authenticate").expect("a challenge");
    assert!(challenge.contains("error=\"insufficient_claims\""), "{challenge}");
    assert!(challenge.contains(&STANDARD.encode(&wanted)), "{challenge}");
    let strong = sidecar.adas().claim("acrs", json!(["p1"])).sign();
    assert_eq!(sidecar.get("/AuthorizationHeader/me", &strong).await.status, 200);

    let log = sidecar.broker.log();
    for token in [&good, &strong, &header] {
        let (_, signature) = token.rsplit_once('.').expect("a token");
        assert!(!log.contains(signature), "a token is in the log");
    }
}
