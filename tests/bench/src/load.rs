//! Requests over kept-alive HTTP/1.1 connections, every answer checked.
//!
//! Two ways to send: *saturating*, with all connections busy, so that Envoy never sleeps and its
//! CPU per request does not depend on how it is woken; and *paced*, one request each so many
//! microseconds, whose times count from when each was due, late or not. Nothing here sleeps while
//! it waits: Envoy would pay for waking it, now and then. The upstream is served meanwhile.

use std::{
    fmt,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::upstream::{Upstream, pending};

/// Connections kept busy when saturating.
const CONNECTIONS: usize = 16;
/// An answer that has not come after this never will.
const PATIENCE: Duration = Duration::from_secs(10);

/// The whole texts of requests; more than one for rows where no two may be alike.
pub(crate) struct RequestTexts {
    texts: Vec<Vec<u8>>,
    next: usize,
}

impl RequestTexts {
    /// One request for each Authorization value, or a single one without any.
    pub(crate) fn new(path: &str, tokens: &[String]) -> Self {
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: orders.example\r\nuser-agent: bench/1\r\n\
             accept: application/json\r\naccept-encoding: gzip, br\r\naccept-language: en\r\n\
             x-request-id: 7f1d2c6e-35a0-4d53-9d0a-a1c1a2a7e0b7\r\n\
             traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"
        );
        let texts = if tokens.is_empty() {
            vec![format!("{head}\r\n").into_bytes()]
        } else {
            tokens
                .iter()
                .map(|token| format!("{head}authorization: Bearer {token}\r\n\r\n").into_bytes())
                .collect()
        };
        Self { texts, next: 0 }
    }

    /// The next request; after the last comes the first again.
    fn next(&mut self) -> Result<&[u8]> {
        let index = self.next;
        self.next = self.next.saturating_add(1).checked_rem(self.texts.len()).unwrap_or_default();
        self.texts.get(index).map(Vec::as_slice).context("no request")
    }
}

/// Where a listener is.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// A socket file, of an Envoy of ours.
    File(PathBuf),
    /// An address, of a pod.
    Address(SocketAddr),
}

impl Place {
    /// A connection on which reading never waits.
    fn connect(&self) -> Result<Box<dyn Stream>> {
        let connected = match self {
            Self::File(file) => UnixStream::connect(file).and_then(|stream| {
                stream.set_nonblocking(true)?;
                Ok(Box::new(stream) as Box<dyn Stream>)
            }),
            Self::Address(address) => TcpStream::connect(address).and_then(|stream| {
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                Ok(Box::new(stream) as Box<dyn Stream>)
            }),
        };
        connected.with_context(|| format!("no listener at {self}"))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => write!(formatter, "{}", file.display()),
            Self::Address(address) => write!(formatter, "{address}"),
        }
    }
}

/// Either kind of connection.
trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

/// Connections to one listener, and the upstream behind it where it has one.
pub(crate) struct Connections {
    streams: Vec<Box<dyn Stream>>,
    status_line: String,
    upstream: Option<Upstream>,
}

impl Connections {
    /// Connects; every answer must have this status.
    pub(crate) fn open(place: &Place, status: u16, upstream: Option<Upstream>) -> Result<Self> {
        let streams = (0..CONNECTIONS).map(|_| place.connect()).collect::<Result<_>>()?;
        Ok(Self { streams, status_line: format!("HTTP/1.1 {status} "), upstream })
    }

    /// Has the upstream refuse this token from now on.
    pub(crate) fn refuse(&mut self, token: &str) {
        if let Some(upstream) = &mut self.upstream {
            upstream.refuse(token);
        }
    }

    /// Sends `count` requests with all connections busy; returns how long that took.
    pub(crate) fn saturate(
        &mut self,
        requests: &mut RequestTexts,
        count: usize,
    ) -> Result<Duration> {
        let began = Instant::now();
        let mut sent: usize = 0;
        for stream in self.streams.iter_mut().take(count) {
            stream.write_all(requests.next()?)?;
            sent = sent.saturating_add(1);
        }
        let mut answered: usize = 0;
        while answered < count {
            for stream in &mut self.streams {
                if answered == count {
                    break;
                }
                read_answer(stream.as_mut(), self.status_line.as_bytes(), self.upstream.as_mut())?;
                answered = answered.saturating_add(1);
                if sent < count {
                    stream.write_all(requests.next()?)?;
                    sent = sent.saturating_add(1);
                }
            }
        }
        Ok(began.elapsed())
    }

    /// Sends `count` requests, one each `interval`; returns each one's time from when it was due.
    pub(crate) fn pace(
        &mut self,
        requests: &mut RequestTexts,
        count: usize,
        interval: Duration,
    ) -> Result<Vec<Duration>> {
        let stream = self.streams.first_mut().context("no connection")?;
        let mut times = Vec::with_capacity(count);
        let mut due = Instant::now();
        for _ in 0..count {
            while Instant::now() < due {
                std::hint::spin_loop();
            }
            stream.write_all(requests.next()?)?;
            read_answer(stream.as_mut(), self.status_line.as_bytes(), self.upstream.as_mut())?;
            times.push(due.elapsed());
            due = due.checked_add(interval).context("the end of time")?;
        }
        Ok(times)
    }

    /// The status line of one request, whatever it is, on a connection of its own.
    pub(crate) fn status_of(place: &Place, requests: &mut RequestTexts) -> Result<String> {
        let mut stream = place.connect()?;
        stream.write_all(requests.next()?)?;
        let mut buffer = [0; 4096];
        let began = Instant::now();
        let length = loop {
            match pending(stream.read(&mut buffer))? {
                Some(length) => break length,
                None if began.elapsed() > PATIENCE => bail!("no answer after {PATIENCE:?}"),
                None => std::thread::yield_now(),
            }
        };
        let answer = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned();
        Ok(answer.lines().next().unwrap_or_default().to_owned())
    }
}

/// Reads one answer; the listeners' answers have no body, so they end with their headers.
fn read_answer(
    stream: &mut dyn Stream,
    status_line: &[u8],
    mut upstream: Option<&mut Upstream>,
) -> Result<()> {
    let mut buffer = [0; 2048];
    let mut length: usize = 0;
    let mut waited: u32 = 0;
    let mut began = None;
    while !buffer.get(..length).is_some_and(|answer| answer.ends_with(b"\r\n\r\n")) {
        match pending(stream.read(buffer.get_mut(length..).unwrap_or_default()))? {
            Some(0) => bail!("the connection ended within an answer"),
            Some(read) => length = length.saturating_add(read),
            None => {
                if let Some(upstream) = &mut upstream {
                    upstream.serve_pending()?;
                }
                waited = waited.wrapping_add(1);
                if waited.is_multiple_of(1024)
                    && began.get_or_insert_with(Instant::now).elapsed() > PATIENCE
                {
                    bail!("no answer after {PATIENCE:?}");
                }
                continue;
            }
        }
        if !buffer.starts_with(status_line) {
            let answer = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
            bail!("not what the row expects:\n{answer}");
        }
    }
    Ok(())
}
