//! A client for HTTP without TLS, over TCP or a Unix socket, once or many times: what a program in
//! a container would send, with every answer counted.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, Response, Uri,
    body::Incoming,
    client::conn::{http1, http2},
    header::{HOST, HeaderName, HeaderValue},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use crate::{
    arguments::{Arguments, unknown},
    events, http,
};

/// Largest body of an answer that is read.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Where a connection goes.
enum Way {
    Tcp(String),
    Unix(PathBuf),
}

/// A request and how often it is sent.
pub(crate) struct Plan {
    way: Way,
    method: String,
    uri: Uri,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
    http2: bool,
    repeat: u64,
    interval: Duration,
    keep_alive: bool,
    timeout: Duration,
    quiet: bool,
}

impl Plan {
    /// Reads `METHOD URL` and options.
    pub(crate) fn of_url(mut arguments: Arguments) -> Result<Self, String> {
        let method = arguments.word("METHOD")?;
        let url = arguments.word("URL")?;
        let uri: Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
        let authority = uri.authority().ok_or_else(|| format!("{url}: no host"))?;
        if uri.scheme_str() != Some("http") {
            return Err(format!("{url}: only http is spoken"));
        }
        let host = authority.host().trim_matches(['[', ']']);
        let way = Way::Tcp(format!("{host}:{}", authority.port_u16().unwrap_or(80)));
        Self { way, ..Self::new(method, uri) }.with_options(arguments)
    }

    /// Reads `PATH METHOD TARGET` and options.
    pub(crate) fn of_socket(mut arguments: Arguments) -> Result<Self, String> {
        let way = Way::Unix(PathBuf::from(arguments.word("PATH")?));
        let method = arguments.word("METHOD")?;
        let target = arguments.word("TARGET")?;
        let uri = format!("http://localhost{target}");
        let uri = uri.parse().map_err(|error| format!("{target}: {error}"))?;
        Self { way, ..Self::new(method, uri) }.with_options(arguments)
    }

    fn new(method: String, uri: Uri) -> Self {
        Self {
            way: Way::Tcp(String::new()),
            method,
            uri,
            headers: Vec::new(),
            body: Bytes::new(),
            http2: false,
            repeat: 1,
            interval: Duration::ZERO,
            keep_alive: false,
            timeout: Duration::from_secs(30),
            quiet: false,
        }
    }

    fn with_options(mut self, mut arguments: Arguments) -> Result<Self, String> {
        while let Some(option) = arguments.next() {
            match option.as_str() {
                "-H" => {
                    let line: String = arguments.value(&option)?;
                    let (name, value) =
                        line.split_once(':').ok_or_else(|| format!("no header line: {line}"))?;
                    let name = HeaderName::from_bytes(name.trim().as_bytes());
                    let value = HeaderValue::from_bytes(value.trim().as_bytes());
                    let wrong = |_| format!("no header line: {line}");
                    let name = name.map_err(|_| format!("no header line: {line}"))?;
                    self.headers.push((name, value.map_err(wrong)?));
                }
                "--data" => self.body = Bytes::from(arguments.value::<String>(&option)?),
                "--connect" => self.way = Way::Tcp(arguments.value(&option)?),
                "--http2" => self.http2 = true,
                "--repeat" => self.repeat = arguments.value(&option)?,
                "--interval-ms" => self.interval = arguments.milliseconds(&option)?,
                "--keep-alive" => self.keep_alive = true,
                "--timeout-ms" => self.timeout = arguments.milliseconds(&option)?,
                "--quiet" => self.quiet = true,
                _ => return Err(unknown(&option)),
            }
        }
        self.request().map(|_| self)
    }

    fn request(&self) -> Result<Request<Full<Bytes>>, String> {
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::builder().method(self.method.as_str());
        // HTTP/1.1 names the host in its header, HTTP/2 in the URI; a line of the caller's own
        // takes the header's place, and stands beside the URI's.
        if self.http2 {
            request = request.uri(self.uri.clone());
        } else {
            request = request.uri(path);
            let named = self.headers.iter().any(|(name, _)| name == HOST);
            if let (false, Some(authority)) = (named, self.uri.authority()) {
                request = request.header(HOST, authority.as_str());
            }
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request.body(Full::from(self.body.clone())).map_err(|error| error.to_string())
    }
}

/// Sends everything; whether every request was answered.
pub(crate) async fn run(plan: Plan) -> Result<bool, String> {
    let mut pace = (!plan.interval.is_zero()).then(|| interval(plan.interval));
    if let Some(pace) = &mut pace {
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    let (mut sender, mut failures) = (None, 0_u64);
    let mut statuses = BTreeMap::<String, u64>::new();
    for _ in 0..plan.repeat {
        if let Some(pace) = &mut pace {
            pace.tick().await;
        }
        let started = Instant::now();
        let answered = timeout(plan.timeout, once(&plan, &mut sender)).await;
        let answered = answered.unwrap_or_else(|_| Err("no answer in time".into()));
        let took = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        match answered {
            Ok((status, mut event)) => {
                let count = statuses.entry(status.to_string()).or_default();
                *count = count.saturating_add(1);
                event.insert("milliseconds".to_owned(), json!(took));
                if !plan.quiet {
                    events::write(&Value::Object(event));
                }
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                sender = None;
                let error = reason(error.as_ref());
                events::write(&json!({"event": "failure", "error": error, "milliseconds": took}));
            }
        }
    }
    let answers: u64 = statuses.values().fold(0, |sum, count| sum.saturating_add(*count));
    events::write(&json!({
        "event": "summary", "answers": answers, "failures": failures, "statuses": statuses,
    }));
    Ok(failures == 0)
}

/// An error with what is behind it.
fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// One request over the connection that is there, or a new one.
async fn once(
    plan: &Plan,
    kept: &mut Option<Sender>,
) -> Result<(u16, Map<String, Value>), Failure> {
    let mut sender = match kept.take() {
        Some(sender) => sender,
        None => match &plan.way {
            Way::Tcp(address) => open(TcpStream::connect(address).await?, plan.http2).await?,
            Way::Unix(path) => open(UnixStream::connect(path).await?, plan.http2).await?,
        },
    };
    let request = plan.request()?;
    let response = match &mut sender {
        Sender::Http1(sender) => {
            sender.ready().await?;
            sender.send_request(request).await?
        }
        Sender::Http2(sender) => {
            sender.ready().await?;
            sender.send_request(request).await?
        }
    };
    let told = told(response).await?;
    let open = match &sender {
        Sender::Http1(sender) => !sender.is_closed(),
        Sender::Http2(sender) => !sender.is_closed(),
    };
    *kept = (plan.keep_alive && open).then_some(sender);
    Ok(told)
}

async fn open<S>(stream: S, http2: bool) -> Result<Sender, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = TokioIo::new(stream);
    // A connection's own error shows in the request that it spoils.
    Ok(if http2 {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
        tokio::spawn(connection);
        Sender::Http2(sender)
    } else {
        let (sender, connection) = http1::handshake(stream).await?;
        tokio::spawn(connection);
        Sender::Http1(sender)
    })
}

async fn told(response: Response<Incoming>) -> Result<(u16, Map<String, Value>), Failure> {
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, MAX_BODY_BYTES).collect().await?;
    let trailers = body.trailers().map(events::headers);
    let body = body.to_bytes();
    let event = [
        ("event", json!("answer")),
        ("status", json!(parts.status.as_u16())),
        ("version", json!(http::version(parts.version))),
        ("headers", events::headers(&parts.headers)),
        ("body_length", json!(body.len())),
        ("body", json!(String::from_utf8_lossy(&body))),
        ("trailers", json!(trailers)),
    ];
    let event = event.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Ok((parts.status.as_u16(), event))
}
