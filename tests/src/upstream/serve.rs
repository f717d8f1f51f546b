//! The upstream's side of a connection: TLS or not, HTTP/1.1 byte by byte, HTTP/2 by hyper.
//!
//! What arrives goes into the upstream's records; what is answered comes from there.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{HeaderMap, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use super::{Recorded, State};
use crate::client::{lines_of, read_body, read_head};

/// How much of each connection is kept as it came over the network.
const WIRE_BYTES: usize = 16 * 1024;

/// Takes connections until the upstream is dropped.
pub(super) async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        let number = state.connected();
        let (tls, state) = (tls.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            match tls {
                None => serve_plain(stream, number, state).await,
                Some(tls) => {
                    let stream = Wire { stream, number, state: Arc::clone(&state) };
                    let stream = match tls.accept(stream).await {
                        Ok(stream) => stream,
                        Err(error) => {
                            let error = error.to_string();
                            return state.note(number, |known| known.failed = Some(error));
                        }
                    };
                    let agreed = &stream.get_ref().1;
                    state.note(number, |known| {
                        known.server_name = agreed.server_name().map(str::to_owned);
                        let alpn = agreed.alpn_protocol();
                        known.alpn = alpn.map(|name| String::from_utf8_lossy(name).into_owned());
                    });
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

async fn serve_plain(stream: TcpStream, number: usize, state: Arc<State>) {
    // "PRI * HTTP/2.0" (RFC 9113 §3.4); no HTTP/1.1 method begins like it.
    let mut start = [0; 3];
    while let Ok(length @ 1..) = stream.peek(&mut start).await {
        if length < start.len() && b"PRI".starts_with(&start[..length]) {
            tokio::task::yield_now().await;
            continue;
        }
        let is_http2 = &start == b"PRI";
        let stream = Wire { stream, number, state: Arc::clone(&state) };
        if is_http2 {
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
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let more = buffer.filled().len() - before;
        self.state.bytes.fetch_add(more as u64, Ordering::SeqCst);
        polled
    }
}

/// Keeps the first bytes as they came over the network, beneath TLS where there is any.
struct Wire {
    stream: TcpStream,
    number: usize,
    state: Arc<State>,
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let new = &buffer.filled()[before..];
        if !new.is_empty() {
            self.state.note(self.number, |known| {
                let room = WIRE_BYTES.saturating_sub(known.wire.len());
                known.wire.extend_from_slice(&new[..new.len().min(room)]);
            });
        }
        polled
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
