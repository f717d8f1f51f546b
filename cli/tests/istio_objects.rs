//! The objects that `istio destinations` makes: what they are, and that a mesh takes them.

use std::collections::BTreeSet;

use crate::program::{Done, Folder, repository};

/// The list and its objects, as they are in the repository.
fn golden(name: &str) -> String {
    let path = repository().join("cli/tests/golden").join(name);
    std::fs::read_to_string(path).unwrap()
}

fn made_of(list: &str) -> (Folder, Done) {
    let folder = Folder::with(&[("list.yaml", list)]);
    let done = folder.run(&["istio", "destinations", "--config", "list.yaml"]);
    assert_eq!((done.code, done.err.as_str()), (0, ""));
    folder.write("objects.yaml", &done.out);
    (folder, done)
}

#[test]
fn the_objects_are_those_of_the_repository() {
    let (folder, done) = made_of(&golden("destinations.yaml"));
    // When they are meant to change: entra-sidecar istio destinations \
    //   --config cli/tests/golden/destinations.yaml --output cli/tests/golden/objects.yaml
    let (found, expected) = (done.out.lines(), golden("objects.yaml"));
    for (number, (found, expected)) in found.zip(expected.lines()).enumerate() {
        assert_eq!(found, expected, "in line {}", number + 1);
    }
    assert_eq!(done.out, expected);
    let arguments = ["--config", "list.yaml", "--output", "written.yaml"];
    let done = folder.run(&[&["istio", "destinations"][..], &arguments].concat());
    assert_eq!(done.out, "written.yaml: the objects of 4 destinations\n");
    assert_eq!(folder.read("written.yaml"), expected);
}

#[test]
fn the_filters_policy_is_found_in_the_objects_and_is_clean() {
    let (folder, _) = made_of(&golden("destinations.yaml"));
    let done = folder.run(&["check", "--deny-warnings", "list.yaml", "objects.yaml"]);
    done.says("TrafficExtension entra-outbound: outbound, 4 rules\n");
    done.says("2 configurations in order, 0 errors, 0 warnings\n");
    assert_eq!(done.code, 0);
    let explain = ["explain", "--config", "objects.yaml", "--destination", "ledger"];
    let done = folder.run(&explain);
    done.says("authorization: Bearer <a token of identity ledger for api://ledger/.default>");
    done.says("a claims challenge to it is answered");
}

#[test]
fn what_yaml_would_read_as_something_else_stays_text() {
    let list = format!(
        "namespace: '1e3'\nlabels: {{app: 'true', 'null': ''}}\n\
         module: {{image: 'oci://r.example/ab', sha256: '{}', pull_secret: '12'}}\n\
         broker: {{cluster: 'a\"b{{'}}\n\
         destinations:\n- {{name: '1e3', host: '1.e5', token: {{identity: '7', scope: 'a\"#&\\'}}}}\n\
         - {{name: 'true', kind: graph, token: {{identity: 'null'}}}}\n",
        "1".repeat(64)
    );
    let (folder, done) = made_of(&list);
    for line in [
        "  namespace: \"1e3\"",
        "    matchLabels: {\"app\": \"true\", \"null\": \"\"}",
        "    url: \"oci://r.example/ab\"",
        &format!("    sha256: \"{}\"", "1".repeat(64)),
        "    imagePullSecret: \"12\"",
        "      broker: {cluster: \"a\\\"b{\"}",
        "            sni: \"1.e5\"",
        "                - {san_type: DNS, matcher: {exact: \"1.e5\"}}",
        "            entra_sidecar: {destination: \"1e3\"}",
        "  hosts: [\"1.e5\"]",
    ] {
        assert!(done.out.lines().any(|found| found == line), "{line}\n{}", done.out);
    }
    let done = folder.run(&["explain", "--config", "objects.yaml", "--destination", "1e3"]);
    done.says("authorization: Bearer <a token of identity 7 for a\"#&\\>");
    folder.run(&["explain", "--config", "objects.yaml", "--destination", "true"]).says("injected");
}

#[test]
fn before_istio_1_30_a_wasm_plugin_brings_the_module() {
    let list = golden("destinations.yaml") + "resource: WasmPlugin\n";
    let (folder, done) = made_of(&list);
    done.says("kind: WasmPlugin\n");
    done.says("\n  url: \"oci://registry.example/entra-sidecar/filter:1.0\"\n  sha256: \"0123");
    done.says("            - name: extensions.istio.io/wasmplugin/shop.entra-outbound\n");
    done.is_silent_about("trafficextension");
    let done = folder.run(&["check", "--deny-warnings", "objects.yaml"]);
    done.says("WasmPlugin entra-outbound: outbound, 4 rules\n");
    assert_eq!(done.code, 0);
}

#[test]
fn the_login_host_is_that_of_the_cloud() {
    for (cloud, login, graph) in [
        ("us-government", "login.microsoftonline.us", "graph.microsoft.us"),
        ("china", "login.partner.microsoftonline.cn", "microsoftgraph.chinacloudapi.cn"),
    ] {
        let (_, done) = made_of(&format!("{}cloud: {cloud}\n", golden("destinations.yaml")));
        done.says(&format!("  hosts: [\"{login}\"]"));
        done.says(&format!("  hosts: [\"{graph}\"]"));
        done.is_silent_about("microsoftonline.com");
    }
}

#[test]
fn a_replay_is_asked_for_only_where_challenges_are_answered() {
    let list = golden("destinations.yaml").replace("  claims_challenges: true\n", "");
    let (_, done) = made_of(&list);
    done.is_silent_about("retry_policy:");
    let objects = golden("objects.yaml");
    assert_eq!(objects.matches("applyTo: HTTP_ROUTE").count(), 4);
    assert_eq!(objects.matches("retry_policy:").count(), 2);
    // The same as in the configuration of a plain Envoy.
    let envoy = std::fs::read_to_string(repository().join("envoy.yaml")).unwrap();
    for line in [
        "response_headers_to_remove: [x-entra-retry]",
        "per_request_buffer_limit_bytes: 1048576",
        "retry_on: retriable-headers",
        "retriable_headers: [{name: x-entra-retry, present_match: true}]",
        "num_retries: 1",
        "retry_back_off: {base_interval: 0.001s, max_interval: 0.001s}",
        "TLSv1_2",
        "TLSv1_3",
    ] {
        assert!(envoy.contains(line), "envoy.yaml: {line}");
        assert!(objects.contains(line), "objects.yaml: {line}");
    }
}

#[test]
fn a_destinations_cluster_is_whole_and_merged_with_nothing_of_istios() {
    let objects = golden("objects.yaml");
    for filter in objects.split("---\n").filter(|object| object.contains("kind: EnvoyFilter")) {
        let patches: Vec<&str> = filter.split("  - applyTo: ").skip(1).collect();
        let [cluster, route] = patches.as_slice() else { panic!("{filter}") };
        // TLS, filter and name arrive in one piece, or not at all.
        assert!(cluster.starts_with("CLUSTER\n") && cluster.contains("operation: ADD\n"));
        for part in ["transport_socket:", "entra_sidecar:", "http_filters:", "port_value: 443"] {
            assert!(cluster.contains(part), "{part}\n{cluster}");
        }
        assert!(route.starts_with("HTTP_ROUTE\n") && route.contains("host_rewrite_literal: "));
        let name = filter.split("  name: ").nth(1).unwrap().lines().next().unwrap();
        assert!(cluster.contains(&format!("        name: {name}\n")), "{name}\n{cluster}");
        assert!(route.contains(&format!("          cluster: {name}\n")), "{name}\n{route}");
    }
}

/// What Envoy calls the extension of each type in the objects; nothing for a part of its core.
const TYPES: [(&str, Option<&str>); 4] = [
    (
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        Some("envoy.transport_sockets.tls"),
    ),
    ("envoy.extensions.upstreams.http.v3.HttpProtocolOptions", None),
    ("envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec", None),
    ("envoy.extensions.filters.http.wasm.v3.Wasm", Some("envoy.filters.http.wasm")),
];

#[test]
fn istios_proxy_has_every_extension_of_the_objects() {
    let list = std::fs::read_to_string(repository().join("istio/envoy-extensions.txt")).unwrap();
    // A name with releases in brackets is not in all of them.
    let extensions: BTreeSet<&str> = list.lines().collect();
    assert!(extensions.len() > 200);
    for name in ["envoy.wasm.runtime.v8", "envoy.clusters.logical_dns"] {
        assert!(extensions.contains(name), "{name}");
    }
    let objects = golden("objects.yaml");
    let mut found = BTreeSet::new();
    for part in objects.split("type.googleapis.com/").skip(1) {
        let name = part.split(|letter: char| !letter.is_alphanumeric() && !"._".contains(letter));
        found.insert(name.into_iter().next().unwrap());
    }
    assert_eq!(found, TYPES.iter().map(|(name, _)| *name).collect());
    for (name, extension) in TYPES {
        assert!(extension.is_none_or(|extension| extensions.contains(extension)), "{name}");
    }
    // What is named without a type: an extension of the list, or the core's codec.
    for name in objects
        .lines()
        .filter_map(|line| line.trim().trim_start_matches("- ").strip_prefix("name: envoy."))
    {
        let name = format!("envoy.{name}");
        let known =
            name == "envoy.filters.http.upstream_codec" || extensions.contains(name.as_str());
        assert!(known, "{name}");
    }
}
