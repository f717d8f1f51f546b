//! Calls on behalf of their callers, the whole way: a caller's token comes in, the application passes
//! it on, the broker exchanges it at an Entra that judges it, and the API gets what comes of that.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test: what goes wrong fails it"
)]

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use e2e::{
    client::Request,
    envoy::EnvoyConfig,
    fake_entra::{
        Demand, Endpoint, Fault, Policy, User,
        sample::{GRAPH, ORDERS_API, ORDERS_URI, TENANT, ada},
    },
    stack::{Stack, world::WEB},
};
use serde_json::{Value, json};

const PROFILE: &str = "https://graph.microsoft.com/User.Read";

fn grace() -> User {
    User {
        object_id: "7c1e9d40-5b2a-4f63-8d17-e0a95c3b6f28".to_owned(),
        principal_name: "grace@contoso.onmicrosoft.com".to_owned(),
        name: "Grace Hopper".to_owned(),
    }
}

/// Everything, with the orders API as the broker's one identity, for users only.
async fn started() -> Stack {
    let stack = Stack::builder()
        .inbound("/forward_token", json!(true))
        .outbound("/tenants", json!([TENANT]))
        .outbound("/audiences", json!([ORDERS_URI, ORDERS_API]))
        .outbound(
            "/rules",
            json!([{
                "name": "graph", "match": {"destination": "graph"},
                "token": {"identity": "default", "scope": PROFILE, "on_behalf_of": "caller"},
            }]),
        )
        .configure(EnvoyConfig::let_outbound_verify)
        .broker("/identities/default/workload_identity/client_id", json!(ORDERS_API))
        .broker("/identities/default/scopes", json!([]))
        .broker("/identities/default/delegated_scopes", json!([PROFILE]))
        .entra(|entra| {
            entra.directory(|directory| {
                *directory = std::mem::take(directory).user(TENANT, grace());
            });
        })
        .start()
        .await;
    let call = me().bearer(&of(&stack, &grace(), json!({}))).host("graph.microsoft.com");
    stack.until(stack.envoy.outbound, &call, 200).await;
    stack
}

fn me() -> Request {
    Request::get("/v1.0/me")
}

/// A user's token for the orders API, by way of the web application.
fn of(stack: &Stack, user: &User, claims: Value) -> String {
    let token = stack.entra.token(TENANT, WEB, ORDERS_API).user(user, &["Orders.Read"]);
    let claims = claims.as_object().cloned().unwrap_or_default();
    claims.into_iter().fold(token, |token, (name, value)| token.claim(&name, value)).sign()
}

/// The claims of a token; the fake Entra signed it, so nothing is verified here.
fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).expect("a JWT");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).expect("base64url")).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn o14_a_users_token_comes_in_and_another_of_the_same_user_goes_out() {
    let stack = started().await;
    for user in [ada(), grace()] {
        let token = of(&stack, &user, json!({}));
        let forwarded = stack.passed(&Request::get("/orders/7").bearer(&token)).await.bearer();
        assert_eq!(forwarded.as_deref(), Some(token.as_str()));
        // What an application does with it.
        let seen = stack.graph_passed(&me().bearer(&token)).await;
        let sent = seen.bearer().expect("a token");
        let claims = claims(&sent);
        assert_eq!(claims["oid"], json!(user.object_id));
        assert_eq!(claims["aud"], "https://graph.microsoft.com");
        assert_eq!((&claims["appid"], &claims["scp"]), (&json!(ORDERS_API), &json!("User.Read")));
        assert!(!stack.graph.saw(token.as_bytes()), "the caller's token went to the API");
        // Held: nobody is asked again.
        let asked = stack.entra.count(Endpoint::Token);
        for _ in 0..5 {
            let again = stack.graph_passed(&me().bearer(&token)).await;
            assert_eq!(again.bearer().as_deref(), Some(sent.as_str()));
        }
        assert_eq!(stack.entra.count(Endpoint::Token), asked);
    }
    // The application's own identity is for nobody.
    stack.graph_denied(&me(), 401, "token_missing").await;
    let own = stack.entra.token(TENANT, WEB, ORDERS_API).sign();
    stack.graph_denied(&me().bearer(&own), 401, "assertion_refused").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_conditional_access_demands_reaches_the_caller_who_steps_up_and_passes() {
    let stack = started().await;
    let policy = Policy::new("3a1c7c6e-0f0d-4d2c-9f0a-7a3f1f2f6b22", Demand::SecondFactor);
    stack.entra.directory(|directory| {
        let graph = directory.application_mut(TENANT, GRAPH).expect("Graph");
        *graph = graph.clone().policy(policy.clone());
    });
    let weak = me().bearer(&of(&stack, &ada(), json!({})));
    let answer = stack.graph_denied(&weak, 401, "claims_required").await;
    let challenge = answer.header("www-authenticate").expect("the challenge");
    let encoded = challenge.split("claims=\"").nth(1).and_then(|rest| rest.strip_suffix('"'));
    let wanted = json!({"access_token": {"capolids":
        {"essential": true, "values": [policy.id]}}});
    let claims = STANDARD.decode(encoded.expect("claims")).expect("base64");
    assert_eq!(String::from_utf8(claims).expect("text"), wanted.to_string());
    let strong = me().bearer(&of(&stack, &ada(), json!({"acrs": ["p1"]})));
    stack.graph_passed(&strong).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_entra_says_of_a_user_is_told_by_its_kind_and_an_outage_is_nobodys_fault() {
    let stack = started().await;
    let held = me().bearer(&of(&stack, &grace(), json!({})));
    stack.graph_passed(&held).await;
    let disable = |disabled: bool| {
        stack.entra.directory(|directory| {
            directory.user_mut(TENANT, &ada().object_id).expect("ada").disabled = disabled;
        });
    };
    disable(true);
    let blocked = me().bearer(&of(&stack, &ada(), json!({})));
    let answer = stack.graph_denied(&blocked, 403, "token_denied").await;
    assert_eq!(answer.json()["kind"], "disabled");
    disable(false);
    let early = stack.entra.token(TENANT, WEB, ORDERS_API).user(&ada(), &["Orders.Read"]).age(60);
    let early = me().bearer(&early.sign());
    stack.entra.revoke_sessions(TENANT, &ada().object_id);
    let answer = stack.graph_denied(&early, 401, "sign_in_required").await;
    assert!(answer.text().contains("AADSTS50173"), "{}", answer.text());
    let challenge = answer.header("www-authenticate").expect("where to sign in");
    assert!(challenge.ends_with("error=\"invalid_token\""), "{challenge}");

    let fault = Fault::Status { status: 503, retry_after: None };
    stack.entra.fail_next(Endpoint::Token, usize::MAX, fault);
    let other = me().bearer(&of(&stack, &grace(), json!({"uti": "other"})));
    let answer = stack.graph_denied(&other, 503, "token_unavailable").await;
    assert_eq!(answer.json()["kind"], "transient");
    stack.graph_passed(&held).await;
}
