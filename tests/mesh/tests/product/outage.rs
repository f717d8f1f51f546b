//! Parts that fail: what goes on working, and that nothing lets through what it should not.
//! docs/operations.md has the table of it.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::TcpStream,
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use e2e::{
    client::Request,
    fake_entra::{Endpoint, Fault},
};
use mesh::{Component, poll};
use serde_json::{Value, json};

use crate::{
    shop::{Open, Shop, install},
    watch::OPEN,
    world::{PATIENCE, world},
};

const NAMESPACE: &str = "outage";
/// Without keys a token cannot be judged; without a token there is nothing to judge.
const NO_KEYS: (u16, u16, u16) = (401, 401, 503);

/// The one workload of these tests, which run alone, one after the other.
fn shop() -> MutexGuard<'static, Open> {
    static SHOP: LazyLock<Mutex<Open>> = LazyLock::new(|| Mutex::new(Shop::new(NAMESPACE).open()));
    let shop = SHOP.lock().unwrap_or_else(PoisonError::into_inner);
    shop.until_ready();
    shop.until_open();
    shop
}

impl Open {
    fn status(&self, container: &str) -> Value {
        let pod = self.world.mesh.get(self.namespace, &["pod", &self.pod]).unwrap();
        let lists = ["initContainerStatuses", "containerStatuses"];
        let statuses = lists.iter().filter_map(|list| pod["status"][list].as_array()).flatten();
        statuses.clone().find(|status| status["name"] == container).unwrap().clone()
    }

    fn restarts(&self, container: &str) -> u64 {
        self.status(container)["restartCount"].as_u64().unwrap()
    }

    /// Waits until kubelet has seen every container running and ready.
    fn until_ready(&self) {
        poll("a ready pod", Duration::from_secs(90), || {
            let ready = |container: &str| self.status(container)["ready"] == true;
            Ok(["application", "istio-proxy", "token-broker"].into_iter().all(ready))
        })
        .unwrap();
    }

    /// Gives the filter a new virtual machine, which has no keys yet: by another policy.
    fn new_virtual_machine(&self) {
        static SKEW: Mutex<u16> = Mutex::new(60);
        let mut skew = SKEW.lock().unwrap_or_else(PoisonError::into_inner);
        *skew += 1;
        let policy = json!({"clock_skew_seconds": *skew});
        install(self.world, self.namespace, &[json!({"inbound": {"policy": policy}})]);
        let said = format!("clock_skew_seconds\\\":{},", *skew);
        poll("the new policy", PATIENCE, || Ok(self.filter_given().contains(&said))).unwrap();
    }

    fn kill(&self, container: &str) {
        self.world.mesh.kill_container(self.namespace, &self.pod, container).unwrap();
    }

    /// Kills the broker until kubelet waits before it starts it again.
    fn until_the_broker_stays_down(&self) {
        poll("kubelet's pause before the broker's start", PATIENCE, || {
            if self.status("token-broker")["state"]["waiting"]["reason"] == "CrashLoopBackOff" {
                return Ok(true);
            }
            // Not running at the moment is as good.
            let _gone = self.world.mesh.kill_container(self.namespace, &self.pod, "token-broker");
            Ok(false)
        })
        .unwrap();
    }
}

#[test]
fn a_broker_that_is_killed_comes_back_and_no_caller_notices() {
    let world = world();
    let _guard = world.mesh.alone().unwrap();
    let shop = shop();
    let before = shop.restarts("token-broker");
    let got = shop.while_called(|| {
        shop.kill("token-broker");
        let back = || Ok(shop.restarts("token-broker") > before);
        poll("kubelet starts the broker again", PATIENCE, back).unwrap();
        shop.until_ready();
    });
    assert_eq!(got, BTreeSet::from([200]));
    // The one that is back listens where the old one did.
    shop.new_virtual_machine();
    shop.until_open();
}

#[test]
fn without_a_broker_keys_are_kept_and_who_has_none_denies_until_it_is_back() {
    let world = world();
    let _guard = world.mesh.alone().unwrap();
    let shop = shop();
    shop.until_the_broker_stays_down();
    assert_eq!(shop.statuses(), OPEN, "a filter that has keys");
    shop.new_virtual_machine();
    shop.until_statuses(NO_KEYS);
    let denied = shop.call(&Request::get("/orders/7").bearer(&world.token()));
    assert!(denied.header("retry-after").is_some(), "{:?}", denied.headers);
    shop.until_ready();
    shop.until_open();
    shop.only_identified_requests_got_through();
}

#[test]
fn without_entra_the_broker_serves_the_keys_that_it_has_and_a_new_one_is_not_ready() {
    let world = world();
    let _guard = world.mesh.alone().unwrap();
    let shop = shop();
    for endpoint in
        [Endpoint::InstanceDiscovery, Endpoint::Discovery, Endpoint::Keys, Endpoint::Token]
    {
        world.entra.fail_next(endpoint, 10_000, Fault::Close);
    }
    let _again = Faults;
    shop.new_virtual_machine();
    shop.until_open();
    // A broker that has never had keys has none to serve. The filter keeps its own.
    let before = shop.restarts("token-broker");
    shop.kill("token-broker");
    poll("a broker that runs and is not ready", PATIENCE, || {
        let status = shop.status("token-broker");
        Ok(shop.restarts("token-broker") > before
            && status["state"].get("running").is_some()
            && status["ready"] == false)
    })
    .unwrap();
    assert_eq!(shop.statuses(), OPEN, "a filter that has keys");
    shop.new_virtual_machine();
    shop.until_statuses(NO_KEYS);
    world.entra.clear_faults();
    shop.until_ready();
    shop.until_open();
    shop.only_identified_requests_got_through();
}

/// Entra answers again, however the test ends.
struct Faults;

impl Drop for Faults {
    fn drop(&mut self) {
        world().entra.clear_faults();
    }
}

#[test]
fn a_kubelet_that_restarts_changes_nothing() {
    let world = world();
    let _guard = world.mesh.alone().unwrap();
    let shop = shop();
    let all = ["application", "istio-proxy", "token-broker"];
    let before = all.map(|container| shop.restarts(container));
    let got = shop.while_called(|| {
        world.mesh.stop(Component::Kubelet).unwrap();
        assert_eq!(shop.statuses(), OPEN);
        world.mesh.start(Component::Kubelet).unwrap();
        shop.until_ready();
    });
    assert_eq!(got, BTreeSet::from([200]));
    assert_eq!(all.map(|container| shop.restarts(container)), before);
}

#[test]
fn without_istiod_what_runs_goes_on_and_what_starts_lets_nobody_in() {
    let world = world();
    let _guard = world.mesh.alone().unwrap();
    let shop = shop();
    let again = Istiod;
    let got = shop.while_called(|| world.mesh.scale_istiod(0).unwrap());
    assert_eq!(got, BTreeSet::from([200]));
    // Injection is istiod's: a pod that it cannot see is not made.
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "unseen", "namespace": NAMESPACE},
        "spec": {"containers": [{"name": "application", "image": crate::world::world().application}]},
    });
    let refused = world.mesh.apply(&pod.to_string()).unwrap_err();
    assert!(format!("{refused:#}").contains("failed calling webhook"), "{refused:#}");
    // Envoy has its configuration from istiod: one that starts again has none.
    let (before, seen) = (shop.restarts("istio-proxy"), shop.seen().len());
    shop.kill("istio-proxy");
    poll("kubelet starts istio-proxy again", PATIENCE, || {
        let running = shop.status("istio-proxy")["state"].get("running").is_some();
        Ok(shop.restarts("istio-proxy") > before && running)
    })
    .unwrap();
    for _ in 0..20 {
        assert!(!answers(&shop), "an Envoy without configuration answers");
    }
    assert_eq!(shop.seen().len(), seen, "the application saw something");
    drop(again);
    shop.until_ready();
    shop.until_open();
    shop.only_identified_requests_got_through();
}

/// istiod runs again, however the test ends.
struct Istiod;

impl Drop for Istiod {
    fn drop(&mut self) {
        world().mesh.scale_istiod(1).unwrap();
    }
}

/// Whether a byte comes back to a request with a token.
fn answers(shop: &Open) -> bool {
    let Ok(mut stream) = TcpStream::connect(shop.port(8080)) else { return false };
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let request = Request::get("/orders/7").bearer(&shop.world.token()).to_bytes();
    let sent = stream.write_all(&request);
    let mut byte = [0];
    sent.is_ok() && matches!(stream.read(&mut byte), Ok(1))
}
