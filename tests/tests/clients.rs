//! The fake Entra with a client that nobody here wrote: msal, Microsoft's library for Python.
//!
//! `cargo xtask test` installs it, pinned by hash, and says where in `PYTHON_CLIENTS`.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::arithmetic_side_effects,
    reason = "a test's own functions fail the test"
)]

use contract::{KeySet, KeySetState, KeySets};
use e2e::{
    fake_entra::{
        Endpoint, FakeEntra, Lifetime, Standing,
        sample::{
            Cluster, ORDERS_API, STOCK_URI, TENANT, TILL, TILL_SECRET, WORKLOAD, WORKLOAD_SUBJECT,
        },
    },
    python,
};
use policy::{
    config::Config, decision::Reason, effect::Effect, inbound::Inbound, request::RequestHead,
    time::UnixTime,
};
use serde_json::{Value, json};

const AUDIENCE: &str = "api://AzureADTokenExchange";
const ORDERS_SCOPE: &str = "api://orders/.default";
const STOCK_SCOPE: &str = "https://stock.contoso.com/.default";

/// What msal answers; see `tests/clients/msal_client.py`.
fn msal(entra: &FakeEntra, asked: &Value) -> Vec<Value> {
    let answers = python::run(entra, "msal_client.py", asked);
    answers.as_array().expect("a list of answers").clone()
}

fn with_secret(changes: &[(&str, &str)]) -> Value {
    changed(json!({"client_id": TILL, "scope": ORDERS_SCOPE, "secret": TILL_SECRET}), changes)
}

fn with_assertion(assertion: &str, changes: &[(&str, &str)]) -> Value {
    let asked = json!({"client_id": WORKLOAD, "scope": STOCK_SCOPE, "assertion": assertion});
    changed(asked, changes)
}

fn changed(mut asked: Value, changes: &[(&str, &str)]) -> Value {
    asked["authority"] = json!(format!("https://login.microsoftonline.com/{TENANT}"));
    for (name, value) in changes {
        asked[*name] = json!(value);
    }
    asked
}

fn assertion(entra: &FakeEntra, cluster: &Cluster) -> String {
    cluster.token(WORKLOAD_SUBJECT, AUDIENCE, entra.now(), 3600)
}

#[test]
fn msal_gets_tokens_with_a_secret_and_with_a_federated_assertion() {
    let (entra, cluster) = FakeEntra::sample();
    let by_assertion = with_assertion(&assertion(&entra, &cluster), &[]);
    for (case, asked, client, path, other) in [
        ("secret, version 2.0", with_secret(&[]), TILL, "/orders", "/stock"),
        ("assertion, version 1.0", by_assertion, WORKLOAD, "/stock", "/orders"),
    ] {
        let answer = msal(&entra, &asked).remove(0);
        assert_eq!(answer["token_type"], json!("Bearer"), "{case}: {answer}");
        assert_eq!(answer["expires_in"], json!(3599), "{case}");
        let token = answer["access_token"].as_str().expect("a token");
        let (reason, headers) = judged(&entra, token, path);
        assert_eq!(reason, Reason::Allowed, "{case}");
        assert_eq!(headers["x-entra-client-id"], json!(client), "{case}");
        assert_eq!(headers["x-entra-tenant-id"], json!(TENANT), "{case}");
        let (reason, _) = judged(&entra, token, other);
        assert_eq!(reason, Reason::RoleMissing, "{case}");
        let (signed, signature) = token.rsplit_once('.').expect("a token");
        let flipped = if signature.starts_with('A') { 'B' } else { 'A' };
        let rest: String = signature.chars().skip(1).collect();
        let tampered = format!("{signed}.{flipped}{rest}");
        let (reason, _) = judged(&entra, &tampered, path);
        assert_eq!(reason, Reason::SignatureInvalid, "{case}");
    }
    assert_eq!(entra.issued(), 2);
    let calls = entra.calls_of(Endpoint::Token);
    for call in &calls {
        assert_eq!(call.header("x-client-sku"), Some("MSAL.Python"), "msal itself asked");
    }
}

#[test]
fn msal_is_refused_with_entras_own_error_shapes() {
    let (entra, cluster) = FakeEntra::sample();
    let good = assertion(&entra, &cluster);
    let now = entra.now();
    let of = |subject: &str, audience: &str| cluster.token(subject, audience, now, 3600);
    let stranger = Cluster::new(&cluster.issuer, 99).token(WORKLOAD_SUBJECT, AUDIENCE, now, 3600);
    let elsewhere = Cluster { issuer: "https://oidc.example".to_owned(), key: cluster.key.clone() };
    let elsewhere = elsewhere.token(WORKLOAD_SUBJECT, AUDIENCE, now, 3600);
    let ended = cluster.token(WORKLOAD_SUBJECT, AUDIENCE, now - 4000, 3600);
    let unknown = "aaaaaaaa-0000-4000-8000-00000000000f";
    for (case, asked, error, code) in [
        ("wrong secret", with_secret(&[("secret", "wrong")]), "invalid_client", 7_000_215),
        ("unknown client", with_secret(&[("client_id", unknown)]), "unauthorized_client", 700_016),
        (
            "unknown resource",
            with_secret(&[("scope", "api://nobody/.default")]),
            "invalid_resource",
            500_011,
        ),
        (
            "single scope",
            with_secret(&[("scope", "api://orders/Orders.Read.All")]),
            "invalid_scope",
            1_002_012,
        ),
        ("no federation", with_assertion(&good, &[("client_id", TILL)]), "invalid_request", 70021),
        (
            "other subject",
            with_assertion(&of("system:serviceaccount:shop:till", AUDIENCE), &[]),
            "invalid_client",
            700_213,
        ),
        (
            "other audience",
            with_assertion(&of(WORKLOAD_SUBJECT, "api://orders"), &[]),
            "invalid_client",
            700_212,
        ),
        ("other issuer", with_assertion(&elsewhere, &[]), "invalid_client", 700_211),
        ("other key", with_assertion(&stranger, &[]), "invalid_client", 700_027),
        ("ended", with_assertion(&ended, &[]), "invalid_client", 700_024),
        ("no token", with_assertion("garbage", &[]), "invalid_request", 50027),
    ] {
        let answer = msal(&entra, &asked).remove(0);
        assert_eq!(answer["error"], json!(error), "{case}: {answer}");
        assert_eq!(answer["error_codes"], json!([code]), "{case}: {answer}");
        let correlation_id = answer["correlation_id"].as_str().expect("a text");
        let description = answer["error_description"].as_str().expect("a text");
        assert!(description.starts_with(&format!("AADSTS{code}: ")), "{case}: {description}");
        assert!(description.contains(correlation_id), "{case}: {description}");
        let calls = entra.calls_of(Endpoint::Token);
        let last = calls.last().expect("a call");
        assert_eq!(last.header("client-request-id"), Some(correlation_id), "{case}");
        assert!(answer.get("access_token").is_none(), "{case}");
    }
    assert_eq!(entra.issued(), 0);
}

#[test]
fn msal_refuses_a_tenant_that_is_not_there() {
    let (entra, _) = FakeEntra::sample();
    let authority = "https://login.microsoftonline.com/dddddddd-0000-4000-8000-00000000000f";
    let answer = msal(&entra, &with_secret(&[("authority", authority)])).remove(0);
    let error = answer["authority_error"].as_str().expect("a refusal by msal itself");
    assert!(error.contains("authority"), "{error}");
    assert_eq!(entra.count(Endpoint::Token), 0);
    assert!(entra.calls().iter().any(|call| call.refused == Some(90002)));
}

#[test]
fn msal_asks_once_for_a_token_that_lives_and_again_for_one_that_is_due() {
    for (lifetime, asked_times) in [
        (Lifetime { expires_in: 3599, refresh_in: None }, 1),
        (Lifetime { expires_in: 3599, refresh_in: Some(0) }, 2),
        (Lifetime { expires_in: 60, refresh_in: None }, 2),
    ] {
        let (entra, _) = FakeEntra::sample();
        entra.set_lifetime(lifetime);
        let mut asked = with_secret(&[]);
        asked["twice"] = json!(true);
        let answers = msal(&entra, &asked);
        assert!(answers.iter().all(|answer| answer["access_token"].is_string()), "{answers:?}");
        assert_eq!(entra.count(Endpoint::Token), asked_times, "{lifetime:?}");
    }
}

#[test]
fn msal_declares_its_capability_and_answers_a_challenge_past_its_cache() {
    let (entra, cluster) = FakeEntra::sample();
    let mut asked = with_assertion(
        &assertion(&entra, &cluster),
        &[("scope", "https://graph.microsoft.com/.default")],
    );
    asked["capabilities"] = json!(["cp1"]);
    asked["twice"] = json!(true);
    // Such as a resource sends that has ended all tokens until now.
    let valid_from = entra.revoke_tokens(TENANT, WORKLOAD);
    let nbf = json!({"essential": true, "value": valid_from.to_string()});
    asked["challenge"] = json!(json!({"access_token": {"nbf": nbf}}).to_string());
    let answers = msal(&entra, &asked);
    let standings: Vec<Standing> = answers
        .iter()
        .map(|answer| entra.standing(answer["access_token"].as_str().expect("a token")))
        .collect();
    let [Standing::Challenged(first), Standing::Challenged(cached), Standing::Good] =
        standings.as_slice()
    else {
        panic!("{standings:?}")
    };
    assert_eq!(first, cached);
    // The second came out of msal's cache, the third went past it.
    assert_eq!(entra.count(Endpoint::Token), 2);
    assert_eq!(answers[2]["expires_in"], json!(100_799));
    let sent: Vec<Value> = entra
        .calls_of(Endpoint::Token)
        .iter()
        .map(|call| {
            serde_json::from_str(call.form_member("claims").expect("claims")).expect("JSON")
        })
        .collect();
    // What the broker sends, too (`token-broker/src/entra/claims.rs`).
    let capability = json!({"values": ["cp1"]});
    assert_eq!(sent[0], json!({"access_token": {"xms_cc": capability}}));
    assert_eq!(sent[1], json!({"access_token": {"nbf": nbf, "xms_cc": capability}}));
}

/// What the product's own policy says to a token on a path, with the keys that the fake publishes.
fn judged(entra: &FakeEntra, token: &str, path: &str) -> (Reason, Value) {
    let config = json!({
        "direction": "inbound",
        "tenants": [TENANT],
        "audiences": [ORDERS_API, STOCK_URI],
        "broker": {"cluster": "token_broker"},
        "identity_headers": {"x-entra-client-id": "azp", "x-entra-tenant-id": "tid"},
        "rules": [
            {"name": "orders", "match": {"path": "/orders"},
                "allow": [{"roles": ["Orders.Read.All"], "clients": [TILL]}]},
            {"name": "stock", "match": {"path": "/stock"},
                "allow": [{"roles": ["Stock.Read.All"], "clients": [WORKLOAD]}]},
        ],
    });
    let Ok(Config::Inbound(config)) = Config::read(config.to_string().as_bytes()) else {
        panic!("the policy of this test is refused");
    };
    let keys = entra.key_set(TENANT)["keys"].clone();
    let now = UnixTime(entra.now());
    let authorization = format!("Bearer {token}");
    let lines = [
        (":method", "GET"),
        (":path", path),
        (":authority", "orders.contoso.com"),
        ("authorization", &authorization),
    ];
    let lines = lines.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let head = RequestHead::read(lines, &config.own_headers);
    let mut policy = Inbound::new(*config);
    policy.callers().on_keys(
        &KeySets {
            key_sets: vec![KeySet {
                issuer: format!("https://login.microsoftonline.com/{TENANT}/v2.0"),
                fetched_at: now.0,
                state: KeySetState::Fresh,
                keys: serde_json::from_value(keys).expect("keys as the contract has them"),
            }],
        },
        now,
    );
    let effect = policy.on_request(&head, false, now, &tokens::verify);
    let headers: Value = match &effect {
        Effect::Continue(edits, _) => {
            edits.added().map(|(name, value)| (name.to_string(), json!(**value))).collect()
        }
        _ => Value::Null,
    };
    (effect.decision().expect("a decision").reason, headers)
}
