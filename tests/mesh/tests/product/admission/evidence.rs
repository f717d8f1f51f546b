//! What the broker proves by what its pod is: a volume that only the template may make.

use serde_json::{Value, json};

use super::{annotated, enforced, good, judged, merged, refused};
use crate::world::world;

#[test]
fn a_pod_that_brings_its_own_word_on_what_it_is_is_refused() {
    let _guard = world().mesh.shared().unwrap();
    enforced();
    let token = |path: &str, audience: &str| {
        let mut token = json!({"path": path});
        if !audience.is_empty() {
            token["audience"] = json!(audience);
        }
        json!({"serviceAccountToken": token})
    };
    let authority = |name: &str| json!({"configMap": {"name": name, "items": [{"key": "ca.crt", "path": "ca.crt"}]}});
    let labels = |field: &str| json!({"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": field}}]}});
    let volume = |sources: Value| json!({"spec": {"volumes": [{"name": "entra-pod", "projected": {"sources": sources}}]}});
    let (own, api) = (token("token", "entra-sidecar"), token("api-token", ""));
    let (root, pods) = (authority("kube-root-ca.crt"), labels("metadata.labels"));
    // Exactly this is the template's; every other one is somebody's own.
    let ours = volume(json!([own, api, root, pods]));
    let proves = annotated("entra-sidecar/identity-access", "true");
    judged(&merged(good(), &proves)).unwrap();
    judged(&merged(good(), &ours)).unwrap();
    let written = json!({"configMap": {"name": "mine", "items": [{"key": "l", "path": "labels"}]}});
    let mut two = root.clone();
    two["configMap"]["items"].as_array_mut().unwrap().push(json!({"key": "l", "path": "more"}));
    let secret = json!({"secret": {"name": "mine"}});
    let message = "the volume entra-pod is not the template's";
    refused(&[
        ("labels of its own", volume(json!([own, api, root, written])), message),
        (
            "annotations for labels",
            volume(json!([own, api, root, labels("metadata.annotations")])),
            message,
        ),
        ("a token for another", volume(json!([token("token", "other"), api, root, pods])), message),
        ("an authority of its own", volume(json!([own, api, authority("mine"), pods])), message),
        (
            "all that the authority's map holds",
            volume(json!([own, api, {"configMap": {"name": "kube-root-ca.crt"}}, pods])),
            message,
        ),
        ("more of the authority's map", volume(json!([own, api, two, pods])), message),
        ("no labels", volume(json!([own, api, root])), message),
        ("something more", volume(json!([own, api, root, pods, secret])), message),
        (
            "a folder",
            json!({"spec": {"volumes": [{"name": "entra-pod", "emptyDir": {}}]}}),
            message,
        ),
        (
            "files of its own",
            json!({"spec": {"volumes": [{"name": "entra-pod", "configMap": {"name": "mine"}}]}}),
            message,
        ),
    ]);
}
