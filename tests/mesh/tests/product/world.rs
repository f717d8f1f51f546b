//! What all tests share, made once per process: Entra and Graph on the bridge, the images in the
//! registry, the injection template in istiod.
//!
//! The fakes have the addresses to which the mesh's DNS leads their names, so one process at a time
//! can have them: a second one waits.

use std::{
    fs::File,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::LazyLock,
    time::Duration,
};

use e2e::{
    client::{Answer, Request},
    fake_entra::{Config, FakeEntra, read_key_set, sample},
    upstream::Upstream,
};
use mesh::{
    Mesh,
    paths::{ISSUER, state},
    product::Images,
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// Where DNS leads `login.microsoftonline.com`.
const ENTRA: &str = "10.88.0.1:443";
/// Where DNS leads `graph.microsoft.com`.
const GRAPH: &str = "10.88.0.2:443";
/// Service accounts that are the sample's workloads: of each namespace that a test makes, by hand
/// ([`FakeEntra::federate`]); these are of no namespace that there is.
const NOBODY: [&str; 2] = ["system:serviceaccount:none:none", "system:serviceaccount:none:other"];
/// What all tests share.
pub(crate) struct World {
    pub(crate) mesh: Mesh,
    pub(crate) entra: FakeEntra,
    pub(crate) graph: Upstream,
    pub(crate) images: Images,
    /// The image of the pods' application, which records what it sees.
    pub(crate) application: String,
    runtime: Runtime,
    _alone: File,
}

/// The world, made at the first call.
pub(crate) fn world() -> &'static World {
    static WORLD: LazyLock<World> = LazyLock::new(World::make);
    &WORLD
}

impl World {
    fn make() -> Self {
        let mesh = Mesh::running().unwrap();
        assert!(mesh.is_my_network(), "run these tests by `cargo xtask mesh test`");
        let alone = File::create(state("fakes.lock")).unwrap();
        alone.lock().unwrap();
        let key_set = mesh.kubectl(&["get", "--raw=/openid/v1/jwks"]).unwrap();
        let issuer = read_key_set(ISSUER, &key_set).unwrap();
        let directory = sample::directory_of_cluster(issuer, NOBODY);
        let entra = FakeEntra::start(Config::new(directory).listen(ENTRA.parse().unwrap()));
        let runtime = Runtime::new().unwrap();
        let tls = entra.tls_server("graph.microsoft.com");
        let graph = runtime.block_on(Upstream::start_tls_at(GRAPH.parse().unwrap(), tls));
        let images = Images::of_layout(&variable("MESH_IMAGES")).unwrap();
        let application = mesh.push_application(&variable("MESH_APP")).unwrap();
        mesh.install_template(&images).unwrap();
        Self { mesh, entra, graph, images, application, runtime, _alone: alone }
    }

    /// Runs what is asynchronous.
    pub(crate) fn wait_for<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Sends a request to an address.
    pub(crate) fn send(&self, request: &Request, to: SocketAddr) -> Answer {
        self.wait_for(request.send(to))
    }

    /// A caller's token for the orders API, of an application with the role to read.
    pub(crate) fn token(&self) -> String {
        self.entra.token(sample::TENANT, sample::TILL, sample::ORDERS_URI).sign()
    }
}

/// A file of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// A path in an environment variable that `cargo xtask mesh test` sets.
pub(crate) fn variable(name: &str) -> PathBuf {
    let value = std::env::var_os(name);
    value.unwrap_or_else(|| panic!("{name}: `cargo xtask mesh test` sets it")).into()
}

/// How long the mesh may take for a change to arrive; it takes seconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Metadata with a name, for objects that tests write.
pub(crate) fn named(name: &str, namespace: &str) -> Value {
    json!({"name": name, "namespace": namespace})
}
