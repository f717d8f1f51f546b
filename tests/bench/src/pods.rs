//! The pods of the mesh's rows: for each row a namespace with what is in force there, and several
//! pods that are alike, since one Envoy process can be some percent dearer than the next.
//!
//! Callers are this process, outside the mesh and without mTLS. Keys come from a fake Entra in this
//! process too, on an address of its own, which the pods know by their hosts file; on a hit nobody
//! asks for them.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use e2e::fake_entra::{Config, FakeEntra, read_key_set, sample};
use mesh::{Guard, Mesh, paths::ISSUER, product::Images};
use serde_json::{Value, json};

use crate::{
    evidence,
    lane::Lane,
    load::{Place, RequestTexts},
    process::Process,
    rows::{Row, Sidecar},
    stage::filled,
};

/// Pods of a row; each start of Envoy takes the next ones.
const REPLICAS: usize = 4;
/// How long all of them may take to be ready; they take a minute.
const PATIENCE: Duration = Duration::from_secs(300);

/// Where the fake Entra is: one of the mesh's addresses for fakes that the tests do not take.
const ENTRA: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 88, 0, 19));
/// Service accounts of the sample's workloads, in no namespace that there is.
const NOBODY: [&str; 2] = ["system:serviceaccount:none:none", "system:serviceaccount:none:other"];
/// Bytes of a real user's token, and of those that the other rows show.
const USUAL: std::ops::Range<usize> = 1_000..1_300;
/// What the rules of the quick start let a user read.
const PATH: &str = "/orders/1017";

/// All rows' pods; their namespaces are removed at the end.
pub(crate) struct Pods {
    mesh: Mesh,
    images: Images,
    application: String,
    entra: FakeEntra,
    token: String,
    rows: Vec<(Row, Vec<Pod>)>,
    _alone: Guard,
}

/// One pod.
pub(crate) struct Pod {
    /// The port of its application.
    place: Place,
    token: String,
    /// Where its Envoy shows its counters.
    pub(crate) statistics: SocketAddr,
    /// Its sidecar.
    pub(crate) envoy: Process,
    /// What the sidecar passes requests to.
    pub(crate) application: Process,
}

impl Pods {
    /// Opens the pods of these rows in the mesh that runs, in whose network this process must be.
    pub(crate) fn open(rows: &[Row], images: &Path, application: &Path) -> Result<Self> {
        let mesh = Mesh::running()?;
        anyhow::ensure!(mesh.is_my_network(), "start this by `cargo xtask bench --mesh`");
        // Tests would disturb what is measured, and istiod's template is everybody's.
        let alone = mesh.alone()?;
        let issuer = read_key_set(ISSUER, &mesh.kubectl(&["get", "--raw=/openid/v1/jwks"])?)?;
        let directory = sample::directory_of_cluster(issuer, NOBODY);
        let listen = SocketAddr::new(ENTRA, 443);
        let entra = FakeEntra::try_start(Config::new(directory).listen(listen))
            .map_err(|reason| anyhow!("the fake Entra at {listen}: {reason}"))?;
        let token = token(&entra);
        anyhow::ensure!(USUAL.contains(&token.len()), "a token of {} bytes", token.len());
        let images = Images::of_layout(images)?;
        let application = mesh.push_application(application)?;
        mesh.install_template(&images)?;
        let mut pods =
            Self { mesh, images, application, entra, token, rows: Vec::new(), _alone: alone };
        for row in rows {
            // Known first, so that it is removed also when what follows fails.
            pods.rows.push((*row, Vec::new()));
            pods.remove(row, "--wait=true")?;
            pods.prepare(row).with_context(|| row.name)?;
        }
        // All were started before one is waited for: most of their time they wait, too.
        let ready = rows.iter().map(|row| pods.ready(row).with_context(|| row.name));
        let ready = ready.collect::<Result<Vec<_>>>()?;
        for ((_, pods), ready) in pods.rows.iter_mut().zip(ready) {
            *pods = ready;
        }
        Ok(pods)
    }

    /// Each row with its pod for this start of Envoy.
    pub(crate) fn of_start(&self, number: u32) -> Result<Vec<(Row, &Pod)>> {
        let number = usize::try_from(number)?;
        let rows = self.rows.iter().map(|(row, pods)| {
            let index = number.checked_rem(pods.len()).context("no pods")?;
            Ok((*row, pods.get(index).context("no such pod")?))
        });
        rows.collect()
    }

    /// The namespace, what is in force in it, and the pods, which are not waited for.
    fn prepare(&self, row: &Row) -> Result<()> {
        let sidecar = row.sidecar().context("no row of a mesh")?;
        let namespace = namespace(row);
        let ca = json!(self.entra.ca_pem()).to_string();
        let values = [("NAMESPACE", namespace.as_str()), ("CA", &ca)];
        self.mesh.apply(&filled(include_str!("../stage/namespace.yaml"), &values))?;
        let subject = format!("system:serviceaccount:{namespace}:orders");
        self.entra.federate(sample::TENANT, sample::WORKLOAD, ISSUER, &subject);
        let ours = json!({"broker": {"config": {"ca_file": "/etc/entra-ca/ca.crt"}}});
        match sidecar {
            Sidecar::IstioAlone => {}
            Sidecar::RequestAuthentication => {
                self.mesh.apply(&self.request_authentication(&namespace))?;
            }
            Sidecar::Ours => self.mesh.install_chart(&namespace, "entra", &self.images, &[ours])?,
            Sidecar::OursClosedOff => {
                let mut values = ours;
                let off = json!({
                    "policy": false, "marker": false, "serverFirst": {"enabled": false},
                });
                values.as_object_mut().context("no values")?.insert("closed".to_owned(), off);
                self.mesh.install_chart(&namespace, "entra", &self.images, &[values])?;
            }
        }
        let pods = filled(
            include_str!("../stage/pods.yaml"),
            &[
                ("NAMESPACE", &namespace),
                ("REPLICAS", &REPLICAS.to_string()),
                ("ANNOTATIONS", &annotations(sidecar).to_string()),
                ("APPLICATION", &self.application),
                ("ENTRA", &ENTRA.to_string()),
            ],
        );
        self.mesh.apply(&pods).map(drop)
    }

    fn request_authentication(&self, namespace: &str) -> String {
        filled(
            include_str!("../peers/request_auth.yaml"),
            &[
                ("NAMESPACE", namespace),
                ("TENANT", sample::TENANT),
                ("ISSUER", &format!("https://login.microsoftonline.com/{}/v2.0", sample::TENANT)),
                ("AUDIENCE", sample::ORDERS_API),
                ("AUDIENCE_URI", sample::ORDERS_URI),
                ("JWKS", &self.entra.key_set(sample::TENANT).to_string()),
            ],
        )
    }

    /// Waits until all pods of a row are ready and each does what the row's name says.
    fn ready(&self, row: &Row) -> Result<Vec<Pod>> {
        let namespace = namespace(row);
        let wait = format!("--timeout={}s", PATIENCE.as_secs());
        let rollout = ["rollout", "status", "deployment/orders", "--namespace", &namespace, &wait];
        self.mesh.kubectl(&rollout)?;
        let list = self.mesh.get(&namespace, &["pods", "--selector=app=orders"])?;
        let items = list.get("items").and_then(Value::as_array).context("no list of pods")?;
        items
            .iter()
            .map(|object| {
                let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
                let name = text("/metadata/name").context("a pod without a name")?;
                let address: IpAddr = text("/status/podIP").context("no address")?.parse()?;
                let process = |program| Process::new(self.mesh.process(&namespace, name, program)?);
                let pod = Pod {
                    token: self.token.clone(),
                    place: Place::Address(SocketAddr::new(address, 8080)),
                    statistics: SocketAddr::new(address, 15_090),
                    envoy: process("envoy")?,
                    application: process("mesh-app")?,
                };
                mesh::poll(&format!("{name} to do its work"), PATIENCE, || {
                    evidence::sidecar_works(row, &pod.place, PATH, &self.token).map(|()| true)
                })?;
                Ok(pod)
            })
            .collect()
    }

    fn remove(&self, row: &Row, wait: &str) -> Result<()> {
        let namespace = namespace(row);
        self.mesh.kubectl(&["delete", "namespace", &namespace, "--ignore-not-found", wait])?;
        Ok(())
    }
}

impl Pod {
    /// A row on it, ready to be measured.
    pub(crate) fn lane(&self, row: Row) -> Result<Lane> {
        let requests = RequestTexts::new(PATH, std::slice::from_ref(&self.token));
        Lane::on_a_pod(row, self.envoy, &self.place, requests)
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        for (row, _) in &self.rows {
            // What is left is removed by the next run, and ends with the mesh.
            let _left = self.remove(row, "--wait=false");
        }
    }
}

fn namespace(row: &Row) -> String {
    format!("bench-{}", row.name.replace('_', "-"))
}

fn annotations(sidecar: Sidecar) -> Value {
    // One worker, as the rows beside these have.
    let one_worker = json!({"concurrency": 1}).to_string();
    match sidecar {
        Sidecar::IstioAlone | Sidecar::RequestAuthentication => {
            json!({"proxy.istio.io/config": one_worker})
        }
        Sidecar::Ours | Sidecar::OursClosedOff => json!({
            "proxy.istio.io/config": one_worker,
            "inject.istio.io/templates": "sidecar,token-broker",
            "entra-sidecar/ca-config-map": "entra-ca",
            "entra-sidecar/tenant-id": sample::TENANT,
            "entra-sidecar/client-id": sample::WORKLOAD,
        }),
    }
}

/// A user's token, without the one opaque member that no service reads: then it is as long as those
/// of the other rows.
fn token(entra: &FakeEntra) -> String {
    entra
        .token(sample::TENANT, sample::TILL, sample::ORDERS_API)
        .user(&sample::ada(), &["Orders.Read"])
        .lifetime(7_200)
        .claim("rh", Value::Null)
        .sign()
}
