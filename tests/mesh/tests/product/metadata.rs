//! The instance metadata service: whose managed identity a pod gets, and who in it.

use std::{net::SocketAddr, sync::LazyLock};

use e2e::upstream::{Recorded, Reply, Upstream};
use mesh::paths::METADATA;
use serde_json::json;

use crate::{
    shop::{Open, Shop},
    world::world,
};

const TOKEN: &str = "/metadata/identity/oauth2/token?api-version=2018-02-01\
    &resource=https%3A%2F%2Fgraph.microsoft.com";

/// The fake of it, on the node.
static METADATA_SERVICE: LazyLock<Upstream> = LazyLock::new(|| {
    let address = SocketAddr::new(METADATA.parse().unwrap(), 80);
    let service = world().wait_for(Upstream::start_at(address));
    service.respond_with(answer);
    service
});

/// As the real one: nothing for whoever does not say that he means it, or comes by a proxy.
fn answer(request: &Recorded) -> Reply {
    let meant = request.header("metadata").as_deref() == Some("true");
    if !meant || request.header("x-forwarded-for").is_some() || request.target != TOKEN {
        return Reply { status: 400, ..Reply::json(&json!({"error": "invalid_request"})) };
    }
    Reply::json(&json!({
        "access_token": "a.machines.token", "expires_in": "86399", "expires_on": "4102444799",
        "resource": "https://graph.microsoft.com", "token_type": "Bearer",
    }))
}

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
    assert!(!body.contains("a.machines.token"), "{body}");
}

#[test]
fn open_the_metadata_service_gives_a_token_to_every_process_of_the_pod() {
    let _shared = world().mesh.shared().unwrap();
    let shop = open("metadata-open", "false");
    assert_eq!(shop.readiness()["ready"], true);
    let (status, body) = steal(&shop);
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("a.machines.token"), "{body}");
}
