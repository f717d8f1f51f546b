//! Lists of destinations: what is refused, and that all of it is said at once.

use crate::program::Folder;

/// A list with its top keys, and the keys of its only destination, as given.
fn list(top: &str, destination: &str) -> String {
    let digest = "0123456789abcdef".repeat(4);
    let mut text = String::new();
    for (key, value) in [
        ("namespace", "shop".to_owned()),
        ("module", format!("{{image: oci://r.example/filter:1, sha256: {digest}}}")),
    ] {
        if !top.contains(&format!("{key}:")) {
            text += &format!("{key}: {value}\n");
        }
    }
    format!("{text}{top}\ndestinations:\n- {{{destination}}}\n")
}

const GRAPH: &str = "name: graph, kind: graph, token: {identity: default}";

/// Both commands say exactly this of a list, each line with its path.
#[track_caller]
fn refused(text: &str, expected: &[&str]) {
    let folder = Folder::with(&[("d.yaml", text)]);
    let done = folder.run(&["check", "d.yaml"]);
    let without_line = |line: &str| line.splitn(3, ':').nth(2).unwrap().trim().to_owned();
    let errors: Vec<String> = done.lines_with(": error: ").into_iter().map(without_line).collect();
    let errors: Vec<&str> =
        errors.iter().map(|error| error.trim_start_matches("error: ")).collect();
    assert_eq!(errors, expected, "{text}");
    assert_eq!(done.code, 1);
    let made = folder.run(&["istio", "destinations", "--config", "d.yaml"]);
    assert_eq!((made.code, made.out.as_str()), (2, ""));
    for error in expected {
        assert!(made.err.contains(error), "{error}\nis not in\n{}", made.err);
    }
}

#[track_caller]
fn taken(text: &str) {
    let done = Folder::with(&[("d.yaml", text)]).run(&["check", "d.yaml"]);
    assert_eq!(done.code, 0, "{text}{}", done.out);
}

#[test]
fn what_is_wrong_around_the_destinations_is_refused() {
    taken(&list("", GRAPH));
    let digest = "0".repeat(64);
    let image = "module.image: expected oci:// with registry, repository and tag; the digest goes \
                 into `sha256`";
    let sha256 = "module.sha256: expected the digest of the image's manifest, 64 hexadecimal digits \
                  in lower case";
    let file = "trusted_ca: expected the absolute path of a file in the proxy, of letters, digits, \
                `.`, `_` and `-`";
    for (top, error) in [
        ("namespace: Shop", "namespace: expected the pods' namespace"),
        ("namespace: a.b", "namespace: expected the pods' namespace"),
        ("labels: {}", "labels: must not be empty: every pod of the namespace would be meant"),
        ("labels: {'a b': c}", "labels: has a key that is no label's"),
        ("labels: {a: 'b c'}", "labels.a: expected a label's value"),
        (&format!("module: {{image: 'https://r.example/f.wasm', sha256: '{digest}'}}"), image),
        (
            &format!("module: {{image: 'oci://r.example/f@sha256:{digest}', sha256: '{digest}'}}"),
            image,
        ),
        ("module: {image: 'oci://r.example/filter', sha256: ABC}", sha256),
        (
            &format!(
                "module: {{image: 'oci://r.example/ff', sha256: '{digest}', pull_secret: a_b}}"
            ),
            "module.pull_secret: expected the name of a Secret",
        ),
        (
            "cloud: moon",
            "cloud: unknown cloud; expected `public`, `us-government`, `china`, `france`, `germany` or \
             `singapore`",
        ),
        ("trusted_ca: ca.crt", file),
        ("trusted_ca: '/ca.crt}'", file),
        ("resource: wasmplugin", "resource: expected `TrafficExtension` or `WasmPlugin`"),
        (
            "broker: {cluster: ''}",
            "broker.cluster: expected the name of the broker's cluster, without spaces",
        ),
        (
            "broker: {cluster: 'a b'}",
            "broker.cluster: expected the name of the broker's cluster, without spaces",
        ),
        (
            "broker: {}",
            "broker.cluster: required: the name of the broker's cluster, without spaces",
        ),
    ] {
        refused(&list(top, GRAPH), &[error]);
    }
}

#[test]
fn what_is_wrong_with_a_destination_is_refused() {
    let host = "expected a whole host name in lower case, outside the cluster, or a `kind`";
    let name =
        "expected 1 to 57 lower-case letters, digits and `-`, as the names of objects have them";
    let other = "is the name of other objects of Entra Sidecar";
    let of = |name: &str, rest: &str| {
        format!("name: {name}, token: {{identity: default, scope: 's'}}, {rest}")
    };
    let graph = |rest: &str| format!("{GRAPH}, {rest}");
    for (destination, path, message) in [
        (of("A", "kind: graph"), "name", name),
        (of("a.b", "kind: graph"), "name", name),
        (of("'-a'", "kind: graph"), "name", name),
        (of("''", "kind: graph"), "name", name),
        (of(&"a".repeat(58), "kind: graph"), "name", name),
        (of("inbound", "kind: graph"), "name", other),
        (of("outbound", "kind: graph"), "name", other),
        (of("login", "kind: graph"), "name", other),
        (of("broker", "kind: graph"), "name", other),
        (of("access-log", "kind: graph"), "name", other),
        (of("a", "host: '*.example.com'"), "host", host),
        (of("a", "host: 10.0.0.1"), "host", host),
        (of("a", "host: Graph.example"), "host", host),
        (of("a", "host: 'a.example:443'"), "host", host),
        (of("a", "host: 'api.shop.svc.cluster.local'"), "host", host),
        (
            of("a", "host: login.microsoftonline.com"),
            "host",
            "is where tokens come from: it is given none",
        ),
        (
            of("a", "host: a.example, kind: graph"),
            "host",
            "stands beside `kind`, of which the host follows",
        ),
        (of("a", "kind: vault"), "kind", "expected `graph`, `key_vault` or `storage`"),
        (of("a", "kind: key_vault"), "account", "required: the vault's name, in lower case"),
        (
            of("a", "kind: key_vault, account: a--b"),
            "account",
            "expected the vault's name, in lower case",
        ),
        (of("a", "kind: storage"), "account", "required: the storage account's name"),
        (of("a", "kind: storage, account: a-b"), "account", "expected the storage account's name"),
        (
            of("a", "kind: storage, account: abc, service: web"),
            "service",
            "expected `blob`, `queue`, `table`, `file` or `dfs`",
        ),
        (graph("account: abc"), "account", "is for `kind: key_vault` and `kind: storage` only"),
        (
            of("a", "host: a.example, account: abc"),
            "account",
            "is for `kind: key_vault` and `kind: storage` only",
        ),
        (
            of("a", "kind: key_vault, account: abc, service: blob"),
            "service",
            "is for `kind: storage` only",
        ),
        (graph("protocol: h2"), "protocol", "expected `http1`, `http2` or `grpc`"),
        (graph("port: 0"), "port", "is no port that an application calls"),
        (graph("port: 1"), "port", "is no port that an application calls"),
        (graph("port: 443"), "port", "is for TLS: the application calls without, as on port 80"),
        (graph("port: 15000"), "port", "is one of Istio's own"),
        (graph("port: 15099"), "port", "is one of Istio's own"),
        (graph("port: 65536"), "port", "invalid value: integer, expected u16"),
        (
            graph("existing_authorization: drop"),
            "existing_authorization",
            "expected `keep`, `replace` or `refuse`",
        ),
        // Neither exists where a token goes only over TLS to one host.
        (graph("plaintext: true"), "plaintext", UNKNOWN),
        (graph("addresses: [10.0.0.1]"), "addresses", &UNKNOWN.replace("plaintext", "addresses")),
        (
            "name: a, host: a.example, token: {identity: default}".to_owned(),
            "token.scope",
            "required: one scope",
        ),
        (
            "name: a, kind: graph, token: {identity: default, scope: 'a b'}".to_owned(),
            "token.scope",
            "expected one scope, without spaces",
        ),
        (
            "name: a, kind: graph, token: {identity: 'a b'}".to_owned(),
            "token.identity",
            "expected 1 to 64 letters, digits, `-`, `_` or `.`",
        ),
        ("name: a, kind: graph, token: {}".to_owned(), "token.identity", "required: a name"),
        ("name: a, kind: graph".to_owned(), "token", "required: {identity: …, scope: …}"),
        (
            format!("{GRAPH}, claims_challenges: 1"),
            "claims_challenges",
            "invalid type: integer, expected a boolean",
        ),
    ] {
        refused(&list("", &destination), &[&format!("destinations[0].{path}: {message}")]);
    }
    taken(&list("", &of(&"a".repeat(57), "host: a.example")));
    taken(&list("", &graph("port: 14999")));
}

const UNKNOWN: &str = "unknown field `plaintext`, expected one of `name`, `host`, `kind`, `account`, \
    `service`, `protocol`, `port`, `token`, `existing_authorization`, `claims_challenges`";

#[test]
fn no_host_and_no_name_stands_twice() {
    let second = |second: &str| list("", GRAPH) + "- {" + second + "}\n";
    refused(
        &second("name: other, host: graph.microsoft.com, token: {identity: a, scope: s}"),
        &["destinations[1]: has the host of an earlier destination"],
    );
    refused(
        &second("name: graph, host: a.example, token: {identity: a, scope: s}"),
        &["destinations[1].name: is the name of an earlier rule"],
    );
    refused(
        &second("name: graph, host: a.example, name: b, token: {identity: a, scope: s}"),
        &["`name` stands twice"],
    );
}

#[test]
fn all_errors_are_said_at_once_each_with_its_line() {
    let text = "# A list.\nnamespace: Shop\nmodule:\n  image: filter.wasm\n  digest: x\n\
                destinations:\n- name: a\n  host: '*'\n  token: {identity: default}\n\
                - host: a.example\n  tokens: {}\n-\n";
    let done = Folder::with(&[("d.yaml", text)]).run(&["check", "d.yaml"]);
    let places: Vec<&str> = done
        .lines_with(": error: ")
        .iter()
        .map(|line| line.split(' ').take(3).last().unwrap().trim_end_matches(':'))
        .collect();
    let lines: Vec<&str> =
        done.lines_with(": error: ").iter().map(|line| line.split(':').nth(1).unwrap()).collect();
    assert_eq!(
        places,
        [
            "namespace",
            "module.sha256",
            "module.image",
            "module.digest",
            "destinations[0].host",
            "destinations[0].token.scope",
            "destinations[1].name",
            "destinations[1].token",
            "destinations[1].tokens",
            "destinations[2]",
        ]
    );
    assert_eq!(lines, ["2", "3", "4", "5", "8", "9", "10", "10", "11", "12"]);
}

#[test]
fn what_is_required_is_asked_for() {
    refused(
        "namespace: a\nmodule: {}\n",
        &[
            "destinations: required: a list of destinations",
            "module.image: required: oci:// with registry, repository and tag; the digest goes into \
         `sha256`",
            "module.sha256: required: the digest of the image's manifest, 64 hexadecimal digits in \
         lower case",
        ],
    );
    refused(
        "destinations: []\n",
        &[
            "namespace: required: the pods' namespace",
            "module: required: the filter's `image` and its `sha256`",
            "destinations: must not be empty: without a destination no token leaves",
        ],
    );
}

#[test]
fn a_file_holds_one_list() {
    let one = list("", GRAPH);
    for (text, message) in [
        (format!("{one}---\n{one}"), "d.yaml:7: a second list of destinations"),
        ("direction: outbound\n".to_owned(), "d.yaml:1: there is no list of destinations"),
        ("a: [\n".to_owned(), "d.yaml:2: not YAML: "),
    ] {
        let folder = Folder::with(&[("d.yaml", &text)]);
        let done = folder.run(&["istio", "destinations", "--config", "d.yaml"]);
        assert_eq!(done.code, 2);
        assert!(done.err.contains(message), "{}", done.err);
    }
}

#[test]
fn a_broker_beside_it_is_asked_for_identities_and_scopes() {
    let broker = "authorities: [{cloud: public, tenants: [organizations]}]\n\
                  identities: {default: {workload_identity: {}, scopes: [a/.default]}}\n\
                  listen: {api: {unix: /run/entra/broker.sock}}\n";
    let graph = format!("{GRAPH}, claims_challenges: true");
    let other = "- {name: b, host: b.example, token: {identity: other, scope: s}}\n";
    let text = list("", &graph) + other;
    let folder = Folder::with(&[("d.yaml", &text), ("b.yaml", broker)]);
    let done = folder.run(&["check", "d.yaml", "b.yaml"]);
    let found = done.lines_with("warning");
    assert_eq!(
        &found[..3],
        [
            "d.yaml:5: warning: destinations[0].token.scope: not in the broker's \
         `identities.default.scopes`",
            "d.yaml:5: warning: destinations[0].claims_challenges: the broker's identity `default` has \
         no `client_capabilities: [cp1]`",
            "d.yaml:6: warning: destinations[1].token.identity: the broker has no identity `other`",
        ],
        "{}",
        done.out
    );
}

#[test]
fn a_kinds_scope_is_that_of_the_cloud_for_the_broker_too() {
    let broker = "authorities: [{cloud: us-government, tenants: [organizations]}]\n\
                  identities: {default: {workload_identity: {}, \
                  scopes: [https://graph.microsoft.us/.default]}}\n\
                  listen: {api: {unix: /run/entra/broker.sock}}\n";
    let text = list("cloud: us-government", GRAPH);
    let folder = Folder::with(&[("d.yaml", &text), ("b.yaml", broker)]);
    folder.run(&["check", "d.yaml", "b.yaml"]).is_silent_about("token.scope");
}
