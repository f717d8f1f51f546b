//! The HTTP of the application: answers with the request that it saw, and a few answers that take
//! their time. HTTP/1.1 with upgrades, HTTP/2 without TLS, gRPC as far as its frame goes.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Empty, Full, combinators::BoxBody};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Version,
    body::{Body, Frame, Incoming, SizeHint},
    header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, UPGRADE},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Interval, interval, sleep},
};

use crate::events;

/// How much of a request's body is kept; all of it is counted.
const KEPT_BYTES: usize = 4 * 1024 * 1024;
/// How much of it an answer shows.
const SHOWN_BYTES: usize = 4096;

type Answer = Response<BoxBody<Bytes, Infallible>>;

/// Where a request was seen, and how long its answer takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) port: u16,
    pub(crate) peer: SocketAddr,
    pub(crate) delay: Duration,
}

/// Serves a connection of HTTP/1.1.
pub(crate) async fn http1<S>(stream: S, seen: Seen) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| answer(request, seen));
    let connection = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    connection.with_upgrades().await.map_err(io::Error::other)
}

/// Serves a connection of HTTP/2.
pub(crate) async fn http2<S>(stream: S, seen: Seen) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| answer(request, seen));
    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await
        .map_err(io::Error::other)
}

/// Serves a connection on which there is nothing but the probes' answers.
pub(crate) async fn health(stream: TcpStream) -> io::Result<()> {
    let service = service_fn(|request: Request<Incoming>| async move {
        let known = matches!(request.uri().path(), "/healthz" | "/readyz");
        let status = if known { StatusCode::OK } else { StatusCode::NOT_FOUND };
        Ok::<_, Infallible>(with_body(status, Full::from("ok\n").boxed()))
    });
    hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await
        .map_err(io::Error::other)
}

/// Serves a connection on which every answer is 200 and nothing more.
pub(crate) async fn silent(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let service = service_fn(|_: Request<Incoming>| async {
        Ok::<_, Infallible>(with_body(StatusCode::OK, Empty::new().boxed()))
    });
    hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await
        .map_err(io::Error::other)
}

async fn answer(mut request: Request<Incoming>, seen: Seen) -> Result<Answer, Infallible> {
    events::write(&json!({
        "event": "request",
        "port": seen.port,
        "peer": seen.peer.to_string(),
        "version": version(request.version()),
        "method": request.method().as_str(),
        "path": target(&request),
        "headers": events::headers_without_credentials(request.headers()),
    }));
    if !seen.delay.is_zero() {
        sleep(seen.delay).await;
    }
    if let Some(protocol) = request.headers().get(UPGRADE).cloned()
        && request.version() == Version::HTTP_11
    {
        let upgrade = hyper::upgrade::on(&mut request);
        return Ok(upgraded(protocol, upgrade));
    }
    let path = request.uri().path().to_owned();
    let words: Vec<_> = path.split('/').skip(1).collect();
    let number = |text: &str| text.parse::<u64>().ok();
    Ok(match words.as_slice() {
        ["healthz" | "readyz"] => with_body(StatusCode::OK, Full::from("ok\n").boxed()),
        ["status", code] => {
            match code.parse().ok().and_then(|code| StatusCode::from_u16(code).ok()) {
                Some(status) => with_body(status, Empty::new().boxed()),
                None => with_body(StatusCode::BAD_REQUEST, Full::from("no status\n").boxed()),
            }
        }
        ["delay", milliseconds] => {
            sleep(Duration::from_millis(number(milliseconds).unwrap_or(0))).await;
            saw(request, seen).await
        }
        ["stream", chunks, milliseconds] => {
            let pause = Duration::from_millis(number(milliseconds).unwrap_or(0).max(1));
            let left = number(chunks).unwrap_or(0);
            with_body(StatusCode::OK, Chunks { left, pause: interval(pause) }.boxed())
        }
        _ => saw(request, seen).await,
    })
}

/// Answers with the request itself.
async fn saw(request: Request<Incoming>, seen: Seen) -> Answer {
    let (parts, body) = request.into_parts();
    let target = parts.uri.to_string();
    let Ok(Received { length, kept, trailers }) = receive(body).await else {
        return with_body(StatusCode::BAD_REQUEST, Full::from("no whole body\n").boxed());
    };
    let content_type = parts.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let is_grpc = content_type.is_some_and(|value| value.starts_with(b"application/grpc"));
    if is_grpc && parts.method == Method::POST {
        return grpc(kept);
    }
    let text = String::from_utf8_lossy(kept.get(..SHOWN_BYTES).unwrap_or(&kept)).into_owned();
    let said = json!({
        "method": parts.method.as_str(),
        "path": parts.uri.path_and_query().map_or(target.as_str(), |path| path.as_str()),
        "authority": parts.uri.authority().map(|authority| authority.as_str()),
        "version": version(parts.version),
        "headers": events::headers(&parts.headers),
        "body_length": length,
        "body": text,
        "trailers": events::headers(&trailers),
        "port": seen.port,
        "peer": seen.peer.to_string(),
    });
    let mut answer = with_body(StatusCode::OK, Full::from(format!("{said}\n")).boxed());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

struct Received {
    length: u64,
    kept: Bytes,
    trailers: HeaderMap,
}

async fn receive(mut body: Incoming) -> Result<Received, hyper::Error> {
    let (mut length, mut kept, mut trailers) = (0_u64, BytesMut::new(), HeaderMap::new());
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(data) => {
                length = length.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
                let room = KEPT_BYTES.saturating_sub(kept.len());
                kept.extend_from_slice(data.get(..room).unwrap_or(&data));
            }
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    Ok(Received { length, kept: kept.freeze(), trailers })
}

/// A unary answer with the call's own message, and its status where gRPC has it.
fn grpc(message: Bytes) -> Answer {
    let mut trailers = HeaderMap::new();
    trailers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"));
    let body = Full::from(message).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut answer = with_body(StatusCode::OK, body.boxed());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    answer
}

/// Switches protocols and sends back every byte that comes.
fn upgraded(protocol: HeaderValue, upgrade: hyper::upgrade::OnUpgrade) -> Answer {
    tokio::spawn(async move {
        let Ok(stream) = upgrade.await else { return };
        let (mut reader, mut writer) = tokio::io::split(TokioIo::new(stream));
        // Either side may leave at any time.
        let _ended = tokio::io::copy(&mut reader, &mut writer).await;
    });
    let mut answer = with_body(StatusCode::SWITCHING_PROTOCOLS, Empty::new().boxed());
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    answer.headers_mut().insert(UPGRADE, protocol);
    answer
}

/// A body that comes piece by piece.
struct Chunks {
    left: u64,
    pause: Interval,
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        ready!(self.pause.poll_tick(context));
        self.left = self.left.saturating_sub(1);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(format!("{}\n", self.left))))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

fn with_body(status: StatusCode, body: BoxBody<Bytes, Infallible>) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer
}

fn target(request: &Request<Incoming>) -> Value {
    json!(request.uri().path_and_query().map(|path| path.as_str()))
}

/// A version as answers and events name it.
pub(crate) fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}
