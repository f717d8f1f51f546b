//! Who calls, by the mesh's own certificates: what the filter sees, enforces and logs.

use e2e::{
    client::Request,
    hostile::{Attack, Tls},
};
use serde_json::Value;

use crate::{
    beside::{Beside, beside, url},
    callers::bearer,
    world::{PATIENCE, world},
};

const TILL: &str = "spiffe://cluster.local/ns/beside/sa/till";
const OTHER: &str = "spiffe://cluster.local/ns/beside/sa/other";
const SPOOFED: &str = "By=spiffe://cluster.local/ns/beside/sa/orders;Hash=00;\
    Subject=\"\";URI=spiffe://cluster.local/ns/beside/sa/till";

/// The line of istio-proxy's access log for a path, with its status and our record.
fn record(path: &str) -> (u64, String) {
    let line = mesh::until("a line in the access log", PATIENCE, || {
        let log = beside().shop.proxy_log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Ok(lines.filter(|line| line["direction"] == "inbound").find(|line| line["path"] == path))
    });
    let line = line.unwrap();
    (line["status"].as_u64().unwrap(), line["entra"].to_string())
}

#[test]
fn the_log_names_the_calling_workload_as_istiods_certificate_does() {
    let _guard = world().mesh.shared().unwrap();
    let Beside { till, other, .. } = beside();
    let token = [bearer(&world().token())];
    for (caller, path, id) in [(till, "/orders/by-till", TILL), (other, "/orders/by-other", OTHER)]
    {
        assert_eq!(caller.call("GET", &url(path), &token).status, Some(200));
        let (status, record) = record(path);
        assert_eq!(status, 200);
        assert!(record.contains(&format!("workload={id}")), "{record}");
    }
}

#[test]
fn a_rule_lets_in_the_workload_that_it_names_and_no_other_with_the_same_token() {
    let _guard = world().mesh.shared().unwrap();
    let Beside { shop, till, other } = beside();
    let token = [bearer(&world().token())];
    let passed = till.call("GET", &url("/ledger"), &token);
    assert_eq!(passed.status, Some(200), "{}", passed.text);
    let refused = other.call("GET", &url("/ledger?by=other"), &token);
    assert_eq!(refused.status, Some(403), "{}", refused.text);
    assert!(!format!("{:?}", shop.seen()).contains("by=other"));
    mesh::poll("the reason in the log", PATIENCE, || {
        let log = shop.proxy_log();
        let mut lines = log.lines().filter(|line| line.contains("caller_workload_refused"));
        Ok(lines.any(|line| line.contains(&format!("workload={OTHER}"))))
    })
    .unwrap();
}

#[test]
fn a_spoofed_x_forwarded_client_cert_changes_nothing() {
    let _guard = world().mesh.shared().unwrap();
    let Beside { shop, other, .. } = beside();
    let lines = [bearer(&world().token()), format!("x-forwarded-client-cert: {SPOOFED}")];
    let refused = other.call("GET", &url("/ledger?spoofed"), &lines);
    assert_eq!(refused.status, Some(403), "{}", refused.text);
    // The same without a sidecar of the caller's that could have taken the header away.
    let tls = Tls::alpn(&["istio-http/1.1"]).identity(&other.steal());
    let request = Request::get("/ledger?stolen")
        .bearer(&world().token())
        .header("x-forwarded-client-cert", SPOOFED);
    let attack = Attack::on(shop.port(8080)).tls(tls.clone());
    let outcome = world().wait_for(attack.http1(&request));
    assert_eq!(outcome.status(), Some(403), "{}", outcome.text());
    let request = Request::get("/orders/spoofed")
        .bearer(&world().token())
        .header("x-forwarded-client-cert", SPOOFED);
    let outcome = world().wait_for(Attack::on(shop.port(8080)).tls(tls).http1(&request));
    assert_eq!(outcome.status(), Some(200), "{}", outcome.text());
    let (_, record) = record("/orders/spoofed");
    assert!(record.contains(&format!("workload={OTHER}")), "{record}");
    let seen = format!("{:?}", shop.seen());
    assert!(!seen.contains("?spoofed") && !seen.contains("?stolen"));
}
