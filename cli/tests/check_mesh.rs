//! Warnings about what stands around the filter in a mesh.

use crate::program::{Folder, policy, repository};

const ALL: &str = "[{name: all, allow: [{scopes: [S]}]}]";

/// A policy on the marker with its action and the rest of its rule.
fn authorization(action: &str, rule: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: permitted, namespace: shop}}\nspec:\n  {action}\n  rules:\n  - {rule}\n"
    )
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let done = Folder::with(&[("f.yaml", text)]).run(&["check", "f.yaml"]);
    let found: Vec<&str> = done.out.lines().collect();
    let (_, found) = found.split_last().unwrap();
    assert_eq!(found, expected, "{}", done.err);
}

const DENIES: &str = "AuthorizationPolicy permitted: denies what the filter did not permit";

#[test]
fn each_port_that_the_marker_is_not_wanted_on_is_named() {
    let when = "when: [{key: 'request.headers[x-entra-permit]', notValues: ['*']}]";
    check(
        &authorization("action: DENY", when),
        &[&format!("f.yaml:2: {DENIES}").replace(":2:", ":1:")],
    );
    let to = "to: [{operation: {notPorts: ['5432', '9090']}}, {operation: {notPorts: ['7000']}}]";
    let text = authorization("action: DENY", &format!("{to}\n    {when}"));
    let warning = |to: u8, port: u16| {
        format!(
            "f.yaml:7: warning: spec.rules[0].to[{to}].operation.notPorts: port {port} carries \
             traffic that the filter never sees"
        )
    };
    check(
        &text,
        &[&warning(0, 5432), &warning(0, 9090), &warning(1, 7000), &format!("f.yaml:1: {DENIES}")],
    );
    let done = Folder::with(&[("f.yaml", &text)]).run(&["check", "--deny-warnings", "f.yaml"]);
    assert_eq!(done.code, 1);
}

#[test]
fn a_policy_on_the_marker_that_does_not_hold_is_said_to() {
    let warning = "f.yaml:7: warning: spec.rules[0].when: stops nothing where another policy \
                   allows: only `action: DENY` with `notValues` holds";
    let when = |values: &str| {
        format!("when: [{{key: 'request.headers[X-Entra-Permit]', {values}: ['1']}}]")
    };
    let about = "f.yaml:1: AuthorizationPolicy permitted: is about what the filter permitted";
    check(&authorization("action: ALLOW", &when("values")), &[warning, about]);
    check(&authorization("action: ALLOW", &when("notValues")), &[warning, about]);
    check(&authorization("selector: {}", &when("values")), &[warning, about]);
    check(
        &authorization("action: DENY", &when("values")),
        &[warning, &format!("f.yaml:1: {DENIES}")],
    );
}

#[test]
fn other_policies_are_nobodys_business() {
    let nothing = "f.yaml:1: error: there is no configuration of Entra Sidecar in this file";
    for when in ["when: [{key: 'request.headers[x-other]', notValues: ['*']}]", "from: []"] {
        check(&authorization("action: DENY", when), &[nothing]);
    }
    let ours = "when: [{key: 'request.headers[x-entra-permit]', notValues: ['*']}]";
    let other = authorization("action: DENY", ours).replace("AuthorizationPolicy", "OtherPolicy");
    check(&other, &[nothing]);
}

#[test]
fn the_marker_can_have_the_name_that_the_filters_policy_gives_it() {
    let when = "when: [{key: 'request.headers[x-mine]', notValues: ['*']}]\n    \
                to: [{operation: {notPorts: ['1']}}]";
    let own = policy(ALL) + "permit_marker: x-mine\n";
    let done =
        Folder::with(&[("f.yaml", &format!("{own}---\n{}", authorization("action: DENY", when)))])
            .run(&["check", "f.yaml"]);
    done.says("port 1 carries traffic that the filter never sees");
}

/// The objects in the repository, changed.
fn objects(from: &str, to: &str) -> String {
    let path = repository().join("cli/tests/golden/objects.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{from}");
    text.replace(from, to)
}

#[track_caller]
fn lacks_replay(text: &str, expected: &[&str]) {
    let done = Folder::with(&[("f.yaml", text)]).run(&["check", "f.yaml"]);
    let warnings: Vec<&str> = done
        .lines_with("warning: ")
        .iter()
        .map(|line| {
            line.split_once("claims_challenges: ").unwrap().1.split(" has no").next().unwrap()
        })
        .collect();
    assert_eq!(warnings, expected, "{}", done.out);
}

#[test]
fn a_destination_whose_challenges_istio_would_not_replay_is_named() {
    let text = objects("x-entra-retry", "x-entra-retry");
    let route = |cluster: &str| {
        let line = format!("cluster: {cluster}");
        let line = text.lines().position(|found| found.trim() == line).unwrap() + 1;
        format!("the route to cluster `{cluster}` in line {line}")
    };
    let (graph, ledger) = (route("entra-graph"), route("entra-ledger"));
    lacks_replay(&text, &[]);
    for (from, to) in [
        ("retry_policy:", "retries:"),
        ("retry_on: retriable-headers", "retry_on: 5xx"),
        ("{name: x-entra-retry, present", "{name: x-other, present"),
    ] {
        lacks_replay(&objects(from, to), &[&graph, &ledger]);
    }
    // Where the destination's cluster is not in the file nothing can be seen.
    lacks_replay(&objects("entra_sidecar: {", "other: {"), &[]);
}

/// The objects' policy, and an EnvoyFilter that merges its parts into Istio's own cluster.
fn merged(cluster: &str, vhost: &str) -> String {
    let text = objects("kind: EnvoyFilter", "kind: Other").replace("entra_sidecar: {", "other: {");
    let policy = "retry_on: retriable-headers, retriable_headers: [{name: x-entra-retry}]";
    format!(
        "{text}---\nkind: EnvoyFilter\napiVersion: networking.istio.io/v1alpha3\nspec:\n  \
         configPatches:\n  - match: {{cluster: {{{cluster}}}}}\n    patch: {{value: {{metadata: \
         {{filter_metadata: {{entra_sidecar: {{destination: ledger}}}}}}}}}}\n  \
         - match: {{routeConfiguration: {{{vhost}}}}}\n    patch: {{value: {{route: \
         {{retry_policy: {{{policy}}}}}}}}}\n"
    )
}

#[test]
fn patches_of_istios_own_clusters_are_compared_by_their_virtual_hosts() {
    let missing = ["the route of virtual host `ledger.example:8080`"];
    for cluster in
        ["name: 'outbound|8080||ledger.example'", "service: ledger.example, portNumber: 8080"]
    {
        lacks_replay(&merged(cluster, "vhost: {name: 'ledger.example:8080'}"), &[]);
        lacks_replay(&merged(cluster, "vhost: {name: 'ledger.example:80'}"), &missing);
        // A patch of all virtual hosts is one of these, too.
        lacks_replay(&merged(cluster, "name: any"), &[]);
    }
}

#[test]
fn a_route_of_a_plain_envoy_without_the_replay_is_named() {
    let text = std::fs::read_to_string(repository().join("envoy.yaml")).unwrap();
    lacks_replay(&text, &[]);
    let line =
        |text: &str| text.lines().position(|line| line.trim() == "cluster: graph").unwrap() + 1;
    let route = format!("the route to cluster `graph` in line {}", line(&text));
    lacks_replay(&text.replace("retry_on: retriable-headers", "retry_on: 5xx"), &[&route]);
    lacks_replay(&text.replace("[{name: x-entra-retry, present_match: true}]", "[]"), &[&route]);
    // A policy of the virtual host is as good, unless the route has another.
    let policy = "retry_policy: {retry_on: 'reset,retriable-headers', retriable_headers: [{name: x-entra-retry}]}";
    let around = "              response_headers_to_remove: [x-entra-retry]\n";
    let host = text.replace(around, &format!("              {policy}\n"));
    lacks_replay(&host.replace("retry_on: retriable-headers\n", "retry_on: 5xx\n"), &[&route]);
    lacks_replay(
        &host.replace("                  retry_policy:\n", "                  other:\n"),
        &[],
    );
    lacks_replay(&text.replace("\"claims_challenges\": true", "\"claims_challenges\": false"), &[]);
}
