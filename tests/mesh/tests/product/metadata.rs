//! The instance metadata service: whose managed identity a pod gets, and who in it.

use std::{net::SocketAddr, sync::LazyLock};

use e2e::fake_entra::{MetadataService, sample::machine};
use mesh::paths::METADATA;
use serde_json::json;

use crate::{
    shop::{Open, Shop},
    world::world,
};

const TOKEN: &str = "/metadata/identity/oauth2/token?api-version=2018-02-01\
    &resource=https%3A%2F%2Fgraph.microsoft.com";

/// The fake of it, on the node.
static METADATA_SERVICE: LazyLock<MetadataService> = LazyLock::new(|| {
    let address = SocketAddr::new(METADATA.parse().unwrap(), 80);
    MetadataService::start_at(address, &world().entra, machine())
});

/// A pod whose broker has the machine's identity, too.
fn open(namespace: &'static str, lockdown: &str) -> Open {
    LazyLock::force(&METADATA_SERVICE);
    let identity = json!({
        "managed_identity": {"system_assigned": true},
        "scopes": ["https://graph.microsoft.com/.default"],
    });
    Shop::new(namespace)
        .values(json!({"broker": {"config": {"identities": {"machine": identity}}}}))
        .annotation("entra-sidecar/lockdown-metadata", lockdown)
        .open()
}

/// What a program in the application's container gets.
fn steal(shop: &Open) -> (u64, String) {
    let url = format!("http://{METADATA}{TOKEN}");
    shop.call_from_inside(&["GET", &url, "-H", "Metadata: true", "-H", "x-asks: application"])
}

#[test]
fn shut_the_metadata_service_gives_the_broker_a_token_and_the_application_none() {
    let _shared = world().mesh.shared().unwrap();
    let shop = open("metadata-shut", "true");
    assert_eq!(shop.readiness()["ready"], true);
    let page = shop.call_from_inside(&["GET", "http://127.0.0.1:7172/"]).1;
    assert!(page.contains("machine: 1 of 1 tokens held"), "{page}");
    let (status, body) = steal(&shop);
    assert_eq!(status, 503, "{body}");
    assert!(!body.contains("access_token"), "{body}");
}

#[test]
fn open_the_metadata_service_gives_a_token_to_every_process_of_the_pod() {
    let _shared = world().mesh.shared().unwrap();
    let shop = open("metadata-open", "false");
    assert_eq!(shop.readiness()["ready"], true);
    let (status, body) = steal(&shop);
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("access_token"), "{body}");
}
