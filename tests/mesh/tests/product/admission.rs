//! The admission policy in a namespace that asks for it: what a pod must be after all injection,
//! and what may not be done to one that runs. Every pod of the table goes to the real API server,
//! by dry-run: injected by the real webhook, judged by the real policy.

use std::sync::LazyLock;

use e2e::client::Request;
use serde_json::{Value, json};

use crate::{
    shop::{Open, Shop, install},
    world::{PATIENCE, world},
};

mod by_hand;
mod evidence;

const NAMESPACE: &str = "admission";

/// A namespace that enforces, with a pod that was made under the policy.
fn enforced() -> &'static Open {
    static ENFORCED: LazyLock<Open> = LazyLock::new(|| {
        let world = world();
        let shop = Shop::new(NAMESPACE).without_chart();
        shop.prepare();
        let proxy = world.mesh.get("istio-system", &["configmap", "istio-sidecar-injector"]);
        let values = proxy.unwrap()["data"]["values"].as_str().unwrap().to_owned();
        let values: Value = serde_json::from_str(&values).unwrap();
        let global = &values["global"];
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let proxy = format!("{}/proxyv2:{}", text(&global["hub"]), text(&global["tag"]));
        let admission = json!({"admission": {"enabled": true, "images": {
            "proxy": [proxy], "broker": [world.images.broker],
        }}});
        install(world, NAMESPACE, &[admission]);
        let enforce = ["label", "namespace", NAMESPACE, "entra-sidecar/enforce=true"];
        world.mesh.kubectl(&enforce).unwrap();
        // The API server compiles a new policy within seconds.
        let in_force = || {
            let bare = json!({"metadata": {"labels": {"sidecar.istio.io/inject": "false"}}});
            Ok(judged(&merged(good(), &bare)).is_err())
        };
        mesh::poll("the policy to be in force", PATIENCE, in_force).unwrap();
        world.mesh.apply(&shop.application_objects().to_string()).unwrap();
        let pod = world.mesh.ready_pod(NAMESPACE, "app=orders").unwrap();
        let address = world.mesh.pod_ip(NAMESPACE, &pod).unwrap().parse().unwrap();
        Open { world, namespace: NAMESPACE, pod, address }
    });
    &ENFORCED
}

/// The pod of the quick start.
fn good() -> Value {
    let objects = Shop::new(NAMESPACE).application_objects();
    let mut pod = objects["items"][0]["spec"]["template"].clone();
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["name"] = json!("candidate");
    pod["metadata"]["namespace"] = json!(NAMESPACE);
    pod
}

/// A JSON merge patch (RFC 7396), but lists are joined, so that containers and volumes are added.
fn merged(mut to: Value, patch: &Value) -> Value {
    match (&mut to, patch) {
        (Value::Object(members), Value::Object(patch)) => {
            for (name, value) in patch {
                let old = members.remove(name).unwrap_or(Value::Null);
                members.insert(name.clone(), merged(old, value));
            }
            to
        }
        (Value::Array(items), Value::Array(more)) => {
            items.extend(more.iter().cloned());
            to
        }
        _ => patch.clone(),
    }
}

/// The API server's word on a pod, which it does not make.
fn judged(pod: &Value) -> Result<String, String> {
    let create = ["create", "--dry-run=server", "--filename=-"];
    world().mesh.kubectl_with(&create, &pod.to_string()).map_err(|error| format!("{error:#}"))
}

/// Whether each pod is refused, and with the message that says why.
fn refused(table: &[(&str, Value, &str)]) {
    enforced();
    let mut wrong = Vec::new();
    for (name, patch, message) in table {
        match judged(&merged(good(), patch)) {
            Ok(_) => wrong.push(format!("{name}: accepted")),
            Err(said) if !said.contains(message) => wrong.push(format!("{name}: {said}")),
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The application's container with something more: lists are joined, so it is a second one.
fn container(extra: Value) -> Value {
    let container = json!({"name": "second", "image": crate::world::world().application});
    json!({"spec": {"containers": [merged(container, &extra)]}})
}

fn annotated(name: &str, value: &str) -> Value {
    json!({"metadata": {"annotations": {name: value}}})
}

#[test]
fn an_ordinary_injected_pod_runs_in_an_enforced_namespace() {
    let _guard = world().mesh.shared().unwrap();
    let shop = enforced();
    assert_eq!(shop.call(&Request::get("/orders/7")).status, 401);
    let answer = shop.call(&Request::get("/orders/7").bearer(&shop.world.token()));
    assert_eq!(answer.status, 200, "{}", answer.text());
    judged(&good()).unwrap();
}

#[test]
fn a_pod_with_an_ordinary_container_and_volume_beside_is_accepted() {
    let _guard = world().mesh.shared().unwrap();
    enforced();
    let more = merged(
        container(json!({
            "securityContext": {"runAsUser": 1000, "capabilities": {"drop": ["ALL"]}},
            "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
        })),
        &json!({"spec": {
            "volumes": [{"name": "scratch", "emptyDir": {}}],
            "initContainers": [{"name": "migrate", "image": crate::world::world().application}],
        }}),
    );
    judged(&merged(good(), &more)).unwrap();
}

#[test]
fn a_pod_that_is_not_injected_or_leaves_its_namespaces_is_refused() {
    let _guard = world().mesh.shared().unwrap();
    let shared = "hostNetwork, hostPID, hostIPC and shareProcessNamespace";
    refused(&[
        (
            "no injection",
            json!({"metadata": {"labels": {"sidecar.istio.io/inject": "false"}}}),
            "the pod is not injected",
        ),
        ("no broker", annotated("inject.istio.io/templates", "sidecar"), "the pod is not injected"),
        (
            "the label without the broker",
            json!({"metadata": {
                "labels": {"entra-sidecar/injected": "true"},
                "annotations": {"inject.istio.io/templates": "sidecar"},
            }}),
            "token-broker is missing",
        ),
        // Istio leaves such a pod alone, label or not.
        ("hostNetwork", json!({"spec": {"hostNetwork": true}}), "the pod is not injected"),
        (
            "hostNetwork with the label",
            json!({
                "metadata": {"labels": {"entra-sidecar/injected": "true"}},
                "spec": {"hostNetwork": true},
            }),
            shared,
        ),
        ("hostPID", json!({"spec": {"hostPID": true}}), shared),
        ("hostIPC", json!({"spec": {"hostIPC": true}}), shared),
        ("shared processes", json!({"spec": {"shareProcessNamespace": true}}), shared),
    ]);
}

#[test]
fn an_annotation_that_takes_traffic_past_the_sidecar_is_refused() {
    let _guard = world().mesh.shared().unwrap();
    let hole = "an annotation takes traffic past the sidecar";
    refused(&[
        (
            "excluded inbound",
            annotated("traffic.sidecar.istio.io/excludeInboundPorts", "9090"),
            "istio-init is missing, or is not as Istio makes it",
        ),
        (
            "included inbound",
            annotated("traffic.sidecar.istio.io/includeInboundPorts", "8080"),
            "istio-init is missing, or is not as Istio makes it",
        ),
        (
            "excluded outbound",
            annotated("traffic.sidecar.istio.io/excludeOutboundPorts", "443"),
            hole,
        ),
        (
            "no redirection",
            annotated("sidecar.istio.io/interceptionMode", "NONE"),
            "is not as Istio",
        ),
        ("TPROXY", annotated("sidecar.istio.io/interceptionMode", "TPROXY"), "is not as Istio"),
        (
            "another proxy",
            annotated("sidecar.istio.io/proxyImage", "example.com/proxy:1"),
            "is not as Istio makes it",
        ),
        (
            "another bootstrap",
            annotated("sidecar.istio.io/bootstrapOverride", "mine"),
            "istio-proxy has an environment that Istio does not give it",
        ),
        (
            "a volume for the proxy",
            annotated("sidecar.istio.io/userVolume", r#"{"mine":{"emptyDir":{}}}"#),
            hole,
        ),
        ("proxy settings", annotated("proxy.istio.io/config", "{concurrency: 1}"), hole),
        (
            "bodies and tokens in the log",
            annotated("sidecar.istio.io/logLevel", "debug"),
            "writes callers' tokens into its log",
        ),
        (
            "no lock-down",
            annotated("entra-sidecar/lockdown-status", "false"),
            "entra-lockdown is missing, is switched off",
        ),
        (
            "a wider lock-down",
            annotated("entra-sidecar/lockdown-status-from", "10.88.0.0/16"),
            "entra-lockdown is missing, is switched off",
        ),
    ]);
}

#[test]
fn a_container_that_brings_one_of_ours_or_takes_its_volumes_is_refused() {
    let _guard = world().mesh.shared().unwrap();
    let socket = json!({"volumeMounts": [{"name": "entra-socket", "mountPath": "/s"}]});
    let token = json!({"volumeMounts": [{"name": "entra-token", "mountPath": "/t"}]});
    let istio = json!({"volumeMounts": [{"name": "istio-token", "mountPath": "/i"}]});
    let evidence = json!({"volumeMounts": [{"name": "entra-pod", "mountPath": "/e"}]});
    let proves = |patch: Value| merged(annotated("entra-sidecar/identity-access", "true"), &patch);
    let mounted = "is mounted in another container";
    let projected = |audience: &str| {
        json!({"spec": {"volumes": [{"name": "mine", "projected": {"sources": [
            {"serviceAccountToken": {"path": "token", "audience": audience}},
        ]}}]}})
    };
    let audience = "only the broker may have a service account token for Entra";
    let secret = "the broker's client secret is in a second volume, or in an environment";
    let with_secret =
        |patch: Value| merged(annotated("entra-sidecar/client-secret", "of-broker"), &patch);
    refused(&[
        (
            "an own broker",
            json!({"spec": {"initContainers": [{
                "name": "token-broker",
                "image": "example.com/broker:1",
                "restartPolicy": "Always",
            }]}}),
            "token-broker is missing, or is not as the template makes it",
        ),
        (
            "an own proxy",
            json!({"spec": {"containers": [
                {"name": "istio-proxy", "image": "example.com/proxy:1"},
            ]}}),
            "istio-proxy is missing, or is not as Istio makes it",
        ),
        ("the socket", container(socket), mounted),
        ("the broker's token", container(token), mounted),
        ("the proxy's token", container(istio), mounted),
        ("the pod's evidence", proves(container(evidence)), mounted),
        ("a token for Entra", projected("api://AzureADTokenExchange"), audience),
        ("a token for istiod", projected("istio-ca"), audience),
        ("a token for the broker", projected("entra-sidecar"), audience),
        (
            "a folder of the node",
            json!({"spec": {"volumes": [{"name": "n", "hostPath": {"path": "/"}}]}}),
            "a hostPath volume reaches the node",
        ),
        (
            "the client secret, projected",
            with_secret(json!({"spec": {"volumes": [
                {"name": "mine", "projected": {"sources": [{"secret": {"name": "of-broker"}}]}},
            ]}})),
            secret,
        ),
        (
            "the client secret as a variable",
            with_secret(container(json!({"env": [
                {"name": "S", "valueFrom": {"secretKeyRef": {"name": "of-broker", "key": "s"}}},
            ]}))),
            secret,
        ),
        (
            "the client secret as variables",
            with_secret(container(json!({"envFrom": [
                {"secretRef": {"name": "of-broker"}},
            ]}))),
            secret,
        ),
        (
            "azure-workload-identity",
            json!({"metadata": {"labels": {"azure.workload.identity/use": "true"}}}),
            "gives its token to every container",
        ),
    ]);
}

#[test]
fn an_application_with_istios_user_or_rights_over_the_network_is_refused() {
    let _guard = world().mesh.shared().unwrap();
    let ids = "the user ids 1337 (Istio) and 65532 (the broker)";
    let rights = "is privileged or has a capability";
    let with = |context: Value| container(json!({"securityContext": context}));
    refused(&[
        ("Istio's user", with(json!({"runAsUser": 1337})), ids),
        ("the broker's user", with(json!({"runAsUser": 65532})), ids),
        ("Istio's for all", json!({"spec": {"securityContext": {"runAsUser": 1337}}}), ids),
        ("Istio's group", with(json!({"runAsGroup": 1337})), ids),
        ("Istio's group for all", json!({"spec": {"securityContext": {"runAsGroup": 1337}}}), ids),
        ("privileged", with(json!({"privileged": true})), rights),
        ("the network", with(json!({"capabilities": {"add": ["NET_ADMIN"]}})), rights),
        ("all rights", with(json!({"capabilities": {"add": ["ALL"]}})), rights),
        // Container engines take any spelling.
        ("in small letters", with(json!({"capabilities": {"add": ["net_admin"]}})), rights),
        ("with the prefix", with(json!({"capabilities": {"add": ["CAP_NET_RAW"]}})), rights),
        (
            "under the name of a container that this mesh has not",
            container(json!({"name": "istio-validation", "securityContext": {"privileged": true}})),
            rights,
        ),
    ]);
}

#[test]
fn labels_that_select_the_filter_cannot_be_taken_from_a_running_pod() {
    let _guard = world().mesh.shared().unwrap();
    let shop = enforced();
    for label in ["entra-sidecar/injected-", "entra-sidecar/injected=false"] {
        let change = ["label", "pod", &shop.pod, label, "--overwrite", "--namespace", NAMESPACE];
        let said = world().mesh.kubectl(&change).unwrap_err();
        let said = format!("{said:#}");
        assert!(said.contains("the label entra-sidecar/injected selects the filter"), "{said}");
    }
    let patch = r#"{"metadata": {"labels": {"entra-sidecar/injected": "false"}}}"#;
    let status = ["patch", "pod", &shop.pod, "--namespace", NAMESPACE, "--subresource=status"];
    let status = [&status[..], &["--dry-run=server", "--type=merge", "--patch", patch]].concat();
    let said = format!("{:#}", world().mesh.kubectl(&status).unwrap_err());
    assert!(said.contains("the label entra-sidecar/injected selects the filter"), "{said}");
    let harmless = ["label", "pod", &shop.pod, "tier=front", "--namespace", NAMESPACE];
    world().mesh.kubectl(&harmless).unwrap();
}

#[test]
fn a_running_pods_sidecar_keeps_its_image() {
    let _guard = world().mesh.shared().unwrap();
    let shop = enforced();
    let image = json!({"spec": {"initContainers": [
        {"name": "istio-proxy", "image": "example.com/proxy:1"},
    ]}});
    let image = image.to_string();
    let patch = ["patch", "pod", &shop.pod, "--namespace", NAMESPACE, "--dry-run=server"];
    let patch = [&patch[..], &["--patch", &image]].concat();
    let said = format!("{:#}", world().mesh.kubectl(&patch).unwrap_err());
    assert!(said.contains("change with a new pod only"), "{said}");
}

/// The API server's word on a debugging container.
fn debugged(shop: &Open, extra: Value) -> Result<String, String> {
    let mut pod = world().mesh.get(NAMESPACE, &["pod", &shop.pod]).unwrap();
    let debugger = json!({"name": "debugger", "image": crate::world::world().application});
    pod["spec"]["ephemeralContainers"] = json!([merged(debugger, &extra)]);
    let path =
        format!("/api/v1/namespaces/{NAMESPACE}/pods/{}/ephemeralcontainers?dryRun=All", shop.pod);
    let replace = ["replace", "--raw", &path, "--filename=-"];
    world().mesh.kubectl_with(&replace, &pod.to_string()).map_err(|error| format!("{error:#}"))
}

#[test]
fn a_debugging_container_gets_nothing_of_ours() {
    let _guard = world().mesh.shared().unwrap();
    let shop = enforced();
    let context = |context: Value| json!({"securityContext": context});
    let mount = |name: &str| json!({"volumeMounts": [{"name": name, "mountPath": "/x"}]});
    for extra in [
        json!({"targetContainerName": "token-broker"}),
        json!({"targetContainerName": "istio-proxy"}),
        mount("entra-socket"),
        mount("entra-token"),
        mount("istio-token"),
        context(json!({"runAsUser": 1337})),
        context(json!({"privileged": true})),
        context(json!({"capabilities": {"add": ["NET_ADMIN"]}})),
        context(json!({"capabilities": {"add": ["SYS_PTRACE"]}})),
    ] {
        let said = debugged(shop, extra.clone()).expect_err(&extra.to_string());
        assert!(said.contains("a debugging container may not share"), "{extra}: {said}");
    }
    debugged(shop, json!({"targetContainerName": "application"})).unwrap();
}
