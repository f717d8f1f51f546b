//! Clients that do not keep to any rule, for the tests of what gets around a filter.
//!
//! An [`Attack`] goes to one address, inside TLS or not, sends exactly the bytes that it is given
//! and tells what came back and how it ended. It expects nothing: that a connection is refused,
//! reset or left without a word is an [`Outcome`], not a failure. What is worth sending is in
//! [`payload`].

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout_at},
};

use crate::client::Request;

pub mod payload;
mod tls;

pub use tls::{Identity, Tls};

/// How long nothing may happen before an attack is over.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most that is read from a server that does not stop.
const MAX_BYTES: usize = 1024 * 1024;

/// An address that is attacked, and the way.
#[derive(Debug, Clone)]
pub struct Attack {
    address: SocketAddr,
    patience: Duration,
    tls: Option<Tls>,
}

/// What came of an attack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Every byte that came back, deciphered where there was TLS.
    pub received: Vec<u8>,
    /// How it ended.
    pub end: End,
    /// What was agreed on in the TLS handshake.
    pub alpn: Option<String>,
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Nobody listens.
    Refused,
    /// There was no connection for another reason, or not in time.
    Unreachable,
    /// TLS was refused, in the handshake or by an alert after it.
    Alert(String),
    /// Reset by the other side.
    Reset,
    /// Closed by the other side.
    Closed,
    /// A whole answer came; the connection is ours to close.
    Answered,
    /// Still open when the patience ended.
    Open,
}

impl Attack {
    /// An attack without TLS.
    pub fn on(address: SocketAddr) -> Self {
        Self { address, patience: PATIENCE, tls: None }
    }

    /// Gives it another time, from connecting to the end.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Does everything inside TLS.
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Sends bytes, and reads until the other side ends it or the patience does.
    pub async fn send(&self, bytes: &[u8]) -> Outcome {
        self.exchange(bytes, |_| false).await
    }

    /// Sends nothing and waits for who speaks first.
    pub async fn wait(&self) -> Outcome {
        self.send(b"").await
    }

    /// Sends a request of HTTP/1.1 as it stands, and reads one answer.
    pub async fn http1(&self, request: &Request) -> Outcome {
        self.exchange(&request.to_bytes(), payload::is_whole_http1).await
    }

    /// Sends a request of HTTP/2 with prior knowledge, made of exactly these header lines
    /// (pseudo-headers too), and reads until its stream has ended.
    pub async fn http2(&self, lines: &[(&str, &str)]) -> Outcome {
        self.exchange(&payload::http2(lines), payload::is_whole_http2).await
    }

    async fn exchange(&self, bytes: &[u8], is_enough: impl Fn(&[u8]) -> bool) -> Outcome {
        let until = Instant::now() + self.patience;
        let ended = |end| Outcome { received: Vec::new(), end, alpn: None };
        let stream = match timeout_at(until, TcpStream::connect(self.address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return ended(End::Refused);
            }
            Ok(Err(_)) | Err(_) => return ended(End::Unreachable),
        };
        let Some(tls) = &self.tls else {
            return talk(stream, bytes, until, is_enough).await;
        };
        match timeout_at(until, tls.connect(stream)).await {
            Err(_) => ended(End::Open),
            Ok(Err(error)) => ended(end_of(&error)),
            Ok(Ok(stream)) => {
                let alpn = stream.get_ref().1.alpn_protocol();
                let alpn = alpn.map(|name| String::from_utf8_lossy(name).into_owned());
                Outcome { alpn, ..talk(stream, bytes, until, is_enough).await }
            }
        }
    }
}

async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    bytes: &[u8],
    until: Instant,
    is_enough: impl Fn(&[u8]) -> bool,
) -> Outcome {
    let mut received = Vec::new();
    let exchange = async {
        // Who is thrown out while it still sends may have been told why: it reads all the same.
        let sent = async {
            stream.write_all(bytes).await?;
            stream.flush().await
        };
        let sent = sent.await;
        loop {
            match stream.read_buf(&mut received).await {
                Ok(0) => return sent.map(|()| End::Closed),
                Ok(_) if is_enough(&received) => return Ok(End::Answered),
                Ok(_) if received.len() >= MAX_BYTES => return Ok(End::Open),
                Ok(_) => {}
                Err(error) => return Err(error),
            }
        }
    };
    let end = match timeout_at(until, exchange).await {
        Err(_) => End::Open,
        Ok(Ok(end)) => end,
        Ok(Err(error)) => end_of(&error),
    };
    Outcome { received, end, alpn: None }
}

fn end_of(error: &io::Error) -> End {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => End::Reset,
        // Inside TLS: closed without saying so.
        io::ErrorKind::UnexpectedEof => End::Closed,
        _ => End::Alert(error.to_string()),
    }
}

impl Outcome {
    /// Nothing came back at all.
    pub fn is_silent(&self) -> bool {
        self.received.is_empty()
    }

    /// Status of the first answer of HTTP/1.1.
    pub fn status(&self) -> Option<u16> {
        let line = self.received.split(|byte| *byte == b'\r').next()?;
        let line = std::str::from_utf8(line).ok()?;
        line.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()
    }

    /// Status of the answer of HTTP/2 to [`Attack::http2`].
    pub fn http2_status(&self) -> Option<u16> {
        payload::http2_status(&self.received)
    }

    /// What came back, for assertions on what must not be in it.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.received).into_owned()
    }

    /// Whether it was an answer to HTTP of any version with a status below 400.
    pub fn was_served(&self) -> bool {
        [self.status(), self.http2_status()].into_iter().flatten().any(|status| status < 400)
    }
}
