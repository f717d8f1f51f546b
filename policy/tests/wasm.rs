//! The main decisions once more as wasm under node: where sizes have 32 bits, as in the filter.
//!
//! The tables are in the core's own tests; here stands what could come out differently.

#![cfg(target_arch = "wasm32")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail so")]

use std::sync::LazyLock;

use contract::{KeySet, KeySetState, KeySets};
use policy::{
    cloud::Cloud,
    config::Config,
    decision::Reason,
    effect::Effect,
    inbound::Inbound,
    outbound::{Attempt, Outbound},
    request::{Protocol, RequestHead},
    time::UnixTime,
    token_store::TokenCallResult,
};
use serde_json::{Value, json};
use tokens::SigningKey;
use wasm_bindgen_test::wasm_bindgen_test;

const NOW: UnixTime = UnixTime(1_800_000_000);
const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
const API: &str = "3f1b5b1e-0d2c-4a39-9a63-3f6c2c7a9d10";

static KEY: LazyLock<SigningKey> =
    LazyLock::new(|| SigningKey::new(1, "k1", &Cloud::Public.v2_issuer(TENANT)));

fn inbound() -> Inbound {
    let config = json!({
        "direction": "inbound", "tenants": [TENANT], "audiences": [API],
        "broker": {"cluster": "token_broker"},
        "rules": [
            {"name": "health", "match": {"path": "/healthz"}, "allow": "anyone"},
            {
                "name": "read", "match": {"path": "/orders/{*}", "methods": ["GET"]},
                "allow": [{"scopes": ["Orders.Read"]}],
            },
        ],
    });
    match Config::read(config.to_string().as_bytes()) {
        Ok(Config::Inbound(config)) => Inbound::new(*config),
        other => panic!("{other:?}"),
    }
}

/// A filter whose keys were fetched at a time.
fn with_keys(fetched_at: UnixTime, now: UnixTime) -> Inbound {
    let mut inbound = inbound();
    assert!(inbound.callers().next_call(now).is_some());
    let keys = vec![KEY.jwk()];
    let issuer = Cloud::Public.v2_issuer(TENANT);
    let set = KeySet { issuer, fetched_at: fetched_at.0, state: KeySetState::Fresh, keys };
    inbound.callers().on_keys(&KeySets { key_sets: vec![set] }, now);
    inbound
}

fn claims(now: UnixTime, members: Value) -> Value {
    let mut claims = json!({
        "ver": "2.0", "iss": Cloud::Public.v2_issuer(TENANT), "tid": TENANT, "aud": API,
        "iat": now.0, "nbf": now.0, "exp": now.0.saturating_add(3600), "scp": "Orders.Read",
        "azp": "c", "oid": "o", "sub": "s",
    });
    for (name, value) in members.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

fn ask(inbound: &mut Inbound, path: &str, token: Option<&str>, now: UnixTime) -> Option<Reason> {
    let authorization = token.map(|token| format!("Bearer {token}"));
    let mut lines: Vec<(&[u8], &[u8])> =
        vec![(b":method", b"GET"), (b":path", path.as_bytes()), (b":authority", b"a.example")];
    if let Some(authorization) = &authorization {
        lines.push((b"authorization", authorization.as_bytes()));
    }
    let config = inbound.config().clone();
    let head = RequestHead::read(lines.into_iter(), &config.own_headers);
    let effect = inbound.on_request(&head, true, now, &tokens::verify);
    effect.decision().map(|decision| decision.reason)
}

fn check(members: Value, expected: Reason) {
    let token = KEY.token(&claims(NOW, members.clone()));
    let found = ask(&mut with_keys(NOW, NOW), "/orders/7", Some(&token), NOW);
    assert_eq!(found, Some(expected), "{members}");
}

#[wasm_bindgen_test]
fn good_tokens_pass_and_each_class_of_refusal_is_met() {
    check(json!({}), Reason::Allowed);
    check(json!({"scp": "x"}), Reason::ScopeMissing);
    check(json!({"aud": TENANT}), Reason::AudienceMismatch);
    check(json!({"exp": "x"}), Reason::ClaimsMalformed);
    let mut inbound = with_keys(NOW, NOW);
    for (path, expected) in [
        ("/healthz", Reason::AllowedAnyone),
        ("/%68ealthz?x=1", Reason::AllowedAnyone),
        ("/healthz/", Reason::NoRule),
        ("/orders/7", Reason::TokenMissing),
        ("/orders/../healthz", Reason::PathAmbiguous),
        ("/orders/%2e", Reason::PathAmbiguous),
    ] {
        assert_eq!(ask(&mut inbound, path, None, NOW), Some(expected), "{path}");
    }
    let token = KEY.token(&claims(NOW, json!({})));
    let mut without_keys = self::inbound();
    assert_eq!(ask(&mut without_keys, "/orders/7", Some(&token), NOW), None);
    without_keys.callers().next_call(NOW);
    without_keys.callers().on_failure(NOW);
    let found = ask(&mut without_keys, "/orders/7", Some(&token), NOW);
    assert_eq!(found, Some(Reason::KeysUnavailable));
}

#[wasm_bindgen_test]
fn j17_a_changed_signature_or_payload_is_noticed() {
    let token = KEY.token(&claims(NOW, json!({})));
    let other = KEY.token(&claims(NOW, json!({"scp": "Orders.Read Orders.Pay"})));
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let (other_signed, _) = other.rsplit_once('.').unwrap();
    let first = if signature.starts_with('A') { "B" } else { "A" };
    let mut inbound = with_keys(NOW, NOW);
    for changed in
        [format!("{signed}.{first}{}", &signature[1..]), format!("{other_signed}.{signature}")]
    {
        let found = ask(&mut inbound, "/orders/7", Some(&changed), NOW);
        assert_eq!(found, Some(Reason::SignatureInvalid));
    }
    // The good one is verified once and then known.
    for _ in 0..2 {
        let found = ask(&mut inbound, "/orders/7", Some(&token), NOW);
        assert_eq!(found, Some(Reason::Allowed));
    }
    assert_eq!(inbound.callers().take_cache_counts(), (1, 3));
}

#[wasm_bindgen_test]
fn c02_c03_p12_times_beyond_32_bits_are_the_same_as_below() {
    const HOUR: u64 = 3600;
    // 2038, 2106 and the end of what a time may be.
    for now in [(1_u64 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 53) - 1 - 2 * HOUR] {
        let now = UnixTime(now);
        let mut inbound = with_keys(now, now);
        let token = KEY.token(&claims(now, json!({})));
        for (seconds, expected) in [(0, Some(Reason::Allowed)), (HOUR + 60, Some(Reason::Allowed))]
        {
            assert_eq!(ask(&mut inbound, "/orders/7", Some(&token), now.plus(seconds)), expected);
        }
        let late = now.plus(HOUR + 61);
        let found = ask(&mut inbound, "/orders/7", Some(&token), late);
        assert_eq!(found, Some(Reason::TokenExpired), "{now:?}");
    }
    for bad in
        [json!(NOW.0 + (1 << 53)), json!(u64::MAX), json!(1e300), json!(-1), json!(0), json!(0.5)]
    {
        check(json!({"exp": bad}), Reason::ClaimsMalformed);
    }
    // What would be now again if only 32 bits of it counted.
    check(json!({"exp": NOW.0 + (1 << 32)}), Reason::LifetimeExcessive);
    check(json!({"exp": NOW.0 as f64 + 60.5}), Reason::Allowed);
    let token = KEY.token(&claims(NOW, json!({})));
    for now in [UnixTime(u64::MAX), UnixTime(0)] {
        let found = ask(&mut with_keys(NOW, NOW), "/orders/7", Some(&token), now);
        assert_ne!(found, Some(Reason::Allowed), "{now:?}");
    }
}

#[wasm_bindgen_test]
fn p10_p11_sizes_and_depths_are_bounded() {
    let mut inbound = with_keys(NOW, NOW);
    let long = "x".repeat(16 * 1024 + 1);
    let found = ask(&mut inbound, "/orders/7", Some(&long), NOW);
    assert_eq!(found, Some(Reason::TokenTooLarge));
    let header = json!({"typ": "JWT", "alg": "RS256", "kid": "k1"}).to_string();
    for levels in [33, 1_000, 5_000] {
        let nested = format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        let token = KEY.sign_text(header.as_bytes(), nested.as_bytes());
        let found = ask(&mut inbound, "/orders/7", Some(&token), NOW);
        assert_eq!(found, Some(Reason::TokenMalformed), "{levels}");
    }
}

#[wasm_bindgen_test]
fn outbound_calls_get_a_token_or_wait() {
    let config = json!({
        "direction": "outbound", "broker": {"cluster": "token_broker"},
        "rules": [{
            "name": "graph", "match": {"destination": "graph"},
            "token": {"identity": "default", "scope": "s"},
        }],
    });
    let mut outbound = match Config::read(config.to_string().as_bytes()) {
        Ok(Config::Outbound(config)) => Outbound::new(config),
        other => panic!("{other:?}"),
    };
    let attempt = Attempt { destination: Some("graph"), ..Attempt::default() };
    assert!(matches!(
        outbound.on_request(&attempt, true, NOW, Protocol::default, &tokens::verify),
        Effect::Wait
    ));
    let request = outbound.next_call(NOW).unwrap();
    let issued = json!({
        "access_token": "t", "token_type": "Bearer", "scope": "s", "identity": "default",
        "correlation_id": "c", "expires_on": (1_u64 << 32) + 100, "refresh_on": 1_u64 << 32,
    });
    let issued = serde_json::from_value(issued).unwrap();
    outbound.on_result(&request, TokenCallResult::Issued(issued), NOW);
    let effect = outbound.on_request(&attempt, true, NOW, Protocol::default, &tokens::verify);
    assert_eq!(effect.decision().map(|decision| decision.reason), Some(Reason::Injected));
    assert!(outbound.next_call(UnixTime((1 << 32) - 1)).is_none());
    assert!(outbound.next_call(UnixTime(1 << 32)).is_some());
}
