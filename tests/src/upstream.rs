//! An upstream that records every request byte by byte and answers with what it received.
//!
//! It plays the application behind the inbound listener and, over TLS, the API that the
//! application calls. It judges nothing; tests read its records. A request's way: `serve` reads it,
//! [`State::record`] keeps it and finds the answer, `message` has the types of both.

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{net::TcpListener, sync::Notify, task::JoinHandle};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring::default_provider, pki_types::PrivatePkcs8KeyDer},
};

mod message;
mod serve;

pub use message::{Connected, Recorded, Reply};

type Responder = dyn Fn(&Recorded) -> Reply + Send + Sync;

struct State {
    requests: Mutex<Vec<Recorded>>,
    responder: Mutex<Arc<Responder>>,
    /// Answers that come before the responder is asked.
    in_turn: Mutex<VecDeque<Reply>>,
    arrived: Notify,
    bytes: AtomicU64,
    connections: Mutex<Vec<Connected>>,
}

/// The recording upstream; it ends when dropped.
pub struct Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

impl Upstream {
    /// Starts one without TLS on a port of its own.
    pub async fn start() -> Self {
        Self::start_at(loopback()).await
    }

    /// Starts one with TLS on a port of its own.
    pub async fn start_tls(config: ServerConfig) -> Self {
        Self::start_tls_at(loopback(), config).await
    }

    /// Starts one with a certificate for a host name that no authority signed.
    pub async fn start_self_signed(host: &str) -> Self {
        Self::start_tls(self_signed(host)).await
    }

    /// Starts one without TLS on a given address.
    pub async fn start_at(address: SocketAddr) -> Self {
        Self::listen(address, None).await
    }

    /// Starts one with TLS on a given address.
    pub async fn start_tls_at(address: SocketAddr, mut config: ServerConfig) -> Self {
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self::listen(address, Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn listen(address: SocketAddr, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(address).await;
        let listener =
            listener.unwrap_or_else(|error| panic!("cannot listen on {address}: {error}"));
        let address = listener.local_addr().expect("a bound listener");
        let state = Arc::new(State {
            requests: Mutex::default(),
            responder: Mutex::new(Arc::new(|request| Reply::json(&request.to_json()))),
            in_turn: Mutex::default(),
            arrived: Notify::new(),
            bytes: AtomicU64::new(0),
            connections: Mutex::default(),
        });
        let task = tokio::spawn(serve::accept(listener, tls, Arc::clone(&state)));
        Self { address, state, task }
    }

    /// Everything that came, in its order.
    pub fn requests(&self) -> Vec<Recorded> {
        lock(&self.state.requests).clone()
    }

    /// The latest request.
    ///
    /// # Panics
    /// When none came.
    pub fn latest(&self) -> Recorded {
        lock(&self.state.requests).last().cloned().expect("a request reached the upstream")
    }

    /// How many requests came.
    pub fn count(&self) -> usize {
        lock(&self.state.requests).len()
    }

    /// How many bytes of HTTP/1.1 came, whole requests or not.
    pub fn bytes(&self) -> u64 {
        self.state.bytes.load(Ordering::SeqCst)
    }

    /// How many connections were opened.
    pub fn connections(&self) -> u64 {
        lock(&self.state.connections).len() as u64
    }

    /// Every connection that was opened, with what is known of it so far.
    pub fn connected(&self) -> Vec<Connected> {
        lock(&self.state.connections).clone()
    }

    /// Waits until a handshake has failed.
    pub async fn wait_until_failed(&self) {
        self.wait_until(|| self.connected().iter().any(|known| known.failed.is_some())).await;
    }

    /// Whether these bytes came unenciphered on any connection, or in any request.
    pub fn saw(&self, bytes: &[u8]) -> bool {
        let is_in = |text: &[u8]| text.windows(bytes.len()).any(|window| window == bytes);
        let of_request = |request: &Recorded| {
            let mut lines = request.headers.iter().chain(&request.trailers);
            is_in(&request.head)
                || is_in(&request.body)
                || is_in(request.target.as_bytes())
                || lines.any(|(_, value)| is_in(value))
        };
        self.connected().iter().any(|known| is_in(&known.wire))
            || self.requests().iter().any(of_request)
    }

    /// Waits until this many requests came in all.
    pub async fn wait_for(&self, count: usize) {
        self.wait_until(|| self.count() >= count).await;
    }

    async fn wait_until(&self, holds: impl Fn() -> bool) {
        loop {
            let changed = self.state.arrived.notified();
            if holds() {
                return;
            }
            tokio::time::timeout(crate::client::DEADLINE, changed)
                .await
                .unwrap_or_else(|_| panic!("it did not come; {} requests did", self.count()));
        }
    }

    /// Answers from now on with what a function says.
    pub fn respond_with(&self, responder: impl Fn(&Recorded) -> Reply + Send + Sync + 'static) {
        *lock(&self.state.responder) = Arc::new(responder);
    }

    /// Answers the next requests with these, one each, and then as before.
    pub fn respond_in_turn(&self, replies: impl IntoIterator<Item = Reply>) {
        lock(&self.state.in_turn).extend(replies);
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl State {
    fn record(&self, request: Recorded) -> Reply {
        let responder = Arc::clone(&lock(&self.responder));
        let planned = lock(&self.in_turn).pop_front();
        let reply = planned.unwrap_or_else(|| responder(&request));
        lock(&self.requests).push(request);
        self.arrived.notify_waiters();
        reply
    }

    /// Writes down that a connection was opened; answers its number.
    fn connected(&self) -> usize {
        let mut connections = lock(&self.connections);
        connections.push(Connected::default());
        connections.len() - 1
    }

    fn note(&self, number: usize, change: impl FnOnce(&mut Connected)) {
        if let Some(known) = lock(&self.connections).get_mut(number) {
            change(known);
        }
        self.arrived.notify_waiters();
    }
}

/// TLS with a certificate for a host name that no authority signed.
pub fn self_signed(host: &str) -> ServerConfig {
    let made = rcgen::generate_simple_self_signed([host.to_owned()]).expect("a certificate");
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .expect("a certificate with its key")
}

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
