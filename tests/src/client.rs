//! Clients of the tests: HTTP/1.1 byte by byte, and HTTP/2 for gRPC.
//!
//! The HTTP/1.1 client sends exactly what it is told, also what no library would send, and reads
//! exactly one answer at a time. It knows nothing of tokens or of what the answers should be.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, header::HeaderValue};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// The host that requests name unless told otherwise.
pub const DEFAULT_HOST: &str = "orders.example";

/// How long an answer may take before the test fails; far above anything that works.
pub const DEADLINE: Duration = Duration::from_secs(40);

/// Header lines: names as they came, values as bytes.
pub type HeaderLines = Vec<(String, Vec<u8>)>;

/// A request, written out as it stands: nothing is added but `Host` and `Content-Length`.
#[derive(Clone)]
pub struct Request {
    method: String,
    target: String,
    host: String,
    lines: HeaderLines,
    body: Vec<u8>,
    trailers: HeaderMap,
}

impl std::fmt::Display for Request {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {}", self.method, self.target)
    }
}

impl Request {
    /// A request of any method and target.
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            host: DEFAULT_HOST.to_owned(),
            lines: Vec::new(),
            body: Vec::new(),
            trailers: HeaderMap::new(),
        }
    }

    /// A GET.
    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// A POST with a body.
    pub fn post(target: &str, body: &[u8]) -> Self {
        Self { body: body.to_vec(), ..Self::new("POST", target) }
    }

    /// Adds a header line; the value may be any bytes.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.lines.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// Adds a trailer, which only [`Self::send_http2`] sends.
    #[must_use]
    pub fn trailer(mut self, name: &'static str, value: &'static str) -> Self {
        self.trailers.append(name, HeaderValue::from_static(value));
        self
    }

    /// Adds `Authorization: Bearer …`.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }

    /// Sets `Host`.
    #[must_use]
    pub fn host(mut self, host: &str) -> Self {
        host.clone_into(&mut self.host);
        self
    }

    /// The bytes of this request in HTTP/1.1.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes =
            format!("{} {} HTTP/1.1\r\nHost: {}\r\n", self.method, self.target, self.host)
                .into_bytes();
        for (name, value) in &self.lines {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        }
        if !self.body.is_empty() {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n", self.body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// Sends it over a connection of its own.
    pub async fn send(&self, address: SocketAddr) -> Answer {
        let mut connection = Connection::open(address).await;
        connection.write(&self.to_bytes()).await;
        connection.answer_to(&self.method).await
    }

    /// Sends it over HTTP/2 without TLS (prior knowledge), with trailers if there are any.
    pub async fn send_http2(&self, address: SocketAddr) -> Answer {
        let stream = TcpStream::connect(address).await.expect("the listener takes connections");
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .expect("an HTTP/2 connection");
        let task = tokio::spawn(connection);
        let mut request = hyper::Request::builder()
            .method(self.method.as_str())
            .uri(format!("http://{}{}", self.host, self.target));
        for (name, value) in &self.lines {
            request = request.header(name.as_str(), value.as_slice());
        }
        let body = Full::new(Bytes::from(self.body.clone()));
        let trailers = (!self.trailers.is_empty()).then(|| Ok(self.trailers.clone()));
        let request = request
            .body(body.with_trailers(std::future::ready(trailers)))
            .expect("a request that HTTP/2 can carry");
        let response = timeout(DEADLINE, sender.send_request(request))
            .await
            .expect("an answer before the deadline")
            .expect("an HTTP/2 answer");
        let status = response.status().as_u16();
        let headers = lines_of(response.headers());
        let body = timeout(DEADLINE, response.into_body().collect())
            .await
            .expect("a body before the deadline")
            .expect("an HTTP/2 body");
        let trailers = body.trailers().map(lines_of).unwrap_or_default();
        let body = body.to_bytes().to_vec();
        task.abort();
        Answer { status, headers, body, trailers }
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}", self.to_bytes().escape_ascii())
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Header lines in their order.
    pub headers: HeaderLines,
    /// The body, chunks joined.
    pub body: Vec<u8>,
    /// Trailer lines.
    pub trailers: HeaderLines,
}

impl Answer {
    /// The value of a header that may stand once only.
    ///
    /// # Panics
    /// When it stands twice.
    pub fn header(&self, name: &str) -> Option<String> {
        single(&self.headers, name)
    }

    /// The value of a trailer that may stand once only.
    ///
    /// # Panics
    /// When it stands twice.
    pub fn trailer(&self, name: &str) -> Option<String> {
        single(&self.trailers, name)
    }

    /// The body as text; bytes that are no UTF-8 are shown as U+FFFD.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.text()))
    }
}

/// The value of a line that may stand once only.
pub(crate) fn single(lines: &HeaderLines, name: &str) -> Option<String> {
    let mut values = lines.iter().filter(|(line, _)| line.eq_ignore_ascii_case(name));
    let value = values.next().map(|(_, value)| String::from_utf8_lossy(value).into_owned());
    assert!(values.next().is_none(), "{name} stands more than once: {lines:?}");
    value
}

/// An HTTP/1.1 connection that sends what it is told.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the listener takes connections");
        stream.set_nodelay(true).expect("a TCP socket");
        Self { stream, buffer: Vec::new() }
    }

    /// Sends bytes. That the other side closed early is seen when its answer is read.
    pub async fn write(&mut self, bytes: &[u8]) {
        let _closed = self.stream.write_all(bytes).await;
    }

    /// Reads one answer to a request that was not HEAD.
    pub async fn answer(&mut self) -> Answer {
        self.answer_to("GET").await
    }

    /// Reads one answer; the method says whether a body follows.
    pub async fn answer_to(&mut self, method: &str) -> Answer {
        timeout(DEADLINE, read_answer(&mut self.stream, &mut self.buffer, method))
            .await
            .expect("an answer before the deadline")
            .expect("an answer before the connection closed")
    }

    /// Reads one answer, or `None` when the connection is closed without one.
    pub async fn answer_or_close(&mut self) -> Option<Answer> {
        timeout(DEADLINE, read_answer(&mut self.stream, &mut self.buffer, "GET"))
            .await
            .expect("an answer or a close before the deadline")
    }

    /// Reads exactly this many bytes, of what follows a 101 for example.
    pub async fn read_exact(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length {
            let more = timeout(DEADLINE, self.stream.read_buf(&mut self.buffer))
                .await
                .expect("bytes before the deadline")
                .expect("a live connection");
            assert!(more > 0, "the connection was closed after {} bytes", self.buffer.len());
        }
        self.buffer.drain(..length).collect()
    }
}

/// One message's start line and header lines, split from the bytes before its body.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) raw: Vec<u8>,
    pub(crate) start: String,
    pub(crate) lines: HeaderLines,
}

impl Head {
    pub(crate) fn value(&self, name: &str) -> Option<String> {
        single(&self.lines, name)
    }
}

/// Reads up to the empty line; `None` when the stream ends before it.
pub(crate) async fn read_head<S>(stream: &mut S, buffer: &mut Vec<u8>) -> Option<Head>
where
    S: AsyncRead + Unpin,
{
    loop {
        if let Some(end) = find(buffer, b"\r\n\r\n") {
            let raw: Vec<u8> = buffer.drain(..end + 4).collect();
            let mut lines = raw[..end].split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
            let start = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
            let lines = lines.map(split_line).collect();
            return Some(Head { raw, start, lines });
        }
        fill(stream, buffer).await?;
    }
}

/// Reads a body of a known length or in chunks, with its trailers.
pub(crate) async fn read_body<S>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    head: &Head,
) -> Option<(Vec<u8>, HeaderLines)>
where
    S: AsyncRead + Unpin,
{
    let chunked = head.value("transfer-encoding").is_some_and(|value| value == "chunked");
    if !chunked {
        let length = head.value("content-length").map_or(0, |value| value.parse().unwrap_or(0));
        return Some((take(stream, buffer, length).await?, Vec::new()));
    }
    let mut body = Vec::new();
    loop {
        let size = read_line(stream, buffer).await?;
        let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16);
        let size = size.expect("a chunk size");
        if size == 0 {
            break;
        }
        body.extend(take(stream, buffer, size).await?);
        read_line(stream, buffer).await?;
    }
    let mut trailers = Vec::new();
    loop {
        let line = read_line(stream, buffer).await?;
        if line.is_empty() {
            return Some((body, trailers));
        }
        trailers.push(split_line(line.as_bytes()));
    }
}

async fn read_answer<S>(stream: &mut S, buffer: &mut Vec<u8>, method: &str) -> Option<Answer>
where
    S: AsyncRead + Unpin,
{
    let head = read_head(stream, buffer).await?;
    let status = head.start.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status: u16 = status.unwrap_or_else(|| panic!("no status line: {}", head.start));
    let bodiless = method == "HEAD" || status == 204 || status == 304 || status < 200;
    let to_the_end = !bodiless
        && head.value("content-length").is_none()
        && head.value("transfer-encoding").is_none();
    let (body, trailers) = if bodiless {
        (Vec::new(), Vec::new())
    } else if to_the_end {
        while fill(stream, buffer).await.is_some() {}
        (std::mem::take(buffer), Vec::new())
    } else {
        read_body(stream, buffer, &head).await?
    };
    Some(Answer { status, headers: head.lines, body, trailers })
}

async fn read_line<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = find(buffer, b"\r\n") {
            let line: Vec<u8> = buffer.drain(..end + 2).collect();
            return Some(String::from_utf8_lossy(&line[..end]).into_owned());
        }
        fill(stream, buffer).await?;
    }
}

async fn take<S>(stream: &mut S, buffer: &mut Vec<u8>, length: usize) -> Option<Vec<u8>>
where
    S: AsyncRead + Unpin,
{
    while buffer.len() < length {
        fill(stream, buffer).await?;
    }
    Some(buffer.drain(..length).collect())
}

/// Reads some more; `None` at the end or when the connection broke.
async fn fill<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut Vec<u8>) -> Option<()> {
    stream.read_buf(buffer).await.ok().filter(|more| *more > 0).map(drop)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn split_line(line: &[u8]) -> (String, Vec<u8>) {
    let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
    let (name, value) = line.split_at(colon);
    let value = value.get(1..).unwrap_or_default().trim_ascii();
    (String::from_utf8_lossy(name).into_owned(), value.to_vec())
}

pub(crate) fn lines_of(headers: &HeaderMap) -> HeaderLines {
    headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect()
}
