//! What an upstream writes down, and what it answers.

use serde_json::{Value, json};

use crate::{
    client::{HeaderLines, single},
    fake_entra::{access_evaluation::challenge_header, sample::GRAPH},
};

/// A request as it arrived.
#[derive(Debug, Clone, Default)]
pub struct Recorded {
    /// Method.
    pub method: String,
    /// Request target, query included.
    pub target: String,
    /// Header lines in their order; over HTTP/2 without the pseudo-headers.
    pub headers: HeaderLines,
    /// The body.
    pub body: Vec<u8>,
    /// Trailer lines.
    pub trailers: HeaderLines,
    /// The head, byte by byte; empty over HTTP/2.
    pub head: Vec<u8>,
}

impl Recorded {
    /// The value of a header that may stand once only.
    ///
    /// # Panics
    /// When it stands twice.
    pub fn header(&self, name: &str) -> Option<String> {
        single(&self.headers, name)
    }

    /// The token in `Authorization: Bearer …`.
    pub fn bearer(&self) -> Option<String> {
        self.header("authorization")?.strip_prefix("Bearer ").map(str::to_owned)
    }

    /// What the default answer says of it.
    pub(super) fn to_json(&self) -> Value {
        let headers: Vec<_> = self
            .headers
            .iter()
            .map(|(name, value)| json!([name, String::from_utf8_lossy(value)]))
            .collect();
        json!({
            "method": self.method,
            "path": self.target,
            "headers": headers,
            "body": String::from_utf8_lossy(&self.body),
        })
    }
}

/// A connection as it was used, whatever it carried.
#[derive(Debug, Clone, Default)]
pub struct Connected {
    /// Name that the TLS handshake asked for.
    pub server_name: Option<String>,
    /// Protocol that was agreed on in the handshake.
    pub alpn: Option<String>,
    /// How TLS failed, as the upstream saw it; `None` without TLS and after a good handshake.
    pub failed: Option<String>,
    /// The first bytes on the wire, enciphered or not: what an eavesdropper sees.
    pub wire: Vec<u8>,
}

/// What the upstream answers.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Header lines besides the framing.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// Trailers, over HTTP/2 only.
    pub trailers: Vec<(&'static str, String)>,
}

impl Reply {
    /// 200 with a JSON body.
    pub fn json(value: &Value) -> Self {
        Self {
            status: 200,
            headers: vec![("content-type", "application/json".to_owned())],
            body: value.to_string().into_bytes(),
            trailers: Vec::new(),
        }
    }

    /// An empty answer with a status.
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), trailers: Vec::new() }
    }

    /// The claims challenge (JSON text) with which Microsoft Graph refuses a token before its end.
    pub fn challenge(claims: &str) -> Self {
        let error = json!({"error": {
            "code": "InvalidAuthenticationToken",
            "message": "Continuous access evaluation resulted in challenge with result: \
                        InteractionRequired and code: TokenIssuedBeforeRevocationTimestamp",
        }});
        Self { status: 401, ..Self::json(&error) }
            .header("www-authenticate", &challenge_header(GRAPH, claims))
    }

    /// The whole answer of a gRPC call: a message with its frame, and the status in trailers.
    pub fn grpc(status: u8, message: &[u8]) -> Self {
        let length = u32::try_from(message.len()).expect("a message of a test").to_be_bytes();
        Self {
            body: [&[0], &length[..], message].concat(),
            trailers: vec![("grpc-status", status.to_string())],
            ..Self::status(200).header("content-type", "application/grpc")
        }
    }

    /// Whether the connection ends with it, over HTTP/1.1.
    pub(super) fn closes(&self) -> bool {
        self.headers.iter().any(|(name, value)| *name == "connection" && value == "close")
    }

    /// Adds a header line.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}
