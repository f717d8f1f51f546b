//! From what a team has to this, a step at a time, as `docs/migration.md` tells it; at each step
//! callers get what they should.

use e2e::{client::Request, fake_entra::sample};
use mesh::poll;
use serde_json::{Value, json};

use crate::{
    shop::{Open, Shop, install},
    world::{PATIENCE, named, world},
};

/// Statuses of a call without a token, with a good one, and with one whose signature is another's.
type Statuses = (u16, u16, u16);

const NOBODY_IS_JUDGED: Statuses = (200, 200, 200);
const BY_ISTIO: Statuses = (403, 200, 401);
const BY_US: Statuses = (401, 200, 401);

fn statuses(shop: &Open) -> Statuses {
    let token = shop.world.token();
    let other = world().entra.token(sample::TENANT, sample::TILL, sample::STOCK_URI).sign();
    let (signed, _) = token.rsplit_once('.').unwrap();
    let (_, signature) = other.rsplit_once('.').unwrap();
    let forged = format!("{signed}.{signature}");
    let get = || Request::get("/orders/7");
    let status = |request: &Request| shop.call(request).status;
    (status(&get()), status(&get().bearer(&token)), status(&get().bearer(&forged)))
}

fn until(shop: &Open, what: &str, expected: Statuses) {
    let mut last = (0, 0, 0);
    poll(what, PATIENCE, || {
        last = statuses(shop);
        Ok(last == expected)
    })
    .unwrap_or_else(|error| panic!("{error:#}: {last:?}, expected {expected:?}"));
}

/// What the pod's template is to say.
fn annotate(shop: &mut Open, annotations: &Value) {
    let patch = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
    let arguments = ["patch", "deployment", "orders", "--namespace", shop.namespace, "--patch"];
    shop.world.mesh.kubectl(&[&arguments[..], &[&patch.to_string()]].concat()).unwrap();
    shop.renew();
}

/// What the application got of a good call: the values of these headers, names in lower case.
/// Nothing where it got no call: a policy that goes leaves its parts one after the other.
fn got<const N: usize>(shop: &Open, names: [&str; N]) -> Option<[Option<String>; N]> {
    let answer = shop.call(&Request::get("/orders/7").bearer(&shop.world.token()));
    if answer.status != 200 {
        return None;
    }
    let headers = answer.json()["headers"].as_array().unwrap().clone();
    Some(names.map(|name| {
        let found = headers.iter().find(|header| header[0] == name)?;
        Some(found[1].as_str().unwrap().to_owned())
    }))
}

#[test]
fn from_request_authentication_every_step_keeps_strangers_out() {
    const NAMESPACE: &str = "migration";
    let _guard = world().mesh.shared().unwrap();
    let mut shop = Shop::new(NAMESPACE)
        .without_chart()
        .annotation("inject.istio.io/templates", "sidecar")
        .open();
    until(&shop, "nothing to judge", NOBODY_IS_JUDGED);
    let keys = world().entra.key_set(sample::TENANT).to_string();
    let selector = json!({"matchLabels": {"app": "orders"}});
    let istios = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication",
         "metadata": named("entra", NAMESPACE),
         "spec": {"selector": selector, "jwtRules": [{
            "issuer": format!("https://login.microsoftonline.com/{}/v2.0", sample::TENANT),
            "audiences": [sample::ORDERS_API], "jwks": keys, "forwardOriginalToken": false}]}},
        {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
         "metadata": named("orders", NAMESPACE),
         "spec": {"selector": selector, "action": "ALLOW", "rules": [{
            "from": [{"source": {"requestPrincipals": ["*"]}}],
            "when": [{"key": "request.auth.claims[roles]", "values": ["Orders.Read.All"]}]}]}},
    ]})
    .to_string();
    shop.world.mesh.apply(&istios).unwrap();
    until(&shop, "Istio's policies", BY_ISTIO);

    // Beside them, watching: it decides and logs, Istio goes on to enforce.
    let policy = |mode: &str, forward: bool| json!({"inbound": {"policy": {"mode": mode, "forward_token": forward}}});
    install(shop.world, NAMESPACE, &[policy("observe", true)]);
    annotate(&mut shop, &json!({"inject.istio.io/templates": "sidecar,token-broker"}));
    until(&shop, "Istio's policies beside a filter that watches", BY_ISTIO);
    poll("what would have been refused", PATIENCE, || {
        Ok(shop.proxy_log().contains("reason=token_missing mode=observe"))
    })
    .unwrap();

    // Both enforce; ours speaks first.
    install(shop.world, NAMESPACE, &[policy("enforce", true)]);
    until(&shop, "both", BY_US);

    // Ours alone. The token is no longer needed behind it.
    install(shop.world, NAMESPACE, &[policy("enforce", false)]);
    shop.world.mesh.delete(&istios).unwrap();
    poll("the application to get no token, but who calls", PATIENCE, || {
        let got = got(&shop, ["authorization", "x-entra-client-id"]);
        Ok(statuses(&shop) == BY_US && got == Some([None, Some(sample::TILL.to_owned())]))
    })
    .unwrap();
}

#[test]
fn from_azure_workload_identity_the_token_leaves_the_application_and_entra_need_not_change() {
    const NAMESPACE: &str = "migration-wi";
    const TOKEN: &str = "/var/run/secrets/azure/wi/token/azure-identity-token";
    let _guard = world().mesh.shared().unwrap();
    let mut shop = Shop::new(NAMESPACE)
        .without_chart()
        .annotation("inject.istio.io/templates", "sidecar")
        .open();
    // As azure-workload-identity's webhook makes a pod that has its label.
    let patch = json!({"spec": {"template": {
        "metadata": {"labels": {"azure.workload.identity/use": "true"}},
        "spec": {
            "containers": [{"name": "application",
                "env": [{"name": "AZURE_FEDERATED_TOKEN_FILE", "value": TOKEN}],
                "volumeMounts": [{"name": "azure-workload-identity-reserved-1",
                    "mountPath": "/var/run/secrets/azure/wi", "readOnly": true}]}],
            "volumes": [{"name": "azure-workload-identity-reserved-1", "projected": {"sources": [
                {"serviceAccountToken": {"path": "token/azure-identity-token",
                    "audience": "api://AzureADTokenExchange", "expirationSeconds": 3600}}]}}],
        },
    }}});
    let change = |patch: &Value| {
        let patch = patch.to_string();
        let arguments = ["patch", "deployment", "orders", "--namespace", NAMESPACE, "--patch"];
        world().mesh.kubectl(&[&arguments[..], &[&patch]].concat()).unwrap();
    };
    change(&patch);
    shop.renew();
    let read = |shop: &Open| shop.shell(&["cat", TOKEN]).stdout;
    assert_eq!(read(&shop).split('.').count(), 3, "the application holds a token for Entra");

    // The label and what came with it goes, the annotation comes; the service account stays, and
    // with it the subject of the federated credential.
    install(shop.world, NAMESPACE, &[]);
    change(&json!({"spec": {"template": {
        "metadata": {"labels": {"azure.workload.identity/use": null}},
        "spec": {
            "containers": [{"name": "application",
                "env": [{"name": "AZURE_FEDERATED_TOKEN_FILE", "$patch": "delete"}],
                "volumeMounts": [{"mountPath": "/var/run/secrets/azure/wi", "$patch": "delete"}]}],
            "volumes": [{"name": "azure-workload-identity-reserved-1", "$patch": "delete"}],
        },
    }}}));
    annotate(&mut shop, &json!({"inject.istio.io/templates": "sidecar,token-broker"}));
    assert_eq!(read(&shop), "");
    let subject = format!("system:serviceaccount:{NAMESPACE}:orders");
    poll("a token for the same subject", PATIENCE, || {
        let calls = world().entra.calls_of_subject(&subject);
        Ok(calls.iter().any(|call| call.issued.is_some()))
    })
    .unwrap();
}
