//! The real token broker as a process, with a configuration file of its own.
//!
//! It reaches the fake Entra as it would the real one: under the real host names, by `HTTPS_PROXY`
//! and a certificate authority from a file.

use std::{
    fs::Permissions,
    net::SocketAddr,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

use crate::{
    client::{Answer, Connection, DEADLINE, Request},
    envoy::from_environment,
    fake_entra::{
        Cloud, FakeEntra,
        sample::{self, Cluster},
    },
    ports,
    process::Process,
};

/// The application whose tokens the broker gets, by workload identity federation.
#[derive(Debug, Clone)]
pub struct BrokerIdentity {
    /// Tenant id.
    pub tenant: String,
    /// Application (client) id.
    pub client_id: String,
    /// File with the federated token.
    pub token_file: PathBuf,
    /// What it may ask for.
    pub scope: String,
}

impl BrokerIdentity {
    /// An application of the sample tenant that trusts the sample's workload, whose projected token
    /// is put into the directory.
    pub fn federated(
        directory: &Path,
        (entra, cluster): (&FakeEntra, &Cluster),
        client_id: &str,
        scope: &str,
    ) -> Self {
        let audience = Cloud::Public.exchange_audience();
        let token = cluster.token(sample::WORKLOAD_SUBJECT, audience, entra.now(), 3_600);
        let token_file = directory.join("token");
        std::fs::write(&token_file, token).expect("the federated token");
        let (tenant, client_id) = (sample::TENANT.to_owned(), client_id.to_owned());
        Self { tenant, client_id, token_file, scope: scope.to_owned() }
    }
}

/// A directory that nobody else enters: it holds tokens and the broker's socket.
pub fn own_directory() -> TempDir {
    let mut builder = tempfile::Builder::new();
    builder.prefix("entra-").permissions(Permissions::from_mode(0o700));
    builder.tempdir().expect("a temporary directory")
}

/// How the broker is started; it can be started again with the same.
#[derive(Debug, Clone)]
pub struct BrokerSettings {
    binary: PathBuf,
    directory: PathBuf,
    config: Value,
    proxy: String,
    log_level: &'static str,
    /// Its `api` listener.
    pub socket: PathBuf,
    /// Its `admin` listener.
    pub admin: SocketAddr,
}

impl BrokerSettings {
    /// Settings for one identity and the keys of its tenant.
    pub fn new(directory: &Path, identity: &BrokerIdentity, entra: &FakeEntra) -> Self {
        let socket = directory.join("broker.sock");
        let admin = SocketAddr::from(([127, 0, 0, 1], ports::free()));
        // Files made here are ours, so their owner is the user that Envoy runs as too.
        let uid = std::fs::metadata(directory).expect("the run's directory").uid();
        let config = json!({
            "authorities": [{"cloud": "public", "tenants": [identity.tenant]}],
            "identities": {
                "default": {
                    "workload_identity": {
                        "tenant": identity.tenant,
                        "client_id": identity.client_id,
                        "token_file": identity.token_file,
                    },
                    "scopes": [identity.scope],
                },
            },
            "listen": {
                "api": {"unix": socket, "allow_uids": [uid]},
                "admin": admin.to_string(),
            },
            "ca_file": entra.ca_file(),
        });
        Self {
            binary: from_environment("TOKEN_BROKER_BIN"),
            directory: directory.to_owned(),
            config,
            proxy: entra.proxy_url(),
            log_level: "info",
            socket,
            admin,
        }
    }

    /// Adds the compat listener with these families of endpoints; answers where it is.
    pub fn compat(&mut self, mut families: Value) -> SocketAddr {
        let address = SocketAddr::from(([127, 0, 0, 1], ports::free()));
        families["address"] = json!(address.to_string());
        families["trust_whole_pod"] = json!(true);
        self.config["listen"]["compat"] = families;
        address
    }

    /// Has everything logged.
    pub fn log_everything(&mut self) {
        self.log_level = "trace";
    }

    /// The configuration, for tests that change something in it.
    pub fn config_mut(&mut self) -> &mut Value {
        &mut self.config
    }
}

/// A running broker.
#[derive(Debug)]
pub struct Broker {
    admin: SocketAddr,
    process: Process,
}

impl Broker {
    /// Starts the broker and waits until its listeners answer.
    ///
    /// It then may still be without keys and tokens: readiness is Entra's matter too.
    pub async fn start(settings: &BrokerSettings) -> Self {
        let file = settings.directory.join("broker.yaml");
        std::fs::write(&file, settings.config.to_string()).expect("a file for the configuration");
        let mut command = Command::new(&settings.binary);
        command
            .args(["serve", "--log-level", settings.log_level, "--config"])
            .arg(&file)
            .env_clear()
            .env("HTTPS_PROXY", &settings.proxy);
        let mut process = Process::start("token-broker", &settings.directory, &mut command);
        let admin = settings.admin;
        process.ready("/healthz", async || answers(admin).await.then_some(())).await;
        Self { admin, process }
    }

    /// Asks the `admin` listener.
    pub async fn admin(&self, path: &str) -> Answer {
        Request::get(path).host("admin").send(self.admin).await
    }

    /// Waits until it has keys and every identity has had a token.
    ///
    /// # Panics
    /// When it does not come to that.
    pub async fn ready(&self) {
        let wait = async {
            while self.admin("/readyz").await.status != 200 {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        let done = tokio::time::timeout(DEADLINE, wait).await;
        done.unwrap_or_else(|_elapsed| panic!("the broker is not ready"));
    }

    /// A number of its `/metrics`: the sum of the samples whose line begins with this text.
    pub async fn metric(&self, start: &str) -> f64 {
        let text = self.admin("/metrics").await.text();
        let lines = text.lines().filter(|line| line.starts_with(start));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        format!("{}{}", self.process.output(), self.process.log())
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        self.process.kill();
    }
}

/// `POST /v1/token` over the socket, as Envoy asks: status and body.
///
/// # Panics
/// When there is no answer.
pub async fn ask(socket: &Path, body: &Value) -> (u16, Value) {
    let body = body.to_string();
    let request = format!(
        "POST /v1/token HTTP/1.1\r\nhost: broker\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let mut stream = UnixStream::connect(socket).await.expect("the socket");
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = String::new();
    let reading = stream.read_to_string(&mut answer);
    tokio::time::timeout(DEADLINE, reading).await.expect("in time").expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
    (status, serde_json::from_str(body).expect("JSON"))
}

async fn answers(admin: SocketAddr) -> bool {
    if TcpStream::connect(admin).await.is_err() {
        return false;
    }
    let mut connection = Connection::open(admin).await;
    connection.write(&Request::get("/healthz").host("admin").to_bytes()).await;
    connection.answer_or_close().await.is_some_and(|answer| answer.status == 200)
}
