//! The broker exchanges users' tokens at an Entra that judges them: whose token comes of it, what
//! Entra demands of the user, and that a refusal is one user's alone.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::arithmetic_side_effects,
    reason = "a test: what goes wrong fails it"
)]

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use e2e::{
    broker::{Broker, BrokerIdentity, BrokerSettings, ask, own_directory},
    fake_entra::{
        Demand, Endpoint, FakeEntra, Fault, Policy, TokenBuilder, User,
        sample::{GRAPH, ORDERS_API, STOCK_URI, TENANT, TILL, WORKLOAD_SUBJECT, ada},
    },
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

const PROFILE: &str = "https://graph.microsoft.com/User.Read";
const MAIL: &str = "https://graph.microsoft.com/Mail.Read";

struct Running {
    entra: FakeEntra,
    broker: Broker,
    socket: std::path::PathBuf,
    _directory: tempfile::TempDir,
}

/// A broker whose one identity is the orders API, for users only.
async fn start() -> Running {
    let (entra, cluster) = FakeEntra::sample();
    entra.directory(|directory| {
        *directory = std::mem::take(directory).user(TENANT, grace());
    });
    let directory = own_directory();
    let sample = (&entra, &cluster);
    let identity = BrokerIdentity::federated(directory.path(), sample, ORDERS_API, "");
    let mut settings = BrokerSettings::new(directory.path(), &identity, &entra);
    let default = &mut settings.config_mut()["identities"]["default"];
    default["scopes"] = json!([]);
    default["delegated_scopes"] = json!([PROFILE, MAIL]);
    let broker = Broker::start(&settings).await;
    Running { entra, broker, socket: settings.socket, _directory: directory }
}

fn grace() -> User {
    User {
        object_id: "7c1e9d40-5b2a-4f63-8d17-e0a95c3b6f28".to_owned(),
        principal_name: "grace@contoso.onmicrosoft.com".to_owned(),
        name: "Grace Hopper".to_owned(),
    }
}

/// A user's token for the orders API, which the till got.
fn of(entra: &FakeEntra, user: &User) -> TokenBuilder {
    entra.token(TENANT, TILL, "api://orders").user(user, &["Orders.Read"])
}

fn request(scope: &str, assertion: &str) -> Value {
    json!({"identity": "default", "scope": scope, "destination": "graph", "assertion": assertion})
}

/// The claims of the token that the broker hands out.
fn claims(issued: &Value) -> Value {
    let token = issued["access_token"].as_str().unwrap_or_else(|| panic!("{issued}"));
    let payload = token.split('.').nth(1).expect("three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).expect("base64url")).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn b05_each_user_gets_their_own_token_however_many_ask_and_no_longer_than_their_own_lasts() {
    let Running { entra, broker, socket, _directory } = start().await;
    let users = [ada(), grace()];
    let assertions = users.clone().map(|user| of(&entra, &user).sign());
    let mut asking = JoinSet::new();
    for at in 0..200 {
        let (socket, whose) = (socket.clone(), at % 2);
        let request = request(PROFILE, &assertions[whose]);
        asking.spawn(async move { (whose, ask(&socket, &request).await) });
    }
    for (whose, (status, issued)) in asking.join_all().await {
        assert_eq!(status, 200, "{issued}");
        let claims = claims(&issued);
        assert_eq!(claims["oid"], json!(users[whose].object_id));
        assert_eq!((&claims["appid"], &claims["scp"]), (&json!(ORDERS_API), &json!("User.Read")));
    }
    assert_eq!(entra.count(Endpoint::Token), 2, "one exchange for each user's token");
    for call in entra.calls_of(Endpoint::Token) {
        assert_eq!(call.form_member("requested_token_use"), Some("on_behalf_of"));
        assert_eq!(
            call.presented.as_ref().and_then(|said| said.subject.as_deref()),
            Some(WORKLOAD_SUBJECT)
        );
    }
    // It ends with the user's own token.
    let short = of(&entra, &ada()).lifetime(600).sign();
    let (_, issued) = ask(&socket, &request(PROFILE, &short)).await;
    let life = issued["expires_on"].as_u64().expect("seconds").saturating_sub(entra.now());
    assert!(life <= 600, "{life}");
    // What is not listed, and what nobody's token is shown for, goes nowhere.
    for (case, request) in [
        ("another scope", request("https://graph.microsoft.com/Sites.Read.All", &short)),
        ("no user", json!({"identity": "default", "scope": PROFILE, "destination": "graph"})),
    ] {
        let (status, refused) = ask(&socket, &request).await;
        assert_eq!((status, &refused["kind"]), (403, &json!("denied")), "{case}: {refused}");
    }
    assert_eq!(entra.count(Endpoint::Token), 3);
    let page = broker.admin("/").await.text();
    let shown = format!("{}{}{page}", broker.log(), broker.admin("/metrics").await.text());
    for secret in assertions.iter().chain([&short]) {
        let (_, signature) = secret.rsplit_once('.').expect("a token");
        assert!(!shown.contains(signature), "a user's token is shown");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_conditional_access_demands_reaches_the_asker_and_a_stronger_token_passes() {
    let Running { entra, socket, broker: _broker, _directory } = start().await;
    let policy = Policy::new("3a1c7c6e-0f0d-4d2c-9f0a-7a3f1f2f6b22", Demand::SecondFactor);
    entra.directory(|directory| {
        let graph = directory.application_mut(TENANT, GRAPH).expect("Graph");
        *graph = graph.clone().policy(policy.clone());
    });
    let weak = of(&entra, &ada()).sign();
    for _again in 0..3 {
        let (status, refused) = ask(&socket, &request(PROFILE, &weak)).await;
        assert_eq!((status, &refused["kind"]), (403, &json!("claims_challenge")), "{refused}");
        let wanted = json!({"access_token": {"capolids":
            {"essential": true, "values": [policy.id]}}});
        assert_eq!(refused["claims"], json!(wanted.to_string()), "as Entra gave it");
        let error = refused["error"].as_str().expect("a text");
        assert!(error.starts_with("interaction_required AADSTS50076: "), "{error}");
    }
    assert_eq!(entra.count(Endpoint::Token), 1, "a verdict is not asked for again");
    let strong = of(&entra, &ada()).claim("acrs", json!(["p1"])).sign();
    let (status, issued) = ask(&socket, &request(PROFILE, &strong)).await;
    assert_eq!(status, 200, "{issued}");
    assert_eq!(claims(&issued)["oid"], json!(ada().object_id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_one_users_and_an_outage_is_nobodys_fault() {
    let Running { entra, socket, broker: _broker, _directory } = start().await;
    let good = of(&entra, &grace()).sign();
    let elsewhere = entra.token(TENANT, TILL, STOCK_URI).user(&ada(), &["Stock.Read"]).sign();
    let stranger = of(&entra, &ada()).signed_by(&tokens::SigningKey::new(99, "k", "")).sign();
    entra.directory(|directory| {
        directory.user_mut(TENANT, &ada().object_id).expect("ada").disabled = true;
    });
    for (case, scope, assertion, kind, code) in [
        ("no consent", MAIL, good.clone(), "claims_challenge", "65001"),
        ("blocked", PROFILE, of(&entra, &ada()).sign(), "disabled", "50057"),
        // The filter lets none such through: it is taken for the application's federated token.
        ("not Entra's", PROFILE, stranger, "credential", "50013"),
        ("for another API", PROFILE, elsewhere, "", "500131"),
    ] {
        let (status, refused) = ask(&socket, &request(scope, &assertion)).await;
        assert!(status != 200 && refused["access_token"].is_null(), "{case}: {refused}");
        let error = refused["error"].as_str().expect("a text");
        assert!(error.contains(&format!("AADSTS{code}: ")), "{case}: {error}");
        assert!(kind.is_empty() || refused["kind"] == kind, "{case}: {refused}");
    }
    entra.directory(|directory| {
        directory.user_mut(TENANT, &ada().object_id).expect("ada").disabled = false;
    });
    // An application's own token is not for exchange.
    let own = entra.token(TENANT, TILL, "api://orders").sign();
    let (status, refused) = ask(&socket, &request(PROFILE, &own)).await;
    assert!(status != 200 && refused["access_token"].is_null(), "{refused}");
    let (status, issued) = ask(&socket, &request(PROFILE, &good)).await;
    assert_eq!(status, 200, "{issued}");
    // Sessions that ended: what is held serves until its end, a new exchange is refused.
    entra.revoke_sessions(TENANT, &ada().object_id);
    let (_, refused) = ask(&socket, &request(PROFILE, &of(&entra, &ada()).age(60).sign())).await;
    assert_eq!(refused["kind"], json!("claims_challenge"), "{refused}");
    assert!(refused["error"].as_str().is_some_and(|text| text.contains("AADSTS50173")));
    entra.fail_next(Endpoint::Token, usize::MAX, Fault::Status { status: 503, retry_after: None });
    let other = of(&entra, &grace()).lifetime(1800).sign();
    let (status, refused) = ask(&socket, &request(PROFILE, &other)).await;
    assert_eq!((status, &refused["kind"]), (503, &json!("transient")), "{refused}");
    let (status, _) = ask(&socket, &request(PROFILE, &good)).await;
    assert_eq!(status, 200, "what is held serves on");
}
