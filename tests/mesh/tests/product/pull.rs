//! A registry that is down when a pod starts. pilot-agent asks for a module once each time that it
//! is told of it, and istiod tells it on a change and at the start of a connection. istiod ends its
//! connections after `pilot.keepaliveMaxServerConnectionAge`, so the pod heals within that time.

use std::time::{Duration, Instant};

use e2e::client::Request;
use mesh::{Component, Mesh, poll};
use serde_json::{Value, json};

use crate::{
    shop::{Open, Shop},
    world::{PATIENCE, World, world},
};

/// A registry that is away while it lives.
struct Outage<'a>(&'a Mesh);

impl<'a> Outage<'a> {
    fn begin(mesh: &'a Mesh) -> Self {
        mesh.stop(Component::Registry).unwrap();
        Self(mesh)
    }
}

impl Drop for Outage<'_> {
    fn drop(&mut self) {
        self.0.start(Component::Registry).unwrap();
    }
}

/// An istiod that ends connections early, while it lives.
struct ShortConnections<'a>(&'a World);

impl<'a> ShortConnections<'a> {
    fn set(world: &'a World, age: &str) -> Self {
        let mut values = world.images.istio_values().unwrap();
        values["pilot"]["keepaliveMaxServerConnectionAge"] = json!(age);
        world.mesh.apply_istio(values).unwrap();
        Self(world)
    }
}

impl Drop for ShortConnections<'_> {
    fn drop(&mut self) {
        self.0.mesh.apply_istio(self.0.images.istio_values().unwrap()).unwrap();
    }
}

/// A pod that started while the registry was away, and the outage. Its images are on the node: it
/// had started before.
fn started_without_registry(namespace: &'static str) -> (Open, Outage<'static>) {
    let shop = Shop::new(namespace).open();
    assert_eq!(shop.call(&Request::get("/orders/7")).status, 401);
    let outage = Outage::begin(&shop.world.mesh);
    (renewed(shop), outage)
}

/// The pod made anew without the registry: it is ready, and shut.
fn renewed(mut shop: Open) -> Open {
    shop.renew();
    for request in [
        Request::get("/orders/7"),
        Request::get("/healthz"),
        Request::get("/orders/7").bearer(&shop.world.token()),
    ] {
        assert_eq!(shop.call(&request).status, 403, "{request} while there is no filter");
    }
    assert_eq!(shop.seen(), Vec::<Value>::new());
    shop
}

/// How often the pod's agent has connected to istiod.
fn connections(shop: &Open) -> usize {
    shop.proxy_log().matches("upstream XDS server: ").count()
}

/// Waits until the filter is there, and proves it; gives the time.
fn heals(shop: &Open) -> Duration {
    let begun = Instant::now();
    let refused = || Ok(shop.call(&Request::get("/orders/7")).status == 401);
    poll("the filter", PATIENCE, refused).unwrap();
    let took = begun.elapsed();
    assert_eq!(shop.seen(), Vec::<Value>::new());
    let allowed = Request::get("/orders/7").bearer(&shop.world.token());
    assert_eq!(shop.call(&allowed).status, 200);
    took
}

#[test]
fn a_pod_that_started_without_the_registry_heals_when_its_connection_to_istiod_is_renewed() {
    let world = world();
    let _alone = world.mesh.alone().unwrap();
    let shop = Shop::new("pull-age").open();
    let _short = ShortConnections::set(world, "1s");
    let outage = Outage::begin(&world.mesh);
    // Who has the filter keeps it over a new connection.
    let before = connections(&shop);
    poll("a new connection to istiod", PATIENCE, || Ok(connections(&shop) > before)).unwrap();
    assert_eq!(shop.call(&Request::get("/orders/7")).status, 401);
    let shop = renewed(shop);
    drop(outage);
    let took = heals(&shop);
    println!("healed {:.1} s after the registry, at a connection age of 1 s", took.as_secs_f32());
}

#[test]
fn a_pod_that_started_without_the_registry_heals_at_once_when_the_resource_is_touched() {
    let world = world();
    let _alone = world.mesh.alone().unwrap();
    let (shop, outage) = started_without_registry("pull-touch");
    drop(outage);
    // Nothing else brings the filter soon: istiod's connections last for half an hour.
    assert_eq!(shop.call(&Request::get("/orders/7")).status, 403);
    // istiod passes over a change that is none of Istio's: the annotation's name decides.
    let touch = ["annotate", "trafficextension", "entra-inbound", "istio.io/touched=once"];
    world.mesh.kubectl(&[&touch, &["--namespace", shop.namespace][..]].concat()).unwrap();
    println!("healed {:.1} s after the resource was touched", heals(&shop).as_secs_f32());
}
