//! The API behind the outbound rows: HTTP/1.1 over TLS, in the load generator's own thread.
//!
//! It is served whenever the generator has nothing to read, without ever sleeping, so it takes no
//! core of its own and Envoy wakes nobody. It answers 200 to a request that carries a bearer token
//! and 202 to one that does not; any other than a whole request in one piece is an error. A token
//! that it was told to refuse is answered with a claims challenge.

use std::{
    io::{ErrorKind, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use rustls::{ServerConfig, ServerConnection, crypto::ring, pki_types::PrivatePkcs8KeyDer};

/// The name in the certificate.
const NAME: &str = "upstream.test";

/// The upstreams' identity: self-signed, made for this run.
#[derive(Debug)]
pub(crate) struct Certificate {
    tls: Arc<ServerConfig>,
}

impl Certificate {
    /// Makes it and writes `certificate.pem`, which Envoy trusts, to `directory`.
    pub(crate) fn make(directory: &Path) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
        std::fs::write(directory.join("certificate.pem"), made.cert.pem())?;
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())?;
        Ok(Self { tls: Arc::new(tls) })
    }
}

/// A listener and the connections that Envoy has opened to it.
pub(crate) struct Upstream {
    listener: UnixListener,
    tls: Arc<ServerConfig>,
    connections: Vec<Connection>,
    refused: Option<String>,
}

struct Connection {
    socket: UnixStream,
    tls: ServerConnection,
    received: Vec<u8>,
}

impl Upstream {
    /// Listens on the socket file.
    pub(crate) fn listen(socket: &Path, certificate: &Certificate) -> Result<Self> {
        // Left there by the upstream of an earlier Envoy; otherwise there is none to remove.
        let _removed = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket)?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            tls: Arc::clone(&certificate.tls),
            connections: Vec::new(),
            refused: None,
        })
    }

    /// Refuses this token from now on, as an API does that takes part in continuous access
    /// evaluation.
    pub(crate) fn refuse(&mut self, token: &str) {
        self.refused = Some(format!("Bearer {token}"));
    }

    /// Accepts, reads and answers whatever there is, and returns.
    pub(crate) fn serve_pending(&mut self) -> Result<()> {
        while let Some((socket, _)) = pending(self.listener.accept())? {
            socket.set_nonblocking(true)?;
            let tls = ServerConnection::new(Arc::clone(&self.tls))?;
            self.connections.push(Connection { socket, tls, received: Vec::new() });
        }
        let mut ended = None;
        for (index, connection) in self.connections.iter_mut().enumerate() {
            if !connection.serve_pending(self.refused.as_deref()).context("the upstream")? {
                ended = Some(index);
            }
        }
        if let Some(index) = ended {
            self.connections.swap_remove(index);
        }
        Ok(())
    }
}

impl Connection {
    /// Whether the connection goes on.
    fn serve_pending(&mut self, refused: Option<&str>) -> Result<bool> {
        match pending(self.tls.read_tls(&mut self.socket))? {
            None => return Ok(true),
            Some(0) => return Ok(false),
            Some(_) => {}
        }
        self.tls.process_new_packets()?;
        let mut part = [0; 4096];
        while let Some(length @ 1..) = pending(self.tls.reader().read(&mut part))? {
            self.received.extend(part.iter().take(length));
        }
        if self.received.ends_with(b"\r\n\r\n") {
            let head = head(&self.received, refused)?;
            self.received.clear();
            write!(self.tls.writer(), "HTTP/1.1 {head}\r\ncontent-length: 0\r\n\r\n")?;
        }
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.socket)?;
        }
        Ok(true)
    }
}

/// A challenge to a token that was issued before some moment, as Microsoft Graph writes it.
const CHALLENGE: &str = "401 Bench\r\nwww-authenticate: Bearer realm=\"\", \
    authorization_uri=\"https://login.microsoftonline.com/common/oauth2/authorize\", \
    error=\"insufficient_claims\", claims=\"eyJhY2Nlc3NfdG9rZW4iOnsibmJmIjp7ImVzc2VudGlhbCI6dHJ1ZSwid\
    mFsdWUiOiIxNjA0MTA2NjUxIn19fQ==\"";

/// Status line and headers of the answer.
fn head(request: &[u8], refused: Option<&str>) -> Result<&'static str> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut parsed = httparse::Request::new(&mut headers);
    if parsed.parse(request)?.is_partial() {
        bail!("half a request");
    }
    let authorization = parsed
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("authorization"))
        .map_or(b"".as_slice(), |header| header.value);
    Ok(match refused {
        Some(refused) if authorization == refused.as_bytes() => CHALLENGE,
        _ if authorization.starts_with(b"Bearer ") => "200 Bench",
        _ => "202 Bench",
    })
}

/// The outcome, or none where it would have to wait.
pub(crate) fn pending<T>(outcome: std::io::Result<T>) -> Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(reason) if reason.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(reason) => Err(reason.into()),
    }
}
