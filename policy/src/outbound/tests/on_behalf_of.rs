//! Calls on behalf of their callers: whose token is exchanged, and above all whose is not.

mod held;
mod refusals;
mod retries;

use std::sync::LazyLock;

use contract::{KeySet, KeySetState, KeySets, TokenRequest};
use tokens::SigningKey;

use super::*;
use crate::{cloud::Cloud, key_schedule::KeyCall};

const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
const OTHER_TENANT: &str = "5a1d3a0e-8c0b-4c4f-9a37-0b1f3f7c5d11";
const API: &str = "3f1b5b1e-0d2c-4a39-9a63-3f6c2c7a9d10";
const CLIENT: &str = "11111111-2222-3333-4444-555555555555";
const USER_READ: &str = "https://graph.example/User.Read";

static KEY: LazyLock<SigningKey> =
    LazyLock::new(|| SigningKey::new(1, "k1", &Cloud::Public.v2_issuer(TENANT)));
static FOREIGN_KEY: LazyLock<SigningKey> =
    LazyLock::new(|| SigningKey::new(2, "k1", &Cloud::Public.v2_issuer(TENANT)));

/// A rule on behalf of its caller, and one for the application's own token.
fn config() -> Value {
    let token = json!({"identity": "default", "scope": USER_READ, "on_behalf_of": "caller"});
    json!({
        "direction": "outbound",
        "tenants": [TENANT],
        "audiences": [API],
        "broker": {"cluster": "token_broker"},
        "rules": [
            rule("graph", json!({"token": token})),
            rule("own", json!({})),
        ],
    })
}

fn filter_of(config: &Value) -> Outbound {
    match Config::read(config.to_string().as_bytes()) {
        Ok(Config::Outbound(config)) => Outbound::new(config),
        other => panic!("{other:?}"),
    }
}

fn keys(keys: &[&SigningKey]) -> KeySets {
    let issuer = Cloud::Public.v2_issuer(TENANT);
    let keys = keys.iter().map(|key| key.jwk()).collect();
    let set = KeySet { issuer, fetched_at: NOW.0, state: KeySetState::Fresh, keys };
    KeySets { key_sets: vec![set] }
}

/// Has asked for its keys and for the application's own token, and got both.
fn equipped(config: &Value) -> Outbound {
    let mut outbound = filter_of(config);
    let callers = outbound.callers().unwrap();
    assert_eq!(callers.next_call(NOW), Some(KeyCall::Poll));
    callers.on_keys(&keys(&[&KEY]), NOW);
    while let Some(request) = outbound.next_call(NOW) {
        assert_eq!(request.assertion, None, "nobody has brought a token yet");
        outbound.on_result(&request, issued("the-applications-own"), NOW);
    }
    outbound
}

fn ready_for_callers() -> Outbound {
    equipped(&config())
}

fn with(mut claims: Value, members: Value) -> Value {
    for (name, value) in members.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

/// The claims of a user's token for this application.
fn user(name: &str) -> Value {
    json!({
        "ver": "2.0", "iss": Cloud::Public.v2_issuer(TENANT), "tid": TENANT, "aud": API,
        "iat": NOW.0 - 60, "nbf": NOW.0 - 60, "exp": NOW.0 + 3600,
        "scp": "Orders.Read", "azp": CLIENT, "azpacr": "1",
        "oid": name, "sub": format!("pairwise-{name}"), "uti": name,
    })
}

fn application() -> Value {
    with(user("app"), json!({"scp": null, "roles": ["R"], "idtyp": "app", "sub": "app"}))
}

fn token_of(name: &str) -> String {
    KEY.token(&user(name))
}

/// A call to Graph with this token.
fn calling(token: &str) -> Attempt<'static> {
    bringing("graph", format!("Bearer {token}").as_bytes())
}

fn ask_at(outbound: &mut Outbound, attempt: &Attempt<'_>, now: UnixTime) -> Effect {
    outbound.on_request(attempt, true, now, Protocol::default, &tokens::verify)
}

/// What happens to an attempt: `wait`, `reason`, or `reason` and what is set or removed.
fn told_at(outbound: &mut Outbound, attempt: &Attempt<'_>, now: UnixTime) -> String {
    match ask_at(outbound, attempt, now) {
        Effect::Wait => "wait".to_owned(),
        Effect::Reply(reply, decision) => {
            assert_eq!(reply.details, decision.reason.code());
            assert_ne!(decision.reason.class(), Class::Pass);
            format!("{} {}", reply.status, decision.reason.code())
        }
        Effect::Continue(edits, decision) => {
            assert_eq!(decision.reason.class(), Class::Pass);
            let set = edits.authorization.map(|header| format!(" {}", header.expose()));
            let removed = if edits.remove_authorization { " removed" } else { "" };
            format!("{}{}{removed}", decision.reason.code(), set.unwrap_or_default())
        }
    }
}

fn told(outbound: &mut Outbound, attempt: &Attempt<'_>) -> String {
    told_at(outbound, attempt, NOW)
}

/// The broker's answer with a token for what was asked.
fn exchanged(request: &TokenRequest, text: &str, expires_on: u64) -> TokenCallResult {
    match issued(text) {
        Issued(token) => {
            let (scope, identity) = (request.scope.clone(), request.identity.clone());
            let refresh_on = expires_on.saturating_sub(1800);
            Issued(contract::IssuedToken { scope, identity, expires_on, refresh_on, ..token })
        }
        other => other,
    }
}

/// Has a call wait, and answers the one call to the broker that it causes.
fn exchange(outbound: &mut Outbound, user: &str, given: &str) {
    assert_eq!(told(outbound, &calling(user)), "wait");
    let request = outbound.next_call(NOW).unwrap();
    assert_eq!(request.assertion.as_ref().unwrap().expose(), user);
    assert_eq!(outbound.next_call(NOW), None);
    let answer = exchanged(&request, given, NOW.0 + 3600);
    outbound.on_result(&request, answer, NOW);
}

#[test]
fn a_callers_token_is_exchanged_for_one_of_the_same_user() {
    let mut outbound = ready_for_callers();
    let user = token_of("anna");
    assert_eq!(told(&mut outbound, &calling(&user)), "wait");
    let request = outbound.next_call(NOW).unwrap();
    assert_eq!(
        (request.identity.as_str(), request.scope.as_str(), request.destination.as_str()),
        ("default", USER_READ, "graph")
    );
    assert_eq!(request.assertion.as_ref().unwrap().expose(), user);
    assert_eq!(
        (&request.claims, &request.refused, request.claims_challenges),
        (&None, &None, false)
    );
    // One call is made, however many wait for it.
    for _ in 0..100 {
        assert_eq!(told(&mut outbound, &calling(&user)), "wait");
    }
    assert_eq!(outbound.next_call(NOW), None);
    let answer = exchanged(&request, "graph-for-anna", NOW.0 + 3600);
    outbound.on_result(&request, answer, NOW);
    let effect = ask_at(&mut outbound, &calling(&user), NOW);
    let record = effect.decision().unwrap().record();
    assert_eq!(
        record,
        format!("reason=injected rule=graph tenant={TENANT} client={CLIENT} uti=anna")
    );
    for _ in 0..100 {
        assert_eq!(told(&mut outbound, &calling(&user)), "injected Bearer graph-for-anna");
    }
    assert_eq!(outbound.next_call(NOW), None);
    // The signature is verified once.
    assert_eq!(outbound.callers().unwrap().take_cache_counts().1, 1);
}

#[test]
fn o14_no_user_gets_another_users_token() {
    let mut outbound = ready_for_callers();
    let users = ["anna", "bert", "cleo"].map(|name| (name, token_of(name)));
    for (name, token) in &users {
        exchange(&mut outbound, token, &format!("graph-for-{name}"));
    }
    for (name, token) in users.iter().rev() {
        let expected = format!("injected Bearer graph-for-{name}");
        assert_eq!(told(&mut outbound, &calling(token)), expected);
    }
    // A newer token of the same user is another assertion.
    let newer = KEY.token(&with(user("anna"), json!({"uti": "later"})));
    assert_eq!(told(&mut outbound, &calling(&newer)), "wait");
}

#[test]
fn o14_one_users_token_for_one_destination_is_not_for_another() {
    let vault = json!({"identity": "default", "scope": USER_READ, "on_behalf_of": "caller"});
    let mut config = config();
    config["rules"][1] = rule("vault", json!({"token": vault}));
    let mut outbound = equipped(&config);
    let user = token_of("anna");
    exchange(&mut outbound, &user, "graph-for-anna");
    let at_vault = bringing("vault", format!("Bearer {user}").as_bytes());
    assert_eq!(told(&mut outbound, &at_vault), "wait");
    let request = outbound.next_call(NOW).unwrap();
    assert_eq!(request.destination, "vault");
    let answer = exchanged(&request, "vault-for-anna", NOW.0 + 3600);
    outbound.on_result(&request, answer, NOW);
    assert_eq!(told(&mut outbound, &at_vault), "injected Bearer vault-for-anna");
    assert_eq!(told(&mut outbound, &calling(&user)), "injected Bearer graph-for-anna");
}

#[test]
fn o15_a_rule_for_callers_never_gets_the_applications_own_token() {
    let mut outbound = ready_for_callers();
    // Even a broker that answered without being asked could not change that.
    let own = outbound.config().rules[0].token.clone();
    outbound.on_result(&own, issued("the-applications-own"), NOW);
    assert_eq!(told(&mut outbound, &attempt("graph")), "401 token_missing");
    let user = token_of("anna");
    assert_eq!(told(&mut outbound, &calling(&user)), "wait");
    let request = outbound.next_call(NOW).unwrap();
    outbound.on_result(&request, Failed, NOW);
    assert_eq!(told(&mut outbound, &calling(&user)), "503 token_unavailable");
    assert_eq!(told(&mut outbound, &attempt("own")), "injected Bearer the-applications-own");
}

#[test]
fn o15_a_broker_that_hands_the_callers_token_back_is_not_believed() {
    let mut outbound = ready_for_callers();
    let user = token_of("anna");
    assert_eq!(told(&mut outbound, &calling(&user)), "wait");
    let request = outbound.next_call(NOW).unwrap();
    let answer = exchanged(&request, &user, NOW.0 + 3600);
    outbound.on_result(&request, answer, NOW);
    assert_eq!(told(&mut outbound, &calling(&user)), "503 token_unavailable");
}

#[test]
fn o15_the_callers_token_is_consumed_also_where_nothing_is_injected() {
    let mut outbound = ready_for_callers();
    let user = token_of("anna");
    let inbound = Attempt { inbound_listener: true, ..calling(&user) };
    assert_eq!(told(&mut outbound, &inbound), "misplaced removed");
    outbound.on_response("graph", || false);
    assert_eq!(told(&mut outbound, &calling(&user)), "injection_stopped removed");
    assert_eq!(told(&mut outbound, &attempt("graph")), "injection_stopped");
}

#[test]
fn a_challenge_of_the_api_to_a_users_token_is_the_applications_to_see() {
    let mut outbound = ready_for_callers();
    exchange(&mut outbound, &token_of("anna"), "graph-for-anna");
    assert!(!outbound.answers_challenges("graph"));
    let response = challenges::Response {
        injected: challenges::injected("graph", "graph-for-anna"),
        ..challenges::Response::default()
    };
    assert_eq!(challenges::respond(&mut outbound, &response), ResponseEffect::Pass);
    assert_eq!(outbound.next_call(NOW), None);
}

#[test]
fn nothing_of_a_users_token_is_shown_by_debug() {
    let mut outbound = ready_for_callers();
    let user = token_of("anna");
    exchange(&mut outbound, &user, "graph-for-anna");
    let shown = format!("{outbound:?}");
    assert!(!shown.contains("graph-for-anna") && !shown.contains(&user));
}
