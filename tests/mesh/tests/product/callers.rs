//! Pods from which somebody calls: with a sidecar and so with a certificate, or with nothing.

use e2e::hostile::Identity;
use mesh::Finished;
use serde_json::{Value, json};

use crate::world::{World, named, world};

/// Where istio-proxy writes its certificate when it is told to; a volume that it has anyway.
const CERTIFICATES: &str = "/var/lib/istio/data";

/// A pod to call from.
pub(crate) struct Caller {
    world: &'static World,
    namespace: &'static str,
    pod: String,
}

/// What came back for a request.
#[derive(Debug)]
pub(crate) struct Reply {
    /// None when there was no answer of HTTP.
    pub(crate) status: Option<u64>,
    pub(crate) text: String,
}

impl Caller {
    /// A pod without a sidecar.
    pub(crate) fn bare(namespace: &'static str, name: &str) -> Self {
        Self::make(namespace, name, "false")
    }

    /// A pod with Istio's sidecar and a service account of its own name; its certificate can be
    /// stolen.
    pub(crate) fn injected(namespace: &'static str, name: &str) -> Self {
        Self::make(namespace, name, "true")
    }

    fn make(namespace: &'static str, name: &str, inject: &str) -> Self {
        let world = world();
        let labels = json!({"app": name, "sidecar.istio.io/inject": inject});
        let config = format!("{{proxyMetadata: {{OUTPUT_CERTS: {CERTIFICATES}}}}}");
        let mut metadata = named(name, namespace);
        metadata["labels"] = labels;
        metadata["annotations"] = json!({"proxy.istio.io/config": config});
        let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": named(name, namespace)},
            {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {
                "serviceAccountName": name,
                "terminationGracePeriodSeconds": 1,
                "containers": [{
                    "name": "client",
                    "image": world.application,
                    "command": ["mesh-app", "serve", "--health", "9999"],
                }],
            }},
        ]});
        world.mesh.apply(&objects.to_string()).unwrap();
        let pod = world.mesh.ready_pod(namespace, &format!("app={name}")).unwrap();
        Self { world, namespace, pod }
    }

    /// Runs a command in its container.
    pub(crate) fn shell(&self, command: &[&str]) -> Finished {
        self.world.mesh.exec(self.namespace, &self.pod, "client", command).unwrap()
    }

    /// Sends a request with these header lines.
    pub(crate) fn call(&self, method: &str, url: &str, lines: &[String]) -> Reply {
        reply(&self.shell(&call(method, url, lines)))
    }

    /// Its certificate of the mesh, with the key, as a thief would take it.
    pub(crate) fn steal(&self) -> Identity {
        let take = |file: &str| {
            let path = format!("{CERTIFICATES}/{file}");
            let cat = ["cat", &path];
            let taken = self.world.mesh.exec(self.namespace, &self.pod, "istio-proxy", &cat);
            let taken = taken.unwrap();
            assert_eq!(taken.code, 0, "{}", taken.stderr);
            taken.stdout
        };
        Identity::from_pem(&take("cert-chain.pem"), &take("key.pem")).unwrap()
    }
}

/// The command that sends a request.
pub(crate) fn call<'a>(method: &'a str, url: &'a str, lines: &'a [String]) -> Vec<&'a str> {
    let mut command = vec!["mesh-app", "call", method, url, "--timeout-ms", "10000"];
    command.extend(lines.iter().flat_map(|line| ["-H", line]));
    command
}

/// What that command has told.
pub(crate) fn reply(finished: &Finished) -> Reply {
    let events = finished.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut events = events.filter(|event| event["event"] != "summary");
    let first = events.next().unwrap_or_else(|| panic!("nothing was told: {}", finished.stderr));
    let text = first["body"].as_str().or(first["error"].as_str()).unwrap_or_default();
    Reply { status: first["status"].as_u64(), text: text.to_owned() }
}

/// A header line with a token.
pub(crate) fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}")
}
