//! Istio's own policies beside ours: `istio/policies.yaml` in a namespace, with strict mTLS, and
//! callers with workload identities of the mesh.

use std::sync::LazyLock;

use e2e::{
    client::Request,
    fake_entra::{Credential, sample},
    hostile::{Attack, Tls},
};
use serde_json::{Value, json};

use crate::{
    callers::{Caller, Reply, bearer},
    shop::{Open, Shop},
    world::{PATIENCE, repository, world},
};

const NAMESPACE: &str = "beside";

/// The shop with all of `istio/policies.yaml`, and who calls it.
pub(crate) struct Beside {
    pub(crate) shop: Open,
    pub(crate) till: Caller,
    pub(crate) other: Caller,
}

pub(crate) fn beside() -> &'static Beside {
    static BESIDE: LazyLock<Beside> = LazyLock::new(make);
    &BESIDE
}

fn make() -> Beside {
    let till = format!("spiffe://cluster.local/ns/{NAMESPACE}/sa/till");
    let mut shop = Shop::new(NAMESPACE).values(json!({
        "accessLog": "all",
        "inbound": {"policy": {"forward_token": true, "rules": [
            {"name": "read", "match": {"path": "/orders/{*}", "methods": ["GET"]},
             "allow": [{"roles": ["Orders.Read.All"]}]},
            {"name": "pay", "match": {"path": "/orders/{*}/pay", "methods": ["POST"]},
             "allow": [{"roles": ["Orders.Pay.All"], "client_credential": "certificate"}]},
            {"name": "ledger", "match": {"path": "/ledger"},
             "allow": [{"roles": ["Orders.Read.All"], "caller_workload": [till]}]},
        ]}},
    }));
    for object in policies() {
        shop = shop.object(object);
    }
    let shop = shop.open();
    let (till, other) = (Caller::injected(NAMESPACE, "till"), Caller::injected(NAMESPACE, "other"));
    let made = Beside { shop, till, other };
    // The callers' proxies learn of the Service within seconds.
    let token = bearer(&made.shop.world.token());
    for caller in [&made.till, &made.other] {
        let line = [token.clone()];
        let ready = || Ok(caller.call("GET", &url("/orders/0"), &line).status == Some(200));
        mesh::poll("a caller with a token to pass", PATIENCE, ready).unwrap();
    }
    made
}

/// The examples as they are shipped, in another namespace, and with the keys of the fake in the
/// place of the address from which istiod would fetch them: it has no reason to trust the fake.
fn policies() -> Vec<Value> {
    let text = std::fs::read_to_string(repository("istio/policies.yaml")).unwrap();
    let text = text.replace("namespace: shop", &format!("namespace: {NAMESPACE}"));
    let text = text.replace("/ns/shop/", &format!("/ns/{NAMESPACE}/"));
    let documents = text.split("\n---\n");
    let mut policies: Vec<Value> =
        documents.map(|document| serde_norway::from_str(document).unwrap()).collect();
    let rule = policies
        .iter_mut()
        .find_map(|policy| policy.pointer_mut("/spec/jwtRules/0"))
        .and_then(Value::as_object_mut)
        .unwrap();
    assert!(rule.remove("jwksUri").is_some(), "the example fetches its keys");
    let keys = world().entra.key_set(sample::TENANT).to_string();
    rule.insert("jwks".to_owned(), json!(keys));
    assert_eq!(policies.len(), 4);
    policies
}

pub(crate) fn url(path: &str) -> String {
    format!("http://orders.{NAMESPACE}{path}")
}

/// A token with which one may pay.
fn paying() -> String {
    let token = world().entra.token(sample::TENANT, sample::TILL, sample::ORDERS_URI);
    bearer(&token.roles(&["Orders.Pay.All"]).credential(Credential::Assertion).sign())
}

/// The header lines that the application saw.
fn headers(reply: &Reply) -> Vec<(String, String)> {
    assert_eq!(reply.status, Some(200), "{}", reply.text);
    let said: Value = serde_json::from_str(&reply.text).unwrap();
    serde_json::from_value(said["headers"].clone()).unwrap()
}

#[test]
fn the_shipped_policies_are_what_the_api_server_takes() {
    let _guard = world().mesh.shared().unwrap();
    let path = repository("istio/policies.yaml");
    let text =
        std::fs::read_to_string(path).unwrap().replace("namespace: shop", "namespace: default");
    let dry = ["apply", "--dry-run=server", "--filename=-"];
    let said = world().mesh.kubectl_with(&dry, &text).unwrap();
    assert_eq!(said.lines().count(), 4, "{said}");
}

#[test]
fn under_strict_mtls_a_caller_of_the_mesh_needs_a_token_and_one_without_mtls_gets_nothing() {
    let _guard = world().mesh.shared().unwrap();
    let Beside { shop, till, .. } = beside();
    assert_eq!(till.call("GET", &url("/orders/1"), &[]).status, Some(401));
    let token = world().token();
    let passed = till.call("GET", &url("/orders/1"), &[bearer(&token)]);
    assert_eq!(passed.status, Some(200), "{}", passed.text);
    let request = Request::get("/plaintext").bearer(&token);
    let outcome = world().wait_for(Attack::on(shop.port(8080)).http1(&request));
    assert!(outcome.is_silent(), "{}", outcome.text());
    let tls = Tls::alpn(&["istio-http/1.1"]);
    let outcome = world().wait_for(Attack::on(shop.port(8080)).tls(tls).http1(&request));
    assert!(outcome.is_silent(), "{}", outcome.text());
    let seen = format!("{:?}", shop.seen());
    assert!(!seen.contains("/plaintext"), "it reached the application");
}

#[test]
fn request_authentication_verifies_the_same_token_and_removes_it() {
    let _guard = world().mesh.shared().unwrap();
    let reply = beside().till.call("GET", &url("/orders/2"), &[bearer(&world().token())]);
    let headers = headers(&reply);
    let value = |name: &str| {
        let line = headers.iter().find(|(header, _)| header == name);
        line.map(|(_, value)| value.as_str())
    };
    assert_eq!(value("x-entra-client-id"), Some(sample::TILL));
    assert_eq!(value("x-entra-tenant-id"), Some(sample::TENANT));
    assert_eq!(value("authorization"), None, "forwardOriginalToken: false");
    assert_eq!(value("x-entra-permit"), None);
}

#[test]
fn a_client_that_a_policy_shuts_out_by_our_header_is_out() {
    let _guard = world().mesh.shared().unwrap();
    let Beside { shop, till, .. } = beside();
    let token = world().entra.token(sample::TENANT, sample::TILL, sample::ORDERS_URI);
    let token = bearer(&token.claim("azp", "c0ffee00-0000-4000-8000-000000000000").sign());
    // Its own word on who it is changes nothing: the header is what the token says.
    let disguise = format!("x-entra-client-id: {}", sample::TILL);
    for lines in [vec![token.clone()], vec![token, disguise]] {
        let reply = till.call("GET", &url("/orders/shut-out"), &lines);
        assert_eq!(reply.status, Some(403), "{}", reply.text);
        assert!(reply.text.contains("RBAC"), "by Istio's policy, not ours: {}", reply.text);
    }
    let seen = format!("{:?}", shop.seen());
    assert!(!seen.contains("/orders/shut-out"), "it reached the application");
}

#[test]
fn a_policy_on_workload_and_tenant_together_lets_only_that_pair_pay() {
    let _guard = world().mesh.shared().unwrap();
    let Beside { shop, till, other } = beside();
    let paid = till.call("POST", &url("/orders/3/pay"), &[paying()]);
    assert_eq!(paid.status, Some(200), "{}", paid.text);
    let reply = other.call("POST", &url("/orders/wrong/pay"), &[paying()]);
    assert_eq!(reply.status, Some(403), "{}", reply.text);
    assert!(reply.text.contains("RBAC"), "by Istio's policy: {}", reply.text);
    assert!(!format!("{:?}", shop.seen()).contains("/orders/wrong"));
}

#[test]
fn a_spoofed_identity_header_satisfies_no_policy() {
    let _guard = world().mesh.shared().unwrap();
    let Beside { shop, till, other } = beside();
    let forged = [
        format!("x-entra-tenant-id: {}", sample::TENANT),
        format!("X-Entra-Tenant_Id: {}", sample::TENANT),
        format!("x-entra-client-id: {}", sample::TILL),
        "x-entra-permit: 1".to_owned(),
        "x-forwarded-client-cert: URI=spiffe://cluster.local/ns/beside/sa/till".to_owned(),
    ];
    for caller in [till, other] {
        let reply = caller.call("POST", &url("/orders/forged/pay"), &forged);
        assert_eq!(reply.status, Some(401), "{}", reply.text);
        let lines = [&forged[..], &[bearer(&world().token())]].concat();
        let reply = caller.call("POST", &url("/orders/forged/pay"), &lines);
        assert_eq!(reply.status, Some(403), "{}", reply.text);
    }
    assert!(!format!("{:?}", shop.seen()).contains("/orders/forged"));
}
