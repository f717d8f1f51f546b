//! msal, Microsoft's library for Python: every grant of the fake Entra, and managed identity tokens
//! of the broker.

use contract::{KeySet, KeySetState, KeySets};
use e2e::{
    fake_entra::{
        ClientCertificate, Demand, Endpoint, FakeEntra, Lifetime, MetadataService, Policy,
        Standing,
        sample::{
            Cluster, GRAPH, LEDGER, LEDGER_IDENTITY, MACHINE_IDENTITY, ORDERS_API, STOCK_URI,
            TENANT, TILL, TILL_SECRET, WORKLOAD, WORKLOAD_SUBJECT, ada, ledger_certificate,
            machine,
        },
    },
    independent_client,
};
use policy::{
    config::Config, decision::Reason, effect::Effect, inbound::Inbound, request::RequestHead,
    time::UnixTime,
};
use serde_json::{Value, json};

use crate::stage::{check, claims, part};

const AUDIENCE: &str = "api://AzureADTokenExchange";
const ORDERS_SCOPE: &str = "api://orders/.default";
const STOCK_SCOPE: &str = "https://stock.contoso.com/.default";

/// What msal answers, for each application a list; see `tests/clients/msal_client.py`.
fn msal(entra: &FakeEntra, asked: &[Value]) -> Vec<Vec<Value>> {
    let answers = independent_client::run_against(entra, "msal_client.py", &json!(asked));
    serde_json::from_value(answers).expect("lists of answers")
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
    let answers = msal(&entra, &[with_secret(&[]), by_assertion]);
    for (at, (case, client, path, other)) in [
        ("secret, version 2.0", TILL, "/orders", "/stock"),
        ("assertion, version 1.0", WORKLOAD, "/stock", "/orders"),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = &answers[at][0];
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
    refused(
        &entra,
        &[
            ("wrong secret", with_secret(&[("secret", "wrong")]), "invalid_client", 7_000_215),
            (
                "unknown client",
                with_secret(&[("client_id", unknown)]),
                "unauthorized_client",
                700_016,
            ),
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
            (
                "no federation",
                with_assertion(&good, &[("client_id", TILL)]),
                "invalid_request",
                70021,
            ),
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
        ],
    );
}

/// A case of a table of refusals: name, question, OAuth error, AADSTS number.
type Row = (&'static str, Value, &'static str, u32);

/// Asserts that msal gets these refusals and no token.
fn refused(entra: &FakeEntra, rows: &[Row]) {
    let asked: Vec<Value> = rows.iter().map(|(_, asked, ..)| asked.clone()).collect();
    entra.forget_calls();
    let answers = msal(entra, &asked);
    let calls = entra.calls_of(Endpoint::Token);
    assert_eq!(calls.len(), rows.len(), "one call each");
    for (at, (case, _, error, code)) in rows.iter().enumerate() {
        let answer = &answers[at][0];
        assert_eq!(answer["error"], json!(error), "{case}: {answer}");
        assert_eq!(answer["error_codes"], json!([code]), "{case}: {answer}");
        let correlation_id = answer["correlation_id"].as_str().expect("a text");
        let description = answer["error_description"].as_str().expect("a text");
        assert!(description.starts_with(&format!("AADSTS{code}: ")), "{case}: {description}");
        assert!(description.contains(correlation_id), "{case}: {description}");
        assert_eq!(calls[at].header("client-request-id"), Some(correlation_id), "{case}");
        assert!(answer.get("access_token").is_none(), "{case}");
    }
    assert_eq!(entra.issued(), 0);
}

#[test]
fn msal_refuses_a_tenant_that_is_not_there() {
    let (entra, _) = FakeEntra::sample();
    let authority = "https://login.microsoftonline.com/dddddddd-0000-4000-8000-00000000000f";
    let answers = msal(&entra, &[with_secret(&[("authority", authority)])]);
    let error = answers[0][0]["authority_error"].as_str().expect("a refusal by msal itself");
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
        let answers = msal(&entra, &[asked]).remove(0);
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
    let answers = msal(&entra, &[asked]).remove(0);
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

/// What a certificate of the ledger, or of whoever, is to msal.
fn with_certificate(of: &ClientCertificate, changes: &[(&str, &str)]) -> Value {
    let asked = json!({
        "client_id": LEDGER,
        "scope": ORDERS_SCOPE,
        "certificate": of.certificate_pem,
        "private_key": of.private_key_pem.expose(),
    });
    changed(asked, changes)
}

#[test]
fn msal_proves_itself_with_a_certificate_in_both_algorithms() {
    let (entra, _) = FakeEntra::sample();
    let ledger = ledger_certificate();
    let sha1 = ledger.certificate.thumbprint();
    let mut twice = with_certificate(&ledger, &[]);
    // Past its cache, by a challenge.
    twice["challenge"] = json!(r#"{"access_token":{"nbf":{"essential":true,"value":"1"}}}"#);
    let answers = msal(&entra, &[twice, with_certificate(&ledger, &[("sha1", &sha1)])]);
    assert_eq!((answers[0].len(), answers[1].len()), (2, 1));
    for answer in answers.iter().flatten() {
        let token = answer["access_token"].as_str().unwrap_or_else(|| panic!("{answer}"));
        assert_eq!(claims(token)["azp"], json!(LEDGER));
        assert_eq!(claims(token)["azpacr"], json!("2"));
    }
    let headers: Vec<Value> = entra
        .calls_of(Endpoint::Token)
        .iter()
        .map(|call| part(call.credential.as_ref().expect("an assertion").expose(), 0))
        .collect();
    assert_eq!(headers[0]["alg"], json!("PS256"));
    assert_eq!(headers[0]["x5t#S256"], json!(ledger.certificate.sha256() + "="));
    assert_eq!(headers[2]["alg"], json!("RS256"));
    assert_eq!(headers[2]["x5t"], json!(ledger.certificate.sha1() + "="));

    let now = entra.now();
    let expired = ClientCertificate::new(99, "expired", now - 7200, now - 60);
    let stranger = ClientCertificate::new(99, "stranger", now - 60, now + 7200);
    entra.directory(|directory| {
        let known = directory.application_mut(TENANT, LEDGER).expect("the ledger");
        *known = known.clone().certificate(&expired.certificate);
    });
    // The ledger's certificate with another's key.
    let key = stranger.private_key_pem.expose();
    let client = "invalid_client";
    refused(
        &entra,
        &[
            ("unknown certificate", with_certificate(&stranger, &[]), client, 700_027),
            ("expired", with_certificate(&expired, &[]), client, 700_027),
            ("another's key", with_certificate(&ledger, &[("private_key", key)]), client, 700_027),
            (
                "another's key, RS256",
                with_certificate(&ledger, &[("private_key", key), ("sha1", &sha1)]),
                client,
                700_027,
            ),
            (
                "another application",
                with_certificate(&ledger, &[("client_id", TILL)]),
                client,
                700_027,
            ),
        ],
    );
    // A clock that is an hour off is no proof of anything.
    entra.set_clock_offset(3600);
    refused(&entra, &[("an hour ago", with_certificate(&ledger, &[]), client, 700_024)]);
}

#[test]
fn msal_proves_itself_with_a_managed_identity() {
    let (entra, _) = FakeEntra::sample();
    let service = MetadataService::start(&entra, machine());
    let asked = |identity: &str, client: &str| {
        let asked = json!({"client_id": client, "scope": ORDERS_SCOPE, "identity": identity,
            "identity_host": service.url()});
        changed(asked, &[])
    };
    let answer = msal(&entra, &[asked(LEDGER_IDENTITY, LEDGER)]).remove(0).remove(0);
    let token = answer["access_token"].as_str().unwrap_or_else(|| panic!("{answer}"));
    assert_eq!(claims(token)["azp"], json!(LEDGER));
    refused(
        &entra,
        &[
            ("another identity", asked(MACHINE_IDENTITY, LEDGER), "invalid_client", 700_213),
            ("no trust in it", asked(LEDGER_IDENTITY, TILL), "invalid_request", 70021),
        ],
    );
    assert!(service.requests().iter().all(|request| request.method == "GET"));
    assert_eq!(service.requests().len(), 3);
}

#[test]
fn msal_exchanges_a_users_token_on_that_users_behalf() {
    let (entra, cluster) = FakeEntra::sample();
    let workload = assertion(&entra, &cluster);
    let adas = entra.token(TENANT, TILL, "api://orders").user(&ada(), &["Orders.Read"]);
    let on_behalf_of = |token: &str, scope: &str| {
        let asked = json!({"client_id": ORDERS_API, "assertion": workload, "user_token": token,
            "scope": scope});
        changed(asked, &[])
    };
    let profile = "https://graph.microsoft.com/User.Read";
    let mut good = on_behalf_of(&adas.sign(), profile);
    good["capabilities"] = json!(["cp1"]);
    let all = on_behalf_of(&adas.sign(), "https://graph.microsoft.com/.default");
    let answers = msal(&entra, &[good, all]);
    for answer in answers.iter().flatten() {
        let token = answer["access_token"].as_str().unwrap_or_else(|| panic!("{answer}"));
        let claims = claims(token);
        assert_eq!(claims["oid"], json!(ada().object_id));
        assert_eq!((&claims["appid"], &claims["scp"]), (&json!(ORDERS_API), &json!("User.Read")));
        // msal reads the ID token, and would have refused another's.
        assert_eq!(answer["id_token_claims"]["oid"], json!(ada().object_id));
    }
    assert_eq!(answers[0][0]["expires_in"], json!(100_799), "it can be refused at any moment");
    let ended = adas.clone().age(3600).lifetime(3600).sign();
    let elsewhere = entra.token(TENANT, TILL, STOCK_URI).user(&ada(), &["Stock.Read"]).sign();
    let own = entra.token(TENANT, TILL, "api://orders").sign();
    let stranger = adas.clone().signed_by(&tokens::SigningKey::new(99, "k", "")).sign();
    let (mail, grant) = ("https://graph.microsoft.com/Mail.Read", "invalid_grant");
    refused(
        &entra,
        &[
            ("ended", on_behalf_of(&ended, profile), grant, 500_133),
            ("for another API", on_behalf_of(&elsewhere, profile), grant, 500_131),
            ("not signed by Entra", on_behalf_of(&stranger, profile), grant, 50013),
            ("no user", on_behalf_of(&own, profile), "unauthorized_client", 7_000_114),
            ("no consent", on_behalf_of(&adas.sign(), mail), grant, 65001),
            (
                "two resources",
                on_behalf_of(&adas.sign(), &format!("{profile} api://orders/Orders.Pay")),
                "invalid_scope",
                28000,
            ),
        ],
    );
    // Conditional Access: msal hands out what the user has to bring, and takes it with the next token.
    let policy = Policy::new("3a1c7c6e-0f0d-4d2c-9f0a-7a3f1f2f6b22", Demand::SecondFactor);
    entra.directory(|directory| {
        let graph = directory.application_mut(TENANT, GRAPH).expect("Graph");
        *graph = graph.clone().policy(policy.clone());
    });
    let stronger = adas.claim("acrs", json!(["p1"])).sign();
    let weaker = entra.token(TENANT, TILL, "api://orders").user(&ada(), &["Orders.Read"]).sign();
    let asked = [on_behalf_of(&weaker, profile), on_behalf_of(&stronger, profile)];
    let answers = msal(&entra, &asked);
    assert_eq!(answers[0][0]["error"], json!("interaction_required"), "{}", answers[0][0]);
    assert_eq!(answers[0][0]["suberror"], json!("basic_action"));
    let wanted = answers[0][0]["claims"].as_str().expect("claims as JSON text");
    assert!(wanted.contains("capolids") && wanted.contains(&policy.id), "{wanted}");
    assert!(answers[1][0]["access_token"].is_string(), "{}", answers[1][0]);
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

#[tokio::test(flavor = "multi_thread")]
async fn msal_python_gets_tokens_of_listed_identities_and_is_told_why_not() {
    check("msal_identity_client.py").await;
}
