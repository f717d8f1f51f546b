//! Pods that nobody injected: written by hand to look so, with Istio's webhook told to stay away.
//! Only the policy is then between them and a pod without the filter.

use serde_json::{Value, json};

use super::{enforced, good, judged};
use crate::world::world;

/// What injection makes of the good pod, as a pod of its own that is not injected again.
fn by_hand() -> Value {
    let create = ["create", "--dry-run=server", "--output=json", "--filename=-"];
    let made = world().mesh.kubectl_with(&create, &good().to_string()).unwrap();
    let mut pod: Value = serde_json::from_str(&made).unwrap();
    let name = pod["metadata"]["name"].clone();
    let mut labels = pod["metadata"]["labels"].clone();
    labels["sidecar.istio.io/inject"] = json!("false");
    pod["metadata"] = json!({
        "name": name,
        "namespace": pod["metadata"]["namespace"],
        "labels": labels,
    });
    // The API server adds these again.
    let of_cluster = |value: &Value| !text(&value["name"]).starts_with("kube-api-access-");
    pod["spec"]["volumes"].as_array_mut().unwrap().retain(of_cluster);
    for list in ["containers", "initContainers"] {
        for container in pod["spec"][list].as_array_mut().unwrap() {
            if let Some(mounts) = container["volumeMounts"].as_array_mut() {
                mounts.retain(of_cluster);
            }
        }
    }
    pod
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// One of the sidecar's containers.
fn ours<'a>(pod: &'a mut Value, name: &str) -> &'a mut Value {
    let mut all = pod["spec"]["initContainers"].as_array_mut().unwrap().iter_mut();
    all.find(|container| container["name"] == name).unwrap()
}

fn push(list: &mut Value, item: Value) {
    list.as_array_mut().unwrap().push(item);
}

/// Sets a variable of istio-proxy, whatever it was.
fn proxy_variable(pod: &mut Value, variable: Value) {
    let variables = &mut ours(pod, "istio-proxy")["env"];
    variables.as_array_mut().unwrap().retain(|old| old["name"] != variable["name"]);
    push(variables, variable);
}

/// Mounts a volume of the pod's own, under a name that Istio or the template uses.
fn mounted(pod: &mut Value, container: &str, volume: &str, path: &str) {
    let mount = json!({"name": volume, "mountPath": path});
    push(&mut ours(pod, container)["volumeMounts"], mount);
    let programs = json!({"name": volume, "configMap": {"name": "programs", "defaultMode": 0o755}});
    let volumes = pod["spec"]["volumes"].as_array_mut().unwrap();
    volumes.retain(|old| old["name"] != volume);
    volumes.push(programs);
}

type Change = fn(&mut Value);

const CHANGES: [(&str, Change, &str); 15] = [
    (
        "istio-init may fail",
        |pod| {
            ours(pod, "istio-init")["restartPolicy"] = json!("Always");
            ours(pod, "istio-init")["securityContext"] = json!({"runAsUser": 65534});
        },
        "istio-init is missing, or is not as Istio makes it",
    ),
    (
        "DRY_RUN from a ConfigMap",
        |pod| {
            let from = json!([{"configMapRef": {"name": "dry-run"}}]);
            ours(pod, "istio-init")["envFrom"] = from;
        },
        "our containers mount and run only what the templates say",
    ),
    (
        "the lock-down may fail",
        |pod| ours(pod, "entra-lockdown")["restartPolicy"] = json!("Always"),
        "entra-lockdown is not as the template makes it",
    ),
    (
        "somebody serves before istio-init",
        |pod| {
            let first = json!({"name": "early", "image": "x", "restartPolicy": "Always"});
            pod["spec"]["initContainers"].as_array_mut().unwrap().insert(0, first);
        },
        "istio-init is not the first init container",
    ),
    (
        "another program as pilot-agent",
        |pod| mounted(pod, "istio-proxy", "gke-workload-certificate", "/usr/local/bin"),
        "our containers mount and run only what the templates say",
    ),
    (
        "another program as broker",
        |pod| mounted(pod, "token-broker", "entra-mine", "/usr/bin"),
        "our containers mount and run only what the templates say",
    ),
    (
        "an authority of the pod's own for istiod",
        |pod| {
            let volumes = pod["spec"]["volumes"].as_array_mut().unwrap();
            volumes.retain(|old| old["name"] != "istiod-ca-cert");
            volumes.push(json!({"name": "istiod-ca-cert", "configMap": {"name": "mine"}}));
        },
        "a volume of the sidecar or the broker is not the template's",
    ),
    (
        "tokens in the log by argument",
        |pod| {
            for argument in ours(pod, "istio-proxy")["args"].as_array_mut().unwrap() {
                if text(argument).starts_with("--proxyLogLevel=") {
                    *argument = json!("--proxyLogLevel=debug");
                }
            }
        },
        "writes callers' tokens into its log",
    ),
    (
        "a bootstrap by argument",
        |pod| push(&mut ours(pod, "istio-proxy")["args"], json!("--templateFile=/etc/istio/pod/x")),
        "istio-proxy is missing, or is not as Istio makes it",
    ),
    (
        "another API server for the broker",
        |pod| {
            let server = json!({"name": "KUBERNETES_SERVICE_HOST", "value": "evil.example"});
            push(&mut ours(pod, "token-broker")["env"], server);
        },
        "token-broker's environment leads it to another API server",
    ),
    (
        "another pod's unique id for the broker",
        |pod| {
            let broker = ours(pod, "token-broker")["env"].as_array_mut().unwrap();
            let uid = broker.iter_mut().find(|e| e["name"] == "POD_UID").unwrap();
            *uid = json!({"name": "POD_UID", "value": "71c2"});
        },
        "token-broker's environment is not the template's word on which pod it is",
    ),
    (
        "another pod's name",
        |pod| proxy_variable(pod, json!({"name": "POD_NAME", "value": "other"})),
        "istio-proxy has an environment that Istio does not give it",
    ),
    (
        "another pod's address",
        |pod| proxy_variable(pod, json!({"name": "INSTANCE_IP", "value": "192.0.2.1"})),
        "istio-proxy has an environment that Istio does not give it",
    ),
    (
        "a key with an escape in it",
        |pod| {
            let config = r#"{"\u0062inaryPath": "/x"}"#;
            proxy_variable(pod, json!({"name": "PROXY_CONFIG", "value": config}));
        },
        "istio-proxy has an environment that Istio does not give it",
    ),
    (
        "proxy settings from elsewhere",
        |pod| {
            let from = json!({"configMapKeyRef": {"name": "mine", "key": "x"}});
            proxy_variable(pod, json!({"name": "PROXY_CONFIG", "valueFrom": from}));
        },
        "istio-proxy has an environment that Istio does not give it",
    ),
];

#[test]
fn a_pod_that_looks_injected_but_was_made_by_hand_has_no_more_freedom() {
    let _guard = world().mesh.shared().unwrap();
    enforced();
    let pod = by_hand();
    // So that each refusal below is the change's.
    judged(&pod).unwrap();
    let mut wrong = Vec::new();
    for (name, change, message) in CHANGES {
        let mut changed = pod.clone();
        change(&mut changed);
        match judged(&changed) {
            Ok(_) => wrong.push(format!("{name}: accepted")),
            Err(said) if !said.contains(message) => wrong.push(format!("{name}: {said}")),
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
