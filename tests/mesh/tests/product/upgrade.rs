//! Another filter or policy under a running workload: what callers get meanwhile, and when the new
//! one is broken. docs/operations.md has the table of it.
//!
//! Two things can become of a broken one. What pilot-agent cannot fetch or read it replaces by a
//! denial of everything; what Envoy refuses leaves the old filter in force. Nothing lets through.

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use e2e::client::{Connection, Request};
use mesh::{Component, poll};
use serde_json::{Value, json};

use crate::{
    filters,
    shop::{Open, Shop, install, install_release},
    watch::{OPEN, SHUT},
    world::{PATIENCE, World, world},
};

const NAMESPACE: &str = "upgrade";
/// What pilot-agent puts in place of a filter that it cannot give to Envoy.
const DENY_ALL: &str = "wasm-default-deny";
/// Envoy's words for a filter that it does not take.
const REFUSED: &str = "rejected: Unable to create Wasm plugin upgrade.entra-inbound";

/// The one workload of these tests, which change its filter one after the other.
pub(crate) fn shop() -> MutexGuard<'static, Open> {
    static SHOP: LazyLock<Mutex<Open>> = LazyLock::new(|| Mutex::new(Shop::new(NAMESPACE).open()));
    let shop = SHOP.lock().unwrap_or_else(PoisonError::into_inner);
    put_right(shop.world);
    shop.until_open();
    shop
}

/// The shipped filter with the policy of the quick start. helm alone does not see what went past it.
fn put_right(world: &World) {
    let digest = &world.images.filter;
    set_digest(world, digest);
    let checksum = digest.strip_prefix("sha256:");
    patch(&json!({"sha256": checksum, "pluginConfig": {"alow": null}}));
}

fn set_digest(world: &World, digest: &str) {
    install(world, NAMESPACE, &[json!({"filter": {"digest": digest}})]);
}

/// Sets a member of the policy past the chart, whose schema would refuse it.
fn policy_member(name: &str, value: &Value) {
    patch(&json!({"pluginConfig": {name: value}}));
}

/// Changes the resource past the chart.
fn patch(wasm: &Value) {
    let patch = json!({"spec": {"wasm": wasm}}).to_string();
    let resource = "trafficextension/entra-inbound";
    let patch = ["patch", resource, "--namespace", NAMESPACE, "--type=merge", "--patch", &patch];
    world().mesh.kubectl(&patch).unwrap();
}

/// Waits until a pod was given the filter of a digest.
fn until_given(pod: &Open, digest: &str) {
    let digest = digest.strip_prefix("sha256:").unwrap();
    let what = format!("{} has the filter {digest}", pod.pod);
    poll(&what, PATIENCE, || Ok(pod.filter_given().contains(digest))).unwrap();
}

#[test]
fn a_filter_is_upgraded_by_digest_under_load_with_no_failed_request() {
    let world = world();
    let _guard = world.mesh.shared().unwrap();
    let shop = shop();
    let next = filters::next(world);
    assert_ne!(next, world.images.filter);
    let over = AtomicBool::new(false);
    let token = world.token();
    let mut calls = 0;
    thread::scope(|scope| {
        let kept_alive = scope.spawn(|| {
            world.wait_for(async {
                let request = Request::get("/orders/7").bearer(&token).to_bytes();
                let mut connection = Connection::open(shop.port(8080)).await;
                let mut calls = 0;
                while !over.load(Ordering::Relaxed) {
                    connection.write(&request).await;
                    assert_eq!(connection.answer().await.status, 200, "on a connection kept alive");
                    calls += 1;
                }
                calls
            })
        });
        let anew = scope.spawn(|| {
            let mut calls = 0;
            while !over.load(Ordering::Relaxed) {
                assert_eq!(shop.statuses(), OPEN, "on connections of their own");
                calls += 3;
            }
            calls
        });
        let act = || {
            for digest in [&next, &world.images.filter, &next] {
                set_digest(world, digest);
                until_given(&shop, digest);
            }
        };
        let acted = catch_unwind(AssertUnwindSafe(act));
        over.store(true, Ordering::Relaxed);
        calls += kept_alive.join().unwrap() + anew.join().unwrap();
        acted.unwrap_or_else(|panic| resume_unwind(panic));
    });
    shop.until_open();
    println!("{calls} requests over three changes of the filter, none failed");
    assert!(calls > 100, "{calls} requests");
}

#[test]
fn a_canary_has_the_new_filter_and_its_neighbour_the_old_one() {
    let world = world();
    let _guard = world.mesh.shared().unwrap();
    let shop = Shop::new("canary").values(json!({"selector": {"app": "orders"}}));
    let mut canary = shop.application_objects();
    let shop = shop.open();
    let release = json!({
        "filter": {"digest": filters::next(world)},
        "selector": {"app": "canary"},
        "broker": {"configMap": {"create": false}},
    });
    install_release(world, "canary", "canary", std::slice::from_ref(&release));
    let deployment = &mut canary["items"][0];
    deployment["metadata"]["name"] = json!("canary");
    deployment["spec"]["selector"]["matchLabels"]["app"] = json!("canary");
    deployment["spec"]["template"]["metadata"]["labels"]["app"] = json!("canary");
    world.mesh.apply(&deployment.to_string()).unwrap();
    let pod = world.mesh.ready_pod("canary", "app=canary").unwrap();
    let address = world.mesh.pod_ip("canary", &pod).unwrap().parse().unwrap();
    let canary = std::mem::ManuallyDrop::new(Open { world, namespace: "canary", pod, address });
    until_given(&shop, &world.images.filter);
    until_given(&canary, &filters::next(world));
    shop.until_open();
    canary.until_open();
    // The way back.
    let mut back = release;
    back["filter"]["digest"] = json!(world.images.filter);
    install_release(world, "canary", "canary", &[back]);
    until_given(&canary, &world.images.filter);
    canary.until_open();
}

#[test]
fn an_image_that_cannot_be_fetched_or_read_shuts_the_workload_until_it_is_put_right() {
    let world = world();
    let _guard = world.mesh.shared().unwrap();
    let shop = shop();
    let ones = "1".repeat(64);
    let (empty, garbage) = (filters::empty(world), filters::garbage(world));
    let cases: [(&str, &dyn Fn(), &str); 4] = [
        (
            "no module in the image",
            &|| set_digest(world, &empty),
            "plugin.wasm not found in the archive",
        ),
        ("no WebAssembly", &|| set_digest(world, &garbage), "fetched Wasm binary"),
        (
            "a digest that nothing has",
            &|| set_digest(world, &format!("sha256:{ones}")),
            "MANIFEST_UNKNOWN",
        ),
        ("a checksum of something else", &|| patch(&json!({"sha256": ones})), "does not match"),
    ];
    for (what, change, said) in cases {
        let before = shop.log_lines(said);
        let got = shop.while_called(|| {
            change();
            shop.until_statuses(SHUT);
        });
        assert!(got.is_subset(&BTreeSet::from([200, 403])), "{what}: {got:?}");
        assert!(shop.filter_given().contains(DENY_ALL), "{what}");
        poll(&format!("{what}: `{said}` in the log"), PATIENCE, || {
            Ok(shop.log_lines(said) > before)
        })
        .unwrap();
        put_right(world);
        shop.until_open();
    }
    shop.only_identified_requests_got_through();
}

#[test]
fn a_module_or_configuration_that_envoy_refuses_leaves_the_old_filter_in_force() {
    let world = world();
    let _guard = world.mesh.shared().unwrap();
    let shop = shop();
    let broken = filters::broken(world);
    let changes: [(&str, &dyn Fn()); 2] = [
        ("a module that does not load", &|| set_digest(world, &broken)),
        ("an unknown key", &|| policy_member("alow", &json!("anyone"))),
    ];
    for (what, change) in changes {
        let before = shop.log_lines(REFUSED);
        let got = shop.while_called(|| {
            change();
            let refused = || Ok(shop.log_lines(REFUSED) > before);
            poll(&format!("{what} is refused"), PATIENCE, refused).unwrap();
            assert_eq!(shop.statuses(), OPEN, "{what}");
        });
        assert_eq!(got, BTreeSet::from([200]), "{what}: a request failed");
        put_right(world);
    }
    let key = "entra-sidecar: configuration: alow: unknown field `alow`";
    assert!(shop.log_lines(key) > 0, "the filter does not say what is wrong");
    shop.only_identified_requests_got_through();
}

#[test]
fn a_new_pod_with_a_configuration_that_is_refused_lets_nobody_in_until_it_is_put_right() {
    let world = world();
    let _guard = world.mesh.shared().unwrap();
    let shop = shop();
    policy_member("alow", &json!("anyone"));
    let scale = |replicas: u8| {
        let replicas = format!("--replicas={replicas}");
        let scale = ["scale", "deployment/orders", "--namespace", NAMESPACE, &replicas];
        world.mesh.kubectl(&scale).unwrap();
    };
    scale(2);
    let rollout = ["rollout", "status", "deployment/orders", "--namespace", NAMESPACE];
    world.mesh.kubectl(&[&rollout[..], &["--timeout=60s"]].concat()).unwrap();
    let pods = world.mesh.get(NAMESPACE, &["pods", "--selector=app=orders"]).unwrap();
    let names = pods["items"].as_array().unwrap().iter().map(|pod| &pod["metadata"]["name"]);
    let pod = names.map(|name| name.as_str().unwrap()).find(|name| *name != shop.pod).unwrap();
    let address = world.mesh.pod_ip(NAMESPACE, pod).unwrap().parse().unwrap();
    let new = Open { world, namespace: NAMESPACE, pod: pod.to_owned(), address };
    let new = std::mem::ManuallyDrop::new(new);
    let statuses = new.statuses();
    assert_eq!(statuses, (500, 500, 500));
    assert_eq!(new.seen(), Vec::<Value>::new());
    policy_member("alow", &Value::Null);
    new.until_open();
    scale(1);
}

#[test]
fn a_registry_that_is_down_at_an_upgrade_shuts_the_workload_until_the_resource_changes() {
    let world = world();
    let _guard = world.mesh.alone().unwrap();
    let shop = shop();
    let unseen = filters::named(world, "unseen");
    let again = Registry;
    let got = shop.while_called(|| {
        world.mesh.stop(Component::Registry).unwrap();
        set_digest(world, &unseen);
        shop.until_statuses(SHUT);
        // The old one is still in the pod.
        set_digest(world, &world.images.filter);
        shop.until_open();
        set_digest(world, &unseen);
        shop.until_statuses(SHUT);
    });
    assert_eq!(got, BTreeSet::from([200, 403]));
    drop(again);
    assert_eq!(shop.statuses(), SHUT);
    // istiod passes over annotations that are none of Istio's.
    let touch = ["annotate", "trafficextension/entra-inbound", "--namespace", NAMESPACE];
    world.mesh.kubectl(&[&touch[..], &["istio.io/touched=once"]].concat()).unwrap();
    shop.until_open();
    until_given(&shop, &unseen);
    shop.only_identified_requests_got_through();
}

/// The registry serves again, however the test ends.
struct Registry;

impl Drop for Registry {
    fn drop(&mut self) {
        world().mesh.start(Component::Registry).unwrap();
    }
}

#[test]
fn istioctl_shows_what_the_operations_guide_says() {
    let world = world();
    let _guard = world.mesh.shared().unwrap();
    let shop = shop();
    let status = world.mesh.istioctl(&["proxy-status"]).unwrap().stdout;
    let row = status.lines().find(|line| line.contains(&format!("{}.{NAMESPACE}", shop.pod)));
    assert!(row.unwrap_or_default().contains("ECDS"), "{status}");
    // By the admin port, which the lock-down closes.
    let refused = ["proxy-config", "ecds", &shop.pod, "--namespace", NAMESPACE];
    let refused = world.mesh.istioctl(&refused).unwrap();
    assert!(refused.code != 0 && refused.stderr.contains("port forward"), "{}", refused.stderr);
    let dump = shop.config_dump("");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), dump).unwrap();
    let ecds = ["proxy-config", "ecds", "--file", file.path().to_str().unwrap()];
    let ecds = world.mesh.istioctl(&ecds).unwrap();
    println!("{}{}", ecds.stdout, ecds.stderr);
    assert!(ecds.stdout.contains("extensions.istio.io/trafficextension/upgrade.entra-inbound"));
}
