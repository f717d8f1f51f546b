//! Who a pod is to Entra: its service account, by the token that the kubelet projects into the
//! broker's container, signed by the API server's own key.

use std::sync::LazyLock;

use e2e::fake_entra::{Call, client::Client, sample, service_account};
use mesh::{paths::ISSUER, poll, until};
use serde_json::{Value, json};

use crate::{
    shop::{Open, Shop},
    world::{PATIENCE, World, named, world},
};

const NAMESPACE: &str = "identity";
pub(crate) const AUDIENCE: &str = "api://AzureADTokenExchange";
pub(crate) const GRAPH_SCOPE: &str = "https://graph.microsoft.com/.default";
/// AADSTS700213: no federated credential of the application has this subject.
pub(crate) const NOT_FEDERATED: (u16, Option<u32>) = (401, Some(700_213));
const STOCK_SCOPE: &str = "https://stock.contoso.com/.default";

/// The application `orders`, and in the same namespace `billing`, which is another application of
/// the tenant, and a pod that has nothing to do with the sidecar. Only read by the tests.
static SHOP: LazyLock<Open> = LazyLock::new(|| {
    let world = world();
    let shop = Shop::new(NAMESPACE);
    let billing = billing(&shop);
    let open = shop.open();
    let subject = service_account(NAMESPACE, "billing");
    world.entra.federate(sample::TENANT, sample::BILLING, ISSUER, &subject);
    world.mesh.apply(&billing.to_string()).unwrap();
    world.mesh.apply(&stranger().to_string()).unwrap();
    world.mesh.ready_pod(NAMESPACE, "app=billing").unwrap();
    world.mesh.ready_pod(NAMESPACE, "app=other").unwrap();
    open
});

/// The same Deployment with another service account, and a configuration of its own.
fn billing(shop: &Shop) -> Value {
    let mut deployment = shop.application_objects()["items"][0].clone();
    deployment["metadata"]["name"] = json!("billing");
    deployment["spec"]["selector"]["matchLabels"]["app"] = json!("billing");
    let template = &mut deployment["spec"]["template"];
    template["metadata"]["labels"]["app"] = json!("billing");
    template["metadata"]["annotations"]["entra-sidecar/config"] = json!("billing-broker");
    template["spec"]["serviceAccountName"] = json!("billing");
    let identity = json!({
        "workload_identity": {"tenant": sample::TENANT, "client_id": sample::BILLING},
        "scopes": [GRAPH_SCOPE],
    });
    let config = json!({
        "listen": {"admin": "0.0.0.0:7172"},
        "ca_file": "/etc/entra-ca/ca.crt",
        "authorities": [{"cloud": "public", "tenants": [sample::TENANT]}],
        "identities": {"default": identity},
    });
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": named("billing", NAMESPACE)},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": named("billing-broker", NAMESPACE),
         "data": {"broker.yaml": config.to_string()}},
        deployment,
    ]})
}

/// A pod whose own container has a token for Entra, of a service account that Entra does not know.
fn stranger() -> Value {
    let mut metadata = named("other", NAMESPACE);
    metadata["labels"] = json!({"app": "other", "sidecar.istio.io/inject": "false"});
    let source = json!({"path": "token", "audience": AUDIENCE, "expirationSeconds": 600});
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": named("other", NAMESPACE)},
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {
            "serviceAccountName": "other",
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "application",
                "image": world().application,
                "command": ["mesh-app", "serve", "--http", "8080"],
                "volumeMounts": [{"name": "token", "mountPath": "/token"}],
            }],
            "volumes": [{"name": "token", "projected": {"sources":
                [{"serviceAccountToken": source}]}}],
        }},
    ]})
}

/// Asks Entra for a token of an application as whoever holds an assertion can: status, and the
/// number of the refusal.
pub(crate) fn ask(world: &World, client: &str, assertion: &str) -> (u16, Option<u32>) {
    let entra = &world.entra;
    let way = Client::direct(entra.address(), entra.ca_file()).unwrap();
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", client),
        ("scope", GRAPH_SCOPE),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", assertion),
    ];
    let path = format!("/{}/oauth2/v2.0/token", sample::TENANT);
    let reply = way.post_form("login.microsoftonline.com", &path, &form).unwrap();
    let refused = reply.json()["error_codes"][0].as_u64();
    (reply.status, refused.map(|code| u32::try_from(code).unwrap()))
}

/// What the pods of a service account have asked Entra for, and got.
fn issued(account: &str) -> Vec<Call> {
    let calls = world().entra.calls_of_subject(&service_account(NAMESPACE, account));
    calls.into_iter().filter(|call| call.issued.is_some()).collect()
}

#[test]
fn the_broker_presents_the_projected_token_of_its_pods_service_account() {
    let _shared = world().mesh.shared().unwrap();
    LazyLock::force(&SHOP);
    let calls = issued("orders");
    let presented = calls.first().expect("a token").presented.as_ref().unwrap();
    assert_eq!(presented.issuer.as_deref(), Some(ISSUER));
    assert_eq!(presented.subject.as_deref(), Some("system:serviceaccount:identity:orders"));
    assert_eq!(presented.audiences, [AUDIENCE]);
}

#[test]
fn two_service_accounts_are_two_applications_and_each_gets_its_own_only() {
    let _shared = world().mesh.shared().unwrap();
    LazyLock::force(&SHOP);
    for (account, own) in [("orders", sample::WORKLOAD), ("billing", sample::BILLING)] {
        let calls = issued(account);
        assert!(!calls.is_empty(), "{account} got no token");
        assert!(calls.iter().all(|call| call.client_id() == Some(own)), "{account}");
    }
    // The credential of one is worth nothing for the other.
    let audience = format!("--audience={AUDIENCE}");
    for (account, own, other) in [
        ("orders", sample::WORKLOAD, sample::BILLING),
        ("billing", sample::BILLING, sample::WORKLOAD),
    ] {
        let create = ["create", "token", account, "--namespace", NAMESPACE, &audience];
        let assertion = world().mesh.kubectl(&create).unwrap();
        let own = ask(world(), own, assertion.trim());
        assert_eq!(own, (200, None), "{account} as itself");
        let other = ask(world(), other, assertion.trim());
        assert_eq!(other, NOT_FEDERATED, "{account} as the other");
    }
}

#[test]
fn another_service_account_is_refused_even_when_its_pod_asks_entra_itself() {
    let world = world();
    let _shared = world.mesh.shared().unwrap();
    LazyLock::force(&SHOP);
    let read = world.mesh.exec(NAMESPACE, "other", "application", &["cat", "/token/token"]);
    let assertion = read.unwrap().stdout;
    assert!(assertion.starts_with("eyJ"), "the pod has a token of its own");
    for client in [sample::WORKLOAD, sample::BILLING] {
        assert_eq!(ask(world, client, assertion.trim()), NOT_FEDERATED, "{client}");
    }
    // It was the right kind of token, of the right cluster: only the account is the wrong one.
    let calls = world.entra.calls_of_subject(&service_account(NAMESPACE, "other"));
    let presented = calls[0].presented.as_ref().unwrap();
    assert_eq!(presented.issuer.as_deref(), Some(ISSUER));
    assert_eq!(presented.audiences, [AUDIENCE]);
}

/// Replaces the broker's configuration as `helm upgrade` or a GitOps controller would.
fn configure(shop: &Open, text: &str) {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": named("entra-sidecar-broker", NAMESPACE), "data": {"broker.yaml": text}});
    shop.world.mesh.apply(&object.to_string()).unwrap();
}

#[test]
fn a_changed_config_map_is_in_force_without_a_restart_and_a_wrong_one_changes_nothing() {
    let world = world();
    let _shared = world.mesh.shared().unwrap();
    let shop = &*SHOP;
    let map = world.mesh.get(NAMESPACE, &["configmap", "entra-sidecar-broker"]).unwrap();
    let before = map["data"]["broker.yaml"].as_str().unwrap();
    let mut config: Value = serde_norway::from_str(before).unwrap();
    config["identities"]["stock"] = json!({
        "workload_identity": {"tenant": sample::TENANT, "client_id": sample::WORKLOAD},
        "scopes": [STOCK_SCOPE],
    });
    configure(shop, &config.to_string());
    let asked = |call: &Call| {
        let subject = service_account(NAMESPACE, "orders");
        call.subject() == Some(&subject) && call.form_member("scope") == Some(STOCK_SCOPE)
    };
    assert!(world.entra.wait_for_call(PATIENCE, asked), "the new identity asks for no token");
    assert_eq!(shop.readiness()["configuration_errors"], 0);

    config["identities"]["stock"]["scopes"] = json!("not a list");
    configure(shop, &config.to_string());
    let readiness = until("the refusal of the configuration", PATIENCE, || {
        let readiness = shop.readiness();
        Ok((readiness["configuration_errors"].as_i64() > Some(0)).then_some(readiness))
    });
    assert_eq!(readiness.unwrap()["ready"], true, "what was in force is");
    let page = shop.call_from_inside(&["GET", "http://127.0.0.1:7172/"]).1;
    assert!(page.contains("stock: 1 of 1 tokens held"), "{page}");

    configure(shop, before);
    poll("the first configuration", PATIENCE, || {
        let page = shop.call_from_inside(&["GET", "http://127.0.0.1:7172/"]).1;
        Ok(page.contains("default: 1 of 1") && !page.contains("stock:"))
    })
    .unwrap();
    let pod = world.mesh.get(NAMESPACE, &["pod", &shop.pod]).unwrap();
    let statuses = pod["status"]["initContainerStatuses"].as_array().unwrap();
    let broker = statuses.iter().find(|status| status["name"] == "token-broker").unwrap();
    assert_eq!(broker["restartCount"], 0);
}
