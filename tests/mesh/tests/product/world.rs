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
    paths::{ISSUER, REGISTRY, state},
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
/// The application of the pods, which records what it sees.
pub(crate) const APPLICATION: &str = "10.88.0.1:5000/test/application:1";
/// The image that the plain files and the template name.
const BROKER_PLACEHOLDER: &str = "registry.example.com/entra-sidecar/token-broker@sha256:\
    0000000000000000000000000000000000000000000000000000000000000000";

/// What all tests share.
pub(crate) struct World {
    pub(crate) mesh: Mesh,
    pub(crate) entra: FakeEntra,
    pub(crate) graph: Upstream,
    pub(crate) images: Images,
    runtime: Runtime,
    _alone: File,
}

/// The product's images in the mesh's registry.
pub(crate) struct Images {
    /// `sha256:…` of the filter in the form that container engines read.
    pub(crate) filter: String,
    /// Of the same filter as a wasm artifact.
    pub(crate) filter_artifact: String,
    /// The broker's whole reference.
    pub(crate) broker: String,
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
        let application = std::fs::read(variable("MESH_APP")).unwrap();
        let image = mesh.base_image().unwrap().files(&[("usr/bin/mesh-app", 0o755, &application)]);
        let name = APPLICATION.strip_prefix(&format!("{REGISTRY}/")).unwrap();
        mesh.push_image(name, image.unwrap()).unwrap();
        let images = Images::pushed(&variable("MESH_IMAGES"));
        let world = Self { mesh, entra, graph, images, runtime, _alone: alone };
        world.install_template();
        world
    }

    /// istiod's values as they are shipped, with the image of this build in the template.
    pub(crate) fn istio_values(&self) -> Value {
        let shipped = repository("istio/istiod-values.yaml");
        let text = std::fs::read_to_string(shipped).unwrap();
        assert!(text.contains(BROKER_PLACEHOLDER), "the template names no image to replace");
        let text = text.replace(BROKER_PLACEHOLDER, &self.images.broker);
        serde_norway::from_str(&text).unwrap()
    }

    /// The injection template in istiod, where it is not already.
    fn install_template(&self) {
        let values = self.istio_values();
        let wanted = values["sidecarInjectorWebhook"]["templates"]["token-broker"].as_str();
        let injector = self.mesh.get("istio-system", &["configmap", "istio-sidecar-injector"]);
        let installed: Value =
            serde_norway::from_str(injector.unwrap()["data"]["config"].as_str().unwrap()).unwrap();
        if installed["templates"]["token-broker"].as_str() != wanted {
            self.mesh.apply_istio(values).unwrap();
        }
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

impl Images {
    /// As `cargo xtask push` has pushed them.
    fn pushed(layout: &Path) -> Self {
        let index = std::fs::read(layout.join("index.json")).unwrap();
        let index: Value = serde_json::from_slice(&index).unwrap();
        let digest = |name: &str| {
            let manifests = index["manifests"].as_array().unwrap().iter();
            let named = |manifest: &&Value| {
                let reference = &manifest["annotations"]["org.opencontainers.image.ref.name"];
                let reference = reference.as_str().and_then(|name| name.split_once(':'));
                reference.is_some_and(|(repository, tag)| {
                    let kind = if tag.ends_with("-artifact") { "-artifact" } else { "" };
                    format!("{repository}{kind}") == name
                })
            };
            manifests.clone().find(named).unwrap()["digest"].as_str().unwrap().to_owned()
        };
        Self {
            filter: digest("entra-sidecar/filter"),
            filter_artifact: digest("entra-sidecar/filter-artifact"),
            broker: format!(
                "{REGISTRY}/entra-sidecar/token-broker@{}",
                digest("entra-sidecar/token-broker")
            ),
        }
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
