//! Tokens with claims that were asked for, and what a resource makes of tokens that have ended
//! before their time.

use base64::{Engine, engine::general_purpose::STANDARD};
use e2e::fake_entra::{
    Endpoint, FakeEntra, Lifetime, Standing,
    access_evaluation::challenge_header,
    sample::{Cluster, GRAPH, TENANT, TILL, WORKLOAD, WORKLOAD_SUBJECT},
};
use serde_json::{Value, json};

use crate::ask::{AUDIENCE, assert_refused, claims, post, with_assertion, with_secret};

const CAPABLE: &str = r#"{"access_token":{"xms_cc":{"values":["cp1"]}}}"#;

/// Asks for a token for Graph, as the sample's workload, with this `claims` parameter.
fn for_graph(entra: &FakeEntra, cluster: &Cluster, claims: &str) -> Value {
    let assertion = cluster.token(WORKLOAD_SUBJECT, AUDIENCE, entra.now(), 3600);
    let reply = post(entra, TENANT, &with_assertion(&assertion, &[("claims", claims)]));
    assert_eq!(reply.status, 200, "{}", reply.json());
    reply.json()
}

fn token(answer: &Value) -> &str {
    answer["access_token"].as_str().expect("a token")
}

#[test]
fn a_token_says_what_its_client_can_do_only_where_the_client_said_so() {
    let (entra, cluster) = FakeEntra::sample();
    for (asked, expected) in [
        ("", Value::Null),
        ("{}", Value::Null),
        (r#"{"access_token":{"acrs":null}}"#, Value::Null),
        (CAPABLE, json!(["cp1"])),
        (r#"{"access_token":{"xms_cc":{"values":["CP1"]}}}"#, json!(["CP1"])),
        (r#"{"access_token":{"xms_cc":{"values":["cp9"]}}}"#, Value::Null),
        (r#"{"access_token":{"xms_cc":{"values":["cp9","cp1"]}}}"#, json!(["cp1"])),
        (r#"{"id_token":{"xms_cc":{"values":["cp1"]}}}"#, Value::Null),
    ] {
        let answer = for_graph(&entra, &cluster, asked);
        assert_eq!(claims(token(&answer))["xms_cc"], expected, "{asked}");
    }
    let contexts = for_graph(&entra, &cluster, r#"{"access_token":{"acrs":{"value":"c2"}}}"#);
    assert_eq!(claims(token(&contexts))["acrs"], json!(["c2"]));
    // What was asked is on record, for tests to assert on.
    let calls = entra.calls_of(Endpoint::Token);
    assert_eq!(calls[3].form_member("claims"), Some(CAPABLE));
}

#[test]
fn capable_clients_get_long_lived_tokens_for_resources_that_can_refuse_them() {
    let (entra, cluster) = FakeEntra::sample();
    let long = for_graph(&entra, &cluster, CAPABLE);
    assert_eq!((&long["expires_in"], &long["refresh_in"]), (&json!(100_799), &json!(50_399)));
    assert_eq!(for_graph(&entra, &cluster, "")["expires_in"], json!(3_599));
    let orders = post(&entra, TENANT, &with_secret(&[("claims", CAPABLE)])).json();
    assert_eq!(orders["expires_in"], json!(3_599));
    assert_eq!(claims(token(&orders))["xms_cc"], json!(["cp1"]));
    entra.set_lifetime(Lifetime { expires_in: 90, refresh_in: None });
    assert_eq!(for_graph(&entra, &cluster, CAPABLE)["expires_in"], json!(90));
}

#[test]
fn claims_that_are_not_of_the_standards_form_are_refused() {
    let (entra, _) = FakeEntra::sample();
    let far = format!(r#"{{"access_token":{{"nbf":{{"value":"{}"}}}}}}"#, entra.now() + 400);
    let long = format!(r#"{{"access_token":{{"x":{{"value":"{}"}}}}}}"#, "x".repeat(9_000));
    for asked in [
        "x",
        "null",
        "[]",
        "{",
        "{}{}",
        r#"{"xms_cc":{"values":["cp1"]}}"#,
        r#"{"access_token":[]}"#,
        r#"{"access_token":{"xms_cc":["cp1"]}}"#,
        r#"{"access_token":{"xms_cc":[]}}"#,
        r#"{"access_token":{"xms_cc":{"values":[1]}}}"#,
        r#"{"access_token":{"xms_cc":{"values":"cp1"}}}"#,
        r#"{"access_token":{"nbf":{"value":1604106651}}}"#,
        r#"{"access_token":{"nbf":{"value":"soon"}}}"#,
        r#"{"access_token":{"nbf":{"essential":"true","value":"1604106651"}}}"#,
        r#"{"access_token":{"nbf":{"essential":true}}}"#,
        r#"{"access_token":{"nbf":{"values":["1","2"]}}}"#,
        r#"{"access_token":{"nbf":{"value":"1","other":1}}}"#,
        r#"{"access_token":{},"access_token":{}}"#,
        // Base64, as it stands in the challenge's header.
        "eyJhY2Nlc3NfdG9rZW4iOnt9fQ==",
        &far,
        &long,
    ] {
        let reply = post(&entra, TENANT, &with_secret(&[("claims", asked)]));
        assert_refused(&entra, asked, &reply, 400, 50117, "invalid_request");
    }
}

#[test]
fn a_revoked_token_is_good_again_only_when_the_challenges_claims_were_asked_for() {
    let (entra, cluster) = FakeEntra::sample();
    let capable = for_graph(&entra, &cluster, CAPABLE);
    let plain = for_graph(&entra, &cluster, "");
    assert_eq!(entra.standing(token(&capable)), Standing::Good);
    for _twice in 0..2 {
        let earlier = entra.revoke_tokens(TENANT, WORKLOAD);
        let valid_from = entra.revoke_tokens(TENANT, WORKLOAD);
        assert!(earlier < valid_from, "each one ends what came before, within a second too");
        let Standing::Challenged(challenge) = entra.standing(token(&capable)) else {
            panic!("the token is not challenged")
        };
        let nbf = json!({"essential": true, "value": valid_from.to_string()});
        let asked: Value = serde_json::from_str(&challenge).expect("JSON");
        assert_eq!(asked, json!({"access_token": {"nbf": nbf}}));
        // Who says nothing of challenges gets none.
        assert_eq!(entra.standing(token(&plain)), Standing::Revoked);
        // A token from a client that asks again without the claims is no better.
        let again = for_graph(&entra, &cluster, CAPABLE);
        assert!(matches!(entra.standing(token(&again)), Standing::Challenged(_)));
        let mut merged = asked.clone();
        merged["access_token"]["xms_cc"] = json!({"values": ["cp1"]});
        let answered = for_graph(&entra, &cluster, &merged.to_string());
        assert_eq!(entra.standing(token(&answered)), Standing::Good);
        assert!(claims(token(&answered))["iat"].as_u64() >= Some(valid_from));
        assert_eq!(claims(token(&answered))["xms_cc"], json!(["cp1"]));
    }
    // Another application's tokens are as good as before.
    let other = entra.token(TENANT, TILL, GRAPH).claim("xms_cc", json!(["cp1"])).sign();
    assert_eq!(entra.standing(&other), Standing::Good);
    assert_eq!(entra.standing("no token"), Standing::Revoked);
}

#[test]
fn the_challenge_has_the_form_that_graph_gives_it() {
    let claims = r#"{"access_token":{"nbf":{"essential":true,"value":"1604106651"}}}"#;
    let header = challenge_header(GRAPH, claims);
    assert!(
        header.starts_with(r#"Bearer realm="", authorization_uri="https://login."#),
        "{header}"
    );
    assert!(header.contains(r#", error="insufficient_claims", "#), "{header}");
    let (_, encoded) = header.split_once(r#", claims=""#).expect("claims");
    let decoded = STANDARD.decode(encoded.trim_end_matches('"')).expect("base64");
    assert_eq!(decoded, claims.as_bytes());
}

#[test]
fn conditional_access_blocks_after_the_credential_and_says_which_policy() {
    let (entra, _) = FakeEntra::sample();
    entra.directory(|directory| {
        directory.application_mut(TENANT, TILL).expect("the till").blocked = true;
    });
    let wrong = post(&entra, TENANT, &with_secret(&[("client_secret", "wrong")]));
    assert_eq!(wrong.json()["error_codes"], json!([7_000_215]));
    let body = post(&entra, TENANT, &with_secret(&[])).json();
    assert_eq!((&body["error"], &body["error_codes"]), (&json!("invalid_grant"), &json!([53003])));
    let asked: Value =
        serde_json::from_str(body["claims"].as_str().expect("a text")).expect("JSON");
    assert!(asked["access_token"]["capolids"]["values"][0].is_string());
    entra.directory(|directory| {
        directory.application_mut(TENANT, TILL).expect("the till").blocked = false;
    });
    assert_eq!(post(&entra, TENANT, &with_secret(&[])).status, 200);
}
