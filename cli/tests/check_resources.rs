//! Configurations inside Envoy's and Kubernetes' own.

use crate::program::{API, Folder, TENANT};

#[track_caller]
fn check(text: &str, code: i32, expected: &[&str]) {
    let done = Folder::with(&[("f.yaml", text)]).run(&["check", "f.yaml"]);
    let found: Vec<&str> = done.out.lines().collect();
    let (_, found) = found.split_last().unwrap();
    assert_eq!(found, expected, "{}", done.err);
    assert_eq!(done.code, code);
}

/// A policy in JSON, on lines of their own, with its second rule as given.
fn json(rule: &str) -> String {
    format!(
        r#"{{
  "direction": "inbound", "tenants": ["{TENANT}"], "audiences": ["{API}"],
  "broker": {{"cluster": "token_broker"}},
  "rules": [
    {{"name": "all", "allow": [{{"scopes": ["S"]}}]}},
    {rule}
  ]
}}"#
    )
}

const GOOD: &str = r#"{"name": "health", "match": {"path": "/healthz"}, "allow": "anyone"}"#;
const BAD: &str = r#"{"name": "health", "allow": "everyone"}"#;
const ERROR: &str =
    "error: rules[1].allow: expected `anyone` or a list of alternatives, not `everyone`";
/// The document's last-but-two line.
const WASM: &str = "\"@type\": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
const STRING: &str = "\"@type\": type.googleapis.com/google.protobuf.StringValue";

fn indented(text: &str, by: usize) -> String {
    text.lines().map(|line| format!("{}{line}\n", " ".repeat(by))).collect()
}

/// A filter of Envoy's configuration with its configuration as given.
fn filter(name: &str, value: &str) -> String {
    format!(
        "- name: {name}\n  typed_config:\n    {WASM}\n    config:\n      name: {name}\n      \
         configuration:\n        {STRING}\n        value: {value}\n"
    )
}

#[test]
fn several_filters_in_one_file_have_their_own_lines() {
    let block = |rule| format!("|\n{}", indented(&json(rule), 10));
    let text =
        format!("filters:\n{}{}", filter("first", &block(GOOD)), filter("second", &block(BAD)));
    check(&text, 1, &["f.yaml:10: filter first: inbound, 2 rules", &format!("f.yaml:32: {ERROR}")]);
    let line = text.lines().nth(31).unwrap();
    assert!(line.contains("everyone"), "{line}");
}

#[test]
fn json_on_one_line_is_found_there() {
    let quoted = |rule| format!("'{}'", json(rule).replace('\n', ""));
    check(&format!("filters:\n{}", filter("a", &quoted(BAD))), 1, &[&format!("f.yaml:9: {ERROR}")]);
    check(
        &format!("filters:\n{}", filter("a", "'{\"direction\": \"inbound\", }'")),
        1,
        &["f.yaml:9: error: not JSON: key must be a string (column 26 of the line's JSON)"],
    );
}

#[test]
fn a_struct_is_a_configuration_too() {
    let text =
        filter("a", &json(BAD).replace('\n', "\n          ")).replace("StringValue", "Struct");
    check(&text, 1, &[&format!("f.yaml:13: {ERROR}")]);
}

#[test]
fn other_modules_filters_are_left_alone() {
    let foreign = filter("a", "'not ours'");
    check(&foreign, 1, &["f.yaml:1: error: the wasm filters in this file are of other modules"]);
    let both = format!("{foreign}{}", filter("b", &format!("|\n{}", indented(&json(GOOD), 10))));
    check(&both, 0, &["f.yaml:17: filter b: inbound, 2 rules"]);
}

#[test]
fn a_filter_of_our_module_needs_a_configuration() {
    let text = format!(
        "{WASM}\nconfig:\n  name: a\n  vm_config: {{code: {{local: {{filename: dist/entra_filter.wasm}}}}}}\n"
    );
    check(&text, 1, &["f.yaml:3: error: filter a: no `configuration`: the filter would not start"]);
}

#[test]
fn istio_resources_of_one_file_are_all_checked() {
    let config = |rule| indented(&json(rule), 6).trim_start().to_owned();
    let text = format!(
        "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {{name: in}}\nspec:\n  \
         pluginConfig:\n    {}---\napiVersion: extensions.istio.io/v1alpha1\n\
         kind: TrafficExtension\nmetadata: {{name: out}}\nspec:\n  wasm:\n    pluginConfig: {}---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: other}}\n",
        config(GOOD),
        config(BAD)
    );
    check(&text, 1, &["f.yaml:6: WasmPlugin in: inbound, 2 rules", &format!("f.yaml:25: {ERROR}")]);
}

#[test]
fn patches_of_an_envoy_filter_are_looked_into() {
    let text = format!(
        "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {{name: e}}\nspec:\n  \
         configPatches:\n  - patch:\n      value:\n        typed_config:\n          \
         \"@type\": type.googleapis.com/udpa.type.v1.TypedStruct\n          \
         type_url: type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm\n          \
         value:\n            config:\n              name: e\n              configuration:\n                \
         {STRING}\n                value: |\n{}",
        indented(&json(BAD), 18)
    );
    check(&text, 1, &[&format!("f.yaml:22: {ERROR}")]);
}

#[test]
fn a_config_map_holds_the_brokers_file() {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: broker}\ndata:\n  notes.txt: |\n    \
                - not {yaml\n  broker.yaml: |\n    # keys\n    authorities:\n    - cloud: moon\n      \
                tenants: [organizations]\n";
    check(
        text,
        1,
        &[
            "f.yaml:10: error: authorities[0].cloud: unknown cloud; expected `public`, `us-government`, \
         `china`, `france`, `germany` or `singapore`",
        ],
    );
    check(
        &text.replace("moon", "public"),
        0,
        &["f.yaml:9: ConfigMap broker, broker.yaml: broker: keys of 1 authorities, no identities"],
    );
}

#[test]
fn a_list_of_resources_is_looked_through() {
    let text = format!(
        "apiVersion: v1\nkind: List\nitems:\n- apiVersion: extensions.istio.io/v1alpha1\n  \
         kind: WasmPlugin\n  metadata: {{name: in}}\n  spec:\n    pluginConfig: {}",
        indented(&json(BAD), 6).trim_start()
    );
    check(&text, 1, &[&format!("f.yaml:13: {ERROR}")]);
}
