//! `mode: observe`: decided as ever, and let pass.

use super::*;

/// The effect of a request as `reason observed? removed | set`.
fn check(config: &Value, request: &Request, expected: (Reason, bool, &[&str], &[&str])) {
    let (wanted, observed, removes, sets) = expected;
    let effect = ask(&mut ready(config), request);
    let decision = effect.decision().unwrap().clone();
    assert_eq!((decision.reason, decision.observed), (wanted, observed), "{request:?}");
    let edits = edits(effect);
    assert_eq!(removed(&edits), removes, "{request:?}");
    assert_eq!(added(&edits), sets, "{request:?}");
}

const MARKER: &str = "x-entra-permit: 1";

/// `oid` and the marker.
fn identity() -> [String; 2] {
    [MARKER.to_owned(), format!("x-user: {USER}")]
}

fn observing(config: Value) -> Value {
    with(config, json!({"mode": "observe", "identity_headers": {"x-user": "oid"}}))
}

#[test]
fn what_would_be_denied_passes_with_its_reason() {
    let config = observing(config());
    let identity = identity();
    let identity = [identity[0].as_str(), identity[1].as_str()];
    let spoofed = |request| and(request, "x-user", "spoofed");
    let token = |claims: &Value| spoofed(read(&KEY.token(claims)));
    let expired = with(user(), json!({"exp": NOW.0 - 61, "iat": NOW.0 - 7200}));
    let scopeless = with(user(), json!({"scp": "x"}));
    let removed: &[&str] = &["x-user"];
    let nobody: &[&str] = &[MARKER];
    for (request, reason, observed, sets) in [
        (token(&user()), Reason::Allowed, false, &identity[..]),
        (spoofed(request("GET", "/healthz")), Reason::AllowedAnyone, false, nobody),
        (spoofed(request("GET", "/orders/7")), Reason::TokenMissing, true, nobody),
        (spoofed(read("bad")), Reason::TokenMalformed, true, nobody),
        (spoofed(read(&FOREIGN_KEY.token(&user()))), Reason::SignatureInvalid, true, nobody),
        // Verified, but no longer good: that is nobody's identity.
        (token(&expired), Reason::TokenExpired, true, nobody),
        // Verified and good, only not allowed here: this is who calls.
        (token(&scopeless), Reason::ScopeMissing, true, &identity[..]),
        (spoofed(request("GET", "/nowhere")), Reason::NoRule, true, nobody),
        (spoofed(request("GET", "/a//b")), Reason::PathAmbiguous, true, nobody),
    ] {
        // Authorization stays as it was sent: it is never among what is removed.
        check(&config, &request, (reason, observed, removed, sets));
    }
}

#[test]
fn one_rule_can_observe_alone() {
    let rules = json!([
        {"name": "watched", "match": {"path": "/w"}, "mode": "observe", "allow": [{"scopes": ["S"]}]},
        {"name": "closed", "match": {"path": "/c"}, "mode": "enforce", "allow": [{"scopes": ["S"]}]},
    ]);
    let one = with(config(), json!({"rules": rules}));
    check(&one, &request("GET", "/w"), (Reason::TokenMissing, true, &[], &[MARKER]));
    for path in ["/c", "/nowhere", "/a//b"] {
        let effect = ask(&mut ready(&one), &request("GET", path));
        assert!(matches!(effect, Effect::Reply(..)), "{path}");
    }
    // Where all is observed, a rule that says so enforces all the same.
    let all = with(one, json!({"mode": "observe"}));
    let effect = ask(&mut ready(&all), &request("GET", "/c"));
    assert!(matches!(effect, Effect::Reply(..)));
    check(&all, &request("GET", "/nowhere"), (Reason::NoRule, true, &[], &[MARKER]));
}

#[test]
fn authorization_stays_as_it_was_sent_where_a_rule_observes() {
    for rule in [json!({}), json!({"forward_token": false})] {
        let rule = with(rule, json!({"name": "w", "mode": "observe", "allow": "anyone"}));
        let config = with(config(), json!({"rules": [rule]}));
        check(&config, &read("bad"), (Reason::AllowedAnyone, false, &[], &[MARKER]));
    }
}

#[test]
fn observing_waits_for_keys_and_passes_without_them() {
    let mut inbound = inbound(&observing(config()));
    let request = read(&KEY.token(&user()));
    assert!(matches!(ask(&mut inbound, &request), Effect::Wait));
    let effect = ask_with(&mut inbound, &request, false, NOW, &tokens::verify);
    assert_eq!(reason(&effect), Some(Reason::TooManyWaiting));
    assert_eq!(added(&edits(effect)), [MARKER]);
    inbound.callers().next_call(NOW);
    inbound.callers().on_failure(NOW);
    let effect = ask(&mut inbound, &request);
    assert_eq!(reason(&effect), Some(Reason::KeysUnavailable));
    assert_eq!(added(&edits(effect)), [MARKER]);
}
