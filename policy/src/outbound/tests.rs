//! Attempts put to the whole outbound decision.

use contract::{ErrorKind, IssuedToken, Secret, TypedError};
use serde_json::{Value, json};

use super::*;
use crate::{
    config::Config,
    decision::Class,
    token_store::TokenCallResult::{Failed, Issued, Refused},
};

mod challenges;
mod downstream;
mod on_behalf_of;

const NOW: UnixTime = UnixTime(1_800_000_000);
const SCOPE: &str = "https://graph.example/.default";

fn rule(name: &str, members: Value) -> Value {
    let mut rule = json!({
        "name": name, "match": {"destination": name},
        "token": {"identity": "default", "scope": SCOPE},
    });
    for (member, value) in members.as_object().unwrap() {
        rule[member] = value.clone();
    }
    rule
}

fn outbound(rules: Value) -> Outbound {
    let config =
        json!({"direction": "outbound", "broker": {"cluster": "token_broker"}, "rules": rules});
    match Config::read(config.to_string().as_bytes()) {
        Ok(Config::Outbound(config)) => Outbound::new(config),
        other => panic!("{other:?}"),
    }
}

fn issued(text: &str) -> TokenCallResult {
    Issued(IssuedToken {
        access_token: Secret::new(text),
        token_type: "Bearer".to_owned(),
        expires_on: NOW.0 + 3600,
        refresh_on: NOW.0 + 1800,
        scope: SCOPE.to_owned(),
        identity: "default".to_owned(),
        correlation_id: "c".to_owned(),
        token_hash: None,
    })
}

/// The broker's refusal of a kind, with the seconds after which to ask again.
fn refused(kind: ErrorKind, retry_after: Option<u64>) -> TokenCallResult {
    let (error, claims, correlation_id, trace_id) = ("e".to_owned(), None, None, None);
    Refused(TypedError { error, kind, retry_after, claims, correlation_id, trace_id })
}

/// Answers every call that is due: with a token that is named like the destination.
fn supply(outbound: &mut Outbound, now: UnixTime) {
    for _ in 0..outbound.config().rules.len() {
        let request = outbound.next_call(now).unwrap();
        let token = issued(&request.destination);
        outbound.on_result(&request, token, now);
    }
    assert_eq!(outbound.next_call(now), None);
}

fn ready(rules: Value) -> Outbound {
    let mut outbound = outbound(rules);
    supply(&mut outbound, NOW);
    outbound
}

fn attempt(destination: &str) -> Attempt<'_> {
    Attempt { destination: Some(destination), ..Attempt::default() }
}

fn bringing<'a>(destination: &'a str, authorization: &[u8]) -> Attempt<'a> {
    Attempt { authorization: Some(authorization.to_vec()), ..attempt(destination) }
}

/// What happens to an attempt, as `reason: what is set`.
fn outcome(outbound: &mut Outbound, attempt: &Attempt<'_>) -> String {
    let effect = outbound.on_request(attempt, true, NOW, Protocol::default, &tokens::verify);
    match &effect {
        Effect::Wait => "wait".to_owned(),
        Effect::Reply(reply, decision) => {
            assert_ne!(decision.reason.class(), Class::Pass);
            assert_eq!(reply.details, decision.reason.code());
            decision.reason.code().to_owned()
        }
        Effect::Continue(edits, decision) => {
            assert_eq!(decision.reason.class(), Class::Pass);
            assert!(edits.remove.is_empty() && !edits.remove_authorization);
            assert!(decision.identity.is_none() && !decision.observed);
            assert!(edits.add.is_none());
            let set = edits.authorization.iter();
            let set = set.map(|value| format!("authorization={}", value.expose()));
            [decision.reason.code().to_owned()].into_iter().chain(set).collect::<Vec<_>>().join(" ")
        }
    }
}

fn check(outbound: &mut Outbound, attempt: &Attempt<'_>, expected: &str) {
    assert_eq!(outcome(outbound, attempt), expected, "{attempt:?}");
}

#[test]
fn o01_o02_a_token_goes_only_to_a_destination_that_a_rule_names() {
    let mut outbound = ready(json!([rule("graph", json!({})), rule("vault", json!({}))]));
    check(&mut outbound, &attempt("graph"), "injected authorization=Bearer graph");
    check(&mut outbound, &attempt("vault"), "injected authorization=Bearer vault");
    check(&mut outbound, &Attempt::default(), "no_destination");
    for name in ["", "Graph", "graph.", "graph2", "grap", "graph,vault", "graph.evil.example"] {
        check(&mut outbound, &attempt(name), "no_destination");
        check(&mut outbound, &bringing(name, b"Bearer own"), "no_destination");
    }
}

#[test]
fn a_filter_on_an_inbound_listener_injects_nothing() {
    let mut outbound = ready(json!([rule("graph", json!({}))]));
    let misplaced = Attempt { inbound_listener: true, ..attempt("graph") };
    check(&mut outbound, &misplaced, "misplaced");
    let own = Attempt { inbound_listener: true, ..bringing("graph", b"Bearer own") };
    check(&mut outbound, &own, "misplaced");
    let nowhere = Attempt { inbound_listener: true, ..attempt("other") };
    check(&mut outbound, &nowhere, "no_destination");
}

#[test]
fn o05_o11_an_authorization_of_the_application_is_kept_replaced_or_refused() {
    const INJECTED: &str = "injected authorization=Bearer graph";
    for (members, expected) in [
        (json!({}), "authorization_refused"),
        (json!({"existing_authorization": "refuse"}), "authorization_refused"),
        (json!({"existing_authorization": "keep"}), "authorization_kept"),
        (json!({"existing_authorization": "replace"}), INJECTED),
    ] {
        let mut outbound = ready(json!([rule("graph", members)]));
        check(&mut outbound, &attempt("graph"), INJECTED);
        for own in [&b"Bearer own"[..], b"Basic x", b"", b"\xff", b"Bearer graph,Bearer graph"] {
            check(&mut outbound, &bringing("graph", own), expected);
        }
        // What we set on an earlier attempt is no header of the application's.
        check(&mut outbound, &bringing("graph", b"Bearer graph"), INJECTED);
    }
}

#[test]
fn o07_a_retried_attempt_gets_the_token_that_is_good_now() {
    let mut outbound = ready(json!([rule("graph", json!({}))]));
    let request = outbound.config().rules[0].token.clone();
    let later = NOW.plus(1800);
    assert_eq!(outbound.next_call(later), Some(request.clone()));
    outbound.on_result(&request, issued("next"), later);
    const NEXT: &str = "injected authorization=Bearer next";
    check(&mut outbound, &bringing("graph", b"Bearer graph"), NEXT);
    check(&mut outbound, &bringing("graph", b"Bearer next"), NEXT);
    // After one more rotation the first is nobody's.
    let later = NOW.plus(1801);
    outbound.next_call(later);
    outbound.on_result(&request, issued("third"), later);
    check(&mut outbound, &bringing("graph", b"Bearer graph"), "authorization_refused");
    check(&mut outbound, &bringing("graph", b"Bearer next"), "injected authorization=Bearer third");
}

#[test]
fn o04_o11_our_token_for_one_destination_never_goes_to_another() {
    // What an earlier attempt set is still there when Envoy goes on elsewhere: to another
    // destination, to a cluster that names none, or after injection was stopped.
    for existing in ["refuse", "keep", "replace"] {
        let keep = json!({"existing_authorization": existing});
        let mut outbound = ready(json!([rule("graph", json!({})), rule("vault", keep)]));
        check(
            &mut outbound,
            &bringing("vault", b"Bearer graph"),
            "injected authorization=Bearer vault",
        );
        let mut removed = |attempt: &Attempt<'_>, reason| {
            let Effect::Continue(edits, decision) =
                outbound.on_request(attempt, true, NOW, Protocol::default, &tokens::verify)
            else {
                panic!("{attempt:?} is let pass");
            };
            assert_eq!(decision.reason, reason);
            assert!(edits.remove_authorization);
            assert_eq!((edits.add, edits.authorization), (None, None));
        };
        removed(&bringing("other", b"Bearer graph"), Reason::NoDestination);
        let nowhere = Attempt { destination: None, ..bringing("graph", b"Bearer graph") };
        removed(&nowhere, Reason::NoDestination);
        let inbound = Attempt { inbound_listener: true, ..bringing("graph", b"Bearer graph") };
        removed(&inbound, Reason::Misplaced);
        outbound.on_response("graph", || false);
        let Effect::Continue(edits, decision) = outbound.on_request(
            &bringing("graph", b"Bearer graph"),
            true,
            NOW,
            Protocol::default,
            &tokens::verify,
        ) else {
            panic!("a stopped destination passes");
        };
        assert_eq!(decision.reason, Reason::InjectionStopped);
        assert!(edits.remove_authorization);
    }
}

#[test]
fn o03_a_connection_without_tls_stops_that_destination_for_good() {
    let rules = || {
        json!([
            rule("graph", json!({})),
            rule("vault", json!({})),
            rule("local", json!({"plaintext": true})),
        ])
    };
    let mut outbound = ready(rules());
    for destination in ["graph", "vault", "local", "other"] {
        assert!(!outbound.on_response(destination, || true), "{destination}");
    }
    assert!(!outbound.on_response("other", || false));
    assert!(!outbound.on_response("local", || false));
    check(&mut outbound, &attempt("local"), "injected authorization=Bearer local");
    assert!(outbound.on_response("graph", || false));
    // It is stopped once, and a later connection with TLS is no way back.
    assert!(!outbound.on_response("graph", || false));
    assert!(!outbound.on_response("graph", || true));
    check(&mut outbound, &attempt("graph"), "injection_stopped");
    check(&mut outbound, &bringing("graph", b"Bearer own"), "injection_stopped");
    check(&mut outbound, &attempt("vault"), "injected authorization=Bearer vault");
    check(&mut ready(rules()), &attempt("graph"), "injected authorization=Bearer graph");
}

#[test]
fn o06_without_a_token_a_request_waits_or_is_refused_and_never_goes_out_bare() {
    let mut outbound = outbound(json!([rule("graph", json!({}))]));
    check(&mut outbound, &attempt("graph"), "wait");
    let effect =
        outbound.on_request(&attempt("graph"), false, NOW, Protocol::default, &tokens::verify);
    assert_eq!(effect.decision().map(|d| d.reason), Some(Reason::TooManyWaiting));
    assert!(matches!(effect, Effect::Reply(..)));
    let request = outbound.next_call(NOW).unwrap();
    assert_eq!((request.identity.as_str(), request.scope.as_str()), ("default", SCOPE));
    check(&mut outbound, &attempt("graph"), "wait");
    // Refusing comes before waiting.
    check(&mut outbound, &bringing("graph", b"Bearer own"), "authorization_refused");
    outbound.on_result(&request, Failed, NOW);
    check(&mut outbound, &attempt("graph"), "token_unavailable");
    let request = outbound.next_call(NOW.plus(1)).unwrap();
    outbound.on_result(&request, refused(ErrorKind::Denied, None), NOW.plus(1));
    check(&mut outbound, &attempt("graph"), "token_denied");
    let request = outbound.next_call(NOW.plus(3)).unwrap();
    outbound.on_result(&request, issued("graph"), NOW.plus(3));
    check(&mut outbound, &attempt("graph"), "injected authorization=Bearer graph");
    assert_eq!(outbound.token_age(NOW.plus(10)), Some(7));
}

#[test]
fn every_refusal_has_its_status_and_no_challenge() {
    for (result, own, expected, status, grpc, retry_after) in [
        (Failed, false, Reason::TokenUnavailable, 503, 14, Some("1")),
        (
            refused(ErrorKind::Throttled, Some(40)),
            false,
            Reason::TokenUnavailable,
            503,
            14,
            Some("40"),
        ),
        (refused(ErrorKind::Denied, Some(40)), false, Reason::TokenDenied, 403, 7, None),
        (issued("graph"), true, Reason::AuthorizationRefused, 403, 7, None),
    ] {
        let mut outbound = outbound(json!([rule("graph", json!({}))]));
        let request = outbound.next_call(NOW).unwrap();
        outbound.on_result(&request, result, NOW);
        for (content_type, grpc_expected) in
            [("text/plain", None), ("application/grpc", Some(grpc))]
        {
            let attempt =
                Attempt { authorization: own.then(|| b"Bearer own".to_vec()), ..attempt("graph") };
            let protocol = || Protocol::of(content_type.as_bytes());
            let effect = outbound.on_request(&attempt, true, NOW, protocol, &tokens::verify);
            let Effect::Reply(reply, decision) = effect else {
                panic!("{expected:?} is not refused");
            };
            assert_eq!(decision.reason, expected);
            assert_eq!(decision.record(), format!("reason={} rule=graph", expected.code()));
            assert_eq!((reply.status, reply.grpc_status), (status, grpc_expected));
            let header = |name| {
                reply.headers.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_str())
            };
            assert_eq!(header("retry-after"), retry_after);
            assert_eq!(header("www-authenticate"), None);
        }
    }
}

#[test]
fn the_record_names_the_rule_and_nothing_of_the_token() {
    let mut outbound = ready(json!([rule("graph", json!({}))]));
    let effect =
        outbound.on_request(&attempt("graph"), true, NOW, Protocol::default, &tokens::verify);
    assert_eq!(effect.decision().unwrap().record(), "reason=injected rule=graph");
    assert!(!format!("{effect:?}").contains("Bearer graph"));
    let nowhere = outbound.on_request(&attempt("x"), true, NOW, Protocol::default, &tokens::verify);
    assert_eq!(nowhere.decision().unwrap().record(), "reason=no_destination");
    let misplaced = Attempt { inbound_listener: true, ..attempt("graph") };
    let effect = outbound.on_request(&misplaced, true, NOW, Protocol::default, &tokens::verify);
    assert_eq!(effect.decision().unwrap().record(), "reason=misplaced rule=graph");
}

#[test]
fn s05_no_authorization_is_shown_by_debug() {
    let shown = format!("{:?}", bringing("graph", b"Bearer s3cret"));
    assert_eq!(shown, "Attempt { destination: Some(\"graph\"), .. }");
    let text = tokens::SigningKey::new(1, "k", "i").token(&json!({"aud": "s3cret"}));
    let token = crate::jwt::UnverifiedToken::parse(text.as_bytes()).unwrap();
    assert_eq!(format!("{token:?}"), "UnverifiedToken { key_id: \"k\", .. }");
    let lines = [(&b"authorization"[..], &b"Bearer s3cret"[..]), (b":path", b"/?t=s3cret")];
    let own = crate::identity_headers::HeaderNames::default();
    let head = crate::request::RequestHead::read(lines.into_iter(), &own);
    assert_eq!(format!("{head:?}"), "RequestHead { protocol: Http, .. }");
}
