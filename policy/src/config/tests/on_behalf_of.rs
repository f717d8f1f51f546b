//! Rules on behalf of a caller: what they need, what they refuse, and what is refused without one.

use super::*;

const MEMBERS: [&str; 4] = ["cloud", "tenants", "audiences", "clock_skew_seconds"];

fn on_behalf() -> Value {
    json!({
        "direction": "outbound",
        "tenants": [TENANT],
        "audiences": [API],
        "broker": {"cluster": "token_broker"},
        "rules": [
            {
                "name": "graph",
                "match": {"destination": "graph"},
                "token": {
                    "identity": "default", "scope": "https://graph.microsoft.com/User.Read",
                    "on_behalf_of": "caller",
                },
            },
            {
                "name": "vault",
                "match": {"destination": "vault"},
                "token": {"identity": "default", "scope": "https://vault.azure.net/.default"},
                "existing_authorization": "keep",
                "claims_challenges": true,
            },
        ],
    })
}

#[test]
fn a_rule_on_behalf_of_its_caller_says_whose_tokens_are_exchanged() {
    let config = read_outbound(&on_behalf());
    let accepted = config.accepted.as_ref().unwrap();
    assert_eq!((accepted.cloud, accepted.clock_skew), (crate::cloud::Cloud::Public, 60));
    assert_eq!(accepted.audiences.0, [API]);
    assert_eq!(accepted.challenge_tenant, TENANT);
    let whose: Vec<bool> = config.rules.iter().map(|rule| rule.on_behalf_of_caller).collect();
    assert_eq!(whose, [true, false]);
    // The rule's request has no user's token: that comes with each call.
    assert!(config.rules.iter().all(|rule| rule.token.assertion.is_none()));
    let china = changed(on_behalf(), "/cloud", Some(json!("china")));
    let china = read_outbound(&changed(china, "/clock_skew_seconds", Some(json!(300))));
    let accepted = china.accepted.unwrap();
    assert_eq!((accepted.cloud, accepted.clock_skew), (crate::cloud::Cloud::China, 300));
}

#[test]
fn w07_whose_tokens_are_exchanged_is_required_and_read_as_inbound() {
    for member in ["tenants", "audiences"] {
        check(&changed(on_behalf(), &format!("/{member}"), None), &[(member, REQUIRED)]);
    }
    for (pointer, value, path, message) in [
        ("/tenants", json!([]), "tenants", "must not be empty"),
        ("/tenants", json!(["common"]), "tenants[0]", "GUIDs"),
        ("/audiences", json!([]), "audiences", "must not be empty"),
        ("/audiences", json!(["api://*"]), "audiences[0]", "an exact audience"),
        ("/cloud", json!("mars"), "cloud", "not one of"),
        ("/clock_skew_seconds", json!(301), "clock_skew_seconds", "0 to 300"),
        ("/rules/0/token/on_behalf_of", json!("me"), "rules[0].token.on_behalf_of", "`caller`"),
        ("/rules/0/token/on_behalf_of", json!(true), "rules[0].token.on_behalf_of", "type"),
    ] {
        let document = changed(on_behalf(), pointer, Some(value));
        // A value of another type is taken out, and with it what makes the rest belong here.
        let found = errors(&document.to_string());
        let found = found.iter().find(|(found, _)| found == path);
        assert!(found.is_some_and(|(_, found)| found.contains(message)), "{pointer}: {found:?}");
    }
}

#[test]
fn w07_where_no_rule_verifies_anything_these_members_are_refused() {
    let alone = changed(on_behalf(), "/rules", Some(json!([on_behalf()["rules"][1]])));
    let alone = changed(changed(alone, "/tenants", None), "/audiences", None);
    check(&alone, &[]);
    assert!(read_outbound(&alone).accepted.is_none());
    let values = [json!("public"), json!([TENANT]), json!([API]), json!(60)];
    for (member, value) in MEMBERS.into_iter().zip(values) {
        let document = changed(alone.clone(), &format!("/{member}"), Some(value));
        check(&document, &[(member, "only for rules with `on_behalf_of`")]);
    }
}

#[test]
fn w07_what_the_callers_token_decides_is_not_to_be_chosen() {
    for (member, values) in [
        ("existing_authorization", [json!("keep"), json!("replace"), json!("refuse")]),
        ("claims_challenges", [json!(true), json!(false), json!(true)]),
    ] {
        for value in values {
            let document = changed(on_behalf(), &format!("/rules/0/{member}"), Some(value));
            check(&document, &[(&format!("rules[0].{member}"), "not beside `on_behalf_of`")]);
        }
    }
}

#[test]
fn a_configuration_says_whether_it_verifies_anything() {
    let read = |document: &Value| Config::read(document.to_string().as_bytes()).unwrap();
    assert!(read(&inbound()).verifies());
    assert!(read(&on_behalf()).verifies());
    assert!(!read(&outbound()).verifies());
}
