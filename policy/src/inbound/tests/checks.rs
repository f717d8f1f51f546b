//! The order of the checks is the one that `checks` states, and what each alternative asks for is
//! told whole.

use super::*;
use crate::checks::INBOUND;

/// A request that fails exactly these checks, put to a filter that knows its key.
fn failing(checks: &[&str]) -> Option<Reason> {
    let fails = |check: &str| checks.contains(&check);
    let mut claims = user();
    for (check, name, value) in [
        ("claims", "roles", json!("not a list")),
        ("tenant", "tid", json!(OTHER_TENANT)),
        ("issuer", "iss", json!("x")),
        ("audience", "aud", json!(CLIENT)),
        ("end", "exp", json!(NOW.0 - 61)),
        ("start", "nbf", json!(NOW.0 + 61)),
        ("lifetime", "iat", json!(NOW.0 - 40 * 3600)),
        ("kind", "idtyp", json!("app")),
        ("allow", "scp", json!("Orders.Write")),
    ] {
        if fails(check) {
            claims[name] = value;
        }
    }
    let key = if fails("signature") { &FOREIGN_KEY } else { &KEY };
    let algorithm = if fails("token") { "none" } else { "RS256" };
    let token = key.token_with(&json!({"alg": algorithm, "kid": "k1"}), &claims);
    let scheme = if fails("authorization") { "Basic" } else { "Bearer" };
    let path = [
        if fails("rule") { "/nowhere" } else { "/orders/7" },
        if fails("path") { "//x" } else { "" },
        if fails("query") { "?access_token=x" } else { "" },
    ]
    .concat();
    let mut request = and(request("GET", &path), "authorization", format!("{scheme} {token}"));
    if fails("host") {
        request = and(request, ":authority", "a b");
    }
    let issuer = if fails("key") { OTHER_TENANT } else { TENANT };
    let published_key = SigningKey::new(1, "k1", &Cloud::Public.v2_issuer(issuer));
    let mut inbound = holding(&config(), &published(&[&published_key]));
    reason(&ask(&mut inbound, &request))
}

#[test]
fn the_first_failing_check_decides() {
    assert_eq!(failing(&[]), Some(Reason::Allowed));
    for (index, first) in INBOUND.iter().enumerate() {
        let alone = failing(&[first.name]);
        assert!(alone.is_some_and(|it| first.reasons.contains(&it)), "{}: {alone:?}", first.name);
        for later in &INBOUND[index + 1..] {
            let both = failing(&[first.name, later.name]);
            let decided = both.is_some_and(|it| first.reasons.contains(&it));
            assert!(decided, "{} before {}: {both:?}", first.name, later.name);
        }
    }
}

#[test]
fn everything_that_an_alternative_lacks_is_told() {
    let alternative = json!({
        "scopes": ["S"], "roles": ["R"], "clients": [API], "groups": [GROUP],
        "caller_workload": ["spiffe://cluster.local/ns/shop/sa/till"],
        "client_credential": "certificate", "authentication_context": "c2",
    });
    let only_one_id = with(allowing(json!([alternative])), json!({"audiences": [API]}));
    let mut inbound = ready(&only_one_id);
    let token = KEY.token(&user());
    assert_eq!(reason(&ask(&mut inbound, &read(&token))), Some(Reason::ScopeMissing));
    let known = inbound.callers().known(token.as_bytes(), NOW).unwrap();
    let config = inbound.config().clone();
    let Allow::AnyOf(alternatives) = &config.rules[0].allow else { panic!() };
    let missing = alternatives[0].requirements(&known, None).map(|(_, missing)| missing);
    assert_eq!(
        missing,
        [
            None,
            Some(Reason::ScopeMissing),
            Some(Reason::RoleMissing),
            Some(Reason::ClientRefused),
            Some(Reason::ClientCredentialWeak),
            Some(Reason::GroupMissing),
            Some(Reason::CallerWorkloadRefused),
            Some(Reason::AuthenticationContextMissing),
        ]
    );
}
