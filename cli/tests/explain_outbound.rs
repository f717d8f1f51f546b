//! Calls that go out, explained.

use crate::program::{Done, Folder};

const POLICY: &str = "direction: outbound
broker: {cluster: token_broker}
rules:
- {name: graph, match: {destination: graph}, token: {identity: orders, scope: g/.default}}
- name: billing
  match: {destination: billing}
  token: {identity: orders, scope: b/.default}
  existing_authorization: keep
- name: audit
  match: {destination: audit}
  token: {identity: audit, scope: a/.default}
  existing_authorization: replace
";

fn explain(arguments: &[&str]) -> Done {
    let usual = ["explain", "--config", "policy.yaml", "--destination"];
    Folder::with(&[("policy.yaml", POLICY)]).run(&[&usual[..], arguments].concat())
}

const OWN: [&str; 2] = ["--header", "Authorization: Bearer hunter2"];

#[test]
fn the_injected_token_is_named_and_not_shown() {
    let done = explain(&["graph"]);
    assert_eq!(done.code, 0);
    done.says("passes: injected, by rule graph\nwhat goes out:\n");
    done.says("  authorization: Bearer <a token of identity orders for g/.default>\n");
    done.is_silent_about("placeholder");
}

#[test]
fn the_applications_own_token_is_refused_kept_or_replaced() {
    for (destination, code, expected) in [
        ("graph", 1, "refused: authorization_refused, by rule graph\nthe answer:\n  HTTP 403\n"),
        (
            "billing",
            0,
            "passes: authorization_kept, by rule billing\nwhat goes out:\n  the call as",
        ),
        ("audit", 0, "authorization: Bearer <a token of identity audit for a/.default>\n"),
    ] {
        let done = explain(&[&[destination], &OWN[..]].concat());
        assert_eq!(done.code, code, "{done:?}");
        done.says(expected);
        done.is_silent_about("hunter2");
    }
}

#[test]
fn a_rule_that_answers_challenges_says_so() {
    const ANSWERED: &str =
        "  a claims challenge to it is answered, where route and broker are set up for it\n";
    explain(&["graph"]).is_silent_about(ANSWERED);
    let folder = Folder::with(&[(
        "policy.yaml",
        &POLICY.replace("scope: g/.default}", "scope: g/.default}, claims_challenges: true"),
    )]);
    folder.run(&["explain", "--config", "policy.yaml", "--destination", "graph"]).says(ANSWERED);
}

#[test]
fn a_destination_without_a_rule_gets_nothing() {
    let done = explain(&["elsewhere"]);
    assert_eq!(done.code, 0);
    done.says("  destination    no_destination\n");
    done.says("passes: no_destination\nwhat goes out:\n  the call as the application made it\n");
}
