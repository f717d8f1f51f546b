//! etcd, the API server, the controller manager and the scheduler: their command lines.

use crate::paths::{HOST, ISSUER, SERVICE_RANGE, state_text};

/// etcd for one node. What it loses in a crash of the machine is lost with the mesh anyway.
pub(crate) fn etcd() -> Vec<String> {
    words(&[
        ("name", "mesh"),
        ("data-dir", &state_text("etcd")),
        ("listen-client-urls", "http://127.0.0.1:2379"),
        ("advertise-client-urls", "http://127.0.0.1:2379"),
        ("listen-peer-urls", "http://127.0.0.1:2380"),
        ("initial-advertise-peer-urls", "http://127.0.0.1:2380"),
        ("initial-cluster", "mesh=http://127.0.0.1:2380"),
        ("unsafe-no-fsync", "true"),
        ("log-level", "warn"),
    ])
}

/// The API server; it signs projected service account tokens for any audience.
pub(crate) fn api_server() -> Vec<String> {
    words(&[
        ("etcd-servers", "http://127.0.0.1:2379"),
        ("advertise-address", HOST),
        ("bind-address", "0.0.0.0"),
        ("secure-port", "6443"),
        ("service-cluster-ip-range", SERVICE_RANGE),
        ("allow-privileged", "true"),
        ("authorization-mode", "Node,RBAC"),
        ("client-ca-file", &pki("ca.crt")),
        ("tls-cert-file", &pki("apiserver.crt")),
        ("tls-private-key-file", &pki("apiserver.key")),
        ("service-account-issuer", ISSUER),
        ("service-account-key-file", &pki("service-account.pub")),
        ("service-account-signing-key-file", &pki("service-account.key")),
        // Otherwise a token that asks for ten minutes is good for a year.
        ("service-account-extend-token-expiration", "false"),
        ("kubelet-client-certificate", &pki("admin.crt")),
        ("kubelet-client-key", &pki("admin.key")),
        ("kubelet-certificate-authority", &pki("ca.crt")),
        ("kubelet-preferred-address-types", "InternalIP"),
        ("enable-admission-plugins", "NodeRestriction"),
    ])
}

/// Every controller.
pub(crate) fn controller_manager() -> Vec<String> {
    words(&[
        ("kubeconfig", &pki("controller-manager.conf")),
        ("service-account-private-key-file", &pki("service-account.key")),
        ("root-ca-file", &pki("ca.crt")),
        ("cluster-signing-cert-file", &pki("ca.crt")),
        ("cluster-signing-key-file", &pki("ca.key")),
        ("use-service-account-credentials", "true"),
        // Made at the start, and otherwise a folder of the machine.
        ("flex-volume-plugin-dir", &state_text("node/volume-plugins")),
        ("leader-elect", "false"),
        ("bind-address", "127.0.0.1"),
    ])
}

/// The scheduler.
pub(crate) fn scheduler() -> Vec<String> {
    words(&[
        ("kubeconfig", &pki("scheduler.conf")),
        ("leader-elect", "false"),
        ("bind-address", "127.0.0.1"),
    ])
}

fn pki(file: &str) -> String {
    state_text(&format!("pki/{file}"))
}

fn words(flags: &[(&str, &str)]) -> Vec<String> {
    flags.iter().map(|(name, value)| format!("--{name}={value}")).collect()
}
