//! Calls on behalf of their callers through a real Envoy: the API gets the user's token, exchanged,
//! and never the one that the application was called with.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test: what goes wrong fails it"
)]

use contract::route;
use e2e::{
    client::Request,
    envoy::EnvoyConfig,
    fake_entra::sample::{ORDERS_API, ORDERS_URI, TENANT},
    stack::{
        Builder, Stack, unix_now,
        world::{application, user},
    },
    stand_in::{self, Asked, Said, StandIn},
    upstream::Reply,
};
use serde_json::{Value, json};
use tokens::SigningKey;
use tokio::sync::watch;

const SCOPE: &str = "https://graph.microsoft.com/User.Read";
/// With one worker Envoy runs the filter four times: each direction in the worker and in its main
/// thread, where no request comes.
const VMS: usize = 4;
/// The id of the token with which the first call goes out.
const FIRST: &str = "first";
const CLAIMS: &str = r#"{"access_token":{"polids":{"essential":true,"values":["9ab03e19"]}}}"#;

fn me() -> Request {
    Request::get("/v1.0/me")
}

/// The shipped configuration, whose rule for Graph asks on behalf of its callers.
fn on_behalf() -> Builder {
    unable().configure(EnvoyConfig::let_outbound_verify)
}

/// The same, without what it needs of Envoy.
fn unable() -> Builder {
    Stack::builder().without_broker().configure(|config| {
        let policy = config.policy_mut("entra-outbound");
        policy["tenants"] = json!([TENANT]);
        policy["audiences"] = json!([ORDERS_URI, ORDERS_API]);
        policy["rules"][0] = json!({
            "name": "graph", "match": {"destination": "graph"},
            "token": {"identity": "default", "scope": SCOPE, "on_behalf_of": "caller"},
        });
    })
}

/// Makes the name of the exchanged token of what the user's token says.
fn exchanged(assertion: &str) -> String {
    use base64::Engine;
    let payload = assertion.split('.').nth(1).expect("a JWT");
    let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload);
    let claims: Value = serde_json::from_slice(&payload.expect("base64url")).expect("JSON");
    exchanged_of(claims["uti"].as_str().expect("an id"))
}

fn exchanged_of(id: &str) -> String {
    format!("graph-for-{id}")
}

/// A broker that knows the keys of the tenant and exchanges whatever it is shown.
fn exchanging(key_set: Value) -> impl Fn(&Asked) -> Said + Send + Sync + 'static {
    move |asked| match (asked.path.as_str(), asked.body.get("assertion")) {
        (route::TOKEN, Some(assertion)) => {
            let token = exchanged(assertion.as_str().expect("text"));
            Said::json(&stand_in::issued(asked, &token, unix_now()))
        }
        (route::TOKEN, None) => Said::json(&stand_in::issued(asked, "own", unix_now())),
        _ => Said::json(&stand_in::keys(TENANT, &key_set, unix_now())),
    }
}

/// Refuses every exchange so.
fn refusing(key_set: Value, status: u16, error: Value) -> impl Fn(&Asked) -> Said + Send + Sync {
    move |asked| match asked.path.as_str() {
        route::TOKEN => Said::Answer(status, error.to_string()),
        _ => Said::json(&stand_in::keys(TENANT, &key_set, unix_now())),
    }
}

/// Running, with keys: the first call has gone out, for a user of its own.
async fn started(builder: Builder) -> (Stack, StandIn) {
    let stack = builder.start().await;
    let broker = StandIn::start(stack.broker_socket(), exchanging(stack.entra.key_set(TENANT)));
    let first = user(&stack.entra, &["Orders.Read"]).claim("uti", FIRST).sign();
    let first = me().bearer(&first).host("graph.microsoft.com");
    stack.until(stack.envoy.outbound, &first, 200).await;
    (stack, broker)
}

fn users_token(stack: &Stack) -> String {
    user(&stack.entra, &["Orders.Read"]).sign()
}

/// What the broker was asked to exchange after the first call.
fn assertions(broker: &StandIn) -> Vec<String> {
    let asked = broker.asked(route::TOKEN);
    let of = |asked: &Asked| Some(asked.body.get("assertion")?.as_str()?.to_owned());
    let first = exchanged_of(FIRST);
    asked.iter().filter_map(of).filter(|assertion| exchanged(assertion) != first).collect()
}

/// The tokens that Graph saw after the first call.
fn bearers(stack: &Stack) -> Vec<Option<String>> {
    stack.graph.requests().iter().skip(1).map(|seen| seen.bearer()).collect()
}

async fn no_trap(stack: &Stack) {
    let stats = stack.envoy.stats().await;
    let reloads = stats.iter().filter(|(name, _)| name.contains("vm_reload"));
    assert_eq!(reloads.map(|(_, count)| count).sum::<u64>(), 0, "a VM trapped");
}

async fn check_exchange(builder: Builder) {
    let (stack, broker) = started(builder).await;
    let tokens = [users_token(&stack), users_token(&stack), users_token(&stack)];
    for _ in 0..3 {
        for token in &tokens {
            let seen = stack.graph_passed(&me().bearer(token)).await;
            assert_eq!(seen.bearer(), Some(exchanged(token)));
        }
    }
    // Each once, and nothing of the application's own.
    let mut asked = assertions(&broker);
    asked.sort_unstable();
    let mut expected = tokens.to_vec();
    expected.sort_unstable();
    assert_eq!(asked, expected);
    assert_eq!(broker.asked(route::TOKEN).len(), 1 + 3);
    let body = &broker.asked(route::TOKEN)[0].body;
    assert_eq!((&body["identity"], &body["scope"]), (&json!("default"), &json!(SCOPE)));
    for token in &tokens {
        assert!(!stack.graph.saw(token.as_bytes()), "the caller's token went to the API");
        for secret in [token.as_str(), &exchanged(token)] {
            assert!(!stack.envoy.log().contains(secret), "a token is in Envoy's log");
        }
    }
    no_trap(&stack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o14_each_caller_reaches_the_api_with_a_token_of_their_own() {
    check_exchange(on_behalf()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o14_the_same_on_the_oldest_envoy() {
    check_exchange(on_behalf().oldest_envoy()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o14_in_the_downstream_position_it_is_the_same() {
    check_exchange(on_behalf().configure(EnvoyConfig::move_outbound_downstream)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o15_o16_without_a_users_token_nothing_leaves() {
    let (stack, broker) = started(on_behalf()).await;
    let token = users_token(&stack);
    stack.graph_passed(&me().bearer(&token)).await;
    let app = application(&stack.entra, &["Orders.Read.All"]).sign();
    let forged = SigningKey::new(98, "k", "");
    let kid = stack.entra.key_set(TENANT)["keys"][0]["kid"].clone();
    let claims = Value::Object(user(&stack.entra, &["Orders.Read"]).claims());
    let forged = forged.token_with(&json!({"alg": "RS256", "kid": kid}), &claims);
    let for_graph = user(&stack.entra, &["S"]).claim("aud", "https://graph.microsoft.com").sign();
    let expired = user(&stack.entra, &["Orders.Read"]).age(7_200).lifetime(3_600).sign();
    let bearer = |token: &str| me().bearer(token);
    for (request, reason) in [
        (me(), "token_missing"),
        (me().header("authorization", "Basic YTpi"), "authorization_malformed"),
        (bearer(&token).bearer(&token), "authorization_malformed"),
        (bearer("own"), "token_malformed"),
        (bearer(&app), "assertion_refused"),
        (bearer(&forged), "signature_invalid"),
        (bearer(&for_graph), "audience_mismatch"),
        (bearer(&expired), "token_expired"),
    ] {
        let answer = stack.graph_denied(&request, 401, reason).await;
        let challenge = answer.header("www-authenticate").expect("where to get a token");
        assert!(challenge.starts_with("Bearer authorization_uri=\"https://login."), "{challenge}");
    }
    assert_eq!(assertions(&broker), [token]);
    no_trap(&stack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o17_a_retry_of_envoys_own_carries_the_same_users_token_and_costs_nothing() {
    let retrying = on_behalf().configure(|config| {
        let routes = config.graph_host_mut().get_mut("routes").expect("routes");
        let policy = routes.pointer_mut("/0/route/retry_policy").expect("a retry policy");
        policy["retry_on"] = json!("5xx");
        policy["num_retries"] = json!(3);
    });
    let (stack, broker) = started(retrying).await;
    let token = users_token(&stack);
    stack.graph.respond_in_turn(
        [503, 503, 503].map(Reply::status).into_iter().chain([Reply::json(&json!({}))]),
    );
    let answer = stack.call_graph(me().bearer(&token)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(bearers(&stack), vec![Some(exchanged(&token)); 4]);
    assert_eq!(assertions(&broker), [token]);
    no_trap(&stack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_call_waits_for_keys_and_then_for_a_token() {
    let stack = on_behalf().start().await;
    let (gate, opened) = watch::channel(false);
    let keys = stand_in::keys(TENANT, &stack.entra.key_set(TENANT), unix_now()).to_string();
    let broker = StandIn::start(stack.broker_socket(), move |asked| {
        let said = match asked.path.as_str() {
            route::TOKEN => stand_in::issued(asked, "graph-for-them", unix_now()).to_string(),
            _ => keys.clone(),
        };
        Said::Once(opened.clone(), said)
    });
    // Until the filter has asked for keys, nothing can be waited for.
    broker.wait_for(route::KEYS, VMS).await;
    let token = users_token(&stack);
    let (outbound, request) = (stack.envoy.outbound, me().bearer(&token));
    let call =
        tokio::spawn(async move { request.host("graph.microsoft.com").send(outbound).await });
    stack.under_way("outbound", 1).await;
    assert_eq!(broker.asked(route::TOKEN).len(), 0, "asked for an unverified token");
    gate.send(true).expect("a broker that waits");
    assert_eq!(call.await.expect("the call").status, 200);
    assert_eq!(stack.graph.latest().bearer().as_deref(), Some("graph-for-them"));
    assert_eq!(assertions(&broker), [token]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_new_is_fetched_and_the_call_goes_out() {
    let (stack, broker) = started(on_behalf()).await;
    stack.graph_passed(&me().bearer(&users_token(&stack))).await;
    stack.entra.roll_keys_without_overlap();
    broker.say(exchanging(stack.entra.key_set(TENANT)));
    let token = users_token(&stack);
    let seen = stack.graph_passed(&me().bearer(&token)).await;
    assert_eq!(seen.bearer(), Some(exchanged(&token)));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_keys_and_without_a_broker_nothing_is_decided() {
    let stack = on_behalf().start().await;
    let request = me().bearer(&users_token(&stack));
    stack.graph_denied(&request, 503, "keys_unavailable").await;
    let _broker = StandIn::start(stack.broker_socket(), exchanging(stack.entra.key_set(TENANT)));
    stack.until(stack.envoy.outbound, &request.host("graph.microsoft.com"), 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entras_challenge_reaches_the_caller_as_it_was_written() {
    let (stack, broker) = started(on_behalf()).await;
    let keys = stack.entra.key_set(TENANT);
    let error = json!({
        "error": "interaction_required AADSTS50076", "kind": "claims_challenge", "claims": CLAIMS,
        "correlation_id": "0000aaaa-11bb-cccc-dd22-eeeeee333333",
    });
    broker.say(refusing(keys.clone(), 403, error));
    let token = users_token(&stack);
    let request = me().bearer(&token);
    let answer = stack.graph_denied(&request, 401, "claims_required").await;
    let challenge = answer.header("www-authenticate").expect("the challenge");
    assert!(challenge.contains("error=\"insufficient_claims\""), "{challenge}");
    let claims = challenge.split("claims=\"").nth(1).and_then(|rest| rest.strip_suffix('"'));
    use base64::Engine;
    let claims = base64::engine::general_purpose::STANDARD.decode(claims.expect("claims"));
    assert_eq!(claims.expect("base64"), CLAIMS.as_bytes());
    assert_eq!(answer.json()["claims"], CLAIMS);
    // It is not asked again for each call, and another user's call is another's.
    stack.graph_denied(&request, 401, "claims_required").await;
    assert_eq!(assertions(&broker), [token]);
    broker.say(exchanging(keys));
    stack.graph_passed(&me().bearer(&users_token(&stack))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_entra_refuses_or_cannot_do_now_is_told_by_its_kind() {
    for (status, kind, expected, reason) in [
        (429, "throttled", 503, "token_unavailable"),
        (503, "transient", 503, "token_unavailable"),
        (503, "credential", 503, "token_unavailable"),
        (403, "denied", 403, "token_denied"),
        (403, "disabled", 403, "token_denied"),
    ] {
        let (stack, broker) = started(on_behalf()).await;
        let error = json!({"error": "e", "kind": kind, "retry_after": 17});
        broker.say(refusing(stack.entra.key_set(TENANT), status, error));
        let answer = stack.graph_denied(&me().bearer(&users_token(&stack)), expected, reason).await;
        assert_eq!(answer.header("www-authenticate"), None, "{kind}");
        assert_eq!(answer.json()["kind"], kind);
        let retry_after = answer.header("retry-after");
        assert!(retry_after.is_none_or(|after| (1..=17).contains(&after.parse().unwrap_or(0))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_apis_own_challenge_reaches_the_application_and_nothing_is_replayed() {
    let (stack, broker) = started(on_behalf()).await;
    let token = users_token(&stack);
    stack.graph_passed(&me().bearer(&token)).await;
    stack.graph.respond_with(|_| Reply::challenge(CLAIMS));
    let before = stack.graph.count();
    let answer = stack.call_graph(me().bearer(&token)).await;
    assert_eq!(answer.status, 401);
    let header = answer.header("www-authenticate").expect("the challenge");
    assert!(header.contains("insufficient_claims"), "{header}");
    assert_eq!(answer.json()["error"]["code"], "InvalidAuthenticationToken");
    assert_eq!(stack.graph.count(), before + 1);
    assert_eq!(assertions(&broker), [token]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_verifies_nothing_gets_no_such_configuration() {
    let log = unable().refused().await;
    assert!(log.contains("verify_signature"), "{log}");
}
