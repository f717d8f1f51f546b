//! Which rule a request falls under, and whom a rule lets pass.

use super::*;

/// A rule that anyone passes, so that the rule's name shows which one it was.
fn open(name: &str, matches: Value) -> Value {
    json!({"name": name, "match": matches, "allow": "anyone"})
}

fn check_rule(config: &Value, cases: &[(Request, Option<&str>)]) {
    let mut inbound = ready(config);
    for (request, expected) in cases {
        let effect = ask(&mut inbound, request);
        let decision = effect.decision().unwrap();
        assert_eq!(decision.rule.as_deref(), *expected, "{request:?}");
        let expected = if expected.is_some() { Reason::AllowedAnyone } else { Reason::NoRule };
        assert_eq!(reason(&effect), Some(expected), "{request:?}");
    }
}

fn rules(rules: Value) -> Value {
    with(config(), json!({"rules": rules}))
}

fn at(host: &str, request: Request) -> Request {
    let mut request = request;
    request.retain(|(name, _)| name != ":authority");
    and(request, ":authority", host)
}

#[test]
fn the_first_rule_that_fits_decides_and_none_denies() {
    let config = rules(json!([
        open("get", json!({"path": "/a", "methods": ["GET", "HEAD"]})),
        open("host", json!({"path": "/a", "hosts": ["api.example", "*.shop.example"]})),
        open("below", json!({"path": "/a/{**}"})),
        open("one", json!({"path": "/a/{*}"})),
        open("post", json!({"methods": ["POST"]})),
    ]));
    let (get, put) = (|path| request("GET", path), |path| request("PUT", path));
    check_rule(
        &config,
        &[
            (get("/a"), Some("get")),
            (request("HEAD", "/a?b=/x"), Some("get")),
            (put("/a"), None),
            (at("api.example", put("/a")), Some("host")),
            (at("API.Example:8080", put("/a")), Some("host")),
            (at("api.example.", put("/a")), Some("host")),
            (at("x.shop.example", put("/a")), Some("host")),
            (at("xapi.example", put("/a")), None),
            (at("api.example.evil.io", put("/a")), None),
            (put("/a/b"), Some("below")),
            (request("POST", "/x"), Some("post")),
            (get("/x"), None),
            (get("/"), None),
            (get("/A"), None),
            (get("/a/"), Some("below")),
        ],
    );
}

#[test]
fn h17_methods_are_compared_exactly() {
    let config = rules(json!([open("get", json!({"methods": ["GET"]}))]));
    for method in ["get", "GET ", "GETX", "TRACE", "OPTIONS", "G", ""] {
        check_rule(&config, &[(request(method, "/a"), None)]);
    }
}

#[test]
fn h14_h15_a_path_is_judged_as_the_application_will_read_it() {
    let mut inbound = ready(&config());
    for path in [
        "/a//b",
        "/./a",
        "/a/../b",
        "/a/%2e%2e/b",
        "/a%2fb",
        "/a\\b",
        "/a;b",
        "/a#b",
        "/a%00",
        "/a%",
        "/\u{e9}",
        "/%c0%ae",
        "a",
        "",
        "*",
        "http://shop.example/healthz",
        "/a/%252e",
    ] {
        let effect = ask(&mut inbound, &request("GET", path));
        assert_eq!(reason(&effect), Some(Reason::PathAmbiguous), "{path}");
    }
    for path in ["/secret?/healthz", "/secret?x=/healthz", "/healthz/x", "/healthz/", "/HEALTHZ"] {
        let effect = ask(&mut inbound, &request("GET", path));
        assert_eq!(reason(&effect), Some(Reason::NoRule), "{path}");
    }
    for path in ["/healthz", "/%68ealthz", "/healthz?x=//..;"] {
        let effect = ask(&mut inbound, &request("GET", path));
        assert_eq!(reason(&effect), Some(Reason::AllowedAnyone), "{path}");
    }
}

#[test]
fn h16_a_request_without_a_readable_host_is_refused() {
    let mut inbound = ready(&config());
    for host in ["", "user@shop.example", "a b", "a,b", "shop.example:x", "[::1", "sh\u{f6}p"] {
        let effect = ask(&mut inbound, &at(host, request("GET", "/healthz")));
        assert_eq!(reason(&effect), Some(Reason::HostMalformed), "{host}");
    }
    let mut none = request("GET", "/healthz");
    none.retain(|(name, _)| name != ":authority");
    assert_eq!(reason(&ask(&mut inbound, &none)), Some(Reason::HostMalformed));
}

#[test]
fn h18_requests_without_a_path_fall_under_rules_without_one() {
    let mut connect = request("CONNECT", "/");
    connect.retain(|(name, _)| name != ":path");
    let by_path = rules(json!([open("all", json!({"path": "/{**}"}))]));
    let both = rules(json!([
        open("path", json!({"path": "/{**}"})),
        open("any", json!({"methods": ["OPTIONS", "CONNECT"]})),
    ]));
    check_rule(
        &both,
        &[
            (connect.clone(), Some("any")),
            (request("OPTIONS", "*"), Some("any")),
            (request("OPTIONS", "/a"), Some("path")),
            (request("CONNECT", "/a"), Some("path")),
        ],
    );
    check_rule(&by_path, &[(connect.clone(), None), (request("OPTIONS", "*"), None)]);
    // `*` is a form of OPTIONS alone.
    let effect = ask(&mut ready(&both), &request("GET", "*"));
    assert_eq!(reason(&effect), Some(Reason::PathAmbiguous));
    // A tunnel needs a token like any request.
    let closed = allowing(json!([{"scopes": ["Orders.Read"]}]));
    assert_eq!(reason(&ask(&mut ready(&closed), &connect)), Some(Reason::TokenMissing));
    let token = and(connect, "authorization", format!("Bearer {}", KEY.token(&user())));
    assert_eq!(reason(&ask(&mut ready(&closed), &token)), Some(Reason::Allowed));
}

#[test]
fn h17_only_a_whole_preflight_passes_the_rule_for_preflights() {
    let config = rules(json!([open("cors", json!({"cors_preflight": true}))]));
    let origin = |request| and(request, "origin", "https://app.example");
    let method = |request| and(request, "access-control-request-method", "POST");
    let options = || request("OPTIONS", "/orders/7");
    check_rule(
        &config,
        &[
            (method(origin(options())), Some("cors")),
            (origin(options()), None),
            (method(options()), None),
            (options(), None),
            (method(origin(request("GET", "/orders/7"))), None),
        ],
    );
}

#[test]
fn path_case_is_the_applications() {
    let rules = json!([open("admin", json!({"path": "/Admin/{*}"}))]);
    let sensitive = with(config(), json!({"rules": rules}));
    let insensitive = with(sensitive.clone(), json!({"path_case": "insensitive"}));
    let explicit = with(sensitive.clone(), json!({"path_case": "sensitive"}));
    check_rule(&insensitive, &[(request("GET", "/aDMIN/X"), Some("admin"))]);
    for config in [sensitive, explicit] {
        check_rule(
            &config,
            &[(request("GET", "/Admin/x"), Some("admin")), (request("GET", "/admin/x"), None)],
        );
    }
}

/// One rule with these alternatives, asked with these claims.
fn check_allow(allow: Value, cases: &[(Value, Reason)]) {
    let mut inbound = ready(&allowing(allow));
    for (claims, expected) in cases {
        check_claims(&mut inbound, claims, *expected);
    }
}

#[test]
fn c14_a_rule_without_scopes_is_for_applications_and_one_with_them_for_users() {
    let user_with = |roles: &str| with(user(), json!({"roles": [roles]}));
    check_allow(
        json!([{"roles": ["R"]}]),
        &[
            (user_with("R"), Reason::ApplicationRequired),
            (user(), Reason::ApplicationRequired),
            (with(application(), json!({"roles": ["R"]})), Reason::Allowed),
            (application(), Reason::RoleMissing),
        ],
    );
    check_allow(
        json!([{"clients": [CLIENT]}]),
        &[(user(), Reason::ApplicationRequired), (application(), Reason::Allowed)],
    );
    check_allow(
        json!([{"scopes": ["Orders.Read"], "roles": ["R"]}]),
        &[
            (user_with("R"), Reason::Allowed),
            (user_with("S"), Reason::RoleMissing),
            (user(), Reason::RoleMissing),
            (with(application(), json!({"roles": ["R"]})), Reason::UserRequired),
        ],
    );
    // An application without roles passes only where it is named.
    let bare = without(application(), "roles");
    check_allow(json!([{"roles": ["R"]}]), &[(bare.clone(), Reason::RoleMissing)]);
    check_allow(json!([{"clients": [CLIENT]}]), &[(bare, Reason::Allowed)]);
}

#[test]
fn every_field_must_hold_and_within_a_field_one_value() {
    let allow = json!([{
        "roles": ["A", "B"], "clients": [OTHER_CLIENT, CLIENT], "groups": [USER, GROUP],
        "client_credential": "certificate",
    }]);
    let good = with(application(), json!({"roles": ["X", "B"], "groups": [GROUP]}));
    check_allow(
        allow,
        &[
            (good.clone(), Reason::Allowed),
            (with(good.clone(), json!({"roles": ["X"]})), Reason::RoleMissing),
            (with(good.clone(), json!({"azp": API})), Reason::ClientRefused),
            (without(good.clone(), "azp"), Reason::ClientRefused),
            (with(good.clone(), json!({"azpacr": "1"})), Reason::ClientCredentialWeak),
            (with(good.clone(), json!({"azpacr": "0"})), Reason::ClientCredentialWeak),
            (without(good.clone(), "azpacr"), Reason::ClientCredentialWeak),
            (with(good.clone(), json!({"groups": [API]})), Reason::GroupMissing),
            (with(good.clone(), json!({"hasgroups": true})), Reason::GroupsOverage),
            (with(good, json!({"azp": CLIENT.replace('1', "A")})), Reason::ClientRefused),
        ],
    );
}

#[test]
fn a_credential_is_enough_when_it_is_at_least_as_strong() {
    let rule = |least: &str| json!([{"clients": [CLIENT], "client_credential": least}]);
    let client = |credential: &str| with(application(), json!({"azpacr": credential}));
    check_allow(
        rule("secret"),
        &[
            (client("0"), Reason::ClientCredentialWeak),
            (client("1"), Reason::Allowed),
            (client("2"), Reason::Allowed),
        ],
    );
    check_allow(
        rule("certificate"),
        &[(client("1"), Reason::ClientCredentialWeak), (client("2"), Reason::Allowed)],
    );
    let v1 = with(without(v1_user(), "scp"), json!({"oid": CLIENT, "sub": CLIENT}));
    check_allow(
        rule("certificate"),
        &[
            (with(v1.clone(), json!({"appidacr": "1"})), Reason::ClientCredentialWeak),
            (with(v1, json!({"appidacr": "2", "azpacr": "0"})), Reason::Allowed),
        ],
    );
}

#[test]
fn one_alternative_is_enough_and_the_nearest_one_names_the_reason() {
    let alternatives = json!([
        {"scopes": ["S"], "roles": ["Admin"]},
        {"roles": ["R"], "clients": [OTHER_CLIENT]},
        {"scopes": ["T"]},
    ]);
    let scoped = |scope: &str| with(user(), json!({"scp": scope}));
    let cases = [
        (scoped("T"), Reason::Allowed),
        (scoped("S T"), Reason::Allowed),
        // The first alternative gets to its roles, the second not beyond the kind.
        (scoped("S"), Reason::RoleMissing),
        (scoped("x"), Reason::ScopeMissing),
        (with(application(), json!({"roles": ["x"]})), Reason::RoleMissing),
        (with(application(), json!({"roles": ["R"]})), Reason::ClientRefused),
        (with(application(), json!({"roles": ["R"], "azp": OTHER_CLIENT})), Reason::Allowed),
    ];
    check_allow(alternatives.clone(), &cases);
    let mut backwards = alternatives;
    backwards.as_array_mut().unwrap().reverse();
    check_allow(backwards, &cases);
    let (users, applications) = (json!({"scopes": ["S"]}), json!({"roles": ["R"]}));
    let bare = without(application(), "roles");
    check_allow(json!([users, applications]), &[(bare.clone(), Reason::RoleMissing)]);
    let stronger = json!([
        {"clients": [OTHER_CLIENT]},
        {"clients": [CLIENT], "client_credential": "certificate"},
    ]);
    let weak = with(bare, json!({"azpacr": "1"}));
    check_allow(stronger, &[(weak, Reason::ClientCredentialWeak)]);
}
