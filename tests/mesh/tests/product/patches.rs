//! What the chart's EnvoyFilters say is in the configuration of a running Envoy. Neither the API
//! server nor istiod complains of a member that Envoy does not know, or of a patch that fits
//! nowhere: both are left out, and what they should close stays open.

use serde_json::Value;

use crate::{upgrade::shop, world::world};

/// Where a patch is to be found in the configuration dump, how often at least, and what it is for.
const EXPECTED: [(&str, usize, &str); 8] = [
    (r#""stream_idle_timeout":"300s""#, 2, "silent streams end, in both directions"),
    (r#""remove":"x-entra-permit""#, 1, "a caller's marker is removed before any filter"),
    (r#""request_headers_to_remove":["x-entra-permit"]"#, 1, "ours before the application"),
    (r#""upstream_connect_mode":"ON_DOWNSTREAM_DATA""#, 1, "servers cannot speak first"),
    (r#""pipe":{"path":"/run/entra/broker.sock"}"#, 1, "the way to the broker"),
    ("%FILTER_STATE(wasm.entra:PLAIN)%", 1, "the inbound record in the log"),
    ("%FILTER_STATE(wasm.entra_outbound:PLAIN)%", 1, "the outbound record in the log"),
    (r#""failure_policy":"FAIL_RELOAD""#, 1, "a virtual machine that fails is started again"),
];

#[test]
fn every_patch_of_the_chart_is_in_envoys_configuration() {
    let _guard = world().mesh.shared().unwrap();
    let shop = shop();
    let dump: Value = serde_json::from_str(&shop.config_dump("")).unwrap();
    let dump = dump.to_string();
    let missing: Vec<_> = EXPECTED
        .iter()
        .filter(|(text, times, _)| dump.matches(text).count() < *times)
        .map(|(text, _, what)| format!("{what}: {text}"))
        .collect();
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(!dump.contains("FAIL_OPEN"), "a filter that lets through when it fails");
}
