//! A real Envoy on ports of its own.
//!
//! Runs the configuration that [`config`] makes of the shipped file. It listens on free ports that
//! Envoy itself chooses and reports, so that many tests run side by side.

pub mod config;
mod downstream;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    client::{Answer, Connection, Request},
    process::Process,
};
pub use config::EnvoyConfig;

/// A running Envoy.
#[derive(Debug)]
pub struct Envoy {
    /// The admin interface.
    pub admin: SocketAddr,
    /// The listener in front of the application.
    pub inbound: SocketAddr,
    /// The listener that the application calls out through.
    pub outbound: SocketAddr,
    directory: PathBuf,
    process: Process,
}

impl Envoy {
    /// Starts Envoy and waits until its listeners take connections.
    pub async fn start(
        binary: &Path,
        directory: &Path,
        config: &EnvoyConfig,
        concurrency: u32,
    ) -> Self {
        let admin_file = directory.join("envoy.admin");
        let mut process = spawn(binary, directory, config, concurrency, &admin_file);
        let admin = process
            .ready("admin address", async || {
                std::fs::read_to_string(&admin_file).ok()?.trim().parse().ok()
            })
            .await;
        process.ready("/ready", async || asks_ready(admin).await.then_some(())).await;
        let listeners = get(admin, "/listeners?format=json").await.json();
        let address = |name| listener(&listeners, name);
        Self {
            admin,
            inbound: address("inbound"),
            outbound: address("outbound"),
            directory: directory.to_owned(),
            process,
        }
    }

    /// Runs Envoy with a configuration that it must refuse; gives its log.
    pub async fn refused(binary: &Path, directory: &Path, config: &EnvoyConfig) -> String {
        let admin_file = directory.join("envoy.admin");
        let mut process = spawn(binary, directory, config, 1, &admin_file);
        while process.is_running() {
            let ready = match std::fs::read_to_string(&admin_file) {
                Ok(address) => match address.trim().parse() {
                    Ok(admin) => asks_ready(admin).await,
                    Err(_) => false,
                },
                Err(_) => false,
            };
            assert!(!ready, "Envoy took a configuration that it must refuse");
            tokio::task::yield_now().await;
        }
        process.log()
    }

    /// Hands it another configuration, as a control plane does; whether it takes it, its log and
    /// `listener_manager.lds.*` and `cluster_manager.cds.*` say.
    pub fn push(&self, config: &EnvoyConfig) {
        config.write(&self.directory);
    }

    /// Sets a component's log level, while it runs.
    pub async fn log_level(&self, component: &str, level: &str) {
        let request = Request::new("POST", &format!("/logging?{component}={level}"));
        let answer = request.host("admin").header("content-length", "0").send(self.admin).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// Asks the admin interface.
    pub async fn admin(&self, path: &str) -> Answer {
        get(self.admin, path).await
    }

    /// Every counter and gauge.
    pub async fn stats(&self) -> BTreeMap<String, u64> {
        let text = self.admin("/stats?type=All").await.text();
        let numbers = text.lines().filter_map(|line| {
            let (name, value) = line.rsplit_once(": ")?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        numbers.collect()
    }

    /// The access log so far, a JSON object for each request.
    pub fn access_log(&self) -> Vec<Value> {
        let lines = self.process.output();
        lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Envoy's own log so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }
}

/// The Envoy binary that a variable names (`ENVOY`, `ENVOY_SMOKE` for the oldest release, or one of
/// those between).
pub fn binary(variable: &str) -> PathBuf {
    from_environment(variable)
}

/// A file that `cargo xtask test` prepares and names in a variable.
///
/// # Panics
/// When the variable is not set: there is nothing to test with.
pub(crate) fn from_environment(variable: &str) -> PathBuf {
    let Some(value) = std::env::var_os(variable) else {
        panic!(
            "{variable} is not set: run `cargo xtask test`, which builds and finds what is needed"
        )
    };
    let path = config::repository().join(value);
    assert!(path.is_file(), "{variable} is {}, which is no file", path.display());
    path
}

fn spawn(
    binary: &Path,
    directory: &Path,
    config: &EnvoyConfig,
    concurrency: u32,
    admin_file: &Path,
) -> Process {
    let config_file = config.write(directory);
    let _from_an_earlier_run = std::fs::remove_file(admin_file);
    let mut command = Command::new(binary);
    command
        .arg("--config-path")
        .arg(&config_file)
        .arg("--admin-address-path")
        .arg(admin_file)
        .args(["--disable-hot-restart", "--file-flush-interval-msec", "2"])
        .args(["--log-level", "info", "--concurrency"])
        .arg(concurrency.to_string());
    Process::start("envoy", directory, &mut command)
}

async fn get(admin: SocketAddr, path: &str) -> Answer {
    Request::get(path).host("admin").header("connection", "close").send(admin).await
}

async fn asks_ready(admin: SocketAddr) -> bool {
    if tokio::net::TcpStream::connect(admin).await.is_err() {
        return false;
    }
    let mut connection = Connection::open(admin).await;
    connection.write(&Request::get("/ready").host("admin").to_bytes()).await;
    connection.answer_or_close().await.is_some_and(|answer| answer.status == 200)
}

fn listener(listeners: &Value, name: &str) -> SocketAddr {
    let statuses = listeners.get("listener_statuses").and_then(Value::as_array);
    let status = statuses
        .into_iter()
        .flatten()
        .find(|status| status.get("name").and_then(Value::as_str) == Some(name));
    let address = status.and_then(|status| status.pointer("/local_address/socket_address"));
    let port = address.and_then(|address| address.get("port_value")).and_then(Value::as_u64);
    let port = port.and_then(|port| u16::try_from(port).ok());
    SocketAddr::from(([127, 0, 0, 1], port.unwrap_or_else(|| panic!("no listener {name}"))))
}
