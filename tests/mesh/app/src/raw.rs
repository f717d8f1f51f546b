//! Bytes without HTTP: a TCP connection that says what became of it, and one datagram.

use std::{io, time::Duration};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use crate::{
    arguments::{Arguments, unknown},
    events,
};

/// What is sent, and how long an answer may take.
pub(crate) struct Plan {
    address: String,
    bytes: Vec<u8>,
    timeout: Duration,
}

impl Plan {
    /// Reads `HOST:PORT [TEXT]` and options.
    pub(crate) fn read(mut arguments: Arguments) -> Result<Self, String> {
        let address = arguments.word("HOST:PORT")?;
        let mut plan = Self { address, bytes: Vec::new(), timeout: Duration::from_secs(2) };
        while let Some(word) = arguments.next() {
            match word.as_str() {
                "--data" => plan.bytes = arguments.value::<String>(&word)?.into_bytes(),
                "--hex" => plan.bytes = of_hex(&arguments.value::<String>(&word)?)?,
                "--timeout-ms" => plan.timeout = arguments.milliseconds(&word)?,
                option if option.starts_with("--") => return Err(unknown(option)),
                text => plan.bytes = text.as_bytes().to_vec(),
            }
        }
        Ok(plan)
    }
}

fn of_hex(text: &str) -> Result<Vec<u8>, String> {
    let wrong = || "--hex: no hexadecimal bytes".to_owned();
    let digits: Option<Vec<_>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0).ok_or_else(wrong)?;
    let bytes = digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, half| byte << 4 | half));
    bytes.map(|byte| u8::try_from(byte).map_err(|_| wrong())).collect()
}

/// Connects, sends, and reads until the end; whether a connection was made.
pub(crate) async fn tcp(plan: Plan) -> Result<bool, String> {
    let Ok(connected) = timeout(plan.timeout, TcpStream::connect(&plan.address)).await else {
        return Ok(ended(&[], "unreachable"));
    };
    let mut stream = match connected {
        Ok(stream) => stream,
        Err(error) => return Ok(ended(&[], &refusal(&error))),
    };
    let mut received = Vec::new();
    let exchange = async {
        stream.write_all(&plan.bytes).await?;
        while stream.read_buf(&mut received).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    let end = match timeout(plan.timeout, exchange).await {
        Err(_) => "open",
        Ok(Ok(())) => "closed",
        Ok(Err(_)) => "reset",
    };
    ended(&received, end);
    Ok(true)
}

fn refusal(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "refused".to_owned(),
        _ => error.to_string(),
    }
}

/// Writes down what came back; never a success by itself.
fn ended(received: &[u8], end: &str) -> bool {
    let text = String::from_utf8_lossy(received);
    let hex = events::hex(received);
    events::write(&json!({"event": "received", "end": end, "hex": hex, "text": text}));
    false
}

/// Sends one datagram; whether one came back.
pub(crate) async fn udp(plan: Plan) -> Result<bool, String> {
    let exchange = async {
        let socket = UdpSocket::bind("0.0.0.0:0").await?;
        socket.connect(&plan.address).await?;
        socket.send(&plan.bytes).await?;
        let mut buffer = vec![0; 65_536];
        let length = socket.recv(&mut buffer).await?;
        buffer.truncate(length);
        Ok::<_, io::Error>(buffer)
    };
    match timeout(plan.timeout, exchange).await {
        Ok(Ok(bytes)) => {
            let text = String::from_utf8_lossy(&bytes);
            events::write(&json!({"event": "answer", "hex": events::hex(&bytes), "text": text}));
            Ok(true)
        }
        Ok(Err(error)) => Ok(failed(&error.to_string())),
        Err(_) => Ok(failed("no answer in time")),
    }
}

fn failed(error: &str) -> bool {
    events::write(&json!({"event": "failure", "error": error}));
    false
}
