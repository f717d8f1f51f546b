//! The position without an EnvoyFilter for each destination: `istio/downstream.yaml` as it is, but
//! for the names in it, and that its warning is true.

use mesh::poll;

use super::stage::{call, documents, find_cluster, in_clear, one_identity, stage, times_in_clear};
use crate::{
    shop::Shop,
    world::{PATIENCE, repository},
};

const NAMESPACE: &str = "outbound-3";
const HOST: &str = "below.contoso.example";

#[test]
fn the_downstream_example_gives_a_token_to_its_host_and_trusts_the_destination_rule() {
    let stage = stage();
    let world = stage.open.world;
    let _guard = world.mesh.shared().unwrap();
    let open = Shop::new(NAMESPACE).values(one_identity()).open();
    let text = std::fs::read_to_string(repository("istio/downstream.yaml")).unwrap();
    // The scope has the host's name, too, and stays.
    let text = text
        .replace("https://graph.microsoft.com", "https://GRAPH")
        .replace("graph.microsoft.com", HOST)
        .replace("https://GRAPH", "https://graph.microsoft.com")
        .replace("namespace: shop", &format!("namespace: {NAMESPACE}"))
        .replace("caCertificates: system", "caCertificates: /etc/entra-ca/ca.crt")
        .replace("registry.example.com", "10.88.0.1:5000")
        .replace(&"0".repeat(64), world.images.filter.strip_prefix("sha256:").unwrap());
    world.mesh.apply(&text).unwrap();
    let server = stage.server("below");
    let words = ["GET", &format!("http://{HOST}/first")];
    poll("a token at its host", PATIENCE, || {
        call(&open, &words);
        Ok(server.requests().last().is_some_and(|seen| seen.bearer().is_some()))
    })
    .unwrap();
    assert_eq!(call(&open, &words)["status"], 200);
    assert!(!in_clear(server), "a token in clear");

    // No other host and no other name of this one.
    for host in ["nobody.contoso.example", "10.88.0.20"] {
        let header = format!("host: {host}");
        call(&open, &["GET", "http://any.example/", "--connect", "10.88.0.20:80", "-H", &header]);
    }
    assert!(!stage.server("thief").saw(b"eyJ"));

    // The warning: without the rule there is no TLS, and the filter sees that too late. Each of
    // Envoy's threads gives one token, and then no more.
    let rule = documents(&text).into_iter().find(|object| object["kind"] == "DestinationRule");
    world.mesh.delete(&rule.unwrap().to_string()).unwrap();
    poll("the cluster without TLS", PATIENCE, || {
        let dump = super::stage::dump(&open);
        let cluster = find_cluster(&dump, &format!("outbound|80||{HOST}"));
        Ok(cluster.is_some_and(|cluster| cluster.get("transport_socket").is_none()))
    })
    .unwrap();
    for _ in 0..8 {
        assert_eq!(call(&open, &words)["status"], 502, "TLS from somewhere");
    }
    let threads = 2;
    assert!((1..=threads).contains(&times_in_clear(server)), "the warning of the example is wrong");
}
