//! What others may write about a destination's host in the mesh, and what is left when only a part
//! of ours is there: a token goes to the right server over TLS, or there is none.

use e2e::upstream::Upstream;
use serde_json::{Value, json};

use super::stage::{Stage, find_cluster, in_clear, stage};
use crate::world::named;

/// The next call goes to the host's own server over TLS, with a token.
fn still_goes_right(stage: &Stage, name: &str, path: &str) {
    let host = format!("{name}.contoso.example");
    let answer = stage.call(&["GET", &format!("http://{host}{path}")]);
    assert_eq!(answer["status"], 200, "{answer}");
    let seen = stage.server(name).latest();
    assert_eq!((seen.target.as_str(), seen.bearer().is_some()), (path, true));
    assert_eq!(seen.header("host"), Some(host));
    assert!(!in_clear(stage.server(name)), "a token in clear");
}

/// Nobody else has got anything that looks like a token.
fn nothing_is_stolen(stage: &Stage) {
    let has_none = |server: &Upstream| !server.saw(b"eyJ");
    assert!(has_none(stage.server("thief")) && has_none(stage.server("thief443")));
}

#[test]
fn a_service_entry_that_names_another_address_moves_no_token() {
    let stage = stage();
    stage.until_answered(&["GET", "http://moved.contoso.example/before"], 200);
    let own = stage.object("ServiceEntry", "entra-moved");
    let mut moved = own.clone();
    moved["spec"]["resolution"] = json!("STATIC");
    moved["spec"]["endpoints"] = json!([{"address": "10.88.0.20"}]);
    stage.apply(&moved);
    let thief = |cluster: &Value| cluster["type"] == "EDS" || cluster["type"] == "STATIC";
    stage.until_cluster("moved.contoso.example", thief);
    still_goes_right(&stage, "moved", "/moved");
    nothing_is_stolen(&stage);
    // So does a virtual service that sends the calls elsewhere, or a copy of each.
    stage.apply(&json!({
        "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
        "metadata": named("thief", "outbound"),
        "spec": {"hosts": ["nobody.contoso.example"], "exportTo": ["."], "location": "MESH_EXTERNAL",
                 "resolution": "DNS", "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}]},
    }));
    let to_thief = json!({"host": "nobody.contoso.example", "port": {"number": 80}});
    stage.apply(&json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": named("thief", "outbound"),
        "spec": {"hosts": ["moved.contoso.example"], "http": [{
            "route": [{"destination": to_thief}],
            "rewrite": {"authority": "nobody.contoso.example"},
            "mirror": to_thief,
            "timeout": "7.5s",
        }]},
    }));
    stage.until_dumped("\"timeout\":\"7.500s\"");
    still_goes_right(&stage, "moved", "/routed");
    nothing_is_stolen(&stage);
}

#[test]
fn with_only_a_half_of_the_envoy_filter_there_is_no_token() {
    let stage = stage();
    let server = stage.server("half");
    let words = ["GET", "http://half.contoso.example/"];
    stage.until_answered(&words, 200);
    let whole = stage.object("EnvoyFilter", "entra-half");
    let patches = whole["spec"]["configPatches"].as_array().unwrap();
    assert_eq!(patches.len(), 2);
    let half = |kept: usize| {
        let mut half = whole.clone();
        half["spec"]["configPatches"] = json!([patches[kept]]);
        half
    };

    // The cluster alone: Istio's own is called, as if there were no token to be had.
    stage.apply(&half(0));
    stage.until_there("half", true, false);
    let before = server.requests().len();
    let answer = stage.call(&words);
    assert_ne!(answer["status"], 200, "{answer}");
    assert_eq!(server.requests().len(), before);
    assert!(server.connected().iter().any(|known| known.wire.starts_with(b"GET ")), "nobody came");
    assert!(!in_clear(server), "a token in clear");

    // The route alone: it leads nowhere.
    stage.apply(&half(1));
    stage.until_there("half", false, true);
    let before = server.connections();
    let answer = stage.call(&words);
    assert_eq!(answer["status"], 503, "{answer}");
    assert_eq!(server.connections(), before);

    stage.apply(&whole);
    stage.until_answered(&words, 200);
    assert!(server.latest().bearer().is_some());
    assert!(!in_clear(server), "a token in clear");
}

#[test]
fn destination_rules_change_nothing_on_a_tokens_way() {
    let stage = stage();
    stage.until_answered(&["GET", "http://ruled.contoso.example/before"], 200);
    for (index, tls) in [
        json!({"mode": "DISABLE"}),
        json!({"mode": "ISTIO_MUTUAL"}),
        json!({"mode": "SIMPLE", "sni": "other.example", "caCertificates": "/etc/hostname"}),
        json!({"mode": "SIMPLE", "insecureSkipVerify": true}),
    ]
    .into_iter()
    .enumerate()
    {
        // By its timeout it is seen when this one has arrived.
        let timeout = format!("{}s", index + 20);
        let rule = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
            "metadata": named("ruled", "outbound"),
            "spec": {"host": "ruled.contoso.example", "trafficPolicy": {
                "tls": tls, "connectionPool": {"tcp": {"connectTimeout": timeout}},
            }},
        });
        stage.apply(&rule);
        if !tls.to_string().contains("hostname") {
            // A cluster with a file that is none of certificates is refused, and never seen.
            let arrived = |cluster: &Value| cluster["connect_timeout"] == json!(timeout);
            stage.until_cluster("ruled.contoso.example", arrived);
        }
        still_goes_right(&stage, "ruled", &format!("/{index}"));
        nothing_is_stolen(&stage);
        stage.open.world.mesh.delete(&rule.to_string()).unwrap();
        let gone = |cluster: &Value| cluster["connect_timeout"] == "10s";
        stage.until_cluster("ruled.contoso.example", gone);
        still_goes_right(&stage, "ruled", &format!("/{index}/gone"));
    }
}

#[test]
fn a_host_that_is_said_to_be_of_the_mesh_gets_its_token_over_tls_all_the_same() {
    let stage = stage();
    stage.until_answered(&["GET", "http://inner.contoso.example/before"], 200);
    let mut inner = stage.object("ServiceEntry", "entra-inner");
    inner["spec"]["location"] = json!("MESH_INTERNAL");
    stage.apply(&inner);
    // Here a patch merged into Istio's own cluster would lose its TLS and keep its name.
    stage.until_cluster("inner.contoso.example", |cluster| {
        cluster.get("transport_socket_matches").is_some()
    });
    still_goes_right(&stage, "inner", "/inner");
    nothing_is_stolen(&stage);
}

#[test]
fn the_destinations_name_stands_on_clusters_with_tls_only() {
    let stage = stage();
    let dump = super::stage::dump(&stage.open);
    let names: Vec<_> = super::stage::clusters(&dump)
        .filter(|cluster| cluster.pointer("/metadata/filter_metadata/entra_sidecar").is_some())
        .map(|cluster| cluster["name"].as_str().unwrap())
        .collect();
    assert!(names.contains(&"entra-graph") && names.contains(&"entra-stock"), "{names:?}");
    for name in names {
        let cluster = find_cluster(&dump, name).unwrap();
        assert_eq!(cluster["transport_socket"]["name"], "envoy.transport_sockets.tls", "{name}");
        assert!(cluster.get("transport_socket_matches").is_none(), "{name}");
    }
}
