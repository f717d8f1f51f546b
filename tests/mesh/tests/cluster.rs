//! The mesh itself: what every other test takes for granted.

use std::time::Duration;

use mesh::{Component, Mesh, poll};

/// A namespace with injection and one pod whose application is a small web server.
fn echo(namespace: &str) -> String {
    format!(
        "apiVersion: v1
kind: Namespace
metadata: {{name: {namespace}, labels: {{istio-injection: enabled}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: echo, namespace: {namespace}, labels: {{app: echo}}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: application
    image: 10.88.0.1:5000/mesh/base:1
    command: [sh, -c, 'mkdir /srv && echo hello >/srv/index.html && exec httpd -f -v -p 8080 -h /srv']
    readinessProbe: {{httpGet: {{path: /, port: 8080}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: echo, namespace: {namespace}}}
spec: {{selector: {{app: echo}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}
"
    )
}

/// Removes a test's namespace, also when the test fails.
struct Namespace<'mesh>(&'mesh Mesh, &'static str);

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        let delete = ["delete", "namespace", self.1, "--ignore-not-found", "--wait=false"];
        let _said = self.0.kubectl(&delete);
    }
}

#[test]
fn an_injected_pod_serves_and_can_be_looked_into() {
    let mesh = Mesh::running().unwrap();
    let _guard = mesh.shared().unwrap();
    let _namespace = Namespace(&mesh, "mesh-looks");
    mesh.apply(&echo("mesh-looks")).unwrap();
    let pod = mesh.ready_pod("mesh-looks", "app=echo").unwrap();
    let spec = mesh.get("mesh-looks", &["pod", &pod]).unwrap();
    let first = |list: &str| spec.pointer(&format!("/spec/{list}/0/name")).cloned();
    assert_eq!(first("initContainers").unwrap(), "istio-init");
    assert_eq!(spec.pointer("/spec/initContainers/1/restartPolicy").unwrap(), "Always");

    // By the service's name, through both proxies.
    let fetch = ["wget", "-q", "-O", "-", "http://echo.mesh-looks/"];
    let fetched = mesh.exec("mesh-looks", &pod, "application", &fetch).unwrap();
    assert_eq!((fetched.code, fetched.stdout.trim()), (0, "hello"), "{}", fetched.stderr);
    poll("the access log", Duration::from_secs(20), || {
        Ok(mesh.logs("mesh-looks", &pod, "istio-proxy")?.contains("inbound|8080||"))
    })
    .unwrap();

    let known = mesh.istioctl(&["proxy-status"]).unwrap();
    assert!(known.stdout.contains("echo.mesh-looks"), "{known:?}");
}

#[test]
fn names_of_fakes_are_the_nodes_and_all_others_do_not_exist() {
    let mesh = Mesh::running().unwrap();
    let _guard = mesh.shared().unwrap();
    let _namespace = Namespace(&mesh, "mesh-names");
    let plain = echo("mesh-names").replace("istio-injection: enabled", "app: plain");
    mesh.apply(&plain).unwrap();
    let pod = mesh.ready_pod("mesh-names", "app=echo").unwrap();
    let look_up =
        |name: &str| mesh.exec("mesh-names", &pod, "application", &["nslookup", name]).unwrap();
    assert!(look_up("login.microsoftonline.com").stdout.contains("10.88.0.1"));
    assert!(look_up("graph.microsoft.com").stdout.contains("10.88.0.2"));
    let unknown = look_up("example.com");
    assert!(unknown.stdout.contains("NXDOMAIN"), "{unknown:?}");
    // The network ends at the bridge.
    // busybox's own `-T` crashes in this release.
    let out = ["timeout", "5", "wget", "-O", "-", "http://192.0.2.1/"];
    let out = mesh.exec("mesh-names", &pod, "application", &out).unwrap();
    assert!(out.stderr.contains("unreachable"), "{out:?}");
}

#[test]
fn parts_that_crashed_can_be_started_again() {
    let mesh = Mesh::running().unwrap();
    let _guard = mesh.alone().unwrap();
    for component in [Component::Registry, Component::Kubelet, Component::Etcd] {
        mesh.stop(component).unwrap();
        assert!(!mesh.serves(component).unwrap_or(false), "{}", component.name());
        mesh.start(component).unwrap();
    }
    mesh.start(Component::ApiServer).unwrap();
}
