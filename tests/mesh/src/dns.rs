//! DNS: CoreDNS on the bridge, with the names of the fakes in a file that it reads again.

use std::fs;

use anyhow::{Context, Result};

use crate::paths::{DNS_SERVICE, HOST, state, state_text};

/// The names that the mesh answers with addresses of its own from the start.
const FAKES: [(&str, &str); 2] =
    [("login.microsoftonline.com", HOST), ("graph.microsoft.com", "10.88.0.2")];

/// Writes the configuration.
pub(crate) fn write() -> Result<()> {
    fs::create_dir_all(state("dns"))?;
    fs::write(state("dns/Corefile"), configuration())?;
    // Whatever is in no zone does not exist; nobody is asked.
    let nothing = "@ 5 IN SOA ns.invalid. nobody.invalid. 1 60 60 60 5\n@ 5 IN NS ns.invalid.\n";
    fs::write(state("dns/root.zone"), nothing)?;
    set_hosts(&[])
}

/// Replaces the names beyond the usual ones; they are served within a second.
pub(crate) fn set_hosts(more: &[(&str, &str)]) -> Result<()> {
    let lines = FAKES.iter().filter(|(name, _)| !more.iter().any(|(other, _)| other == name));
    let text: String =
        lines.chain(more).map(|(name, address)| format!("{address} {name}\n")).collect();
    let (file, partial) = (state("dns/hosts"), state("dns/hosts.partial"));
    fs::write(&partial, text)?;
    fs::rename(partial, file).context("cannot write the file of hosts")
}

fn configuration() -> String {
    format!(
        ".:53 {{
    bind {HOST}
    errors
    ready 127.0.0.1:8181
    hosts {hosts} {{
        reload 500ms
        ttl 1
        fallthrough
    }}
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {kubeconfig}
        ttl 1
        fallthrough in-addr.arpa
    }}
    file {nothing} .
}}
",
        hosts = state_text("dns/hosts"),
        kubeconfig = state_text("pki/admin.conf"),
        nothing = state_text("dns/root.zone"),
    )
}

pub(crate) fn arguments() -> Vec<String> {
    vec![format!("-conf={}", state_text("dns/Corefile"))]
}

/// The service that pods ask; what answers is a process of the node, so it is named by hand.
pub(crate) fn service() -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: kube-dns, namespace: kube-system}}
spec:
  clusterIP: {DNS_SERVICE}
  ports:
  - {{name: dns, port: 53, protocol: UDP}}
  - {{name: dns-tcp, port: 53, protocol: TCP}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: kube-dns-node
  namespace: kube-system
  labels: {{kubernetes.io/service-name: kube-dns}}
addressType: IPv4
endpoints: [{{addresses: ['{HOST}'], conditions: {{ready: true}}}}]
ports:
- {{name: dns, port: 53, protocol: UDP}}
- {{name: dns-tcp, port: 53, protocol: TCP}}
"
    )
}
