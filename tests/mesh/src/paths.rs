//! Addresses of the mesh, and where its state lies.

use std::path::{Path, PathBuf};

/// All that a mesh writes: short, for Unix sockets lie in it, and on the disk, for images do too.
pub const STATE: &str = "/var/cache/entra-mesh";

/// The node's address on the bridge: API server, registry, DNS, and the first of the fakes.
pub const HOST: &str = "10.88.0.1";

/// Further addresses of the node, for fakes that need port 443 of their own: `10.88.0.2` to
/// `10.88.0.FAKES`.
pub const FAKES: u8 = 20;

/// Where a machine in Azure has its instance metadata service; here a fake may listen on it.
pub const METADATA: &str = "169.254.169.254";

/// The OCI registry, over plain HTTP.
pub const REGISTRY: &str = "10.88.0.1:5000";

/// The API server, for clients that need its address.
pub const API_SERVER: &str = "https://10.88.0.1:6443";

/// Who signs the projected service account tokens.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// The node's name.
pub const NODE: &str = "mesh";

/// The bridge that joins node and pods.
pub const BRIDGE: &str = "mesh0";

/// Where pods and node have their addresses.
pub const POD_RANGE: &str = "10.88.0.0/16";

/// Where services have theirs.
pub const SERVICE_RANGE: &str = "10.96.0.0/16";

/// The service address of the API server: the first of the range.
pub const API_SERVICE: &str = "10.96.0.1";

/// The service address of DNS.
pub const DNS_SERVICE: &str = "10.96.0.10";

/// A file or folder of the mesh's state.
#[must_use]
pub fn state(name: &str) -> PathBuf {
    Path::new(STATE).join(name)
}

/// The same as text, for configurations and command lines.
pub(crate) fn state_text(name: &str) -> String {
    format!("{STATE}/{name}")
}

/// Credentials of the cluster's administrator.
#[must_use]
pub fn kubeconfig() -> PathBuf {
    state("pki/admin.conf")
}

/// What a component has written.
#[must_use]
pub fn log(component: &str) -> PathBuf {
    state("log").join(format!("{component}.log"))
}
