//! What is written down: one JSON object a line, at once, so that a log shows it while it happens.
//!
//! Values of credentials are not written into the log, only that they came and how long they were:
//! whoever needs them reads the answer that the request got.

use std::io::Write;

use hyper::HeaderMap;
use serde_json::{Value, json};

/// Headers whose values stay out of the log.
const CREDENTIALS: [&str; 3] = ["authorization", "proxy-authorization", "cookie"];

/// Writes one line. Nobody reading is no reason to stop.
pub(crate) fn write(event: &Value) {
    let mut output = std::io::stdout().lock();
    let _unread = writeln!(output, "{event}").and_then(|()| output.flush());
}

/// Bytes as text that survives any log.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Header lines in their order, for an answer.
pub(crate) fn headers(headers: &HeaderMap) -> Value {
    let lines = headers
        .iter()
        .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]));
    lines.collect()
}

/// Header lines in their order, for the log.
pub(crate) fn headers_without_credentials(headers: &HeaderMap) -> Value {
    let lines = headers.iter().map(|(name, value)| {
        if CREDENTIALS.contains(&name.as_str()) {
            return json!([name.as_str(), format!("<{} bytes>", value.len())]);
        }
        json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())])
    });
    lines.collect()
}
