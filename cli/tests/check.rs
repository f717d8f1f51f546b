//! Errors, each with file, line and path.

use crate::program::{Folder, policy, repository};

const GOOD: &str = "[{name: all, allow: [{scopes: [Orders.Read]}]}]";

/// What `check` says of one file, without the line that sums it up.
#[track_caller]
fn check(name: &str, text: &str, code: i32, expected: &[&str]) {
    let done = Folder::with(&[(name, text)]).run(&["check", name]);
    let found: Vec<&str> = done.out.lines().collect();
    let (_, found) = found.split_last().unwrap();
    assert_eq!(found, expected, "{}", done.err);
    assert_eq!(done.code, code);
}

#[test]
fn the_shipped_configuration_is_in_order() {
    let done = Folder::with(&[]).run(&["check", repository().join("envoy.yaml").to_str().unwrap()]);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(done.lines_with("envoy.yaml:").len(), 2);
    done.says("filter entra-inbound: inbound, 5 rules");
    done.says("filter entra-outbound: outbound, 1 rule");
    done.says("2 configurations in order, 0 errors, 0 warnings");
}

#[test]
fn every_error_has_its_line_and_path() {
    let text = policy("\n- name: a b\n  match:\n    path: orders\n  allow: someone\n- nam: x");
    check(
        "policy.yaml",
        &text.replace("direction: inbound", "direction: inbound\nmode: loose"),
        1,
        &[
            "policy.yaml:2: error: mode: `loose` is not one of the values that stand in the reference",
            "policy.yaml:7: error: rules[0].name: expected 1 to 64 letters, digits, `-`, `_` or `.`",
            "policy.yaml:9: error: rules[0].match.path: `orders` must begin with /",
            "policy.yaml:10: error: rules[0].allow: expected `anyone` or a list of alternatives, not `someone`",
            "policy.yaml:11: error: rules[1].nam: unknown field `nam`, expected one of `name`, `match`, `allow`, `mode`, `forward_token`",
            "policy.yaml:11: error: rules[1].name: required: a name",
            "policy.yaml:11: error: rules[1].allow: required: `anyone` or a list of alternatives",
        ],
    );
}

#[test]
fn json_is_read_too_with_tabs_and_escapes() {
    let text = "{\n\t\"direction\": \"outbound\",\n\t\"broker\": {\"cluster\": \"\\ud83d\\ude00\"},\n\
                \t\"rules\": [\n\t\t{\"name\": \"graph\"}\n\t]\n}\n";
    check(
        "policy.json",
        text,
        1,
        &[
            "policy.json:5: error: rules[0].match: required: {destination: …}",
            "policy.json:5: error: rules[0].token: required: {identity: …, scope: …}",
        ],
    );
}

#[test]
fn what_stands_twice_is_found() {
    let twice = policy(GOOD).replace("broker:", "tenants: [x]\nbroker:");
    check("a.yaml", &twice, 1, &["a.yaml:4: error: `tenants` stands twice"]);
    let json = "{\n\"direction\": \"outbound\",\n\"rules\": [],\n\"Rules\": []\n}";
    check("a.json", json, 1, &["a.json:4: error: `Rules` stands twice"]);
}

#[test]
fn broken_text_is_an_error_on_its_line() {
    check(
        "a.yaml",
        "a: 1\nb: [\n",
        1,
        &["a.yaml:3: error: not YAML: while parsing a node, did not find expected node content"],
    );
    let bomb: String = (0..40).fold("a0: &a0 [x]\n".to_owned(), |text, i| {
        text + &format!("a{}: &a{} [*a{i}, *a{i}]\n", i + 1, i + 1)
    });
    let done = Folder::with(&[("a.yaml", &bomb)]).run(&["check", "a.yaml"]);
    assert_eq!(done.code, 1);
    done.says("too large with its aliases followed");
    let chain: String = (0..10_000).fold("a0: &a0 [[x]]\n".to_owned(), |text, i| {
        text + &format!("a{}: &a{} [[*a{i}]]\n", i + 1, i + 1)
    });
    for (nested, message) in [
        (chain, "nested too deep"),
        ("[".repeat(100), "nested too deep"),
        ("[".repeat(100_000), "error: not YAML"),
        ("- ".repeat(10_000), "error: n"),
        ("? ".repeat(10_000), "error: n"),
    ] {
        let done = Folder::with(&[("a.yaml", &nested)]).run(&["check", "a.yaml"]);
        assert_eq!(done.code, 1);
        done.says(message);
    }
}

#[test]
fn the_brokers_configuration_is_read_by_the_broker() {
    check(
        "broker.yaml",
        "authorities:\n- cloud: public\n  tenants: [contoso.com]\nidentities:\n  default:\n    \
         workload_identity: {}\n    scopes: [https://graph.microsoft.com]\n",
        1,
        &[
            "broker.yaml:3: error: authorities[0].tenants[0]: expected a GUID in lower case, or `organizations`",
            "broker.yaml:7: error: identities.default.scopes[0]: expected one scope of the form `<resource>/.default`",
        ],
    );
    // What azure-workload-identity sets in the pod is not missing here.
    check(
        "broker.yaml",
        "identities:\n  default: {workload_identity: {}, scopes: [https://graph.microsoft.com/.default]}\n",
        0,
        &["broker.yaml:1: broker: keys of 0 authorities, identities default"],
    );
}

#[test]
fn a_file_without_a_configuration_is_an_error() {
    check(
        "a.yaml",
        "a: 1\n",
        1,
        &["a.yaml:1: error: there is no configuration of Entra Sidecar in this file"],
    );
    check(
        "a.yaml",
        "",
        1,
        &["a.yaml:1: error: there is no configuration of Entra Sidecar in this file"],
    );
}

#[test]
fn a_file_that_is_not_there_ends_with_2() {
    let folder = Folder::with(&[("good.yaml", &policy(GOOD))]);
    let done = folder.run(&["check", "good.yaml", "nowhere.yaml"]);
    assert_eq!((done.code, done.out.as_str()), (2, ""));
    assert!(done.err.starts_with("entra-sidecar: nowhere.yaml: "), "{}", done.err);
    assert_eq!(folder.run(&["check"]).code, 2);
    assert_eq!(folder.run(&["chekc"]).code, 2);
}

#[test]
fn no_value_is_quoted_that_may_be_a_secret() {
    let text = "identities:\n  a:\n    client_secret: hunter2\n    scopes: [x/.default]\n";
    let done = Folder::with(&[("broker.yaml", text)]).run(&["check", "broker.yaml"]);
    assert_eq!(done.code, 1);
    done.is_silent_about("hunter2");
}
