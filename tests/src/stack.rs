//! The whole product, running: fake Entra, token broker, application, Graph and Envoy.
//!
//! [`Stack::builder`] starts them with the repository's own `envoy.yaml`; everything ends when the
//! stack is dropped, also by a failing test, and then the end of each program's log is shown. What
//! a test wants to be different it says to the [`Builder`]; [`world`] says who is registered.

mod builder;
mod verdict;
pub mod world;

pub use builder::{Builder, GraphProof};

use std::{
    fs::File,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    broker::{Broker, BrokerSettings},
    client::{Answer, DEADLINE, Request},
    envoy::{Envoy, EnvoyConfig},
    fake_entra::FakeEntra,
    upstream::Upstream,
};

/// Everything, running.
pub struct Stack {
    /// Envoy with the filter.
    pub envoy: Envoy,
    /// Plays Microsoft Entra ID.
    pub entra: FakeEntra,
    /// The application behind the inbound listener.
    pub application: Upstream,
    /// Plays graph.microsoft.com, over TLS.
    pub graph: Upstream,
    /// What Envoy runs.
    pub config: EnvoyConfig,
    broker: Option<Broker>,
    broker_settings: BrokerSettings,
    directory: TempDir,
    _ports: Option<File>,
}

impl Stack {
    /// The shipped configuration with one worker, unless told otherwise.
    pub fn builder() -> Builder {
        Builder::shipped()
    }

    /// Sends a request to the inbound listener.
    pub async fn call(&self, request: &Request) -> Answer {
        request.send(self.envoy.inbound).await
    }

    /// Sends a request as the application does, to Graph.
    pub async fn call_graph(&self, request: Request) -> Answer {
        request.host("graph.microsoft.com").send(self.envoy.outbound).await
    }

    /// The access log's object of the request with this `x-request-id`, when Envoy has written it.
    pub async fn logged(&self, request_id: &str) -> Value {
        let find = async {
            loop {
                let lines = self.envoy.access_log();
                let line = lines.into_iter().find(|line| {
                    line.get("request_id").and_then(Value::as_str) == Some(request_id)
                });
                if let Some(line) = line {
                    return line;
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, find)
            .await
            .unwrap_or_else(|_elapsed| panic!("no access log line of {request_id}"))
    }

    /// Sends a request to the inbound listener; gives its answer and the filter's record of it.
    pub async fn call_recorded(&self, request: &Request) -> (Answer, Record) {
        let id = Self::next_id();
        let answer = self.call(&request.clone().header("x-request-id", &id)).await;
        let record = self.record(&id).await;
        (answer, record)
    }

    /// An `x-request-id` that no other request of this process has.
    pub fn next_id() -> String {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        format!("call-{}", NUMBER.fetch_add(1, Ordering::Relaxed))
    }

    /// What the outbound filter noted of the request with this `x-request-id`.
    pub async fn outbound_record(&self, request_id: &str) -> Record {
        let line = self.logged(request_id).await;
        Record(line.get("entra_outbound").and_then(Value::as_str).unwrap_or_default().to_owned())
    }

    /// What the filter noted of the request with this `x-request-id`.
    pub async fn record(&self, request_id: &str) -> Record {
        let line = self.logged(request_id).await;
        Record(line.get("entra").and_then(Value::as_str).unwrap_or_default().to_owned())
    }

    /// The broker.
    ///
    /// # Panics
    /// When it does not run.
    pub fn broker(&self) -> &Broker {
        self.broker.as_ref().expect("the broker runs")
    }

    /// Ends the broker as a crash would.
    pub fn kill_broker(&mut self) {
        self.broker = None;
    }

    /// Starts the broker (again) with the same settings.
    pub async fn start_broker(&mut self) {
        self.broker = None;
        self.broker = Some(Broker::start(&self.broker_settings).await);
    }

    /// The port that a listener, or `admin`, has.
    pub fn port(&self, listener: &str) -> u16 {
        match listener {
            "admin" => self.envoy.admin.port(),
            "inbound" => self.envoy.inbound.port(),
            "outbound" => self.envoy.outbound.port(),
            _ => panic!("no listener {listener}"),
        }
    }

    /// The port that the shipped file names for it.
    pub fn shipped_port(&self, listener: &str) -> u16 {
        EnvoyConfig::shipped().port(listener)
    }

    /// Where the broker listens, or a stand-in for it.
    pub fn broker_socket(&self) -> &Path {
        &self.broker_settings.socket
    }

    /// Where logs, configurations and the broker's socket of this run are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

/// The filter's record of one request: `reason=… rule=… tenant=… client=… uti=…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record(pub String);

impl Record {
    /// The value of a member.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut members = self.0.split(' ').filter_map(|member| member.split_once('='));
        members.find(|(member, _)| *member == name).map(|(_, value)| value)
    }
}

/// Unix seconds.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs()
}
