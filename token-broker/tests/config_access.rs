//! `identity_access` and `pod` in the configuration file: what is refused, and where.

use std::{collections::BTreeMap, path::PathBuf};

use token_broker::{
    config::{Config, document::read},
    pod::{
        KeysFrom, Settings,
        cluster::ApiServer,
        token::{Expected, ThisPod},
    },
};

use crate::support::{CLIENT, TENANT};

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// A configuration with the identities `a` and `b`, and this.
fn text(rest: &str) -> String {
    let identity = |name: &str| {
        format!(
            "{name}: {{client_secret: {{tenant: {TENANT}, client_id: {CLIENT}, file: /s}}, scopes: []}}"
        )
    };
    format!("{{identities: {{{}, {}}}, {rest}}}", identity("a"), identity("b"))
}

fn with_pod(access: &str) -> String {
    text(&format!("identity_access: {access}, pod: {{cluster: {{issuer: '{ISSUER}'}}}}"))
}

fn good(text: &str, variables: &[(&str, &str)]) -> Config {
    let environment: BTreeMap<&str, &str> = variables.iter().copied().collect();
    read(text, &environment).unwrap_or_else(|errors| panic!("{errors:?}\n{text}"))
}

fn check(text: &str, expected: &[(&str, &str)]) {
    let errors = read(text, &BTreeMap::<&str, &str>::new()).expect_err(text);
    let found: Vec<(&str, &str)> =
        errors.iter().map(|error| (error.path.as_str(), error.message.as_str())).collect();
    assert_eq!(found.len(), expected.len(), "{found:#?}\n{text}");
    for ((path, message), (expected_path, words)) in found.iter().zip(expected) {
        assert_eq!(path, expected_path, "{found:#?}");
        assert!(message.contains(words), "{path}: {message}: {words}");
    }
}

#[test]
fn what_may_be_left_out_is_where_the_injection_template_puts_it() {
    let variables =
        [("KUBERNETES_SERVICE_HOST", "10.96.0.1"), ("KUBERNETES_SERVICE_PORT_HTTPS", "6443")];
    let access = good(&with_pod("[]"), &variables).access.unwrap();
    assert_eq!(access.entries, []);
    let file = |name: &str| PathBuf::from("/var/run/secrets/entra-pod").join(name);
    let server = ApiServer {
        authority: Some("10.96.0.1:6443".to_owned()),
        ca_file: file("ca.crt"),
        token_file: file("api-token"),
    };
    let expected = Expected {
        issuer: ISSUER.to_owned(),
        audience: "entra-sidecar".to_owned(),
        this_pod: ThisPod::default(),
    };
    let keys = KeysFrom::ApiServer(server);
    let settings =
        Settings { token_file: file("token"), labels_file: file("labels"), expected, keys };
    assert_eq!(access.pod, settings);
}

#[test]
fn everything_can_be_elsewhere() {
    let pod = "pod: {token_file: /t, audience: mine, labels_file: /l,
                     cluster: {issuer: i, ca_file: /c, token_file: /a}}";
    let access = good(&text(&format!("identity_access: [], {pod}")), &[]).access.unwrap();
    let server = ApiServer { authority: None, ca_file: "/c".into(), token_file: "/a".into() };
    assert_eq!(access.pod.keys, KeysFrom::ApiServer(server));
    assert_eq!(access.pod.expected.audience, "mine");
    assert_eq!(access.pod.labels_file, PathBuf::from("/l"));
    assert_eq!(access.pod.token_file, PathBuf::from("/t"));
    let pod = "pod: {cluster: {issuer: i, keys_file: /k}}";
    let access = good(&text(&format!("identity_access: [], {pod}")), &[]).access.unwrap();
    assert_eq!(access.pod.keys, KeysFrom::File("/k".into()));
}

#[test]
fn an_entry_is_read_as_it_stands() {
    let config = good(
        &with_pod(
            "[{namespace: tenant-a, service_account: orders.v2,
               labels: {tier: gold, app.kubernetes.io/name: '', x: 'A_1.b'}, identities: [b, a]},
              {labels: {tier: gold}, identities: [a]}]",
        ),
        &[],
    );
    let access = config.access.unwrap();
    let entry = &access.entries[0];
    assert_eq!(entry.namespace.as_deref(), Some("tenant-a"));
    assert_eq!(entry.service_account.as_deref(), Some("orders.v2"));
    assert_eq!(entry.labels["tier"], "gold");
    assert_eq!(entry.labels["app.kubernetes.io/name"], "");
    assert_eq!(entry.identities, ["b", "a"]);
    assert_eq!(access.entries[1].namespace, None);
    assert_eq!(good(&text("listen: {}"), &[]).access, None);
}

#[test]
fn every_wrong_entry_is_told_with_its_place() {
    check(
        &with_pod(
            "[{identities: [a]},
              {namespace: Tenant-A, service_account: 'orders*', labels: {'a b': x, tier: 'g*'},
               identities: [a]},
              {namespace: tenant-*, identities: [c, a, a]},
              {namespace: x},
              {namespace: y, identities: []},
              {labels: {}, identities: [a]}]",
        ),
        &[
            ("identity_access[0]", "for every pod; expected"),
            ("identity_access[1].namespace", "the name of a namespace, exactly"),
            ("identity_access[1].service_account", "a service account's name, exactly"),
            ("identity_access[1].labels.a b", "a label's name and its value"),
            ("identity_access[1].labels.tier", "a label's name and its value"),
            ("identity_access[2].namespace", "the name of a namespace, exactly"),
            ("identity_access[2].identities[0]", "no such identity"),
            ("identity_access[2].identities[2]", "twice"),
            ("identity_access[3].identities", "missing; expected names of identities"),
            ("identity_access[4].identities", "missing; expected names of identities"),
            ("identity_access[5].labels", "missing; expected labels"),
        ],
    );
    check(
        &with_pod(
            "[{namespace: x, labels: {tier: gold}, identities: [a]},
              {labels: {tier: gold}, namespace: x, identities: [b]},
              {namespace: x, identities: [b]}]",
        ),
        &[("identity_access[1]", "for the same pods")],
    );
    // A value that YAML reads as something else, and a key that there is not.
    check(
        &with_pod("[{labels: {tier: 1}, identities: [a]}, {namespaces: x, identities: [a]}]"),
        &[
            ("identity_access[0].labels.tier", "invalid type"),
            ("identity_access[1].namespaces", "unknown field"),
        ],
    );
}

#[test]
fn b05_a_restriction_that_cannot_be_checked_is_an_error() {
    check(&text("identity_access: []"), &[("pod.cluster.issuer", "missing")]);
    check(
        &text("identity_access: [], pod: {cluster: {issuer: ''}}"),
        &[("pod.cluster.issuer", "missing")],
    );
    check(&text("identity_access: null"), &[("identity_access", "is null")]);
    check(
        &text("identity_access: [], pod: {audience: '', cluster: {issuer: i}}"),
        &[("pod.audience", "empty")],
    );
    check(&text("pod: {cluster: {issuer: i}}"), &[("pod", "goes with `identity_access`")]);
    check(
        &text(
            "identity_access: [],
             pod: {cluster: {issuer: i, keys_file: /k, ca_file: /c, token_file: /t}}",
        ),
        &[
            ("pod.cluster.ca_file", "not with `keys_file`"),
            ("pod.cluster.token_file", "not with `keys_file`"),
        ],
    );
}

#[test]
fn a_file_that_cannot_be_found_is_told_before_the_broker_waits_for_it() {
    let absolute = "absolute path of a file";
    check(
        &text(
            "identity_access: [],
             pod: {token_file: '', labels_file: labels,
                   cluster: {issuer: i, ca_file: ca.crt, token_file: /tokens/}}",
        ),
        &[
            ("pod.token_file", absolute),
            ("pod.labels_file", absolute),
            ("pod.cluster.ca_file", absolute),
            ("pod.cluster.token_file", absolute),
        ],
    );
    check(
        &text("identity_access: [], pod: {cluster: {issuer: i, keys_file: ''}}"),
        &[("pod.cluster.keys_file", absolute)],
    );
}

#[test]
fn b04_only_a_host_and_a_port_are_the_api_servers() {
    let server = |host: &'static str, port: &'static str| {
        let variables = BTreeMap::from([
            ("KUBERNETES_SERVICE_HOST", host),
            ("KUBERNETES_SERVICE_PORT_HTTPS", port),
        ]);
        read(&with_pod("[]"), &variables).map(|config| match config.access.unwrap().pod.keys {
            KeysFrom::ApiServer(server) => server.authority.unwrap(),
            KeysFrom::File(file) => panic!("{}", file.display()),
        })
    };
    assert_eq!(server("10.96.0.1", "").unwrap(), "10.96.0.1:443");
    assert_eq!(server("fd00::1", "443").unwrap(), "[fd00::1]:443");
    assert_eq!(server("api.example.com", "6443").unwrap(), "api.example.com:6443");
    for (host, port) in [
        ("evil.example/x", "443"),
        ("user@evil.example", "443"),
        ("a b", "443"),
        ("10.96.0.1", "0"),
        ("10.96.0.1", "https"),
        ("10.96.0.1", "70000"),
        ("10.96.0.1?", "443"),
        ("10.96.0.1#", "443"),
    ] {
        let errors = server(host, port).expect_err(host);
        assert_eq!(errors[0].path, "KUBERNETES_SERVICE_HOST", "{errors:?}");
    }
}
