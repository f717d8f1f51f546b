//! What a test holds of the running mesh.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    Component, Finished, Image, dns,
    image::{self, Blob},
    istio,
    kubectl::Kubectl,
    namespace::Namespace,
    paths::{kubeconfig, state},
    programs::Programs,
    registry,
    wait::until,
};

/// How long a pod may take; an injected one takes seconds.
const POD_DEADLINE: Duration = Duration::from_secs(120);

/// The running mesh.
#[derive(Debug, Clone)]
pub struct Mesh {
    pub(crate) namespace: Namespace,
    pub(crate) programs: Programs,
    kubectl: Kubectl,
}

/// Others wait while it lives: all of them, or only those that disturb. Who has disturbed leaves
/// only when istiod serves again: a kubelet that starts anew calls its pods unready for a moment.
#[derive(Debug)]
#[must_use = "dropped, it holds nobody"]
pub struct Guard {
    _lock: File,
    settle: Option<Kubectl>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(kubectl) = &self.settle else { return };
        if let Err(error) = istio::webhooks(kubectl, Duration::from_secs(60)) {
            // The next test says so too; a second panic would end all of them.
            eprintln!("{error:#}");
        }
    }
}

impl Mesh {
    /// The mesh that `cargo xtask mesh up` has started.
    ///
    /// # Errors
    /// When none runs.
    pub fn running() -> Result<Self> {
        let namespace = Namespace::running()?;
        let programs = Programs::of_running_mesh()?;
        let kubectl = Kubectl::new(namespace, programs.clone());
        Ok(Self { namespace, programs, kubectl })
    }

    /// For an ordinary test: no disruptive one runs while the guard lives.
    ///
    /// # Errors
    /// When the mesh's folder is gone.
    pub fn shared(&self) -> Result<Guard> {
        let lock = Self::lock_file()?;
        lock.lock_shared()?;
        Ok(Guard { _lock: lock, settle: None })
    }

    /// For a test that stops parts or changes what all share: it runs alone.
    ///
    /// # Errors
    /// When the mesh's folder is gone.
    pub fn alone(&self) -> Result<Guard> {
        let lock = Self::lock_file()?;
        lock.lock()?;
        Ok(Guard { _lock: lock, settle: Some(self.kubectl.clone()) })
    }

    fn lock_file() -> Result<File> {
        let options = File::options().create(true).truncate(false).write(true).open(state("lock"));
        options.context("the lock of the mesh's tests")
    }

    /// Whether this process is in the mesh's network, as it must be to reach pods or to listen on
    /// the bridge. `cargo xtask mesh test` runs the tests there.
    #[must_use]
    pub fn is_my_network(&self) -> bool {
        self.namespace.is_my_network()
    }

    /// A command that runs in the mesh's network.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        self.namespace.in_network(program)
    }

    /// kubectl, istioctl or helm as the administrator, for what the other functions do not do.
    ///
    /// # Errors
    /// When the mesh has no such program.
    pub fn tool(&self, name: &str) -> Result<Command> {
        self.kubectl.tool(name)
    }

    /// Runs kubectl; gives its output.
    ///
    /// # Errors
    /// When it fails: with what it said.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl.run(arguments)
    }

    /// Runs kubectl with this on its standard input (`--filename=-`).
    ///
    /// # Errors
    /// When it fails: with what it said.
    pub fn kubectl_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        self.kubectl.run_with(arguments, input)
    }

    /// Runs istioctl.
    ///
    /// # Errors
    /// When it cannot be started; its failing is in the answer.
    pub fn istioctl(&self, arguments: &[&str]) -> Result<Finished> {
        Finished::of(self.tool("istioctl")?.args(arguments), "")
    }

    /// Runs helm.
    ///
    /// # Errors
    /// When it cannot be started; its failing is in the answer.
    pub fn helm(&self, arguments: &[&str]) -> Result<Finished> {
        Finished::of(self.tool("helm")?.args(arguments), "")
    }

    /// Applies YAML or JSON documents; again, where istiod's webhook could not be reached just now.
    ///
    /// # Errors
    /// When one is refused.
    pub fn apply(&self, objects: &str) -> Result<String> {
        until("istiod's webhook", Duration::from_secs(30), || {
            match self.kubectl_with(&["apply", "--filename=-"], objects) {
                Err(error) if is_webhook_gone(&error) => Err(error),
                done => Ok(Some(done)),
            }
        })?
    }

    /// Applies a file.
    ///
    /// # Errors
    /// When an object is refused.
    pub fn apply_file(&self, file: &Path) -> Result<String> {
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        self.apply(&text)
    }

    /// Deletes what the documents name, and waits until it is gone; what is not there is as good.
    ///
    /// # Errors
    /// When that is refused.
    pub fn delete(&self, objects: &str) -> Result<String> {
        let delete = ["delete", "--ignore-not-found", "--wait", "--filename=-"];
        self.kubectl_with(&delete, objects)
    }

    /// Objects as JSON: `get("shop", &["pods", "--selector=app=a"])`.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn get(&self, namespace: &str, arguments: &[&str]) -> Result<Value> {
        let get = ["get", "--output=json", "--namespace", namespace];
        let text = self.kubectl(&[&get, arguments].concat())?;
        serde_json::from_str(&text).context("kubectl's JSON")
    }

    /// Runs a command in a container.
    ///
    /// # Errors
    /// When kubectl cannot be started; the command's failing is in the answer.
    pub fn exec(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        command: &[&str],
    ) -> Result<Finished> {
        let exec = ["exec", "--namespace", namespace, pod, "--container", container, "--"];
        let mut kubectl = self.tool("kubectl")?;
        Finished::of(kubectl.args(exec).args(command), "")
    }

    /// What a container has written.
    ///
    /// # Errors
    /// When there is no such container.
    pub fn logs(&self, namespace: &str, pod: &str, container: &str) -> Result<String> {
        self.kubectl(&["logs", "--namespace", namespace, pod, "--container", container])
    }

    /// The address of a pod.
    ///
    /// # Errors
    /// When there is no such pod, or it has none yet.
    pub fn pod_ip(&self, namespace: &str, pod: &str) -> Result<String> {
        let pod = self.get(namespace, &["pod", pod])?;
        let address = pod.pointer("/status/podIP").and_then(Value::as_str);
        Ok(address.context("the pod has no address yet")?.to_owned())
    }

    /// Waits until the one pod of the selector is ready, and gives its name.
    ///
    /// # Errors
    /// At the deadline, with what kubectl says of the pods.
    pub fn ready_pod(&self, namespace: &str, selector: &str) -> Result<String> {
        let selector = format!("--selector={selector}");
        let ask = || {
            let pods = self.get(namespace, &["pods", &selector])?;
            let items = pods.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
            let mut live =
                items.iter().filter(|pod| pod.pointer("/metadata/deletionTimestamp").is_none());
            let pod = live.next().filter(|pod| is_ready(pod));
            let alone = live.next().is_none();
            let name = pod.and_then(|pod| pod.pointer("/metadata/name")).and_then(Value::as_str);
            Ok(name.filter(|_| alone).map(str::to_owned))
        };
        until(&format!("a ready pod of {selector}"), POD_DEADLINE, ask).or_else(|error| {
            let pods = self.kubectl(&["describe", "pods", "--namespace", namespace, &selector])?;
            Err(error.context(pods))
        })
    }

    /// Ends a part of the cluster as a crash would; the pods go on. Take the mesh [`Self::alone`].
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&self, component: Component) -> Result<()> {
        component.kill(self.namespace)
    }

    /// Starts it again, and waits until it serves.
    ///
    /// # Errors
    /// When it does not within half a minute: with the end of its log.
    pub fn start(&self, component: Component) -> Result<()> {
        component.start(self.namespace)?;
        self.wait_for(component)
    }

    /// Ends the process of a pod's container as a crash would; kubelet starts it again.
    ///
    /// # Errors
    /// When there is no such container, or it does not run.
    pub fn kill_container(&self, namespace: &str, pod: &str, container: &str) -> Result<()> {
        let pod = self.get(namespace, &["pod", pod])?;
        let id = crate::node::container_id(&pod, container)?;
        let mut ctr = self.namespace.command(self.programs.find("ctr")?);
        ctr.args(["--address", &crate::node::containerd_socket(), "--namespace", "k8s.io"]);
        ctr.args(["tasks", "kill", "--signal", "SIGKILL", id]);
        Finished::of(&mut ctr, "")?.success(&ctr).map(drop)
    }

    /// istiod on or off.
    ///
    /// # Errors
    /// When it is not within two minutes.
    pub fn scale_istiod(&self, replicas: u32) -> Result<()> {
        let replicas = format!("--replicas={replicas}");
        let namespace = "--namespace=istio-system";
        self.kubectl(&["scale", "deployment/istiod", namespace, &replicas])?;
        if replicas.ends_with("=0") {
            let gone = [
                "wait",
                "pods",
                namespace,
                "--selector=app=istiod",
                "--for=delete",
                "--timeout=120s",
            ];
            return self.kubectl(&gone).map(drop);
        }
        istio::wait(&self.kubectl, Duration::from_secs(120))
    }

    /// Applies Istio's installation again: the repository's values for istiod as they are now, and
    /// upon them these (`json!({})` for none). istiod reads a changed injection template by itself.
    ///
    /// # Errors
    /// When it is refused, or istiod does not get ready.
    pub fn apply_istio(&self, values: Value) -> Result<()> {
        istio::apply(&self.programs, &self.kubectl, values)?;
        istio::wait(&self.kubectl, Duration::from_secs(120))
    }

    /// The same with values from a file.
    ///
    /// # Errors
    /// When the file is none of values, or as above.
    pub fn apply_istio_file(&self, file: &Path) -> Result<()> {
        self.apply_istio(istio::values_of(file)?)
    }

    /// The base of images: a shell, the usual commands, iptables, the C library.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn base_image(&self) -> Result<Image> {
        Image::base(&self.programs.debian)
    }

    /// Pushes an image as `repository:tag`; pods pull it as `10.88.0.1:5000/repository:tag`. The
    /// answer is the digest of the manifest. The process must be in the mesh's network.
    ///
    /// # Errors
    /// When the registry refuses it.
    pub fn push_image(&self, name: &str, image: Image) -> Result<String> {
        registry::push_image(name, image)
    }

    /// Pushes blobs and the manifest that names them as `repository:tag`, whatever they are.
    ///
    /// # Errors
    /// When the registry refuses it.
    pub fn push_blobs(&self, name: &str, blobs: &[Blob], manifest: &Blob) -> Result<String> {
        registry::push(name, blobs, manifest)
    }

    /// Pushes the first image of an OCI layout, a folder or a tar archive of one, in the same way.
    ///
    /// # Errors
    /// When it is no layout, or the registry refuses it.
    pub fn push_layout(&self, name: &str, layout: &Path) -> Result<String> {
        let (blobs, manifest) = image::layout(layout)?;
        registry::push(name, &blobs, &manifest)
    }

    /// Names that DNS answers besides `login.microsoftonline.com` (10.88.0.1) and
    /// `graph.microsoft.com` (10.88.0.2); each call replaces the one before.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set_hosts(&self, names: &[(&str, &str)]) -> Result<()> {
        dns::set_hosts(names)
    }

    /// Credentials of the cluster's administrator.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        kubeconfig()
    }

    pub(crate) fn kubectl_runner(&self) -> &Kubectl {
        &self.kubectl
    }
}

fn is_webhook_gone(error: &anyhow::Error) -> bool {
    let said = format!("{error:#}");
    said.contains("failed calling webhook") && said.contains("connect: connection refused")
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions.is_some_and(|conditions| {
        conditions.iter().any(|condition| {
            let is = |member, value| condition.get(member).and_then(Value::as_str) == Some(value);
            is("type", "Ready") && is("status", "True")
        })
    })
}
