//! Listens on every port that was asked for, and writes down each connection before a byte is
//! read: that the log has no line is what the tests of a closed way in assert on.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream, UdpSocket},
    signal::unix::{SignalKind, signal},
};

use crate::{
    arguments::{Arguments, unknown},
    events, http,
};

/// First words of an HTTP/2 connection (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How much of a connection's first read goes into the log.
const SHOWN_BYTES: usize = 64;

/// What is done with the connections of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Http,
    Health,
    Silent,
    Tcp,
    Banner,
    Udp,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Health => "health",
            Self::Silent => "silent",
            Self::Tcp => "tcp",
            Self::Banner => "banner",
            Self::Udp => "udp-echo",
        }
    }
}

/// What to listen on.
pub(crate) struct Ports {
    address: IpAddr,
    ports: Vec<(Kind, u16)>,
    delay: Duration,
}

impl Ports {
    /// Reads the options of `serve`.
    pub(crate) fn read(mut arguments: Arguments) -> Result<Self, String> {
        let mut read = Self {
            address: Ipv4Addr::UNSPECIFIED.into(),
            ports: Vec::new(),
            delay: Duration::ZERO,
        };
        while let Some(option) = arguments.next() {
            let kind = match option.as_str() {
                "--http" => Kind::Http,
                "--health" => Kind::Health,
                "--silent" => Kind::Silent,
                "--tcp" => Kind::Tcp,
                "--banner" => Kind::Banner,
                "--udp-echo" => Kind::Udp,
                "--address" => {
                    read.address = arguments.value(&option)?;
                    continue;
                }
                "--delay-ms" => {
                    read.delay = arguments.milliseconds(&option)?;
                    continue;
                }
                _ => return Err(unknown(&option)),
            };
            read.ports.push((kind, arguments.value(&option)?));
        }
        if read.ports.is_empty() {
            return Err("serve needs a port".to_owned());
        }
        Ok(read)
    }
}

/// Serves until it is told to stop: as the first process of a container nobody else would end it.
pub(crate) async fn run(Ports { address, ports, delay }: Ports) -> Result<bool, String> {
    let mut stop = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    for (kind, port) in ports {
        let wanted = SocketAddr::new(address, port);
        let bound = match kind {
            Kind::Udp => listen_udp(wanted).await,
            _ => listen_tcp(kind, wanted, delay).await,
        };
        let port = bound.map_err(|error| format!("cannot listen on {wanted}: {error}"))?.port();
        events::write(&json!({"event": "listening", "kind": kind.name(), "port": port}));
    }
    stop.recv().await;
    Ok(true)
}

async fn listen_tcp(kind: Kind, address: SocketAddr, delay: Duration) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    tokio::spawn(async move {
        loop {
            // What fails here is a connection that went away while it was accepted.
            let Ok((stream, peer)) = listener.accept().await else { continue };
            let port = bound.port();
            if !matches!(kind, Kind::Health | Kind::Silent) {
                let peer = peer.to_string();
                events::write(&json!({"event": "connection", "port": port, "peer": peer}));
            }
            tokio::spawn(async move {
                // Its end is written down where it matters; an error is the client's leaving.
                let _ended = match kind {
                    Kind::Http => speak_http(stream, http::Seen { port, peer, delay }).await,
                    Kind::Health => http::health(stream).await,
                    Kind::Silent => http::silent(stream).await,
                    Kind::Banner => record(stream, port, Some("220 ready when you are\r\n")).await,
                    Kind::Tcp | Kind::Udp => record(stream, port, None).await,
                };
            });
        }
    });
    Ok(bound)
}

/// Takes a connection's first bytes before anything understands them.
async fn speak_http(mut stream: TcpStream, seen: http::Seen) -> io::Result<()> {
    let mut first = Vec::new();
    loop {
        if stream.read_buf(&mut first).await? == 0 {
            break;
        }
        if first.len() >= PREFACE.len() || !PREFACE.starts_with(&first) {
            break;
        }
    }
    let shown = first.get(..SHOWN_BYTES).unwrap_or(&first);
    let length = first.len();
    events::write(&json!({
        "event": "bytes", "port": seen.port, "length": length, "hex": events::hex(shown),
    }));
    let is_http2 = first.starts_with(PREFACE);
    let stream = Begun { first, taken: 0, stream };
    if is_http2 { http::http2(stream, seen).await } else { http::http1(stream, seen).await }
}

/// Writes down what comes, and speaks first where that is wanted.
async fn record(mut stream: TcpStream, port: u16, banner: Option<&str>) -> io::Result<()> {
    if let Some(banner) = banner {
        stream.write_all(banner.as_bytes()).await?;
    }
    let mut buffer = vec![0; 1024];
    let mut total: u64 = 0;
    let ended = loop {
        match stream.read(&mut buffer).await {
            Ok(0) => break Ok(()),
            Ok(length) => {
                let bytes = buffer.get(..length).unwrap_or_default();
                total = total.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
                let hex = events::hex(bytes);
                events::write(&json!({
                    "event": "bytes", "port": port, "length": length, "hex": hex,
                }));
            }
            Err(error) => break Err(error),
        }
    };
    events::write(&json!({"event": "closed", "port": port, "bytes": total}));
    ended
}

async fn listen_udp(address: SocketAddr) -> io::Result<SocketAddr> {
    let socket = UdpSocket::bind(address).await?;
    let bound = socket.local_addr()?;
    tokio::spawn(async move {
        let mut buffer = vec![0; 65_536];
        loop {
            // An error here is an earlier answer that nobody took.
            let Ok((length, peer)) = socket.recv_from(&mut buffer).await else { continue };
            let bytes = buffer.get(..length).unwrap_or_default();
            events::write(&json!({
                "event": "datagram", "port": bound.port(), "peer": peer.to_string(),
                "hex": events::hex(bytes),
            }));
            let _unsent = socket.send_to(bytes, peer).await;
        }
    });
    Ok(bound)
}

/// A connection whose first bytes were read already.
pub(crate) struct Begun {
    first: Vec<u8>,
    taken: usize,
    stream: TcpStream,
}

impl AsyncRead for Begun {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let rest = self.first.get(self.taken..).unwrap_or_default();
        if rest.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let length = rest.len().min(buffer.remaining());
        buffer.put_slice(rest.get(..length).unwrap_or_default());
        self.taken = self.taken.saturating_add(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Begun {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
