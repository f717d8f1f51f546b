//! Whether the parts of the cluster do their work.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{Component, Finished, Mesh, paths::NODE, registry, wait::poll};

impl Mesh {
    /// Waits until a part of the cluster serves.
    pub(crate) fn wait_for(&self, component: Component) -> Result<()> {
        let what = format!("{} to serve", component.name());
        poll(&what, Duration::from_secs(60), || {
            if !component.is_running(self.namespace) {
                anyhow::bail!("it does not run");
            }
            self.serves(component)
        })
        .with_context(|| format!("{}'s log ends with:\n{}", component.name(), component.log_tail()))
    }

    /// Whether a part of the cluster does its work. The process must be in the mesh's network.
    ///
    /// # Errors
    /// When it cannot be asked, with the reason.
    pub fn serves(&self, component: Component) -> Result<bool> {
        // The certificates of controller manager and scheduler are of no authority.
        let address = match component {
            Component::Etcd => "http://127.0.0.1:2379/health",
            Component::Registry => "http://10.88.0.1:5000/v2/",
            Component::Dns => "http://127.0.0.1:8181/ready",
            Component::Kubelet => return self.kubelet_serves(),
            Component::Proxy => "http://127.0.0.1:10256/healthz",
            Component::Containerd => return self.containerd_serves(),
            Component::ApiServer => {
                return Ok(self.kubectl(&["get", "--raw=/readyz"])?.trim() == "ok");
            }
            Component::ControllerManager | Component::Scheduler => {
                return Ok(component.is_running(self.namespace));
            }
        };
        registry::agent().get(address).call().map(|_| true).with_context(|| address.to_owned())
    }

    /// A kubelet that has just started is healthy before it knows the pods that run.
    fn kubelet_serves(&self) -> Result<bool> {
        registry::agent().get("http://127.0.0.1:10248/healthz").call()?;
        let known = format!("--raw=/api/v1/nodes/{NODE}/proxy/pods");
        let known: Value = serde_json::from_str(&self.kubectl(&["get", &known])?)?;
        let known = known.get("items").and_then(Value::as_array).map_or(0, Vec::len);
        let here = format!("--field-selector=spec.nodeName={NODE}");
        let pods = self.kubectl(&["get", "pods", "--all-namespaces", "--output=name", &here])?;
        Ok(known >= pods.lines().count())
    }

    fn containerd_serves(&self) -> Result<bool> {
        let mut ctr = self.namespace.command(self.programs.find("ctr")?);
        ctr.args(["--address", &crate::node::containerd_socket(), "version"]);
        Finished::of(&mut ctr, "")?.success(&ctr).map(|_| true)
    }
}
