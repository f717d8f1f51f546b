//! How many tokens per second the broker hands out that it holds, and how soon each comes.
//!
//! Broker and empty handler take turns in short rounds, each with its core to itself and the load
//! generator on the other; the median of the rounds' ratios counts. The generator never sleeps
//! while it waits, so that no server is slowed down by waking it.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use contract::{TokenRequest, route};

use super::stage::{Broker, SCOPE, Stage};
use crate::{
    process::{Placement, Process, divide_cores},
    statistics::{median, percentile},
    upstream::pending,
};

/// As many as an Envoy's workers keep to the broker.
const CONNECTIONS: usize = 16;
/// Turns of broker and empty handler.
pub(super) const ROUNDS: usize = 60;
/// Requests of one turn.
const REQUESTS: usize = 4_000;
/// Passes of requests at 1,000 per second. What disturbs the machine disturbs some of them: the
/// median of the passes' percentiles counts.
pub(super) const PASSES: usize = 9;
/// Requests of a pass.
const PACED: usize = 2_000;
const INTERVAL: Duration = Duration::from_millis(1);
/// Longer than a thread takes to wake.
const SPIN: Duration = Duration::from_micros(200);
/// An answer that has not come after this never will.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was measured.
pub(super) struct Hits {
    /// Of the broker's requests per second to the empty handler's.
    pub(super) ratio: f64,
    pub(super) per_second: f64,
    pub(super) empty_per_second: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    /// Of an answer's body.
    pub(super) bytes: usize,
    pub(super) placement: Placement,
}

impl Hits {
    /// Measures both.
    pub(super) fn measure(stage: &Stage, broker: &Broker, empty_handler: &str) -> Result<Self> {
        let request = token_request(SCOPE, None)?;
        let mut hits = Load::open(&stage.socket(), request.clone())?;
        let socket = stage.file("empty.sock");
        let handler = EmptyHandler::start(empty_handler, &socket, hits.body_bytes)?;
        let mut empty = Load::open(&socket, request)?;
        if empty.body_bytes != hits.body_bytes {
            bail!("the answers have {} and {} bytes", hits.body_bytes, empty.body_bytes);
        }
        let processes =
            [Process::new(broker.id().try_into()?)?, Process::new(handler.0.id().try_into()?)?];
        let placement = divide_cores(&processes, &[]);
        let (mut ratios, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            // Who comes first takes turns, too.
            let (first, second) = if round.is_multiple_of(2) {
                let first = hits.saturate()?;
                (first, empty.saturate()?)
            } else {
                let second = empty.saturate()?;
                (hits.saturate()?, second)
            };
            ours.push(first);
            theirs.push(second);
            ratios.push(first / second);
        }
        let passes: Vec<Vec<f64>> = (0..PASSES).map(|_| hits.pace()).collect::<Result<_>>()?;
        let typical = |share| {
            let of_passes: Vec<f64> = passes.iter().map(|times| percentile(times, share)).collect();
            median(&of_passes)
        };
        Ok(Self {
            ratio: median(&ratios),
            per_second: median(&ours),
            empty_per_second: median(&theirs),
            p50_us: typical(0.5),
            p99_us: typical(0.99),
            bytes: hits.body_bytes,
            placement,
        })
    }
}

/// A request of the filter, as Envoy writes it.
pub(super) fn token_request(scope: &str, assertion: Option<&str>) -> Result<Vec<u8>> {
    let body = serde_json::to_vec(&TokenRequest {
        identity: "default".to_owned(),
        scope: scope.to_owned(),
        destination: "graph".to_owned(),
        assertion: assertion.map(contract::Secret::new),
        ..TokenRequest::default()
    })?;
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: token-broker\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nx-envoy-internal: true\r\n\
         x-envoy-expected-rq-timeout-ms: 10000\r\n\r\n",
        route::TOKEN,
        body.len()
    );
    Ok([head.into_bytes(), body].concat())
}

/// Connections to one server, each answer of the same length.
struct Load {
    streams: Vec<UnixStream>,
    request: Vec<u8>,
    /// Head and body.
    answer_bytes: usize,
    body_bytes: usize,
}

impl Load {
    fn open(socket: &Path, request: Vec<u8>) -> Result<Self> {
        let connect = || -> Result<UnixStream> {
            let stream = UnixStream::connect(socket)?;
            stream.set_nonblocking(true)?;
            Ok(stream)
        };
        let streams = (0..CONNECTIONS).map(|_| connect()).collect::<Result<Vec<_>>>()?;
        let mut load = Self { streams, request, answer_bytes: 0, body_bytes: 0 };
        let stream = load.streams.first_mut().context("no connection")?;
        stream.write_all(&load.request)?;
        let (head, body) = first_answer(stream)?;
        load.answer_bytes = head.saturating_add(body);
        load.body_bytes = body;
        Ok(load)
    }

    /// Requests per second with all connections busy.
    fn saturate(&mut self) -> Result<f64> {
        let began = Instant::now();
        for stream in &mut self.streams {
            stream.write_all(&self.request)?;
        }
        let mut sent = self.streams.len();
        let mut answered: usize = 0;
        while answered < sent {
            for stream in &mut self.streams {
                if answered == sent {
                    break;
                }
                read_answer(stream, self.answer_bytes)?;
                answered = answered.saturating_add(1);
                if sent < REQUESTS {
                    stream.write_all(&self.request)?;
                    sent = sent.saturating_add(1);
                }
            }
        }
        #[allow(clippy::cast_precision_loss, reason = "thousands")]
        let answered = answered as f64;
        Ok(answered / began.elapsed().as_secs_f64())
    }

    /// Microseconds of each of the requests that come one each millisecond, whether the one before
    /// was answered in time or not: each counts from when it was due.
    fn pace(&mut self) -> Result<Vec<f64>> {
        let stream = self.streams.first_mut().context("no connection")?;
        let mut times = Vec::with_capacity(PACED);
        let mut due = Instant::now();
        for _ in 0..PACED {
            // A thread that comes before all others and never sleeps is stopped by the kernel.
            thread::sleep(due.saturating_duration_since(Instant::now()).saturating_sub(SPIN));
            while Instant::now() < due {
                std::hint::spin_loop();
            }
            stream.write_all(&self.request)?;
            read_answer(stream, self.answer_bytes)?;
            times.push(due.elapsed().as_secs_f64() * 1e6);
            due = due.checked_add(INTERVAL).context("the end of time")?;
        }
        Ok(times)
    }
}

/// Reads an answer whose length is known; it must be a 200.
fn read_answer(stream: &mut UnixStream, length: usize) -> Result<()> {
    let mut buffer = [0; 8_192];
    let mut got: usize = 0;
    let mut waited: u32 = 0;
    let mut began = None;
    while got < length {
        match pending(stream.read(buffer.get_mut(got..).unwrap_or_default()))? {
            Some(0) => bail!("the connection ended within an answer"),
            Some(read) => got = got.saturating_add(read),
            None => {
                waited = waited.wrapping_add(1);
                if waited.is_multiple_of(1_024)
                    && began.get_or_insert_with(Instant::now).elapsed() > PATIENCE
                {
                    bail!("no answer after {PATIENCE:?}");
                }
            }
        }
    }
    if got > length || !buffer.starts_with(b"HTTP/1.1 200 ") {
        bail!(
            "another answer:\n{}",
            String::from_utf8_lossy(buffer.get(..got).unwrap_or_default())
        );
    }
    Ok(())
}

/// Reads an answer; the bytes of its head and of its body. It must be a 200.
pub(super) fn first_answer(stream: &mut UnixStream) -> Result<(usize, usize)> {
    let mut answer = Vec::new();
    let began = Instant::now();
    loop {
        let mut part = [0; 8_192];
        match pending(stream.read(&mut part))? {
            Some(0) => bail!("the connection ended within an answer"),
            Some(read) => answer.extend(part.iter().take(read)),
            None if began.elapsed() > PATIENCE => bail!("no answer after {PATIENCE:?}"),
            None => thread::yield_now(),
        }
        let mut fields = [httparse::EMPTY_HEADER; 16];
        let mut response = httparse::Response::new(&mut fields);
        let httparse::Status::Complete(head) = response.parse(&answer)? else { continue };
        let length = response.headers.iter().find(|field| field.name == "content-length");
        let body = std::str::from_utf8(length.context("no content-length")?.value)?.parse()?;
        if answer.len() < head.saturating_add(body) {
            continue;
        }
        if response.code != Some(200) {
            bail!("another answer:\n{}", String::from_utf8_lossy(&answer));
        }
        return Ok((head, body));
    }
}

/// The server that does nothing; dropped, it ends.
struct EmptyHandler(Child);

impl EmptyHandler {
    fn start(program: &str, socket: &Path, bytes: usize) -> Result<Self> {
        let child = Command::new(program)
            .arg(socket)
            .arg(bytes.to_string())
            .stdin(Stdio::null())
            .spawn()
            .context("the empty handler does not start")?;
        let handler = Self(child);
        let began = Instant::now();
        while fs::metadata(socket).is_err() {
            if began.elapsed() > PATIENCE {
                bail!("the empty handler makes no socket");
            }
            thread::yield_now();
        }
        Ok(handler)
    }
}

impl Drop for EmptyHandler {
    fn drop(&mut self) {
        // Either fails only when the process has ended already.
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}
