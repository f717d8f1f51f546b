//! Documents that are taken, and documents that are refused with everything that is wrong.

use serde_json::{Value, json};

use super::*;

mod downstream;
mod on_behalf_of;
mod workload;

const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
const API: &str = "3f1b5b1e-0d2c-4a39-9a63-3f6c2c7a9d10";
const NAME: &str = "1 to 64 letters";
const REQUIRED: &str = "required: ";

/// The longest inbound document: every key once.
fn inbound() -> Value {
    json!({
        "direction": "inbound",
        "cloud": "public",
        "tenants": [TENANT],
        "audiences": ["api://orders", API],
        "mode": "enforce",
        "forward_token": false,
        "clock_skew_seconds": 60,
        "broker": {"cluster": "token_broker"},
        "identity_headers": {
            "x-entra-object-id": "oid", "x-entra-tenant-id": "tid", "x-entra-client-id": "azp",
        },
        "app_service_headers": true,
        "permit_marker": "x-entra-permit",
        "path_case": "sensitive",
        "rules": [
            {
                "name": "health",
                "match": {"path": "/healthz", "methods": ["GET"], "hosts": ["a.example"]},
                "allow": "anyone",
            },
            {
                "name": "read", "mode": "observe", "forward_token": true,
                "match": {"path": "/orders/{*}", "methods": ["GET"]},
                "allow": [{"scopes": ["Orders.Read"]}, {"roles": ["Orders.Read.All"]}],
            },
            {
                "name": "pay", "match": {"path": "/orders/{*}/pay", "methods": ["POST"]},
                "allow": [
                    {
                        "scopes": ["Orders.Pay"], "groups": [API],
                        "authentication_context": "c2",
                    },
                    {
                        "roles": ["Orders.Pay.All"], "clients": [API],
                        "client_credential": "certificate",
                    },
                ],
            },
            {"name": "cors", "match": {"cors_preflight": true}, "allow": "anyone"},
        ],
    })
}

fn outbound() -> Value {
    json!({
        "direction": "outbound",
        "broker": {"cluster": "token_broker"},
        "rules": [{
            "name": "graph",
            "match": {"destination": "graph"},
            "token": {"identity": "default", "scope": "https://graph.microsoft.com/.default"},
            "existing_authorization": "refuse",
            "plaintext": false,
            "claims_challenges": true,
        }],
    })
}

/// The document with a value at a JSON pointer, or nothing there where that is none.
fn changed(mut document: Value, pointer: &str, value: Option<Value>) -> Value {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = document.pointer_mut(parent).unwrap();
    match (parent, value) {
        (Value::Object(members), Some(value)) => {
            members.insert(name.to_owned(), value);
        }
        (Value::Object(members), None) => {
            members.remove(name).unwrap();
        }
        (Value::Array(elements), Some(value)) => elements[name.parse::<usize>().unwrap()] = value,
        other => panic!("{other:?}"),
    }
    document
}

fn errors(document: &str) -> Vec<(String, String)> {
    match Config::read(document.as_bytes()) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.into_iter().map(|error| (error.path, error.message)).collect(),
    }
}

/// Expects exactly these errors, each by its path and a part of its message.
fn check(document: &Value, expected: &[(&str, &str)]) {
    let found = errors(&document.to_string());
    let paths: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
    let expected_paths: Vec<&str> = expected.iter().map(|(path, _)| *path).collect();
    assert_eq!(paths, expected_paths, "{document}\n{found:?}");
    for ((path, message), (_, part)) in found.iter().zip(expected) {
        assert!(message.contains(part), "{path}: {message} should contain {part}");
    }
}

/// One changed value each, and the errors that it causes.
fn check_changes(document: fn() -> Value, cases: &[(&str, Option<Value>, &[(&str, &str)])]) {
    for (pointer, value, expected) in cases {
        check(&changed(document(), pointer, value.clone()), expected);
    }
}

fn read_inbound(document: &Value) -> InboundConfig {
    match Config::read(document.to_string().as_bytes()) {
        Ok(Config::Inbound(config)) => *config,
        other => panic!("{other:?}"),
    }
}

fn read_outbound(document: &Value) -> OutboundConfig {
    match Config::read(document.to_string().as_bytes()) {
        Ok(Config::Outbound(config)) => config,
        other => panic!("{other:?}"),
    }
}

#[test]
fn whole_documents_are_taken() {
    let config = read_inbound(&inbound());
    assert_eq!(config.rules.len(), 4);
    assert_eq!(config.broker_cluster, "token_broker");
    assert_eq!((config.accepted.clock_skew, config.forward_token), (60, false));
    let modes: Vec<Mode> = config.rules.iter().map(|rule| rule.mode).collect();
    assert_eq!(modes, [Mode::Enforce, Mode::Observe, Mode::Enforce, Mode::Enforce]);
    let forwards: Vec<_> = config.rules.iter().map(|rule| rule.forward_token).collect();
    assert_eq!(forwards, [None, Some(true), None, None]);
    let config = read_outbound(&outbound());
    let rule = &config.rules[0];
    assert_eq!((config.broker_cluster.as_str(), &*rule.name), ("token_broker", "graph"));
    assert_eq!(rule.token.destination, "graph");
    assert_eq!(rule.token.identity, "default");
    assert_eq!(rule.token.scope, "https://graph.microsoft.com/.default");
    assert!(!rule.plaintext);
    assert!(rule.token.claims_challenges);
    assert_eq!((&rule.token.claims, &rule.token.refused), (&None, &None));
}

#[test]
fn what_is_left_out_has_its_default() {
    let config = read_inbound(&json!({
        "direction": "inbound", "tenants": [TENANT], "audiences": [API],
        "broker": {"cluster": "b"}, "rules": [{"name": "r", "allow": "anyone"}],
    }));
    assert_eq!(config.accepted.cloud, crate::cloud::Cloud::Public);
    assert_eq!((config.mode, config.forward_token), (Mode::Enforce, false));
    assert_eq!((config.accepted.clock_skew, &*config.permit_marker), (60, "x-entra-permit"));
    assert!(config.own_headers.contain(b"x-entra-object-id"));
    assert_eq!(config.accepted.challenge_tenant, TENANT);
    assert!(config.app_service_headers.is_none());
    let config = read_outbound(&json!({
        "direction": "outbound", "broker": {"cluster": "b"},
        "rules": [{
            "name": "g", "match": {"destination": "d"}, "token": {"identity": "i", "scope": "s"},
        }],
    }));
    assert_eq!(config.rules[0].existing_authorization, ExistingAuthorization::Refuse);
    assert!(!config.rules[0].plaintext);
    assert!(!config.rules[0].token.claims_challenges);
}

#[test]
fn words_mean_what_they_say() {
    use ExistingAuthorization::{Keep, Refuse, Replace};
    for (word, expected) in [("keep", Keep), ("replace", Replace), ("refuse", Refuse)] {
        let document = changed(outbound(), "/rules/0/existing_authorization", Some(json!(word)));
        assert_eq!(read_outbound(&document).rules[0].existing_authorization, expected);
    }
    let plaintext = changed(outbound(), "/rules/0/plaintext", Some(json!(true)));
    assert!(read_outbound(&plaintext).rules[0].plaintext);
    for (mode, expected) in [("enforce", Mode::Enforce), ("observe", Mode::Observe)] {
        let config = read_inbound(&changed(inbound(), "/mode", Some(json!(mode))));
        assert_eq!((config.mode, config.rules[0].mode), (expected, expected));
    }
    for skew in [0, 300] {
        let document = changed(inbound(), "/clock_skew_seconds", Some(json!(skew)));
        assert_eq!(read_inbound(&document).accepted.clock_skew, skew);
    }
    for cloud in crate::cloud::Cloud::ALL {
        let document = changed(inbound(), "/cloud", Some(json!(cloud.name())));
        assert_eq!(read_inbound(&document).accepted.cloud, cloud);
    }
}

#[test]
fn w07_a_document_that_is_none_is_one_error() {
    for text in ["", "[]", "1", "null", "{", "direction: inbound", "{'direction':'inbound'}"] {
        let found = errors(text);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert_eq!(found[0].0, "");
    }
    assert!(Config::read(b"{\"direction\":\"\xff\"}").is_err());
    for direction in [None, Some(json!("Inbound")), Some(json!("both")), Some(json!(1))] {
        let document = changed(inbound(), "/direction", direction);
        check(&document, &[("direction", "expected `inbound` or `outbound`")]);
    }
}

#[test]
fn w07_a_member_that_stands_twice_is_refused() {
    let good = inbound().to_string();
    assert_eq!(errors(&good), []);
    for (from, to) in [
        ("\"mode\":\"enforce\"", "\"mode\":\"enforce\",\"mode\":\"observe\""),
        ("\"mode\":\"enforce\"", "\"mode\":\"enforce\",\"Mode\":\"observe\""),
        ("\"scopes\":[\"Orders.Read\"]", "\"scopes\":[\"Orders.Read\"],\"scopes\":[\"x\"]"),
        ("\"cluster\":", "\"cluster\":\"x\",\"cluster\":"),
    ] {
        assert!(good.contains(from), "{from}");
        let found = errors(&good.replacen(from, to, 1));
        assert_eq!(found.len(), 1);
        assert!(found[0].1.contains("stands twice"), "{found:?}");
    }
}

#[test]
fn w07_unknown_keys_are_refused_at_every_level() {
    let later =
        json!(["revocation", "audit", "authentication_strength", "case", "issuer", "verify",]);
    let levels: [(fn() -> Value, &str, &str); 11] = [
        (inbound, "", ""),
        (inbound, "/broker", "broker."),
        (inbound, "/rules/1", "rules[1]."),
        (inbound, "/rules/1/match", "rules[1].match."),
        (inbound, "/rules/2/allow/1", "rules[2].allow[1]."),
        (outbound, "", ""),
        (outbound, "/broker", "broker."),
        (outbound, "/rules/0", "rules[0]."),
        (outbound, "/rules/0/match", "rules[0].match."),
        (outbound, "/rules/0/token", "rules[0].token."),
        // What the one direction has, the other has not.
        (outbound, "", ""),
    ];
    for (document, pointer, path) in levels {
        for name in later.as_array().unwrap().iter().filter_map(Value::as_str) {
            let document =
                changed(document(), &format!("{pointer}/{name}"), Some(json!("anything")));
            let message = format!("unknown field `{name}`");
            check(&document, &[(&format!("{path}{name}"), &message)]);
        }
    }
    for key in ["forward_token", "mode", "identity_headers"] {
        let document = changed(outbound(), &format!("/{key}"), Some(json!("x")));
        check(&document, &[(key, "unknown field")]);
    }
    let claims = changed(inbound(), "/rules/0/allow", Some(json!([{"claims": {"x": "y"}}])));
    assert!(errors(&claims.to_string())[0].1.contains("unknown field `claims`"));
}

#[test]
fn c12_names_of_people_are_no_subjects_of_rules() {
    for subject in ["email", "upn", "preferred_username", "unique_name", "users", "name"] {
        let pointer = format!("/rules/1/allow/0/{subject}");
        let document = changed(inbound(), &pointer, Some(json!(["a@b.example"])));
        check(&document, &[(&format!("rules[1].allow[0].{subject}"), "unknown field")]);
    }
}

#[test]
fn w07_what_is_required_is_asked_for() {
    check(
        &json!({"direction": "inbound"}),
        &[
            ("tenants", REQUIRED),
            ("audiences", REQUIRED),
            ("broker", REQUIRED),
            ("rules", REQUIRED),
        ],
    );
    check(&json!({"direction": "outbound"}), &[("broker", REQUIRED), ("rules", REQUIRED)]);
    let empty = json!([{}]);
    check_changes(
        inbound,
        &[
            ("/tenants", None, &[("tenants", REQUIRED)]),
            ("/audiences", None, &[("audiences", REQUIRED)]),
            ("/broker", Some(json!({})), &[("broker.cluster", REQUIRED)]),
            ("/broker/cluster", Some(json!("")), &[("broker.cluster", "must not be empty")]),
            ("/rules", Some(json!([])), &[("rules", "without a rule everything is denied")]),
            (
                "/rules",
                Some(empty.clone()),
                &[("rules[0].name", REQUIRED), ("rules[0].allow", REQUIRED)],
            ),
            ("/rules", Some(json!([null])), &[("rules[0]", REQUIRED)]),
        ],
    );
    check_changes(
        outbound,
        &[
            ("/rules", Some(json!([])), &[("rules", "without a rule nothing is injected")]),
            (
                "/rules",
                Some(empty),
                &[
                    ("rules[0].name", REQUIRED),
                    ("rules[0].match", REQUIRED),
                    ("rules[0].token", REQUIRED),
                ],
            ),
            ("/rules", Some(json!([null])), &[("rules[0]", REQUIRED)]),
            ("/rules/0/match", Some(json!({})), &[("rules[0].match.destination", REQUIRED)]),
            (
                "/rules/0/token",
                Some(json!({})),
                &[("rules[0].token.identity", REQUIRED), ("rules[0].token.scope", REQUIRED)],
            ),
            ("/broker/cluster", Some(json!("")), &[("broker.cluster", "must not be empty")]),
        ],
    );
}

#[test]
fn w07_an_empty_list_never_means_everything() {
    check_changes(
        inbound,
        &[
            ("/tenants", Some(json!([])), &[("tenants", "must not be empty")]),
            ("/audiences", Some(json!([])), &[("audiences", "must not be empty")]),
            (
                "/rules/0/match/methods",
                Some(json!([])),
                &[("rules[0].match.methods", "must not be empty")],
            ),
            (
                "/rules/0/match/hosts",
                Some(json!([])),
                &[("rules[0].match.hosts", "must not be empty")],
            ),
            ("/rules/1/allow", Some(json!([])), &[("rules[1].allow", "nobody could pass")]),
            (
                "/rules/1/allow/0",
                Some(json!({})),
                &[("rules[1].allow[0]", "any valid token is no rule")],
            ),
            (
                "/rules/1/allow/0",
                Some(json!({"groups": [API], "client_credential": "secret"})),
                &[("rules[1].allow[0]", "must name scopes, roles or clients")],
            ),
            ("/rules/1/allow/0", Some(json!(null)), &[("rules[1].allow[0]", REQUIRED)]),
        ],
    );
    for list in ["scopes", "roles", "clients", "groups"] {
        let alternative = json!({"scopes": ["S"], list: []});
        let document = changed(inbound(), "/rules/1/allow/0", Some(alternative));
        check(&document, &[(&format!("rules[1].allow[0].{list}"), "must not be empty")]);
    }
}

#[test]
fn w07_values_that_could_never_match_are_refused() {
    let upper = TENANT.to_uppercase();
    let guid = "lower-case GUIDs";
    check_changes(
        inbound,
        &[
            ("/cloud", Some(json!("Public")), &[("cloud", "`Public` is not one of")]),
            ("/cloud", Some(json!("moon")), &[("cloud", "`moon` is not one of")]),
            ("/mode", Some(json!("off")), &[("mode", "`off` is not one of")]),
            ("/path_case", Some(json!("lower")), &[("path_case", "`lower` is not one of")]),
            ("/clock_skew_seconds", Some(json!(301)), &[("clock_skew_seconds", "0 to 300")]),
            ("/clock_skew_seconds", Some(json!(-1)), &[("clock_skew_seconds", "invalid value")]),
            ("/clock_skew_seconds", Some(json!("60")), &[("clock_skew_seconds", "invalid type")]),
            ("/clock_skew_seconds", Some(json!(1.5)), &[("clock_skew_seconds", "invalid type")]),
            ("/forward_token", Some(json!("true")), &[("forward_token", "invalid type")]),
            ("/tenants", Some(json!(TENANT)), &[("tenants", "invalid type")]),
            ("/tenants", Some(json!([upper])), &[("tenants[0]", guid)]),
            ("/tenants", Some(json!([TENANT, "common"])), &[("tenants[1]", guid)]),
            ("/tenants", Some(json!(["organizations", TENANT])), &[("tenants[0]", guid)]),
            ("/tenants", Some(json!(["contoso.com"])), &[("tenants[0]", guid)]),
            ("/tenants", Some(json!([null])), &[("tenants[0]", guid)]),
            ("/tenants", Some(json!([1])), &[("tenants[0]", "invalid type")]),
            ("/audiences", Some(json!([""])), &[("audiences[0]", "an exact audience")]),
            ("/audiences", Some(json!(["a b"])), &[("audiences[0]", "an exact audience")]),
            ("/audiences", Some(json!(["a", "*"])), &[("audiences[1]", "an exact audience")]),
            ("/audiences", Some(json!(["api://{x"])), &[("audiences[0]", "an exact audience")]),
            ("/audiences", Some(json!(["api://x}"])), &[("audiences[0]", "an exact audience")]),
            ("/audiences", Some(json!(["\u{e9}"])), &[("audiences[0]", "an exact audience")]),
            ("/permit_marker", Some(json!("host")), &[("permit_marker", "meaning of its own")]),
            (
                "/identity_headers",
                Some(json!({"authorization": "oid"})),
                &[("identity_headers.authorization", "meaning of its own")],
            ),
            (
                "/identity_headers",
                Some(json!({"x-a": "", "x-b": null, "x-c": 1})),
                &[
                    ("identity_headers.x-b", "is null"),
                    ("identity_headers.x-c", "invalid type"),
                    ("identity_headers.x-a", "name of a claim"),
                ],
            ),
            ("/rules/0/match/path", Some(json!("x")), &[("rules[0].match.path", "`x` must begin")]),
            ("/rules/0/match/path", Some(json!(null)), &[("rules[0].match.path", "is null")]),
            ("/rules/0/match", Some(json!(null)), &[("rules[0].match", "is null")]),
            ("/rules/0/match/path", Some(json!("/a//b")), &[("rules[0].match.path", "plain")]),
            ("/rules/0/match/path", Some(json!("/a*")), &[("rules[0].match.path", "whole")]),
            (
                "/rules/0/match/methods",
                Some(json!(["get"])),
                &[("rules[0].match.methods[0]", "upper")],
            ),
            (
                "/rules/0/match/methods",
                Some(json!([""])),
                &[("rules[0].match.methods[0]", "upper")],
            ),
            (
                "/rules/0/match/methods",
                Some(json!(["G T"])),
                &[("rules[0].match.methods[0]", "upper")],
            ),
            ("/rules/0/match/hosts", Some(json!(["a:80"])), &[("rules[0].match.hosts[0]", "port")]),
            ("/rules/0/match/hosts", Some(json!(["A"])), &[("rules[0].match.hosts[0]", "lower")]),
            (
                "/rules/0/match/cors_preflight",
                Some(json!(true)),
                &[("rules[0].match.methods", "always OPTIONS")],
            ),
            ("/rules/0/allow", Some(json!("everyone")), &[("rules[0].allow", "not `everyone`")]),
            ("/rules/0/allow", Some(json!(true)), &[("rules[0].allow", "`anyone` or a list")]),
            ("/rules/0/allow", Some(json!({})), &[("rules[0].allow", "`anyone` or a list")]),
            ("/rules/0/mode", Some(json!("x")), &[("rules[0].mode", "`x` is not one of")]),
            ("/rules/0/name", Some(json!("")), &[("rules[0].name", NAME)]),
            ("/rules/0/name", Some(json!("a b")), &[("rules[0].name", NAME)]),
            ("/rules/0/name", Some(json!("x".repeat(65))), &[("rules[0].name", NAME)]),
            ("/rules/1/name", Some(json!("health")), &[("rules[1].name", "earlier rule")]),
        ],
    );
    let alternatives = [
        ("scopes", json!(["a b"]), "[0]", "without spaces"),
        ("scopes", json!([""]), "[0]", "without spaces"),
        ("roles", json!(["ok", "\t"]), "[1]", "without spaces"),
        ("clients", json!([API.to_uppercase()]), "[0]", "GUID"),
        ("clients", json!(["app"]), "[0]", "GUID"),
        ("groups", json!(["admins"]), "[0]", "GUID"),
        ("client_credential", json!("password"), "", "`secret` or `certificate`"),
    ];
    for (name, value, index, message) in alternatives {
        let alternative = match name {
            "scopes" => json!({name: value}),
            _ => json!({"scopes": ["S"], name: value}),
        };
        let document = changed(inbound(), "/rules/1/allow/0", Some(alternative));
        check(&document, &[(&format!("rules[1].allow[0].{name}{index}"), message)]);
    }
}

#[test]
fn a_path_whose_case_servers_disagree_on_is_refused_where_case_does_not_count() {
    let insensitive = || changed(inbound(), "/path_case", Some(json!("insensitive")));
    check(&insensitive(), &[]);
    for path in ["/\u{c4}b", "/a/{*}/\u{130}"] {
        let pointer = "/rules/1/match/path";
        let document = changed(insensitive(), pointer, Some(json!(path)));
        check(&document, &[("rules[1].match.path", "must be ASCII")]);
        check(&changed(inbound(), pointer, Some(json!(path))), &[]);
    }
}

#[test]
fn values_at_the_edge_are_taken() {
    for (pointer, value) in [
        ("/rules/0/name", json!("x".repeat(64))),
        ("/rules/0/name", json!("A-z_0.9")),
        ("/rules/0/match/methods", json!(["VERSION-CONTROL"])),
        ("/rules/0/match/hosts", json!(["*.example.com", "10.0.0.1"])),
        ("/rules/3/match/methods", json!(["OPTIONS"])),
        ("/rules/3/match/cors_preflight", json!(false)),
        ("/tenants", json!(["organizations"])),
        ("/identity_headers", json!({})),
        ("/rules/1/allow/0", json!({"clients": [API], "client_credential": "secret"})),
        ("/audiences", json!(["https://api.example/", "api://x/y", API])),
    ] {
        check(&changed(inbound(), pointer, Some(value)), &[]);
    }
}

#[test]
fn w07_outbound_values_that_could_never_work_are_refused() {
    check_changes(
        outbound,
        &[
            ("/rules/0/name", Some(json!("a b")), &[("rules[0].name", NAME)]),
            (
                "/rules/0/match/destination",
                Some(json!("graph.microsoft.com:443")),
                &[("rules[0].match.destination", NAME)],
            ),
            ("/rules/0/token/identity", Some(json!("")), &[("rules[0].token.identity", NAME)]),
            ("/rules/0/token/scope", Some(json!("")), &[("rules[0].token.scope", "one scope")]),
            ("/rules/0/token/scope", Some(json!("a b")), &[("rules[0].token.scope", "one scope")]),
            (
                "/rules/0/token/scope",
                Some(json!(["a"])),
                &[("rules[0].token.scope", "invalid type")],
            ),
            (
                "/rules/0/existing_authorization",
                Some(json!("append")),
                &[("rules[0].existing_authorization", "`keep`, `replace` or `refuse`")],
            ),
            ("/rules/0/plaintext", Some(json!(1)), &[("rules[0].plaintext", "invalid type")]),
            (
                "/rules/0/claims_challenges",
                Some(json!("yes")),
                &[("rules[0].claims_challenges", "invalid type")],
            ),
        ],
    );
    let rule = &outbound()["rules"][0];
    let (mut same_name, mut same_destination) = (rule.clone(), rule.clone());
    same_name["match"]["destination"] = json!("vault");
    same_destination["name"] = json!("vault");
    for (second, path, message) in [
        (same_name, "rules[1].name", "name of an earlier rule"),
        (same_destination, "rules[1].match.destination", "destination of an earlier rule"),
    ] {
        let document = changed(outbound(), "/rules", Some(json!([rule, second])));
        check(&document, &[(path, message)]);
    }
}

#[test]
fn everything_that_is_wrong_is_reported_at_once() {
    let document = json!({
        "direction": "inbound",
        "cloud": "mars",
        "tenants": ["x", TENANT, 7],
        "audiences": [],
        "mode": 3,
        "brocker": {},
        "rules": [
            {"name": "a", "allow": "anyone", "match": {"path": "/a%20b", "methods": ["get"]}},
            {"name": "a", "allow": [{"scopes": ["x y"], "role": ["R"]}, {}]},
            7,
            {"allow": "all"},
        ],
    });
    check(
        &document,
        &[
            ("brocker", "unknown field"),
            ("mode", "invalid type"),
            ("rules[1].allow[0].role", "unknown field"),
            ("rules[2]", "invalid type"),
            ("tenants[2]", "invalid type"),
            ("cloud", "not one of"),
            ("tenants[0]", "GUIDs"),
            ("audiences", "must not be empty"),
            ("broker", REQUIRED),
            ("rules[0].match.path", "plain"),
            ("rules[0].match.methods[0]", "upper case"),
            ("rules[1].name", "earlier rule"),
            ("rules[1].allow[0].scopes[0]", "without spaces"),
            ("rules[1].allow[1]", "any valid token is no rule"),
            ("rules[3].name", REQUIRED),
            ("rules[3].allow", "not `all`"),
        ],
    );
}

#[test]
fn large_configurations_are_taken() {
    let rules: Vec<Value> = (0..1_000)
        .map(|index| {
            json!({
                "name": format!("r{index}"), "match": {"path": format!("/a{index}/{{*}}")},
                "allow": [{"scopes": [format!("S{index}")]}],
            })
        })
        .collect();
    let config = read_inbound(&changed(inbound(), "/rules", Some(json!(rules))));
    assert_eq!(config.rules.len(), 1_000);
    let path = crate::path::Path::read(b"/a999/x");
    assert_eq!(config.routes.find(path.as_ref(), |_| true), Some(999));
    let tenants: Vec<String> =
        (0..10_000).map(|index| format!("{index:0>8}{}", &TENANT[8..])).collect();
    let config = read_inbound(&changed(inbound(), "/tenants", Some(json!(tenants))));
    match &config.accepted.tenants {
        crate::claims::Tenants::Listed(listed) => assert_eq!(listed.len(), 10_000),
        other => panic!("{other:?}"),
    }
    assert_eq!(config.accepted.challenge_tenant, "organizations");
}

#[test]
fn an_error_shows_its_path_before_its_message() {
    assert_eq!(ConfigError::new("a.b", "wrong").to_string(), "a.b: wrong");
    assert_eq!(ConfigError::new("", "wrong").to_string(), "wrong");
}

#[test]
fn more_errors_than_anybody_reads_end_the_list() {
    let rules: Vec<Value> = (0..150).map(|_| json!(7)).collect();
    let found = errors(&changed(inbound(), "/rules", Some(json!(rules))).to_string());
    assert_eq!(found.len(), 100);
    assert_eq!(found[99].0, "rules[99]");
}

#[test]
fn an_authentication_context_is_turned_into_its_challenge_once() {
    let config = read_inbound(&inbound());
    let Allow::AnyOf(alternatives) = &config.rules[2].allow else { panic!("{config:?}") };
    let step_up = alternatives[0].step_up.as_ref().unwrap();
    assert_eq!(step_up.context, "c2");
    assert!(step_up.challenge.contains(&format!("realm=\"{TENANT}\"")));
    assert!(step_up.challenge.contains(&format!("client_id=\"{API}\"")));
    assert_eq!(alternatives[1].step_up, None);
    // One client id, however often it stands there.
    let twice = changed(inbound(), "/audiences", Some(json!([API, API, "api://orders"])));
    read_inbound(&twice);
    let china = read_inbound(&changed(inbound(), "/cloud", Some(json!("china"))));
    let Allow::AnyOf(alternatives) = &china.rules[2].allow else { panic!("{china:?}") };
    let challenge = &alternatives[0].step_up.as_ref().unwrap().challenge;
    assert!(challenge.contains("https://login.partner.microsoftonline.cn/"), "{challenge}");
}

#[test]
fn w07_an_authentication_context_that_nobody_could_get_is_refused() {
    const CONTEXT: &str = "rules[2].allow[0].authentication_context";
    for context in ["", "c0", "c100", "C2", "mfa", "c2 ", "urn:user:registersecurityinfo"] {
        let document =
            changed(inbound(), "/rules/2/allow/0/authentication_context", Some(json!(context)));
        check(&document, &[(CONTEXT, "`c1` to `c99`")]);
    }
    let alone = json!({"roles": ["R"], "authentication_context": "c2"});
    let document = changed(inbound(), "/rules/2/allow/0", Some(alone));
    check(&document, &[(CONTEXT, "needs `scopes`")]);
    for audiences in [json!(["api://orders"]), json!([API, TENANT])] {
        let document = changed(inbound(), "/audiences", Some(audiences));
        check(&document, &[(CONTEXT, "exactly one client id")]);
    }
}

#[test]
fn w07_an_app_service_header_has_one_writer() {
    check_changes(
        inbound,
        &[
            (
                "/identity_headers",
                Some(json!({"x-ms-client-principal-id": "sub", "x_ms_client_principal": "oid"})),
                &[
                    ("identity_headers.x-ms-client-principal-id", "`app_service_headers`"),
                    ("identity_headers.x_ms_client_principal", "`app_service_headers`"),
                ],
            ),
            (
                "/permit_marker",
                Some(json!("x-ms-client-principal-idp")),
                &[("permit_marker", "`app_service_headers`")],
            ),
            (
                "/app_service_headers",
                Some(json!("yes")),
                &[("app_service_headers", "invalid type")],
            ),
        ],
    );
    // Who writes one of them from a claim of their own choice does without the others.
    let own = json!({"x-ms-client-principal-id": "sub"});
    let document = changed(inbound(), "/identity_headers", Some(own));
    read_inbound(&changed(document, "/app_service_headers", Some(json!(false))));
}
