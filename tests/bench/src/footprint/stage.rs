//! A fake Entra and the broker beside it, as a pod has it: one identity, its tenant's keys.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use e2e::{
    fake_entra::{Cloud, Endpoint, FakeEntra, Fault, sample},
    stack::unix_now,
};
use serde_json::json;
use tempfile::TempDir;

use crate::envoy::page;

/// What the identity's own tokens are for.
pub(super) const SCOPE: &str = "https://graph.microsoft.com/.default";
/// What users' tokens are for.
pub(super) const DELEGATED_SCOPE: &str = "https://graph.microsoft.com/User.Read";
/// Of an access token's payload: with them the token has 1,100 bytes, as Entra's mostly have.
const PAYLOAD_BYTES: usize = 468;
/// Far above what a start takes.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks whether the broker is ready.
const LOOK: Duration = Duration::from_micros(500);
/// For what follows a start: answers read, buffers given back.
const SETTLE: Duration = Duration::from_secs(2);

/// What a broker is started with.
pub(super) struct Stage {
    entra: FakeEntra,
    directory: TempDir,
    program: PathBuf,
    admin: SocketAddr,
}

/// A running broker; dropped, it ends.
pub(super) struct Broker {
    child: Child,
    /// From before the process was made until `/readyz` said yes.
    pub(super) ready_after: Duration,
}

impl Stage {
    /// Starts the fake and writes the configuration.
    pub(super) fn set(program: &Path) -> Result<Self> {
        let (entra, cluster) = FakeEntra::sample();
        let directory = tempfile::Builder::new().prefix("entra-broker-").tempdir()?;
        let audience = Cloud::Public.exchange_audience();
        let token = cluster.token(sample::WORKLOAD_SUBJECT, audience, unix_now(), 3_600);
        fs::write(directory.path().join("service-account-token"), token)?;
        let admin = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let stage = Self { entra, directory, program: program.to_owned(), admin };
        fs::write(stage.file("broker.yaml"), stage.configuration().to_string())?;
        Ok(stage)
    }

    fn configuration(&self) -> serde_json::Value {
        json!({
            "authorities": [{"cloud": "public", "tenants": [sample::TENANT]}],
            "identities": {"default": {
                "workload_identity": {
                    "tenant": sample::TENANT,
                    "client_id": sample::WORKLOAD,
                    "token_file": self.file("service-account-token"),
                },
                "scopes": [SCOPE],
                "delegated_scopes": [DELEGATED_SCOPE],
            }},
            "listen": {"api": {"unix": self.socket()}, "admin": self.admin.to_string()},
            "ca_file": self.entra.ca_file(),
        })
    }

    /// The broker's socket.
    pub(super) fn socket(&self) -> PathBuf {
        self.file("broker.sock")
    }

    /// A file of this run.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The next tokens that the fake gives are of the usual size, and good for an hour.
    pub(super) fn give(&self, tokens: usize) {
        let token = token();
        let body = json!({"token_type": "Bearer", "expires_in": 3_599, "access_token": token});
        let answer = Fault::Answer { status: 200, headers: Vec::new(), body: body.to_string() };
        self.entra.fail_next(Endpoint::Token, tokens, answer);
    }

    /// Starts the broker and waits until it is ready.
    pub(super) fn start(&self) -> Result<Broker> {
        self.entra.clear_faults();
        self.give(1);
        let log = fs::File::create(self.file("broker.log"))?;
        let began = Instant::now();
        let mut command = Command::new(&self.program);
        command.args(["serve", "--config"]).arg(self.file("broker.yaml"));
        command.env_clear().env("HTTPS_PROXY", self.entra.proxy_url());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("the broker does not start")?;
        let mut broker = Broker { child, ready_after: Duration::ZERO };
        while !self.is_ready() {
            if broker.child.try_wait()?.is_some() || began.elapsed() > PATIENCE {
                bail!("the broker is not ready:\n{}", fs::read_to_string(self.file("broker.log"))?);
            }
            thread::sleep(LOOK);
        }
        broker.ready_after = began.elapsed();
        Ok(broker)
    }

    fn is_ready(&self) -> bool {
        TcpStream::connect(self.admin).is_ok_and(|admin| page(admin, "/readyz").is_ok())
    }
}

impl Broker {
    /// Its process.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it holds of the machine's memory some time later: what it wrote and what it read of its
    /// program (`VmRSS`, proc_pid_status(5)), in MiB.
    pub(super) fn settled_memory_mib(&self) -> Result<f64> {
        thread::sleep(SETTLE);
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: u32 = line.context("no VmRSS")?.trim().trim_end_matches(" kB").parse()?;
        Ok(f64::from(kib) / 1_024.0)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Either fails only when the process has ended already.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

/// In the form of a token of Entra's, signed by nobody: no one here verifies it.
fn token() -> String {
    let header =
        json!({"typ": "JWT", "alg": "RS256", "x5t": "t".repeat(27), "kid": "k".repeat(27)});
    let payload = "p".repeat(PAYLOAD_BYTES);
    let parts = [header.to_string().as_bytes(), payload.as_bytes(), &[7; 256]]
        .map(|part| URL_SAFE_NO_PAD.encode(part));
    parts.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_the_usual_size() {
        assert_eq!(token().len(), 1_100);
    }
}
