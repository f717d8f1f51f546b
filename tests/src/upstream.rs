//! An upstream that records every request byte by byte and answers with what it received.
//!
//! It plays the application behind the inbound listener and, over TLS, the API that the
//! application calls. It judges nothing; tests read its records.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{HeaderMap, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring::default_provider, pki_types::PrivatePkcs8KeyDer},
};

use crate::{
    client::{HeaderLines, lines_of, read_body, read_head, single},
    fake_entra::{access_evaluation::challenge_header, sample::GRAPH},
};

/// A request as it arrived.
#[derive(Debug, Clone, Default)]
pub struct Recorded {
    /// Method.
    pub method: String,
    /// Request target, query included.
    pub target: String,
    /// Header lines in their order; over HTTP/2 without the pseudo-headers.
    pub headers: HeaderLines,
    /// The body.
    pub body: Vec<u8>,
    /// Trailer lines.
    pub trailers: HeaderLines,
    /// The head, byte by byte; empty over HTTP/2.
    pub head: Vec<u8>,
}

impl Recorded {
    /// The value of a header that may stand once only.
    ///
    /// # Panics
    /// When it stands twice.
    pub fn header(&self, name: &str) -> Option<String> {
        single(&self.headers, name)
    }

    /// The token in `Authorization: Bearer …`.
    pub fn bearer(&self) -> Option<String> {
        self.header("authorization")?.strip_prefix("Bearer ").map(str::to_owned)
    }

    /// What the default answer says of it.
    fn to_json(&self) -> Value {
        let headers: Vec<_> = self
            .headers
            .iter()
            .map(|(name, value)| json!([name, String::from_utf8_lossy(value)]))
            .collect();
        json!({
            "method": self.method,
            "path": self.target,
            "headers": headers,
            "body": String::from_utf8_lossy(&self.body),
        })
    }
}

/// What the upstream answers.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Header lines besides the framing.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// Trailers, over HTTP/2 only.
    pub trailers: Vec<(&'static str, String)>,
}

impl Reply {
    /// 200 with a JSON body.
    pub fn json(value: &Value) -> Self {
        Self {
            status: 200,
            headers: vec![("content-type", "application/json".to_owned())],
            body: value.to_string().into_bytes(),
            trailers: Vec::new(),
        }
    }

    /// An empty answer with a status.
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), trailers: Vec::new() }
    }

    /// The claims challenge (JSON text) with which Microsoft Graph refuses a token before its end.
    pub fn challenge(claims: &str) -> Self {
        let error = json!({"error": {
            "code": "InvalidAuthenticationToken",
            "message": "Continuous access evaluation resulted in challenge with result: \
                        InteractionRequired and code: TokenIssuedBeforeRevocationTimestamp",
        }});
        Self { status: 401, ..Self::json(&error) }
            .header("www-authenticate", &challenge_header(GRAPH, claims))
    }

    /// Whether the connection ends with it, over HTTP/1.1.
    fn closes(&self) -> bool {
        self.headers.iter().any(|(name, value)| *name == "connection" && value == "close")
    }

    /// Adds a header line.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

type Responder = dyn Fn(&Recorded) -> Reply + Send + Sync;

struct State {
    requests: Mutex<Vec<Recorded>>,
    responder: Mutex<Arc<Responder>>,
    arrived: Notify,
    bytes: AtomicU64,
    connections: AtomicU64,
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
        Self::listen(None).await
    }

    /// Starts one with TLS.
    pub async fn start_tls(mut config: ServerConfig) -> Self {
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self::listen(Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    /// Starts one with a certificate for a host name that no authority signed.
    pub async fn start_self_signed(host: &str) -> Self {
        let made = rcgen::generate_simple_self_signed([host.to_owned()]).expect("a certificate");
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .expect("a certificate with its key");
        Self::start_tls(config).await
    }

    async fn listen(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let address = listener.local_addr().expect("a bound listener");
        let state = Arc::new(State {
            requests: Mutex::default(),
            responder: Mutex::new(Arc::new(|request| Reply::json(&request.to_json()))),
            arrived: Notify::new(),
            bytes: AtomicU64::new(0),
            connections: AtomicU64::new(0),
        });
        let task = tokio::spawn(accept(listener, tls, Arc::clone(&state)));
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
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Waits until this many requests came in all.
    pub async fn wait_for(&self, count: usize) {
        loop {
            let arrived = self.state.arrived.notified();
            if self.count() >= count {
                return;
            }
            tokio::time::timeout(crate::client::DEADLINE, arrived)
                .await
                .unwrap_or_else(|_| panic!("{} of {count} requests came", self.count()));
        }
    }

    /// Answers from now on with what a function says.
    pub fn respond_with(&self, responder: impl Fn(&Recorded) -> Reply + Send + Sync + 'static) {
        *lock(&self.state.responder) = Arc::new(responder);
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
        let reply = responder(&request);
        lock(&self.requests).push(request);
        self.arrived.notify_waiters();
        reply
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        state.connections.fetch_add(1, Ordering::SeqCst);
        let (tls, state) = (tls.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            match tls {
                None => serve_plain(stream, state).await,
                Some(tls) => {
                    // A client that does not trust the certificate is its own test's matter.
                    let Ok(stream) = tls.accept(stream).await else { return };
                    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                        serve_http2(stream, state).await;
                    } else {
                        serve_http1(stream, state).await;
                    }
                }
            }
        });
    }
}

async fn serve_plain(stream: TcpStream, state: Arc<State>) {
    // "PRI * HTTP/2.0" (RFC 9113 §3.4); no HTTP/1.1 method begins like it.
    let mut start = [0; 3];
    while let Ok(length @ 1..) = stream.peek(&mut start).await {
        if length < start.len() && b"PRI".starts_with(&start[..length]) {
            tokio::task::yield_now().await;
            continue;
        }
        if &start == b"PRI" {
            return serve_http2(stream, state).await;
        }
        return serve_http1(stream, state).await;
    }
}

async fn serve_http1<S: AsyncRead + AsyncWrite + Unpin>(stream: S, state: Arc<State>) {
    let mut stream = Counting { stream, state: Arc::clone(&state) };
    let mut buffer = Vec::new();
    while let Some(head) = read_head(&mut stream, &mut buffer).await {
        let Some((body, trailers)) = read_body(&mut stream, &mut buffer, &head).await else {
            return;
        };
        let mut start = head.start.split(' ');
        let method = start.next().unwrap_or_default().to_owned();
        let target = start.next().unwrap_or_default().to_owned();
        let upgrade = head.value("upgrade").is_some();
        let request =
            Recorded { method, target, headers: head.lines, body, trailers, head: head.raw };
        let head_only = request.method == "HEAD";
        let reply = state.record(request);
        if upgrade {
            return echo(stream, buffer).await;
        }
        let mut bytes = format!("HTTP/1.1 {} Recorded\r\n", reply.status).into_bytes();
        for (name, value) in &reply.headers {
            bytes.extend(format!("{name}: {value}\r\n").into_bytes());
        }
        bytes.extend(format!("content-length: {}\r\n\r\n", reply.body.len()).into_bytes());
        if !head_only {
            bytes.extend(&reply.body);
        }
        if stream.stream.write_all(&bytes).await.is_err() || reply.closes() {
            return;
        }
    }
}

/// After an upgrade: sends back what comes.
async fn echo<S: AsyncRead + AsyncWrite + Unpin>(mut stream: Counting<S>, mut buffer: Vec<u8>) {
    let switch =
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let mut sent = stream.stream.write_all(switch).await;
    while sent.is_ok() {
        sent = stream.stream.write_all(&buffer).await;
        buffer.clear();
        if !matches!(stream.read_buf(&mut buffer).await, Ok(1..)) {
            return;
        }
    }
}

async fn serve_http2<S>(stream: S, state: Arc<State>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let state = Arc::clone(&state);
        async move { answer_http2(request, &state).await }
    });
    let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    // A thousand calls at one time are a test's business, not this server's.
    server.max_concurrent_streams(4_096);
    // That the proxy closed the connection is no error.
    let _closed = server.serve_connection(TokioIo::new(stream), service).await;
}

async fn answer_http2(
    request: hyper::Request<Incoming>,
    state: &State,
) -> Result<hyper::Response<BoxBody<Bytes, std::convert::Infallible>>, hyper::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?;
    let reply = state.record(Recorded {
        method: parts.method.to_string(),
        target: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        headers: lines_of(&parts.headers),
        trailers: body.trailers().map(lines_of).unwrap_or_default(),
        body: body.to_bytes().to_vec(),
        head: Vec::new(),
    });
    let mut response = hyper::Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        response = response.header(*name, value);
    }
    let mut trailers = HeaderMap::new();
    for (name, value) in &reply.trailers {
        trailers.insert(*name, value.parse().expect("a header value"));
    }
    let body = Full::new(Bytes::from(reply.body));
    let body = if trailers.is_empty() {
        body.boxed()
    } else {
        body.with_trailers(std::future::ready(Some(Ok(trailers)))).boxed()
    };
    Ok(response.body(body).expect("an answer that HTTP/2 can carry"))
}

/// Counts what is read, so that a test can say that not one byte came.
struct Counting<S> {
    stream: S,
    state: Arc<State>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counting<S> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = std::pin::Pin::new(&mut self.stream).poll_read(context, buffer);
        let more = buffer.filled().len() - before;
        self.state.bytes.fetch_add(more as u64, Ordering::SeqCst);
        polled
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
