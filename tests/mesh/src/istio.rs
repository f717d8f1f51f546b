//! Istio: its images, and the installation that `istioctl` writes out.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{
    image::Image,
    kubectl::Kubectl,
    paths::{REGISTRY, kubeconfig, state},
    programs::Programs,
    registry,
    wait::poll,
};

/// Where the images are and how they are called.
const HUB: &str = "10.88.0.1:5000/istio";
const TAG: &str = "mesh";

/// The repository's values for istiod: the template by which a pod gets its broker.
const REPOSITORY_VALUES: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../istio/istiod-values.yaml");

/// Pushes istiod's and the proxy's images, both upon the base that `mesh/base:1` has too.
pub(crate) fn push_images(programs: &Programs, base: &Image) -> Result<()> {
    let istiod = base
        .clone()
        .program("usr/local/bin/pilot-discovery", &programs.find("pilot-discovery")?)?
        .entrypoint(&["/usr/local/bin/pilot-discovery"])
        .user("1337:1337");
    registry::push_image(&format!("istio/pilot:{TAG}"), istiod)?;
    let bootstrap = fs::read(programs.find("envoy_bootstrap.json")?)?;
    let proxy = base
        .clone()
        .program("usr/local/bin/envoy", &programs.envoy)?
        .program("usr/local/bin/pilot-agent", &programs.find("pilot-agent")?)?
        .files(&[("var/lib/istio/envoy/envoy_bootstrap_tmpl.json", 0o644, &bootstrap)])?
        .entrypoint(&["/usr/local/bin/pilot-agent"]);
    registry::push_image(&format!("istio/proxyv2:{TAG}"), proxy)?;
    debug_assert!(HUB.starts_with(REGISTRY), "the hub is in the mesh's registry");
    Ok(())
}

/// Applies the installation, with these values upon the repository's; also to a running one.
pub(crate) fn apply(programs: &Programs, kubectl: &Kubectl, more: Value) -> Result<()> {
    fs::create_dir_all(state("istio"))?;
    let operator = state("istio/operator.yaml");
    fs::write(&operator, operator_text(more)?)?;
    let mut generate = Command::new(programs.find("istioctl")?);
    generate.args(["manifest", "generate", "--filename"]).arg(&operator);
    // istioctl must not look for another cluster in the person's own settings.
    let output = generate.env("KUBECONFIG", kubeconfig()).output()?;
    if !output.status.success() {
        bail!("istioctl manifest generate: {}", String::from_utf8_lossy(&output.stderr));
    }
    let manifest = String::from_utf8(output.stdout).context("a manifest that is no text")?;
    fs::write(state("istio/manifest.yaml"), &manifest)?;
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: istio-system}\n";
    // istiod writes into its webhooks (their CA): what it owns is left to it.
    kubectl.apply_server_side(&format!("{namespace}---\n{manifest}"))?;
    Ok(())
}

/// Waits until istiod serves.
pub(crate) fn wait(kubectl: &Kubectl, deadline: Duration) -> Result<()> {
    let seconds = format!("--timeout={}s", deadline.as_secs());
    let wait = ["rollout", "status", "deployment/istiod", "--namespace=istio-system", &seconds];
    let result = kubectl.run(&wait);
    if result.is_err() {
        let tail = ["logs", "--namespace=istio-system", "deployment/istiod", "--tail=30"];
        let log = kubectl.run(&tail).unwrap_or_else(|error| format!("{error:#}"));
        let pods = ["describe", "pods", "--namespace=istio-system"];
        let pods = kubectl.run(&pods).unwrap_or_else(|error| format!("{error:#}"));
        let end = pods.lines().count().saturating_sub(20);
        let pods: String = pods.lines().skip(end).map(|line| format!("{line}\n")).collect();
        return result.map(drop).with_context(|| format!("istiod:\n{pods}{log}"));
    }
    webhooks(kubectl, deadline)
}

/// Waits until istiod's webhooks answer every time: for a moment after a rollout the service still
/// leads to the pod before, too.
pub(crate) fn webhooks(kubectl: &Kubectl, deadline: Duration) -> Result<()> {
    let object = "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, \
        metadata: {name: webhook, namespace: istio-system}}";
    let apply = ["apply", "--dry-run=server", "--filename=-"];
    poll("istiod's webhooks", deadline, || {
        (0..6).try_for_each(|_| kubectl.run_with(&apply, object).map(drop)).map(|()| true)
    })
}

fn operator_text(more: Value) -> Result<String> {
    let small = json!({"requests": {"cpu": "10m", "memory": "64Mi"}});
    let mut values = json!({
        "global": {
            "proxy": {"resources": small, "readinessInitialDelaySeconds": 0},
            "proxy_init": {"resources": small},
        },
        "pilot": {
            "autoscaleEnabled": false,
            "resources": small,
            // Filters that only Istio's own build of Envoy has.
            "env": {
                "PILOT_ENABLE_ALPN_FILTER": "false",
                "PILOT_ENABLE_METADATA_EXCHANGE": "false",
            },
        },
        "telemetry": {"enabled": false},
    });
    if Path::new(REPOSITORY_VALUES).exists() {
        merge(&mut values, values_of(Path::new(REPOSITORY_VALUES))?);
    }
    merge(&mut values, more);
    let operator = json!({
        "apiVersion": "install.istio.io/v1alpha1",
        "kind": "IstioOperator",
        "spec": {
            "profile": "minimal",
            "hub": HUB,
            "tag": TAG,
            "meshConfig": {"accessLogFile": "/dev/stdout"},
            "values": values,
        },
    });
    Ok(serde_json::to_string_pretty(&operator)?)
}

/// A file of values as for istiod's chart.
pub(crate) fn values_of(file: &Path) -> Result<Value> {
    let named = || format!("the values for istiod in {}", file.display());
    serde_norway::from_str(&fs::read_to_string(file).with_context(named)?).with_context(named)
}

/// Objects member by member, everything else replaced.
pub(crate) fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}
