//! A namespace with the chart and an application in it, as the documents tell a platform engineer
//! to make it.

use std::net::{IpAddr, SocketAddr};

use e2e::{
    client::{Answer, Request},
    fake_entra::{sample, service_account},
};
use mesh::Finished;
use serde_json::{Value, json};

use crate::world::{World, world};

/// What a test wants to be different.
pub(crate) struct Shop {
    namespace: &'static str,
    values: Vec<Value>,
    annotations: Value,
    labels: Value,
    account: (&'static str, &'static str),
    arguments: Vec<&'static str>,
    ports: Vec<Value>,
    probe: u16,
    objects: Vec<Value>,
    chart: bool,
}

/// A namespace with a pod that is ready; it is removed at the end.
pub(crate) struct Open {
    pub(crate) world: &'static World,
    pub(crate) namespace: &'static str,
    pub(crate) pod: String,
    pub(crate) address: IpAddr,
}

impl Shop {
    /// The chart with the values of the quick start, and an unchanged application on port 8080
    /// behind a Service, with the one annotation. The namespace's service account `orders` is the
    /// sample's workload.
    pub(crate) fn new(namespace: &'static str) -> Self {
        Self {
            namespace,
            values: Vec::new(),
            annotations: json!({}),
            labels: json!({"app": "orders"}),
            account: ("orders", sample::WORKLOAD),
            arguments: vec!["--http", "8080", "--health", "8081"],
            ports: vec![json!({"name": "http", "port": 80, "targetPort": 8080})],
            probe: 8081,
            objects: Vec::new(),
            chart: true,
        }
    }

    /// Values over those of the quick start; later ones over earlier ones.
    #[must_use]
    pub(crate) fn values(mut self, values: Value) -> Self {
        self.values.push(values);
        self
    }

    /// An annotation of the pod.
    #[must_use]
    pub(crate) fn annotation(mut self, name: &str, value: &str) -> Self {
        self.annotations[name] = json!(value);
        self
    }

    /// A label of the pod.
    #[must_use]
    pub(crate) fn label(mut self, name: &str, value: &str) -> Self {
        self.labels[name] = json!(value);
        self
    }

    /// The pod's service account, and the application that it is to Entra.
    #[must_use]
    pub(crate) fn account(mut self, name: &'static str, client: &'static str) -> Self {
        self.account = (name, client);
        self
    }

    /// Further arguments of the application (`mesh-app serve`).
    #[must_use]
    pub(crate) fn application(mut self, arguments: &[&'static str]) -> Self {
        self.arguments.extend(arguments);
        self
    }

    /// A further port of the Service.
    #[must_use]
    pub(crate) fn port(mut self, name: &str, port: u16) -> Self {
        self.ports.push(json!({"name": name, "port": port, "targetPort": port}));
        self
    }

    /// The readiness probe's port; 8081 is one whose connections are not written down.
    #[must_use]
    pub(crate) fn probe(mut self, port: u16) -> Self {
        self.probe = port;
        self
    }

    /// An object that is there before the pod.
    #[must_use]
    pub(crate) fn object(mut self, object: Value) -> Self {
        self.objects.push(object);
        self
    }

    /// Leaves the chart to the test.
    #[must_use]
    pub(crate) fn without_chart(mut self) -> Self {
        self.chart = false;
        self
    }

    /// Installs, applies, and waits until the pod is ready.
    pub(crate) fn open(self) -> Open {
        let world = world();
        self.prepare();
        if self.chart {
            install(world, self.namespace, &self.values);
        }
        for object in &self.objects {
            world.mesh.apply(&object.to_string()).unwrap();
        }
        world.mesh.apply(&self.application_objects().to_string()).unwrap();
        let pod = world.mesh.ready_pod(self.namespace, "app=orders").unwrap();
        let address = world.mesh.pod_ip(self.namespace, &pod).unwrap().parse().unwrap();
        Open { world, namespace: self.namespace, pod, address }
    }

    /// The namespace alone, with the fake's authority and a federated credential.
    pub(crate) fn prepare(&self) {
        let world = world();
        let gone = ["delete", "namespace", self.namespace, "--ignore-not-found", "--wait"];
        world.mesh.kubectl(&gone).unwrap();
        let labels = json!({"istio-injection": "enabled"});
        let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Namespace",
             "metadata": {"name": self.namespace, "labels": labels}},
            {"apiVersion": "v1", "kind": "ConfigMap",
             "metadata": {"name": "entra-ca", "namespace": self.namespace},
             "data": {"ca.crt": world.entra.ca_pem()}},
            {"apiVersion": "v1", "kind": "ServiceAccount",
             "metadata": {"name": self.account.0, "namespace": self.namespace}},
        ]});
        world.mesh.apply(&objects.to_string()).unwrap();
        let (account, client) = self.account;
        let subject = service_account(self.namespace, account);
        world.entra.federate(sample::TENANT, client, mesh::paths::ISSUER, &subject);
    }

    /// The application and its Service.
    pub(crate) fn application_objects(&self) -> Value {
        let mut annotations = json!({
            "inject.istio.io/templates": "sidecar,token-broker",
            "entra-sidecar/ca-config-map": "entra-ca",
            "entra-sidecar/tenant-id": sample::TENANT,
            "entra-sidecar/client-id": self.account.1,
        });
        let further = self.annotations.as_object().unwrap().clone();
        annotations.as_object_mut().unwrap().extend(further);
        let pod = json!({
            "metadata": {"labels": self.labels, "annotations": annotations},
            "spec": {
                "serviceAccountName": self.account.0,
                "terminationGracePeriodSeconds": 1,
                "containers": [{
                    "name": "application",
                    "image": world().application,
                    "command": ["mesh-app", "serve"],
                    "args": self.arguments,
                    "readinessProbe":
                        {"httpGet": {"path": "/readyz", "port": self.probe}, "periodSeconds": 1},
                }],
            },
        });
        json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "apps/v1", "kind": "Deployment",
             "metadata": {"name": "orders", "namespace": self.namespace},
             "spec": {"selector": {"matchLabels": {"app": "orders"}}, "template": pod}},
            {"apiVersion": "v1", "kind": "Service",
             "metadata": {"name": "orders", "namespace": self.namespace},
             "spec": {"selector": {"app": "orders"}, "ports": self.ports}},
        ]})
    }
}

/// `helm upgrade --install entra istio/chart` with the values of the quick start and these.
pub(crate) fn install(world: &World, namespace: &str, values: &[Value]) {
    install_release(world, namespace, "entra", values);
}

/// The same, as a release of another name.
pub(crate) fn install_release(world: &World, namespace: &str, name: &str, values: &[Value]) {
    let ours = json!({"broker": {"config": {"ca_file": "/etc/entra-ca/ca.crt"}}});
    let all = [&[ours], values].concat();
    world.mesh.install_chart(namespace, name, &world.images, &all).unwrap();
}

impl Open {
    /// Where a port of the pod is.
    pub(crate) fn port(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address, port)
    }

    /// Sends a request to the application's port from outside the mesh.
    pub(crate) fn call(&self, request: &Request) -> Answer {
        self.world.send(request, self.port(8080))
    }

    /// Runs a command in the application's container, where an attacker would be.
    pub(crate) fn shell(&self, command: &[&str]) -> Finished {
        self.world.mesh.exec(self.namespace, &self.pod, "application", command).unwrap()
    }

    /// The same pod made anew, as a rollout would.
    pub(crate) fn renew(&mut self) {
        let delete = ["delete", "pods", "--namespace", self.namespace, "--selector=app=orders"];
        self.world.mesh.kubectl(&delete).unwrap();
        self.pod = self.world.mesh.ready_pod(self.namespace, "app=orders").unwrap();
        let address = self.world.mesh.pod_ip(self.namespace, &self.pod).unwrap();
        self.address = address.parse().unwrap();
    }

    /// What `mesh-app call` in the application's container is answered: status and body.
    pub(crate) fn call_from_inside(&self, arguments: &[&str]) -> (u64, String) {
        let command = [&["mesh-app", "call"], arguments].concat();
        let said = self.shell(&command).stdout;
        let answer = said.lines().find_map(|line| {
            let event: Value = serde_json::from_str(line).ok()?;
            (event["event"] == "answer").then_some(event)
        });
        let answer = answer.unwrap_or_default();
        let body = answer["body"].as_str().unwrap_or_default().to_owned();
        (answer["status"].as_u64().unwrap_or_default(), body)
    }

    /// How the broker says it is: its readiness, which every process of the pod may ask.
    pub(crate) fn readiness(&self) -> Value {
        let (_, body) = self.call_from_inside(&["GET", "http://127.0.0.1:7172/readyz"]);
        serde_json::from_str(&body).unwrap_or_default()
    }

    /// What the application has seen: one object for each connection, bytes and request.
    pub(crate) fn seen(&self) -> Vec<Value> {
        let log = self.world.mesh.logs(self.namespace, &self.pod, "application").unwrap();
        let events = log.lines().map(|line| serde_json::from_str(line).unwrap());
        events.filter(|event: &Value| event["event"] != "listening").collect()
    }

    /// What istio-proxy has written.
    pub(crate) fn proxy_log(&self) -> String {
        self.world.mesh.logs(self.namespace, &self.pod, "istio-proxy").unwrap()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for container in ["token-broker", "istio-proxy"] {
                let log = self.world.mesh.logs(self.namespace, &self.pod, container);
                let log = log.unwrap_or_default();
                let lines: Vec<_> = log.lines().rev().take(15).collect();
                eprintln!("---- the end of {container}'s log ----");
                lines.iter().rev().for_each(|line| eprintln!("{line}"));
            }
        }
        let delete = ["delete", "namespace", self.namespace, "--ignore-not-found", "--wait=false"];
        let _said = self.world.mesh.kubectl(&delete);
    }
}
