//! What is no user's token for this application is answered here, and nothing leaves.

use contract::KeysRefresh;

use super::*;

/// A refused attempt: the answer, and that nobody was asked for a token.
fn check_refused(outbound: &mut Outbound, attempt: &Attempt<'_>, expected: &str) {
    assert_eq!(told(outbound, attempt), expected);
    assert_eq!(outbound.next_call(NOW), None, "{expected}: the broker is asked");
}

fn check_claims(claims: &Value, expected: &str) {
    check_refused(&mut ready_for_callers(), &calling(&KEY.token(claims)), expected);
}

#[test]
fn o16_a_call_without_exactly_one_bearer_token_is_refused() {
    let user = token_of("anna");
    check_refused(&mut ready_for_callers(), &attempt("graph"), "401 token_missing");
    for authorization in [
        "",
        "Bearer",
        "Bearer ",
        &user,
        "Basic YW5uYTpwdw==",
        &format!("Bearer {user},Bearer {user}"),
        &format!("Bearer {user}, Bearer {user}"),
        &format!("Bearer {user} {user}"),
        &format!("Bearer {user} "),
        &format!("Bearer\t{user}"),
        &format!("Token Bearer {user}"),
    ] {
        let attempt = bringing("graph", authorization.as_bytes());
        check_refused(&mut ready_for_callers(), &attempt, "401 authorization_malformed");
    }
    let binary = bringing("graph", b"Bearer \xff");
    check_refused(&mut ready_for_callers(), &binary, "401 authorization_malformed");
    // The scheme is not told by its case.
    let mut outbound = ready_for_callers();
    let lower = bringing("graph", format!("bearer {user}").as_bytes());
    assert_eq!(told(&mut outbound, &lower), "wait");
}

#[test]
fn o16_an_applications_own_token_is_no_assertion() {
    check_claims(&application(), "401 assertion_refused");
    // Without `idtyp`, too: `oid` and `sub` are the application's.
    check_claims(&with(application(), json!({"idtyp": null})), "401 assertion_refused");
    let mut outbound = ready_for_callers();
    let token = KEY.token(&application());
    let effect = ask_at(&mut outbound, &calling(&token), NOW);
    let record = effect.decision().unwrap().record();
    assert!(record.starts_with("reason=assertion_refused rule=graph tenant="), "{record}");
    // And not when it is known from before.
    check_refused(&mut outbound, &calling(&token), "401 assertion_refused");
}

#[test]
fn o16_only_what_inbound_would_accept_is_an_assertion() {
    for (members, expected) in [
        (json!({"scp": null}), "401 token_kind_unknown"),
        (json!({"idtyp": "device"}), "401 token_kind_unknown"),
        (json!({"aud": CLIENT}), "401 audience_mismatch"),
        (json!({"aud": "https://graph.microsoft.com"}), "401 audience_mismatch"),
        (json!({"tid": OTHER_TENANT}), "401 tenant_refused"),
        (
            json!({"tid": OTHER_TENANT, "iss": Cloud::Public.v2_issuer(OTHER_TENANT)}),
            "401 tenant_refused",
        ),
        (json!({"iss": Cloud::China.v2_issuer(TENANT)}), "401 issuer_mismatch"),
        (json!({"exp": NOW.0 - 61}), "401 token_expired"),
        (json!({"nbf": NOW.0 + 61}), "401 token_not_yet_valid"),
        (json!({"exp": NOW.0 + 30 * 3600}), "401 lifetime_excessive"),
        (json!({"exp": null}), "401 claims_malformed"),
        (json!({"roles": "R"}), "401 claims_malformed"),
    ] {
        check_claims(&with(user("anna"), members), expected);
    }
    for (header, expected) in [
        (json!({"alg": "none", "kid": "k1"}), "401 algorithm_refused"),
        (json!({"alg": "RS256", "kid": "k1", "crit": []}), "401 header_refused"),
        (json!({"alg": "RS256"}), "401 key_id_missing"),
    ] {
        let token = KEY.token_with(&header, &user("anna"));
        check_refused(&mut ready_for_callers(), &calling(&token), expected);
    }
    let forged = calling(&FOREIGN_KEY.token(&user("anna")));
    check_refused(&mut ready_for_callers(), &forged, "401 signature_invalid");
    check_refused(&mut ready_for_callers(), &calling("a.b"), "401 token_malformed");
    let long = calling(&"x".repeat(16 * 1024 + 1));
    check_refused(&mut ready_for_callers(), &long, "401 token_too_large");
}

#[test]
fn what_is_asked_in_a_users_name_ends_with_their_token() {
    // Inbound a token is good for the skew after its end; to be exchanged it is not.
    for (end, expected) in [(NOW.0 + 1, "wait"), (NOW.0, "401 token_expired")] {
        let mut outbound = ready_for_callers();
        let token = KEY.token(&with(user("anna"), json!({"exp": end})));
        assert_eq!(told(&mut outbound, &calling(&token)), expected);
    }
    let mut outbound = ready_for_callers();
    let user = KEY.token(&with(user("anna"), json!({"exp": NOW.0 + 100})));
    exchange(&mut outbound, &user, "graph-for-anna");
    let call = calling(&user);
    let held = "injected Bearer graph-for-anna";
    assert_eq!(told_at(&mut outbound, &call, NOW.plus(99)), held);
    assert_eq!(told_at(&mut outbound, &call, NOW.plus(100)), "401 token_expired");
    assert_eq!(outbound.next_call(NOW.plus(100)), None);
}

#[test]
fn an_unknown_key_is_asked_for_once_and_then_the_token_is_refused_or_exchanged() {
    let newer = SigningKey::new(2, "k2", &Cloud::Public.v2_issuer(TENANT));
    for (published, expected) in [(vec![&*KEY], "401 key_unknown"), (vec![&*KEY, &newer], "wait")] {
        let mut outbound = ready_for_callers();
        let call = calling(&newer.token(&user("anna")));
        assert_eq!(told(&mut outbound, &call), "wait");
        assert_eq!(outbound.next_call(NOW), None, "no token is asked for an unverified one");
        let callers = outbound.callers().unwrap();
        let refresh = KeysRefresh { issuer: Cloud::Public.v2_issuer(TENANT), kid: "k2".to_owned() };
        assert_eq!(callers.next_call(NOW), Some(KeyCall::Refresh(refresh)));
        callers.on_keys(&keys(&published), NOW);
        // One request waits for keys, and then for a token.
        assert_eq!(told(&mut outbound, &call), expected);
        assert_eq!(outbound.next_call(NOW).is_some(), expected == "wait");
    }
}

#[test]
fn without_keys_nothing_is_decided() {
    let mut outbound = filter_of(&config());
    let call = calling(&token_of("anna"));
    assert_eq!(told(&mut outbound, &call), "wait");
    outbound.callers().unwrap().next_call(NOW);
    outbound.callers().unwrap().on_failure(NOW);
    assert_eq!(told(&mut outbound, &call), "503 keys_unavailable");
    let asked: Vec<_> = std::iter::from_fn(|| outbound.next_call(NOW)).collect();
    assert!(asked.iter().all(|request| request.assertion.is_none()));
    let effect =
        filter_of(&config()).on_request(&call, false, NOW, Protocol::default, &tokens::verify);
    assert_eq!(effect.decision().map(|made| made.reason), Some(Reason::TooManyWaiting));
}

#[test]
fn k10_with_its_key_a_users_token_is_gone_for_exchanges_too() {
    let mut outbound = ready_for_callers();
    let user = token_of("anna");
    exchange(&mut outbound, &user, "graph-for-anna");
    let newer = SigningKey::new(2, "k2", &Cloud::Public.v2_issuer(TENANT));
    outbound.callers().unwrap().on_keys(&keys(&[&newer]), NOW);
    // Its key may have come back meanwhile: asked for once.
    assert_eq!(told(&mut outbound, &calling(&user)), "wait");
    outbound.callers().unwrap().next_call(NOW);
    outbound.callers().unwrap().on_unchanged_keys(NOW);
    assert_eq!(told(&mut outbound, &calling(&user)), "401 key_unknown");
}

#[test]
fn every_refusal_says_where_a_token_is_to_be_had_and_a_403_does_not() {
    let uri = Cloud::Public.authorization_uri(TENANT);
    let bearer = format!("Bearer authorization_uri=\"{uri}\"");
    let invalid = format!("{bearer}, error=\"invalid_token\"");
    let app = KEY.token(&application());
    for (call, expected) in [(attempt("graph"), bearer), (calling(&app), invalid)] {
        let Effect::Reply(reply, _) = ask_at(&mut ready_for_callers(), &call, NOW) else {
            panic!("it passes");
        };
        assert_eq!(reply.headers[0], ("www-authenticate", expected));
    }
    let mut outbound = ready_for_callers();
    let call = calling(&token_of("anna"));
    ask_at(&mut outbound, &call, NOW);
    let request = outbound.next_call(NOW).unwrap();
    outbound.on_result(&request, refused(ErrorKind::Denied, None), NOW);
    let Effect::Reply(reply, _) = ask_at(&mut outbound, &call, NOW) else { panic!("it passes") };
    assert_eq!(reply.status, 403);
    assert!(reply.headers.iter().all(|(name, _)| *name != "www-authenticate"));
}
