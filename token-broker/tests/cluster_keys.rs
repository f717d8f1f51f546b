//! The cluster's keys: asked of the API server by TLS against its own authority, and kept.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use token_broker::{
    pod::{
        NotProven,
        cluster::{ApiServer, Fetch, Fetched, fetch},
        keys::{ClusterKey, read},
    },
    time::Clock,
};
use tokens::SigningKey;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
    time::Instant,
};

use crate::{
    support::{START, pass, seconds},
    tls,
};

/// An API server on loopback that answers everything alike.
struct Server {
    directory: tempfile::TempDir,
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(certificate_for: &str, answer: String) -> Self {
        let (authority, acceptor) = tls::server(certificate_for);
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.crt"), authority).unwrap();
        std::fs::write(directory.path().join("api-token"), "canary-api-token\n").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&heads);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(inside) = acceptor.accept(stream).await else { continue };
                let mut inside = BufReader::new(inside);
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    if !matches!(inside.read_line(&mut head).await, Ok(read) if read > 0) {
                        break;
                    }
                }
                seen.lock().unwrap().push(head);
                let _gone = inside.write_all(answer.as_bytes()).await;
                let _gone = inside.shutdown().await;
                let _gone = inside.read_to_end(&mut Vec::new()).await;
            }
        });
        Self { directory, address, heads }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn settings(&self) -> ApiServer {
        ApiServer {
            authority: Some(self.address.to_string()),
            ca_file: self.file("ca.crt"),
            token_file: self.file("api-token"),
        }
    }
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn set(kid: &str) -> Value {
    let shown = SigningKey::new(1, kid, "").jwk();
    json!({"keys": [{"kty": "RSA", "kid": kid, "use": "sig", "alg": "RS256", "n": shown.n,
        "e": shown.e}]})
}

fn keys(kid: &str) -> Vec<ClusterKey> {
    read(set(kid).to_string().as_bytes()).unwrap()
}

#[tokio::test]
async fn the_api_server_is_asked_as_the_pods_service_account() {
    let server = Server::start("127.0.0.1", answer("200 OK", &set("k1").to_string())).await;
    assert_eq!(fetch(&server.settings()).await, Ok(keys("k1")));
    let heads = server.heads.lock().unwrap().clone();
    let [head] = heads.as_slice() else { panic!("{heads:?}") };
    assert!(head.starts_with("GET /openid/v1/jwks HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("authorization: Bearer canary-api-token\r\n"), "{head}");
}

#[tokio::test]
async fn b04_no_other_authority_is_trusted_and_no_redirect_is_followed() {
    let good = answer("200 OK", &set("k1").to_string());
    let (server, other) =
        (Server::start("127.0.0.1", good.clone()).await, Server::start("127.0.0.1", good).await);
    let crossed = ApiServer { ca_file: other.file("ca.crt"), ..server.settings() };
    let refused = fetch(&crossed).await.unwrap_err();
    assert!(refused.contains("certificate"), "{refused}");
    let named = Server::start("kubernetes.default.svc", answer("200 OK", "{}")).await;
    let refused = fetch(&named.settings()).await.unwrap_err();
    assert!(refused.contains("certificate"), "{refused}");
    assert_eq!(named.heads.lock().unwrap().len(), 0);
    let elsewhere = format!(
        "HTTP/1.1 302 Found\r\nlocation: https://{}/x\r\ncontent-length: 0\r\n\r\n",
        server.address
    );
    let before = server.heads.lock().unwrap().len();
    let redirecting = Server::start("127.0.0.1", elsewhere).await;
    let refused = fetch(&redirecting.settings()).await.unwrap_err();
    assert_eq!(refused, "the API server answered with status 302");
    assert_eq!(server.heads.lock().unwrap().len(), before);
}

#[tokio::test]
async fn what_is_no_key_set_is_none() {
    for (answered, expected) in [
        (answer("401 Unauthorized", "{}"), "the API server answered with status 401"),
        (answer("200 OK", "{}"), "the API server's answer: not a key set"),
        (answer("200 OK", r#"{"keys": []}"#), "the API server's answer: no usable key"),
        (answer("200 OK", &" ".repeat(600 * 1024)), "the answer is too large"),
    ] {
        let server = Server::start("127.0.0.1", answered).await;
        assert_eq!(fetch(&server.settings()).await, Err(expected.to_owned()));
    }
    let server = Server::start("127.0.0.1", answer("200 OK", &set("k1").to_string())).await;
    let nowhere = ApiServer { authority: None, ..server.settings() };
    assert_eq!(fetch(&nowhere).await.unwrap_err(), "KUBERNETES_SERVICE_HOST is not set");
    let tokenless = ApiServer { token_file: server.file("nothing"), ..server.settings() };
    let refused = fetch(&tokenless).await.unwrap_err();
    assert!(refused.ends_with("nothing: entity not found"), "{refused}");
    assert_eq!(server.heads.lock().unwrap().len(), 0);
}

/// An API server in the process, and the (paused) time.
struct Script {
    answer: Mutex<Result<Vec<ClusterKey>, String>>,
    asked: AtomicUsize,
    start: Instant,
}

impl Script {
    fn new(answer: Result<Vec<ClusterKey>, String>) -> Arc<Self> {
        let (answer, asked) = (Mutex::new(answer), AtomicUsize::new(0));
        Arc::new(Self { answer, asked, start: Instant::now() })
    }

    fn fetched(self: &Arc<Self>) -> Fetched {
        let script = Arc::clone(self);
        let fetch: Fetch = Box::new(move || {
            let script = Arc::clone(&script);
            Box::pin(async move {
                script.asked.fetch_add(1, Ordering::SeqCst);
                script.answer.lock().unwrap().clone()
            })
        });
        Fetched::start(fetch, Arc::<Self>::clone(self))
    }

    fn answer(&self, answer: Result<Vec<ClusterKey>, String>) {
        *self.answer.lock().unwrap() = answer;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Clock for Script {
    fn unix_now(&self) -> u64 {
        START + self.start.elapsed().as_secs()
    }
}

fn down() -> Result<Vec<ClusterKey>, String> {
    Err("down".to_owned())
}

#[tokio::test(start_paused = true)]
async fn keys_are_fetched_hourly_and_kept_for_a_day() {
    let script = Script::new(Ok(keys("k1")));
    let fetched = script.fetched();
    assert_eq!(fetched.keys(), Err(NotProven::NotYet));
    pass(seconds(1)).await;
    assert_eq!(fetched.keys(), Ok(keys("k1")));
    pass(seconds(10 * 3_600)).await;
    assert!((9..=12).contains(&script.asked()), "{}", script.asked());
    script.answer(Ok(keys("k2")));
    pass(seconds(4_000)).await;
    assert_eq!(fetched.keys(), Ok(keys("k2")));
    script.answer(down());
    pass(seconds(23 * 3_600 - 4_000)).await;
    assert_eq!(fetched.keys(), Ok(keys("k2")));
    pass(seconds(2 * 3_600 + 4_000)).await;
    assert_eq!(fetched.keys(), Err(NotProven::NoKeys("down".to_owned())));
    script.answer(Ok(keys("k3")));
    pass(seconds(61)).await;
    assert_eq!(fetched.keys(), Ok(keys("k3")));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_key_makes_it_ask_at_once_and_once_in_five_minutes() {
    let script = Script::new(Ok(keys("k1")));
    let mut fetched = script.fetched();
    pass(seconds(1)).await;
    assert_eq!(script.asked(), 1);
    script.answer(Ok(keys("k2")));
    for _ in 0..100 {
        fetched.want();
        pass(seconds(1)).await;
    }
    assert_eq!(script.asked(), 2);
    assert_eq!(fetched.keys(), Ok(keys("k2")));
    pass(seconds(199)).await;
    fetched.want();
    pass(seconds(1)).await;
    assert_eq!(script.asked(), 2);
    fetched.want();
    pass(seconds(1)).await;
    assert_eq!(script.asked(), 3);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_is_woken_by_other_keys_and_by_another_reason() {
    let script = Script::new(down());
    let mut fetched = script.fetched();
    fetched.changed().await;
    assert_eq!(fetched.keys(), Err(NotProven::NoKeys("down".to_owned())));
    // The same again is nothing new.
    let same = tokio::time::timeout(Duration::from_secs(30), fetched.changed()).await;
    assert!(same.is_err());
    script.answer(Ok(keys("k1")));
    fetched.changed().await;
    assert_eq!(fetched.keys(), Ok(keys("k1")));
}
