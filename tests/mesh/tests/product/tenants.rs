//! Two tenants in two namespaces on one node, with one configuration for both brokers: each has its
//! own identity, and no way leads to the other's.
//!
//! Two things stand in the way, and each is tested without the other. `identity_access` has a broker
//! deny what is not its pod's. And where a tenant has a broker that denies nothing, or none at all,
//! Entra refuses: the other's application is federated with another service account.

use std::{
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use e2e::{
    fake_entra::{sample, service_account},
    upstream::Recorded,
};
use mesh::paths::ISSUER;
use serde_json::{Value, json};

use crate::{
    identity::{AUDIENCE, GRAPH_SCOPE, NOT_FEDERATED, ask},
    outbound::stage::{call, claims, generate, until_answered},
    shop::{Open, Shop},
    world::{named, world},
};

/// The kubelet writes labels within a minute or so, the broker reads them within five seconds, and
/// the filter asks again within another minute.
const LABELS: Duration = Duration::from_secs(240);

/// A tenant: its namespace, its service account, and its identity, which has the same name.
struct Tenant {
    namespace: &'static str,
    account: &'static str,
    client: &'static str,
    label: &'static str,
}

const A: Tenant =
    Tenant { namespace: "tenant-a", account: "orders", client: sample::WORKLOAD, label: "a" };
const B: Tenant =
    Tenant { namespace: "tenant-b", account: "billing", client: sample::BILLING, label: "b" };

/// What both namespaces have in their ConfigMap.
fn config() -> Value {
    let identity = |tenant: &Tenant| {
        json!({"workload_identity": {"tenant": sample::TENANT, "client_id": tenant.client},
            "scopes": [GRAPH_SCOPE]})
    };
    let entry = |tenant: &Tenant| {
        json!({"namespace": tenant.namespace, "service_account": tenant.account,
            "labels": {"tenant": tenant.label}, "identities": [tenant.account]})
    };
    json!({
        "listen": {"admin": "0.0.0.0:7172"},
        "ca_file": "/etc/entra-ca/ca.crt",
        "authorities": [{"cloud": "public", "tenants": [sample::TENANT]}],
        "identities": {(A.account): identity(&A), (B.account): identity(&B)},
        "identity_access": [entry(&A), entry(&B)],
        "pod": {"cluster": {"issuer": ISSUER}},
    })
}

fn broker_config(namespace: &str, name: &str, config: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": named(name, namespace),
        "data": {"broker.yaml": config.to_string()}})
}

/// The tenant's pod.
fn open(tenant: &Tenant) -> Open {
    let own = json!({"broker": {"configMap": {"create": false}}});
    Shop::new(tenant.namespace)
        .values(own)
        .account(tenant.account, tenant.client)
        .label("tenant", tenant.label)
        .annotation("entra-sidecar/identity-access", "true")
        .object(broker_config(tenant.namespace, "entra-sidecar-broker", &config()))
        .open()
}

/// Has the tenant's calls to Graph carry a token of this identity, as who may write EnvoyFilters in
/// its namespace can.
fn calls_as(tenant: &Tenant, identity: &str) {
    let graph = json!({"name": "graph", "kind": "graph", "token": {"identity": identity}});
    world().mesh.apply(&generate(world(), tenant.namespace, &[graph])).unwrap();
}

static TENANTS: LazyLock<[Open; 2]> = LazyLock::new(|| [open(&A), open(&B)]);

/// Both as they should be, each with its own token. One test at a time: they change what pods are.
fn tenants() -> (MutexGuard<'static, ()>, &'static [Open; 2]) {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for (open, tenant) in TENANTS.iter().zip([&A, &B]) {
        label(open, &format!("tenant={}", tenant.label));
        calls_as(tenant, tenant.account);
        until_status(open, "/v1.0/whole", 200);
    }
    (turn, &TENANTS)
}

/// What Graph saw of a call to this path.
fn seen(path: &str) -> Vec<Recorded> {
    let requests = world().graph.requests().into_iter();
    requests.filter(|seen| seen.target.starts_with(path)).collect()
}

fn url(path: &str) -> String {
    format!("http://graph.microsoft.com{path}")
}

fn label(open: &Open, label: &str) {
    let set = ["label", "pod", &open.pod, label, "--overwrite", "--namespace", open.namespace];
    world().mesh.kubectl(&set).unwrap();
}

/// Waits until a call is answered so.
fn until_status(open: &Open, path: &str, status: u16) -> Value {
    let mut last = Value::Null;
    let answered = mesh::poll(&format!("{status} for {path}"), LABELS, || {
        last = call(open, &["GET", &url(path)]);
        Ok(last["status"] == status)
    });
    answered.unwrap_or_else(|error| panic!("{error}: {last}"));
    last
}

/// That the broker has no such identity for this pod, and says no more than that.
fn is_denial(answer: &Value) {
    let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
    assert_eq!(body["kind"], "denied", "{answer}");
    assert!(body["code"].as_str().unwrap().starts_with("not_allowed: "), "{answer}");
}

/// What the broker says of its pod: the page that every process of the pod may read.
fn page(open: &Open) -> String {
    open.call_from_inside(&["GET", "http://127.0.0.1:7172/"]).1
}

#[test]
fn b05_each_tenant_gets_its_own_identitys_token_and_no_other_is_acquired() {
    let _shared = world().mesh.shared().unwrap();
    let (_turn, tenants) = tenants();
    for (open, tenant, other) in [(&tenants[0], &A, &B), (&tenants[1], &B, &A)] {
        let path = format!("/v1.0/own-{}", tenant.label);
        until_answered(open, &["GET", &url(&path)], 200);
        let requests = seen(&path);
        let token = claims(&requests.last().unwrap().bearer().expect("a token"));
        assert_eq!(token["appid"], tenant.client, "{}", tenant.namespace);
        // The broker has not even asked for the other's.
        let subject = service_account(tenant.namespace, tenant.account);
        let asked = world().entra.calls_of_subject(&subject);
        assert!(!asked.is_empty());
        assert!(asked.iter().all(|call| call.client_id() == Some(tenant.client)));
        let page = page(open);
        let index = usize::from(tenant.label == "b");
        let allowed = format!("{}: allowed by identity_access[{index}]", tenant.account);
        assert!(page.contains(&allowed), "{page}");
        assert!(page.contains(&format!("{}: denied", other.account)), "{page}");
    }
}

#[test]
fn b05_the_broker_explains_what_it_has_verified_of_its_own_pod() {
    let world = world();
    let _shared = world.mesh.shared().unwrap();
    let (_turn, tenants) = tenants();
    let explain = ["token-broker", "explain-access", "--config", "/etc/entra/broker.yaml"];
    let ran = world.mesh.exec(B.namespace, &tenants[1].pod, "token-broker", &explain).unwrap();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let said = ran.stdout;
    for words in [
        "namespace tenant-b, service account billing, labels ",
        "tenant=b",
        "identity billing: allowed by identity_access[1]",
        "identity orders: denied\n  identity_access[0]: namespace is `tenant-b`, not `tenant-a`; \
         service_account is `billing`, not `orders`; labels.tenant is `b`, not `a`",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[test]
fn b05_a_tenants_own_broker_denies_the_others_identity() {
    let _shared = world().mesh.shared().unwrap();
    let (_turn, tenants) = tenants();
    calls_as(&A, B.account);
    let refused = until_status(&tenants[0], "/v1.0/theft", 403);
    is_denial(&refused);
    for seen in seen("/v1.0/theft") {
        let token = claims(&seen.bearer().expect("a token"));
        assert_eq!(token["appid"], A.client);
    }
}

#[test]
fn b01_b05_the_others_broker_is_out_of_reach() {
    let _shared = world().mesh.shared().unwrap();
    let (_turn, tenants) = tenants();
    let [a, b] = tenants;
    // The socket is on no path of another pod, nor of its own application.
    for open in [a, b] {
        let found = open.shell(&["mesh-app", "unix", "/run/entra/broker.sock", "GET", "/v1/keys"]);
        assert_ne!(found.code, 0, "{}", found.stdout);
    }
    let ask = json!({"identity": A.account, "scope": GRAPH_SCOPE, "destination": "graph"});
    let ask = ask.to_string();
    for port in [7171, 7172, 15_000, 15_006, 15_020, 15_090, 8080] {
        let url = format!("http://{}:{port}/v1/token", a.address);
        let words = ["mesh-app", "call", "POST", &url, "-H", "content-type: application/json"];
        let ran = b.shell(&[&words[..], &["--data", &ask, "--timeout-ms", "5000"]].concat());
        assert!(!ran.stdout.contains("eyJ") && !ran.stdout.contains("access_token"), "{port}");
        let answered = ran.stdout.lines().next().unwrap_or_default();
        let answered: Value = serde_json::from_str(answered).unwrap_or_default();
        assert_ne!(answered["status"], 200, "{port}: {answered}");
    }
}

#[test]
fn b05_another_label_does_not_make_a_pod_of_another_tenant() {
    let _shared = world().mesh.shared().unwrap();
    let (_turn, tenants) = tenants();
    let b = &tenants[1];
    label(b, "tenant=a");
    mesh::poll("the broker to see the label", LABELS, || {
        Ok(page(b).contains("billing: denied") && page(b).contains("tenant=a"))
    })
    .unwrap();
    // It has lost its own and has not got the other's.
    let page = page(b);
    assert!(page.contains("orders: denied"), "{page}");
    assert!(!page.contains("tokens held"), "{page}");
    until_status(b, "/v1.0/relabelled", 403);
    calls_as(&B, A.account);
    let refused = until_status(b, "/v1.0/relabelled-theft", 403);
    is_denial(&refused);
    assert_eq!(seen("/v1.0/relabelled-theft").len(), 0);
}

#[test]
fn b05_a_label_that_is_taken_from_a_running_pod_ends_the_use() {
    let _shared = world().mesh.shared().unwrap();
    let (_turn, tenants) = tenants();
    let a = &tenants[0];
    label(a, "tenant-");
    let refused = until_status(a, "/v1.0/unlabelled", 403);
    is_denial(&refused);
    assert_eq!(a.readiness()["ready"], true, "it is known what the pod is");
    label(a, "tenant=a");
    until_status(a, "/v1.0/unlabelled", 200);
}

/// A pod of tenant B with the other's label and the other's service account by name, and a broker
/// of its own configuration that denies nothing.
fn thief() -> Value {
    let mut objects = Shop::new(B.namespace)
        .account(A.account, A.client)
        .label("app", "thief")
        .label("tenant", A.label)
        .annotation("entra-sidecar/config", "thief-broker")
        .annotation("entra-sidecar/identity-access", "true")
        .application_objects();
    let mut deployment = objects["items"][0].take();
    deployment["metadata"]["name"] = json!("thief");
    deployment["spec"]["selector"]["matchLabels"]["app"] = json!("thief");
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": named(A.account, B.namespace)});
    json!({"apiVersion": "v1", "kind": "List", "items": [account, deployment]})
}

#[test]
fn b05_another_service_account_is_denied_by_the_broker_and_without_it_refused_by_entra() {
    let world = world();
    let _shared = world.mesh.shared().unwrap();
    let (_turn, _tenants) = tenants();
    // With the configuration of both: a service account of that name, in another namespace.
    world.mesh.apply(&broker_config(B.namespace, "thief-broker", &config()).to_string()).unwrap();
    world.mesh.apply(&thief().to_string()).unwrap();
    let pod = world.mesh.ready_pod(B.namespace, "app=thief").unwrap();
    let address = world.mesh.pod_ip(B.namespace, &pod).unwrap().parse().unwrap();
    let thief = std::mem::ManuallyDrop::new(Open { world, namespace: B.namespace, pod, address });
    let said = page(&thief);
    assert!(said.contains("service account orders") && said.contains("tenant=a"), "{said}");
    assert!(said.contains("orders: denied") && said.contains("billing: denied"), "{said}");
    let subject = service_account(B.namespace, A.account);
    assert_eq!(world.entra.calls_of_subject(&subject).len(), 0);
    // With one of its own, in which nobody is denied anything.
    let mut own = config();
    for member in ["identity_access", "pod"] {
        own.as_object_mut().unwrap().remove(member);
    }
    world.mesh.apply(&broker_config(B.namespace, "thief-broker", &own).to_string()).unwrap();
    mesh::poll("both identities to be refused", LABELS, || {
        let page = page(&thief);
        Ok(page.matches("AADSTS700213").count() == 2)
    })
    .unwrap();
    let asked = world.entra.calls_of_subject(&subject);
    assert!(!asked.is_empty() && asked.iter().all(|call| call.issued.is_none()));
}

#[test]
fn b05_with_the_broker_left_out_entra_refuses_the_others_identity() {
    let world = world();
    let _shared = world.mesh.shared().unwrap();
    let (_turn, _tenants) = tenants();
    for (tenant, other) in [(&A, &B), (&B, &A)] {
        let audience = format!("--audience={AUDIENCE}");
        let create =
            ["create", "token", tenant.account, "--namespace", tenant.namespace, &audience];
        let assertion = world.mesh.kubectl(&create).unwrap();
        assert_eq!(ask(world, tenant.client, assertion.trim()), (200, None), "its own");
        assert_eq!(ask(world, other.client, assertion.trim()), NOT_FEDERATED, "the other's");
    }
    // Nor is the token that proves to the broker what the pod is a credential.
    let create = ["create", "token", A.account, "--namespace", A.namespace];
    let evidence = world.mesh.kubectl(&[&create[..], &["--audience=entra-sidecar"]].concat());
    let (status, _) = ask(world, A.client, evidence.unwrap().trim());
    assert_eq!(status, 401);
}
