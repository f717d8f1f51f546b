//! A mesh that lets out only what it knows: the calls reach their hosts, and the broker Entra. Here
//! the objects are applied by kubectl.

use serde_json::json;

use super::stage::{SCOPES, asked, call, generate, in_clear, one_identity, stage, until_answered};
use crate::{
    shop::{Open, Shop, install},
    world::named,
};

const NAMESPACE: &str = "outbound-2";

#[test]
fn where_only_known_hosts_are_let_out_tokens_are_acquired_and_sent() {
    let stage = stage();
    let world = stage.open.world;
    let _guard = world.mesh.shared().unwrap();
    let shop = Shop::new(NAMESPACE).without_chart();
    shop.prepare();
    install(world, NAMESPACE, &[one_identity()]);
    let sidecar = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "Sidecar",
        "metadata": named("default", NAMESPACE),
        "spec": {"outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}},
    });
    world.mesh.apply(&sidecar.to_string()).unwrap();
    let token = json!({"identity": "default", "scope": SCOPES[1]});
    let destination =
        json!({"name": "registered", "host": "registered.contoso.example", "token": token});
    world.mesh.apply(&generate(world, NAMESPACE, &[destination])).unwrap();
    world.mesh.apply(&shop.application_objects().to_string()).unwrap();
    let pod = world.mesh.ready_pod(NAMESPACE, "app=orders").unwrap();
    let address = world.mesh.pod_ip(NAMESPACE, &pod).unwrap().parse().unwrap();
    let open = Open { world, namespace: NAMESPACE, pod, address };

    until_answered(&open, &["GET", "http://registered.contoso.example/registry"], 200);
    let server = stage.server("registered");
    let seen = server.requests().into_iter().rfind(|seen| seen.target == "/registry").unwrap();
    assert!(seen.bearer().is_some());
    assert!(!in_clear(server), "a token in clear");
    assert!(asked(world, NAMESPACE).iter().any(|call| call.issued.is_some()));
    // And nobody else is let out: not the application to an unknown host, whatever it speaks.
    let elsewhere = call(&open, &["GET", "http://nobody.contoso.example/"]);
    assert_eq!(elsewhere["status"], 502, "{elsewhere}");
}
