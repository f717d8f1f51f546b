//! A pod without native sidecars, as every pod is in a cluster that has none: the broker is then a
//! container beside the application's.

use e2e::{
    client::Request,
    fake_entra::{sample, service_account},
};
use serde_json::Value;

use crate::{
    shop::Shop,
    world::{PATIENCE, world},
};

#[test]
fn without_native_sidecars_the_pod_is_guarded_and_gets_tokens_all_the_same() {
    let world = world();
    let _shared = world.mesh.shared().unwrap();
    let shop = Shop::new("no-native").annotation("sidecar.istio.io/nativeSidecar", "false").open();

    let pod = world.mesh.get(shop.namespace, &["pod", &shop.pod]).unwrap();
    let names = |kind: &str| -> Vec<String> {
        let containers = pod["spec"][kind].as_array().unwrap().iter();
        containers.map(|container| container["name"].as_str().unwrap().to_owned()).collect()
    };
    let mut containers = names("containers");
    containers.sort();
    assert_eq!(containers, ["application", "istio-proxy", "token-broker"]);
    let mut init = names("initContainers");
    init.sort();
    assert_eq!(init, ["entra-lockdown", "istio-init"]);

    assert_eq!(shop.call(&Request::get("/orders/7")).status, 401);
    assert_eq!(shop.seen(), Vec::<Value>::new());
    let allowed = Request::get("/orders/7").bearer(&world.token());
    assert_eq!(shop.call(&allowed).status, 200);

    let subject = service_account(shop.namespace, "orders");
    let issued = world.entra.wait_for_call(PATIENCE, |call| {
        call.subject() == Some(&subject)
            && call.client_id() == Some(sample::WORKLOAD)
            && call.issued.is_some()
    });
    assert!(issued, "the broker got no token for Graph");
    assert_eq!(shop.readiness()["ready"], true);
}
