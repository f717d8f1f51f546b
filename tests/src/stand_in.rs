//! A stand-in for the broker that says what a test tells it to, also what no broker would.
//!
//! It listens on the broker's socket and speaks HTTP/1.1. It judges nothing and knows no Entra;
//! what it is asked it writes down.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt,
    net::{UnixListener, UnixStream},
    sync::watch,
    task::JoinHandle,
};

use crate::client::{DEADLINE, read_body, read_head};

/// A call of the filter.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Path, such as `/v1/keys`.
    pub path: String,
    /// The body, or null.
    pub body: Value,
}

/// What the stand-in answers.
#[derive(Debug, Clone)]
pub enum Said {
    /// A status with a body that claims to be JSON.
    Answer(u16, String),
    /// Bytes that need not be HTTP, then the end of the connection.
    Raw(Vec<u8>),
    /// Nothing, for as long as the caller waits.
    Nothing,
    /// 200 with a JSON document, once the sender says true.
    Once(watch::Receiver<bool>, String),
}

impl Said {
    /// 200 with a JSON document.
    pub fn json(value: &Value) -> Self {
        Self::Answer(200, value.to_string())
    }
}

type Script = dyn Fn(&Asked) -> Said + Send + Sync;

struct State {
    asked: Mutex<Vec<Asked>>,
    script: Mutex<Arc<Script>>,
}

/// The stand-in; it ends when dropped.
pub struct StandIn {
    state: Arc<State>,
    task: JoinHandle<()>,
}

impl StandIn {
    /// Listens on a socket and says what the script says.
    pub fn start(socket: &Path, script: impl Fn(&Asked) -> Said + Send + Sync + 'static) -> Self {
        let _of_an_earlier_one = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).expect("a socket for the stand-in");
        let script: Mutex<Arc<Script>> = Mutex::new(Arc::new(script));
        let state = Arc::new(State { asked: Mutex::default(), script });
        let task = tokio::spawn(accept(listener, Arc::clone(&state)));
        Self { state, task }
    }

    /// Says from now on what another script says. Who was not answered stays so.
    pub fn say(&self, script: impl Fn(&Asked) -> Said + Send + Sync + 'static) {
        *self.state.script.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(script);
    }

    /// What it was asked on a path, answered or not.
    pub fn asked(&self, path: &str) -> Vec<Asked> {
        let asked = self.state.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter().filter(|asked| asked.path == path).cloned().collect()
    }

    /// Waits until it was asked so many times on a path.
    pub async fn wait_for(&self, path: &str, count: usize) {
        let wait = async {
            while self.asked(path).len() < count {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        let done = tokio::time::timeout(DEADLINE, wait).await;
        done.unwrap_or_else(|_elapsed| panic!("{} calls of {path}", self.asked(path).len()));
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The broker's answer with a token for whatever was asked.
pub fn issued(asked: &Asked, access_token: &str, now: u64) -> Value {
    json!({
        "access_token": access_token,
        "token_type": "Bearer",
        "expires_on": now + 3600,
        "refresh_on": now + 1800,
        "scope": asked.body.get("scope"),
        "identity": asked.body.get("identity"),
        "correlation_id": "00000000-0000-4000-8000-000000000000",
        "token_hash": hash_of(access_token),
    })
}

/// What the broker calls a token, for tests that compare.
pub fn hash_of(access_token: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, access_token.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The broker's answer with the keys (a JSON Web Key Set) of one tenant of the public cloud.
pub fn keys(tenant: &str, key_set: &Value, now: u64) -> Value {
    json!({"key_sets": [{
        "issuer": format!("https://login.microsoftonline.com/{tenant}/v2.0"),
        "fetched_at": now,
        "state": "fresh",
        "keys": key_set.get("keys"),
    }]})
}

async fn accept(listener: UnixListener, state: Arc<State>) {
    // Its connections end with it.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve(stream, Arc::clone(&state)));
    }
}

async fn serve(mut stream: UnixStream, state: Arc<State>) {
    let mut buffer = Vec::new();
    while let Some(head) = read_head(&mut stream, &mut buffer).await {
        let Some((body, _)) = read_body(&mut stream, &mut buffer, &head).await else { return };
        let path = head.start.split(' ').nth(1).unwrap_or_default().to_owned();
        let asked = Asked { path, body: serde_json::from_slice(&body).unwrap_or_default() };
        let script = Arc::clone(&state.script.lock().unwrap_or_else(PoisonError::into_inner));
        let said = script(&asked);
        state.asked.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
        let (bytes, ends) = match said {
            Said::Answer(status, body) => (message(status, &body), false),
            Said::Raw(bytes) => (bytes, true),
            Said::Nothing => std::future::pending().await,
            Said::Once(mut gate, body) => {
                if gate.wait_for(|open| *open).await.is_err() {
                    return;
                }
                (message(200, &body), false)
            }
        };
        if stream.write_all(&bytes).await.is_err() || ends {
            return;
        }
    }
}

fn message(status: u16, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} Said\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}
