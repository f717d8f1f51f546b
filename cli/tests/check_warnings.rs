//! What is in order and still may not be meant.

use crate::program::{Folder, TENANT, policy};

/// The warnings about a policy with these rules.
#[track_caller]
fn check(rules: &str, expected: &[&str]) {
    let done = Folder::with(&[("p.yaml", &policy(rules))]).run(&["check", "p.yaml"]);
    assert_eq!(done.code, 0, "{done:?}");
    let found: Vec<&str> = done
        .lines_with("warning")
        .iter()
        .filter_map(|line| line.split(": warning: ").nth(1))
        .collect();
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\n{expected}");
    }
}

const ADMIN: &str = "{name: admin, match: {path: /admin}, allow: [{roles: [Admin]}]}";
const SLASH: &str = "rules[0].match.path: with a slash at the end, as `/admin/`, a request falls under the broader rule `all`: add a rule";
const CASE: &str = "rules[0].match.path: in another case, as `/Admin`, a request falls under the broader rule `all`: set `path_case";

#[test]
fn a_broader_rule_that_catches_another_spelling_is_told() {
    let all = "{name: all, allow: [{scopes: [Orders.Read]}]}";
    check(&format!("[{ADMIN}, {all}]"), &[SLASH, CASE]);
    check(
        &format!("[{ADMIN}, {{name: all, match: {{path: '/{{**}}'}}, allow: anyone}}]"),
        &[SLASH, CASE],
    );
    // Before it is what it is after it.
    check(
        &format!("[{{name: all, match: {{path: /admin/}}, allow: anyone}}, {ADMIN}]"),
        &["rules[1].match.path: with a slash"],
    );
}

#[test]
fn below_a_path_is_not_the_path() {
    let below = ADMIN.replace("/admin", "'/admin/{**}'");
    check(
        &format!("[{below}, {{name: all, allow: anyone}}]"),
        &[
            "rules[0].match.path: without anything below it, as `/admin`, a request falls",
            "rules[0].match.path: in another case, as `/Admin/any`, a request falls",
        ],
    );
    let with_slash = ADMIN.replace("/admin", "/admin/");
    check(
        &format!("[{with_slash}, {{name: all, allow: anyone}}]"),
        &[
            "rules[0].match.path: without the last slash, as `/admin`, a request falls",
            "rules[0].match.path: in another case",
        ],
    );
}

#[test]
fn what_is_not_broader_or_takes_other_requests_is_fine() {
    for rest in [
        "",
        ", {name: all, allow: [{roles: [Admin]}]}",
        ", {name: all, match: {path: '/users/{**}'}, allow: anyone}",
        ", {name: all, match: {methods: [OPTIONS], cors_preflight: true}, allow: anyone}",
    ] {
        check(&format!("[{ADMIN}{rest}]"), &[]);
    }
    check(
        &format!(
            "[{}, {{name: all, match: {{methods: [GET]}}, allow: anyone}}]",
            ADMIN.replace("path: /admin", "path: /admin, methods: [POST]")
        ),
        &[],
    );
    check(
        &format!(
            "[{}, {{name: all, match: {{hosts: [b.example]}}, allow: anyone}}]",
            ADMIN.replace("path: /admin", "path: /admin, hosts: [a.example]")
        ),
        &[],
    );
    check(
        "[{name: health, match: {path: /healthz}, allow: anyone}, {name: all, allow: [{scopes: [S]}]}]",
        &[],
    );
}

#[test]
fn methods_and_hosts_are_those_of_the_rules() {
    check(
        &format!("[{ADMIN}, {{name: all, match: {{methods: [PUT]}}, allow: anyone}}]"),
        &[SLASH, CASE],
    );
    check(
        &format!("[{ADMIN}, {{name: all, match: {{hosts: ['*.b.example']}}, allow: anyone}}]"),
        &[SLASH, CASE],
    );
}

#[test]
fn rules_that_do_not_tell_case_warn_only_of_the_slash() {
    let text = policy(&format!("[{ADMIN}, {{name: all, allow: anyone}}]"));
    let folder =
        Folder::with(&[("p.yaml", &text.replace("rules:", "path_case: insensitive\nrules:"))]);
    let done = folder.run(&["check", "p.yaml"]);
    assert_eq!(done.lines_with("warning: rules").len(), 1, "{}", done.out);
    let done = folder.run(&["check", "--deny-warnings", "p.yaml"]);
    assert_eq!(done.code, 1);
    let done = folder.run(&["check", "--deny-warnings", "--exact-router", "p.yaml"]);
    assert_eq!(done.code, 0);
    done.says("0 warnings");
}

#[test]
fn an_observing_policy_is_loud() {
    check("[{name: all, mode: observe, allow: [{scopes: [S]}]}]", &["rules[0].mode: `observe`"]);
    let text =
        policy("[{name: all, allow: [{scopes: [S]}]}]").replace("rules:", "mode: observe\nrules:");
    let done = Folder::with(&[("p.yaml", &text)]).run(&["check", "p.yaml"]);
    done.says("p.yaml:5: warning: mode: `observe`: nothing is refused\n");
    done.says("1 warning");
}

#[test]
fn trust_in_the_whole_pod_is_told() {
    let text = format!(
        "authorities: [{{cloud: public, tenants: [{TENANT}]}}]\nlisten:\n  api:\n    \
         tcp: 127.0.0.1:7171\n    trust_whole_pod: true\n"
    );
    let done = Folder::with(&[("b.yaml", &text)]).run(&["check", "b.yaml"]);
    assert_eq!(done.code, 0);
    done.says(
        "b.yaml:5: warning: listen.api.trust_whole_pod: every process of the pod can get the \
         tokens from 127.0.0.1:7171\n",
    );
    let text = "identities: {a: {workload_identity: {}, scopes: [a/.default]}}\nlisten:\n  \
        compat:\n    address: 127.0.0.1:7173\n    trust_whole_pod: true\n    \
        managed_identity: {identities: [a]}\n";
    let done = Folder::with(&[("b.yaml", text)]).run(&["check", "b.yaml"]);
    done.says(
        "b.yaml:5: warning: listen.compat.trust_whole_pod: every process of the pod can get the \
         tokens that are offered at 127.0.0.1:7173\n",
    );
}

#[test]
fn b05_who_gets_an_identity_by_labels_alone_or_not_at_all_is_told() {
    let text = "identities:\n  \
        a: {workload_identity: {}, scopes: [a/.default]}\n  \
        b: {workload_identity: {}, scopes: [a/.default]}\n\
        identity_access:\n\
        - {labels: {tier: gold}, identities: [a]}\n\
        - {service_account: orders, identities: [a]}\n\
        pod: {cluster: {issuer: i}}\n";
    let done = Folder::with(&[("b.yaml", text)]).run(&["check", "b.yaml"]);
    assert_eq!(done.code, 0, "{done:?}");
    done.says(
        "b.yaml:5: warning: identity_access[0]: labels alone: whoever may label a pod has these \
         identities\n",
    );
    done.says(
        "b.yaml:3: warning: identities.b: no entry of identity_access names it: no pod may use it\n",
    );
    done.says("1 configuration in order, 0 errors, 2 warnings\n");
}

#[test]
fn filter_and_broker_given_together_are_compared() {
    let broker = "authorities: [{cloud: china, tenants: [organizations]}]\n\
                  identities: {default: {workload_identity: {}, scopes: [a/.default]}}\n";
    let outbound = "direction: outbound\nbroker: {cluster: b}\nrules:\n\
                    - {name: x, match: {destination: x}, token: {identity: default, scope: a/.default}, claims_challenges: true}\n\
                    - {name: y, match: {destination: y}, token: {identity: default, scope: b/.default}}\n\
                    - {name: z, match: {destination: z}, token: {identity: other, scope: a/.default}}\n";
    let inbound = policy("[{name: all, allow: [{scopes: [S]}]}]");
    let folder = Folder::with(&[("b.yaml", broker), ("o.yaml", outbound), ("i.yaml", &inbound)]);
    let done = folder.run(&["check", "i.yaml", "o.yaml", "b.yaml"]);
    assert_eq!(
        done.lines_with("warning:"),
        [
            &*format!(
                "i.yaml:2: warning: tenants: the broker's `authorities` have no keys of {TENANT}"
            ),
            "o.yaml:4: warning: rules[0].claims_challenges: the broker's identity `default` has no `client_capabilities: [cp1]`",
            "o.yaml:5: warning: rules[1].token.scope: not in the broker's `identities.default.scopes`",
            "o.yaml:6: warning: rules[2].token.identity: the broker has no identity `other`",
        ]
    );
    let mended = "authorities: [{cloud: public, tenants: [organizations]}]\nidentities:\n  \
                  default: {workload_identity: {}, scopes: [a/.default, b/.default], client_capabilities: [cp1]}\n  \
                  other: {workload_identity: {}, scopes: [a/.default]}\n";
    folder.write("b.yaml", mended);
    let done = folder.run(&["check", "i.yaml", "o.yaml", "b.yaml"]);
    assert_eq!(done.lines_with("warning:"), Vec::<&str>::new());
}
