//! Tables of cases.

use crate::program::{API, Done, Folder, TENANT, policy, repository};

const RULES: &str = "[{name: all, match: {path: /a}, allow: [{scopes: [S]}, {roles: [R]}]}]";

/// Runs a table of these cases.
fn run(cases: &str, more: &[&str]) -> (Folder, Done) {
    let table = format!("config: policy.yaml\nat: 2026-11-24T12:00:00Z\ncases:\n{cases}");
    let folder = Folder::with(&[("policy.yaml", &policy(RULES)), ("t.yaml", &table)]).with_key();
    let done = folder.run(&[&["test", "t.yaml"], more].concat());
    (folder, done)
}

#[test]
fn the_shipped_table_is_what_the_shipped_policy_decides() {
    let table = repository().join("docs/examples/orders.cases.yaml");
    let done = Folder::with(&[]).run(&["test", table.to_str().unwrap()]);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.lines_with("ok  ").len() > 10, "{}", done.out);
}

#[test]
fn what_is_not_as_expected_is_shown_as_a_diff() {
    let (folder, done) = run(
        "- name: good\n  request: {path: /a}\n  token: {claims: {scp: S}}\n  expect: {passes: true}\n\
         - name: bad <&>\n  request: {path: /a, host: h}\n  token: {claims: {scp: S}}\n  expect:\n    \
         passes: false\n    status: 403\n    reason: scope_missing\n    rule: other\n    \
         challenge: Bearer\n    headers: {x-entra-tenant-id: t, x-other: o}\n",
        &["--junit", "out.xml"],
    );
    assert_eq!(done.code, 1);
    let expected = format!(
        "ok      good
FAILED  bad <&> (t.yaml:8: GET /a)
        - passes: false
        + passes: true
        - status: 403
        + status: none
        - reason: scope_missing
        + reason: allowed
        - rule: other
        + rule: all
        - challenge: Bearer
        + challenge: none
        - header x-entra-client-id: none
        + header x-entra-client-id: 00000000-0000-4000-8000-00000000000b
        - header x-entra-object-id: none
        + header x-entra-object-id: 00000000-0000-4000-8000-00000000000a
        - header x-entra-tenant-id: t
        + header x-entra-tenant-id: {TENANT}
        - header x-other: o
        + header x-other: none
1 as expected, 1 not (- expected, + decided)
"
    );
    assert_eq!(done.out, expected);
    let junit = folder.read("out.xml");
    for part in [
        "tests=\"2\" skipped=\"0\" failures=\"1\"",
        "<testcase name=\"good\" classname=\"entra-sidecar\"/>",
        "name=\"bad &lt;&amp;&gt;\"",
        "+ reason: allowed",
    ] {
        assert!(junit.contains(part), "{part} is not in {junit}");
    }
}

#[test]
fn every_kind_of_expectation_can_fail() {
    let case = |expected: &str| {
        let text = format!("- name: n\n  request: {{path: /a}}\n  expect: {{{expected}}}\n");
        run(&text, &[]).1.code
    };
    let uri = format!("https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/authorize");
    for (right, wrong) in [
        ("passes: false", "passes: true"),
        ("status: 401", "status: 403"),
        ("reason: token_missing", "reason: allowed"),
        ("status: 401, rule: all", "status: 401, rule: other"),
        (
            &*format!("status: 401, challenge: 'Bearer authorization_uri=\"{uri}\"'"),
            "status: 401, challenge: Bearer",
        ),
        ("status: 401, headers: {}", "status: 401, headers: {x: y}"),
    ] {
        assert_eq!((case(right), case(wrong)), (0, 1), "{right}; {wrong}");
    }
}

#[test]
fn tokens_are_signed_by_a_key_that_the_table_trusts() {
    let table = |keys: &str, token: &str, reason: &str| {
        format!(
            "config: policy.yaml\nat: 2026-11-24T12:00:00Z\n{keys}cases:\n- name: n\n  \
             request: {{path: /a}}\n  token: {token}\n  expect: {{reason: {reason}}}\n"
        )
    };
    let folder = Folder::with(&[("policy.yaml", &policy(RULES))]).with_key();
    folder.token(r#"{"scp": "S"}"#);
    let given = "keys: keys.json\nkey: key.pem\n";
    for (keys, token, reason) in [
        ("", "{claims: {scp: S}}", "allowed"),
        (given, "{claims: {scp: S}}", "allowed"),
        ("keys: keys.json\n", "{file: token}", "allowed"),
    ] {
        folder.write("t.yaml", &table(keys, token, reason));
        let done = folder.run(&["test", "t.yaml"]);
        assert_eq!(done.code, 0, "{done:?}");
    }
    for (keys, token) in [("keys: keys.json\n", "{claims: {scp: S}}"), ("", "{file: token}")] {
        folder.write("t.yaml", &table(keys, token, "allowed"));
        let done = folder.run(&["test", "t.yaml"]);
        assert_eq!((done.code, done.out.as_str()), (2, ""), "{done:?}");
    }
}

#[test]
fn null_keeps_a_claim_away_and_times_are_the_cases_own() {
    let (_, done) = run(
        "- name: a\n  request: {path: /a}\n  token: {claims: {scp: S, tid: null}}\n  \
         expect: {reason: claims_malformed}\n\
         - name: b\n  at: 2026-11-25T12:00:00Z\n  request: {path: /a}\n  \
         token: {claims: {scp: S, iat: 1795521600, nbf: 1795521600, exp: 1795525200}}\n  \
         expect: {reason: token_expired}\n",
        &[],
    );
    assert_eq!(done.code, 0, "{done:?}");
}

#[test]
fn a_table_with_errors_is_not_run() {
    let table = "confg: policy.yaml\nat: noon\nkey: key.pem\ncases:\n\
                 - request: {path: /a}\n  expect: {passes: true}\n\
                 - name: b\n  request: {}\n  expect: {rule: all}\n\
                 - name: c\n  request: {path: /a}\n  token: {claims: [], file: x}\n  \
                 expect: {passes: true, status: 200}\n\
                 - name: d\n  request: {path: /a}\n  expect: {reason: because, injects: {scope: s}}\n";
    let folder = Folder::with(&[("t.yaml", table)]);
    let done = folder.run(&["test", "t.yaml"]);
    assert_eq!((done.code, done.out.as_str()), (2, ""));
    for part in [
        "t.yaml:1: confg: unknown field",
        "t.yaml:1: config: required",
        "t.yaml:2: at: expected a time",
        "t.yaml:3: key: needs `keys`",
        "t.yaml:5: cases[0].name: required",
        "t.yaml:8: cases[1].request: expected `path`",
        "t.yaml:9: cases[1].expect: expected at least one of",
        "t.yaml:12: cases[2].token: expected either",
        "t.yaml:13: cases[2].expect: a request that passes is not answered",
        "t.yaml:16: cases[3].expect.reason: not a reason",
        "t.yaml:16: cases[3].expect.injects: expected `identity` and `scope`",
    ] {
        assert!(done.err.contains(part), "{part}\nis not in\n{}", done.err);
    }
}

#[test]
fn a_v1_token_is_made_for_the_v1_audience() {
    let policy = policy(RULES).replace(API, &format!("api://a, {API}"));
    let table = "config: policy.yaml\ncases:\n- name: n\n  request: {path: /a}\n  \
                 token: {claims: {ver: '1.0', scp: S}}\n  expect: {reason: allowed}\n";
    let folder = Folder::with(&[("policy.yaml", &policy), ("t.yaml", table)]);
    let done = folder.run(&["test", "t.yaml"]);
    assert_eq!(done.code, 0, "{done:?}");
}
