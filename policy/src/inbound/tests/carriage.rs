//! How a token travels, and what the application gets to see of a request's headers.

use super::*;

fn check(request: &Request, expected: Reason) {
    let effect = ask(&mut ready(&config()), request);
    assert_eq!(reason(&effect), Some(expected), "{request:?}");
}

fn orders() -> Request {
    request("GET", "/orders/7")
}

#[test]
fn h01_h02_h03_h04_h07_exactly_one_bearer_token_is_taken() {
    let token = KEY.token(&user());
    let (bearer, malformed) = (format!("Bearer {token}"), Reason::AuthorizationMalformed);
    for (value, expected) in [
        (bearer.clone(), Reason::Allowed),
        (format!("bearer {token}"), Reason::Allowed),
        (format!("BEARER   {token}"), Reason::Allowed),
        (token.clone(), malformed),
        (format!("Bearer\t{token}"), malformed),
        (format!("Bearer{token}"), malformed),
        (format!("xx Bearer {token}"), malformed),
        (format!("{bearer} junk"), malformed),
        (format!("{bearer},{bearer}"), malformed),
        (format!("{bearer}, {bearer}"), malformed),
        (format!("Basic dDp0, {bearer}"), malformed),
        (format!("Basic {token}"), malformed),
        // As long as the right one.
        (format!("Digest {token}"), malformed),
        (format!("{bearer}\r\nx: y"), malformed),
        (format!("{bearer}\0"), malformed),
        (format!("{bearer}\u{e9}"), malformed),
        (String::new(), malformed),
        ("Bearer ".to_owned(), malformed),
    ] {
        check(&and(orders(), "authorization", &value), expected);
    }
    let two = and(and(orders(), "authorization", &bearer), "authorization", &bearer);
    check(&two, malformed);
    let mixed = and(and(orders(), "authorization", "Basic dDp0"), "authorization", &bearer);
    check(&mixed, malformed);
}

#[test]
fn h05_h06_a_token_elsewhere_is_none_and_one_in_the_query_is_refused() {
    let token = KEY.token(&user());
    for name in ["cookie", "x-authorization", "proxy-authorization", "sec-websocket-protocol"] {
        check(&and(orders(), name, format!("Bearer {token}")), Reason::TokenMissing);
    }
    for query in ["access_token=x", "a=b&access%5Ftoken=x"] {
        let in_query = request("GET", &format!("/orders/7?{query}"));
        check(&in_query, Reason::TokenInQuery);
        let both = and(in_query, "authorization", format!("Bearer {token}"));
        check(&both, Reason::TokenInQuery);
        // Where no token is wanted, nobody looks for one.
        check(&request("GET", &format!("/healthz?{query}")), Reason::AllowedAnyone);
    }
}

/// Spellings that some server could read as a header of ours.
const FOREIGN: [&str; 12] = [
    "x-entra-object-id",
    "x_entra_object_id",
    "X-Entra-Object_Id",
    "x.entra.tenant.id",
    "x-entra-client-id",
    "x-entra-permit",
    "X_ENTRA_PERMIT",
    "x-ms-client-principal",
    "X_MS_CLIENT_PRINCIPAL",
    "x-ms-client_principal-name",
    "x-ms-token-aad-access-token",
    "x-ms-token_aad_id-token",
];

fn spoofed(request: Request) -> Request {
    FOREIGN.iter().fold(request, |request, name| and(request, name, "spoofed"))
}

#[test]
fn h08_h09_h11_foreign_identity_headers_go_on_every_path() {
    let mut expected = FOREIGN.map(str::to_owned).to_vec();
    expected.sort_unstable();
    let with_authorization = || {
        let mut all = expected.clone();
        all.push("authorization".to_owned());
        all.sort_unstable();
        all
    };
    let observing = with(config(), json!({"mode": "observe"}));
    let token = read(&KEY.token(&user()));
    let bad = read("bad");
    for (name, config, request, expected) in [
        ("anonymous", config(), request("GET", "/healthz"), expected.clone()),
        ("allowed", config(), token.clone(), with_authorization()),
        ("observed, good", observing.clone(), token, expected.clone()),
        ("observed, bad", observing.clone(), bad, expected.clone()),
        ("observed, none", observing.clone(), orders(), expected.clone()),
        ("observed, 400", observing, request("GET", "/a//b"), expected.clone()),
    ] {
        let edits = edits(ask(&mut ready(&config), &spoofed(request)));
        assert_eq!(removed(&edits), expected, "{name}");
        assert!(!added(&edits).iter().any(|line| line.contains("spoofed")), "{name}");
    }
    // The same name twice is removed once: that takes all of its lines.
    let twice = spoofed(spoofed(request("GET", "/healthz")));
    assert_eq!(removed(&edits(ask(&mut ready(&config()), &twice))), expected);
}

#[test]
fn h08_configured_names_are_ours_too_and_the_default_ones_stay_ours() {
    let config =
        with(config(), json!({"identity_headers": {"x-user": "oid"}, "permit_marker": "x-mark"}));
    let names = ["x-user", "X_User", "x-mark", "x_mark", "x-entra-object-id", "x-entra-permit"];
    let anonymous = names
        .iter()
        .fold(request("GET", "/healthz"), |request, name| and(request, name, "spoofed"));
    let edits = edits(ask(&mut ready(&config), &and(anonymous, "x-other", "kept")));
    let mut expected = names.map(str::to_owned).to_vec();
    expected.sort_unstable();
    assert_eq!(removed(&edits), expected);
    assert_eq!(added(&edits), ["x-mark: 1"]);
}

#[test]
fn the_application_gets_identity_and_marker_and_no_token() {
    let tenant = format!("x-entra-tenant-id: {TENANT}");
    let client = format!("x-entra-client-id: {CLIENT}");
    let check = |claims: &Value, object: &str| {
        let edits = edits(ask(&mut ready(&config()), &read(&KEY.token(claims))));
        assert_eq!(removed(&edits), ["authorization"]);
        let object = format!("x-entra-object-id: {object}");
        assert_eq!(added(&edits), [client.as_str(), &object, "x-entra-permit: 1", &tenant]);
    };
    check(&user(), USER);
    check(&v1_user(), USER);
    check(&application(), OTHER_CLIENT);
    let none = edits(ask(&mut ready(&config()), &request("GET", "/healthz")));
    assert_eq!((removed(&none), added(&none)), (vec![], vec!["x-entra-permit: 1".to_owned()]));
}

#[test]
fn the_client_and_its_credential_have_one_header_in_both_versions() {
    let headers = json!({"x-client": "azp", "x-credential": "azpacr"});
    let config = with(config(), json!({"identity_headers": headers}));
    for claims in [user(), v1_user()] {
        let edits = edits(ask(&mut ready(&config), &read(&KEY.token(&claims))));
        let client = format!("x-client: {CLIENT}");
        assert_eq!(added(&edits), [client.as_str(), "x-credential: 1", "x-entra-permit: 1"]);
    }
}

#[test]
fn p13_p14_claims_of_any_name_and_text_become_one_header_each() {
    let headers = json!({"x-name": "name", "x-url": "https://a.example/claim", "x-path": "a.b"});
    let config = with(config(), json!({"identity_headers": headers}));
    let claims = json!({
        "name": "Ünal,\r\nx-evil: 1; a=b%", "https://a.example/claim": [1, "a,b"],
        "a.b": "exact", "a": {"b": "nested"},
    });
    let edits = edits(ask(&mut ready(&config), &read(&KEY.token(&with(user(), claims)))));
    assert_eq!(
        added(&edits),
        [
            "x-entra-permit: 1",
            "x-name: %C3%9Cnal%2C%0D%0Ax-evil: 1%3B a=b%25",
            "x-path: exact",
            "x-url: 1,a%2Cb",
        ]
    );
}

#[test]
fn h12_h13_headers_that_proxies_rewrite_by_select_nothing() {
    let other_path = |request: Request| {
        ["x-original-url", "x-rewrite-url", "x-forwarded-uri", "x-envoy-original-path"]
            .iter()
            .fold(request, |request, name| and(request, name, "/healthz"))
    };
    let method = and(other_path(orders()), "x-http-method-override", "OPTIONS");
    let client = and(method, "x-forwarded-client-cert", "URI=spiffe://a/b");
    check(&and(client, "user-agent", "kube-probe/1.31"), Reason::TokenMissing);
}

#[test]
fn the_token_reaches_the_application_only_where_it_was_asked_for() {
    let rules = |forward: Value| {
        let rules = ["health", "read"].map(|name| {
            let rule = match name {
                "health" => json!({"allow": "anyone", "match": {"path": "/healthz"}}),
                _ => json!({"allow": [{"scopes": ["Orders.Read"]}]}),
            };
            let rule = with(rule, json!({"name": name}));
            if forward.is_null() { rule } else { with(rule, json!({"forward_token": forward})) }
        });
        json!(rules)
    };
    let token = KEY.token(&user());
    let anonymous =
        |token: &str| and(request("GET", "/healthz"), "authorization", format!("Bearer {token}"));
    // Whether it is forwarded: a verified one, then one that nobody verified.
    for (all, rule, verified, unverified) in [
        (false, json!(null), false, false),
        (false, json!(false), false, false),
        (false, json!(true), true, true),
        (true, json!(null), true, false),
        (true, json!(false), false, false),
        (true, json!(true), true, true),
    ] {
        let config = with(config(), json!({"forward_token": all, "rules": rules(rule.clone())}));
        let mut inbound = ready(&config);
        for (request, expected) in [
            (read(&token), verified),
            (anonymous(&token), unverified),
            (anonymous("bad"), unverified),
        ] {
            let kept = removed(&edits(ask(&mut inbound, &request))).is_empty();
            assert_eq!(kept, expected, "{all} {rule} {request:?}");
        }
        // Refused is refused.
        let bad = ask(&mut inbound, &read("bad"));
        assert_eq!(reason(&bad), Some(Reason::TokenMalformed));
    }
}

#[test]
fn the_record_names_who_was_let_pass() {
    let effect = ask(&mut ready(&config()), &read(&KEY.token(&user())));
    let record = effect.decision().unwrap().record();
    let expected = format!("reason=allowed rule=read tenant={TENANT} client={CLIENT} uti=u-1");
    assert_eq!(record, expected);
    let effect = ask(&mut ready(&config()), &request("GET", "/healthz"));
    assert_eq!(effect.decision().unwrap().record(), "reason=allowed_anyone rule=health");
    assert!(Effect::Wait.decision().is_none());
}

#[test]
fn an_identity_is_recorded_only_once_the_signature_is_good() {
    let good = KEY.token(&with(user(), json!({"exp": NOW.0 - 3600, "iat": NOW.0 - 7200})));
    let forged = FOREIGN_KEY.token(&user());
    let scopeless = KEY.token(&with(user(), json!({"scp": "x"})));
    let ids = format!("tenant={TENANT} client={CLIENT} uti=u-1");
    for (token, expected) in [
        (good, format!("reason=token_expired rule=read {ids}")),
        (scopeless, format!("reason=scope_missing rule=read {ids}")),
        (forged, "reason=signature_invalid rule=read".to_owned()),
        ("bad".to_owned(), "reason=token_malformed rule=read".to_owned()),
    ] {
        let effect = ask(&mut ready(&config()), &read(&token));
        assert_eq!(effect.decision().unwrap().record(), expected);
    }
}
