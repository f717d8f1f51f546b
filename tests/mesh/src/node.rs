//! The node: containerd, kubelet, kube-proxy, and the network of pods.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    cgroup,
    paths::{BRIDGE, DNS_SERVICE, HOST, NODE, POD_RANGE, REGISTRY, state, state_text},
    programs::Programs,
};

/// The image of a pod's own container, which holds its namespaces.
pub(crate) const PAUSE: &str = "10.88.0.1:5000/mesh/pause:1";

/// Where containerd listens.
pub(crate) fn containerd_socket() -> String {
    state_text("containerd.sock")
}

/// containerd's name of a container, from what the API server says of its pod.
pub(crate) fn container_id<'a>(pod: &'a Value, container: &str) -> Result<&'a str> {
    let statuses = ["initContainerStatuses", "containerStatuses"]
        .into_iter()
        .filter_map(|kind| pod.pointer(&format!("/status/{kind}")).and_then(Value::as_array));
    let is_it = |status: &&Value| status.get("name").and_then(Value::as_str) == Some(container);
    let status = statuses.flatten().find(is_it);
    let id = status.and_then(|status| status.get("containerID")).and_then(Value::as_str);
    let id = id.and_then(|id| id.strip_prefix("containerd://"));
    id.with_context(|| format!("the pod has no container {container}"))
}

/// Writes the configurations and the folder of the node's own programs.
pub(crate) fn write(programs: &Programs) -> Result<()> {
    for folder in ["bin", "home", "node/cni", "kubelet", "containerd"] {
        fs::create_dir_all(state(folder))?;
    }
    own_programs(&programs.debian)?;
    let cni = programs.folder_of("host-local")?;
    fs::write(state("node/containerd.toml"), containerd(&cni))?;
    fs::write(state("node/cni/10-mesh.conflist"), network())?;
    fs::write(state("node/kubelet.yaml"), kubelet_configuration())?;
    // What kubelet gives pods that ask for the node's DNS.
    fs::write(state("node/resolv.conf"), format!("nameserver {HOST}\n"))?;
    let hosts = state("node/certs").join(REGISTRY);
    fs::create_dir_all(&hosts)?;
    let plain = format!("server = \"http://{REGISTRY}\"\n[host.\"http://{REGISTRY}\"]\n");
    fs::write(hosts.join("hosts.toml"), plain)?;
    Ok(())
}

/// runc and iptables of Debian's packages. iptables runs by the loader and with the libraries that
/// it came with; runc starts itself again, which a loader in between would break.
fn own_programs(debian: &Path) -> Result<()> {
    let root = debian.display();
    let runc = ["usr/sbin/runc", "usr/bin/runc"].map(|path| debian.join(path));
    let runc = runc.into_iter().find(|path| path.exists()).context("no runc in its package")?;
    write_program("runc", &format!("exec {} \"$@\"", runc.display()))?;
    let libraries = "usr/lib/x86_64-linux-gnu";
    for name in ["iptables", "ip6tables"] {
        for command in ["", "-save", "-restore"] {
            let name = format!("{name}{command}");
            let run = format!(
                "export XTABLES_LIBDIR={root}/{libraries}/xtables
exec {root}/lib64/ld-linux-x86-64.so.2 \
--library-path {root}/{libraries}:{root}/lib/x86_64-linux-gnu \
{root}/usr/sbin/xtables-nft-multi {name} \"$@\""
            );
            write_program(&name, &run)?;
        }
    }
    Ok(())
}

fn write_program(name: &str, script: &str) -> Result<()> {
    let file = state("bin").join(name);
    fs::write(&file, format!("#!/bin/sh\n{script}\n"))?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// `restrict_oom_score_adj`: a machine without CAP_SYS_RESOURCE cannot lower the score, and every
/// pod would fail.
fn containerd(cni: &Path) -> String {
    let cri = "plugins.'io.containerd.cri.v1";
    format!(
        "version = 3
disabled_plugins = ['io.containerd.internal.v1.opt']
root = '{root}'
state = '/run/containerd'
[grpc]
address = '{socket}'
[{cri}.images']
snapshotter = 'overlayfs'
[{cri}.images'.pinned_images]
sandbox = '{PAUSE}'
[{cri}.images'.registry]
config_path = '{certificates}'
[{cri}.runtime']
restrict_oom_score_adj = true
[{cri}.runtime'.cni]
bin_dirs = ['{cni}']
conf_dir = '{configuration}'
[{cri}.runtime'.containerd]
default_runtime_name = 'runc'
[{cri}.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
",
        root = state_text("containerd"),
        socket = containerd_socket(),
        certificates = state_text("node/certs"),
        configuration = state_text("node/cni"),
        cni = cni.display(),
    )
}

pub(crate) fn containerd_arguments() -> Vec<String> {
    vec!["--config".to_owned(), state_text("node/containerd.toml")]
}

/// No masquerading: there is nowhere to go.
fn network() -> String {
    let gateway = HOST;
    serde_json::json!({
        "cniVersion": "1.0.0",
        "name": "mesh",
        "plugins": [{
            "type": "bridge",
            "bridge": BRIDGE,
            "isGateway": true,
            "ipMasq": false,
            "hairpinMode": true,
            "ipam": {
                "type": "host-local",
                "dataDir": state_text("node/addresses"),
                "ranges": [[{
                    "subnet": POD_RANGE,
                    "rangeStart": "10.88.1.1",
                    "rangeEnd": "10.88.255.254",
                    "gateway": gateway,
                }]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    })
    .to_string()
}

/// Nothing is evicted and no image collected: the machine's disk and memory are not the mesh's.
fn kubelet_configuration() -> String {
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: {HOST}
authentication:
  anonymous: {{enabled: false}}
  webhook: {{enabled: true}}
  x509: {{clientCAFile: '{ca}'}}
authorization: {{mode: Webhook}}
tlsCertFile: '{certificate}'
tlsPrivateKeyFile: '{key}'
cgroupDriver: cgroupfs
cgroupRoot: /{group}
failCgroupV1: false
failSwapOn: false
clusterDNS: ['{DNS_SERVICE}']
clusterDomain: cluster.local
containerRuntimeEndpoint: 'unix://{socket}'
resolvConf: '{resolv}'
podLogsDir: /var/log/pods
volumePluginDir: '{plugins}'
healthzBindAddress: 127.0.0.1
healthzPort: 10248
maxPods: 250
serializeImagePulls: false
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {{memory.available: 1Mi, nodefs.available: 1Mi, imagefs.available: 1Mi}}
# A changed ConfigMap or Secret is in the pods' volumes within seconds.
syncFrequency: 5s
configMapAndSecretChangeDetectionStrategy: Watch
",
        ca = state_text("pki/ca.crt"),
        certificate = state_text("pki/kubelet-serving.crt"),
        key = state_text("pki/kubelet-serving.key"),
        group = cgroup::NAME,
        socket = containerd_socket(),
        resolv = state_text("node/resolv.conf"),
        plugins = state_text("node/volume-plugins"),
    )
}

pub(crate) fn kubelet_arguments() -> Vec<String> {
    vec![
        format!("--config={}", state_text("node/kubelet.yaml")),
        format!("--kubeconfig={}", state_text("pki/kubelet.conf")),
        format!("--root-dir={}", state_text("kubelet")),
        format!("--hostname-override={NODE}"),
        format!("--node-ip={HOST}"),
    ]
}

/// The limits of connection tracking are the machine's and stay as they are.
pub(crate) fn proxy_arguments() -> Vec<String> {
    vec![
        format!("--kubeconfig={}", state_text("pki/proxy.conf")),
        format!("--hostname-override={NODE}"),
        format!("--cluster-cidr={POD_RANGE}"),
        "--proxy-mode=iptables".to_owned(),
        "--conntrack-max-per-core=0".to_owned(),
        "--conntrack-tcp-timeout-established=0".to_owned(),
        "--conntrack-tcp-timeout-close-wait=0".to_owned(),
        "--healthz-bind-address=127.0.0.1:10256".to_owned(),
        "--metrics-bind-address=127.0.0.1:10249".to_owned(),
    ]
}
