//! Requests with really signed tokens, put to the whole inbound decision.

mod app_service;
mod cache;
mod carriage;
mod checks;
mod claims;
mod keys;
mod observe;
mod reasons;
mod rules;
mod signatures;
mod step_up;
mod workload;

use std::sync::LazyLock;

use contract::{Jwk, KeySet, KeySetState, KeySets};
use serde_json::{Value, json};
use tokens::SigningKey;

use super::*;
use crate::{
    cloud::Cloud,
    config::Config,
    decision::Class,
    effect::{Edits, Effect},
    key_schedule::KeyCall,
};

const NOW: UnixTime = UnixTime(1_800_000_000);
const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
const OTHER_TENANT: &str = "5a1d3a0e-8c0b-4c4f-9a37-0b1f3f7c5d11";
const API: &str = "3f1b5b1e-0d2c-4a39-9a63-3f6c2c7a9d10";
const API_URI: &str = "api://orders";
const CLIENT: &str = "11111111-2222-3333-4444-555555555555";
const OTHER_CLIENT: &str = "66666666-7777-8888-9999-000000000000";
const USER: &str = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee";
const GROUP: &str = "abababab-3434-5656-7878-909090909090";

/// The key of `TENANT`.
static KEY: LazyLock<SigningKey> =
    LazyLock::new(|| SigningKey::new(1, "k1", &Cloud::Public.v2_issuer(TENANT)));
/// A key that nobody published.
static FOREIGN_KEY: LazyLock<SigningKey> =
    LazyLock::new(|| SigningKey::new(2, "k1", &Cloud::Public.v2_issuer(TENANT)));

/// An object with some members changed.
fn with(mut object: Value, members: Value) -> Value {
    for (name, value) in members.as_object().unwrap() {
        object[name] = value.clone();
    }
    object
}

fn without(mut object: Value, name: &str) -> Value {
    object.as_object_mut().unwrap().remove(name).unwrap();
    object
}

/// The claims of a user's v2 token.
fn user() -> Value {
    json!({
        "ver": "2.0", "iss": Cloud::Public.v2_issuer(TENANT), "tid": TENANT, "aud": API,
        "iat": NOW.0 - 60, "nbf": NOW.0 - 60, "exp": NOW.0 + 3600,
        "scp": "Orders.Read Orders.Pay", "azp": CLIENT, "azpacr": "1",
        "oid": USER, "sub": "pairwise", "uti": "u-1",
    })
}

/// The claims of an application's v2 token.
fn application() -> Value {
    let application = json!({
        "roles": ["Orders.Read.All"], "idtyp": "app", "oid": OTHER_CLIENT, "sub": OTHER_CLIENT,
        "azpacr": "2",
    });
    with(without(user(), "scp"), application)
}

/// The claims of a user's v1 token.
fn v1_user() -> Value {
    let v1 = json!({
        "ver": "1.0", "iss": Cloud::Public.v1_issuer(TENANT).unwrap(), "aud": API_URI,
        "appid": CLIENT, "appidacr": "1",
    });
    with(without(without(user(), "azp"), "azpacr"), v1)
}

/// A configuration whose second rule takes users and applications.
fn config() -> Value {
    json!({
        "direction": "inbound",
        "tenants": [TENANT],
        "audiences": [API, API_URI],
        "broker": {"cluster": "token_broker"},
        "rules": [
            {"name": "health", "match": {"path": "/healthz", "methods": ["GET"]}, "allow": "anyone"},
            {
                "name": "read", "match": {"path": "/orders/{*}", "methods": ["GET"]},
                "allow": [{"scopes": ["Orders.Read"]}, {"roles": ["Orders.Read.All"]}],
            },
            {
                "name": "pay", "match": {"path": "/orders/{*}/pay", "methods": ["POST"]},
                "allow": [{"scopes": ["Orders.Pay.All"], "clients": [OTHER_CLIENT]}],
            },
        ],
    })
}

/// One rule for every request.
fn allowing(allow: Value) -> Value {
    with(config(), json!({"rules": [{"name": "all", "allow": allow}]}))
}

fn inbound(config: &Value) -> Inbound {
    match Config::read(config.to_string().as_bytes()) {
        Ok(Config::Inbound(config)) => Inbound::new(*config),
        other => panic!("{other:?}"),
    }
}

fn key_set(issuer: &str, fetched_at: UnixTime, keys: Vec<Jwk>) -> KeySet {
    let state = KeySetState::Fresh;
    KeySet { issuer: issuer.to_owned(), fetched_at: fetched_at.0, state, keys }
}

fn key_sets(sets: Vec<KeySet>) -> KeySets {
    KeySets { key_sets: sets }
}

/// The keys of `TENANT` as the broker hands them out.
fn published(keys: &[&SigningKey]) -> KeySets {
    let keys = keys.iter().map(|key| key.jwk()).collect();
    key_sets(vec![key_set(&Cloud::Public.v2_issuer(TENANT), NOW, keys)])
}

/// A filter that has asked for its keys and got these.
fn holding(config: &Value, keys: &KeySets) -> Inbound {
    let mut inbound = inbound(config);
    assert_eq!(inbound.callers().next_call(NOW), Some(KeyCall::Poll));
    inbound.callers().on_keys(keys, NOW);
    inbound
}

/// A filter with the usual keys.
fn ready(config: &Value) -> Inbound {
    holding(config, &published(&[&KEY]))
}

/// Header lines of a request.
type Request = Vec<(String, Vec<u8>)>;

fn request(method: &str, path: &str) -> Request {
    [(":method", method), (":path", path), (":authority", "shop.example")]
        .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
        .to_vec()
}

fn and(mut request: Request, name: &str, value: impl AsRef<[u8]>) -> Request {
    request.push((name.to_owned(), value.as_ref().to_vec()));
    request
}

/// `GET /orders/7` with a token.
fn read(token: &str) -> Request {
    and(request("GET", "/orders/7"), "authorization", format!("Bearer {token}"))
}

fn ask_with(
    inbound: &mut Inbound,
    request: &Request,
    may_wait: bool,
    now: UnixTime,
    verify: &Verify<'_>,
) -> Effect {
    let config = inbound.config().clone();
    let lines = request.iter().map(|(name, value)| (name.as_bytes(), value.as_slice()));
    let head = RequestHead::read(lines, &config.own_headers);
    inbound.on_request(&head, may_wait, now, verify)
}

fn ask_at(inbound: &mut Inbound, request: &Request, now: UnixTime) -> Effect {
    ask_with(inbound, request, true, now, &tokens::verify)
}

fn ask(inbound: &mut Inbound, request: &Request) -> Effect {
    ask_at(inbound, request, NOW)
}

/// The reason, once it is seen that the effect is what the reason's class says.
fn reason(effect: &Effect) -> Option<Reason> {
    match effect {
        Effect::Wait => None,
        Effect::Continue(_, decision) => {
            assert_eq!(decision.observed, decision.reason.class() != Class::Pass);
            Some(decision.reason)
        }
        Effect::Reply(reply, decision) => {
            assert_ne!(decision.reason.class(), Class::Pass);
            assert!(!decision.observed);
            assert_eq!(reply.details, decision.reason.code());
            Some(decision.reason)
        }
    }
}

/// The edits of a request that goes on.
fn edits(effect: Effect) -> Edits {
    match effect {
        Effect::Continue(edits, _) => edits,
        other => panic!("{other:?}"),
    }
}

/// What is added, as `name: value`, sorted.
fn added(edits: &Edits) -> Vec<String> {
    let mut added: Vec<String> =
        edits.added().map(|(name, value)| format!("{name}: {value}")).collect();
    added.sort_unstable();
    added
}

/// What is removed, sorted.
fn removed(edits: &Edits) -> Vec<String> {
    let mut removed: Vec<String> =
        edits.removed().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    removed.sort_unstable();
    removed
}

/// Asks for `GET /orders/7` with this token.
fn check_token(inbound: &mut Inbound, token: &str, expected: Reason) {
    let effect = ask(inbound, &read(token));
    let shown: String = token.chars().take(120).collect();
    assert_eq!(reason(&effect), Some(expected), "{shown}");
}

/// Asks for `GET /orders/7` with these claims, really signed.
fn check_claims(inbound: &mut Inbound, claims: &Value, expected: Reason) {
    let effect = ask(inbound, &read(&KEY.token(claims)));
    let shown: String = claims.to_string().chars().take(1_000).collect();
    assert_eq!(reason(&effect), Some(expected), "{shown}");
}
