//! A client that reaches the fake as any other does: through the proxy or where names lead to it,
//! by host name, over TLS verified against the CA file. Blocking, for tests and the demo.

use std::{error::Error, net::SocketAddr, path::Path, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring::default_provider,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

/// Where the fake is and whom to trust.
pub struct Client {
    way: Way,
    tls: Arc<ClientConfig>,
}

enum Way {
    Proxy(SocketAddr),
    Direct(SocketAddr),
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

impl Reply {
    /// The body as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// A header by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// What went wrong before there was an answer.
pub type Failure = Box<dyn Error + Send + Sync>;

impl Client {
    /// A client of a fake.
    pub fn of(entra: &super::FakeEntra) -> Self {
        Self::new(entra.proxy, entra.ca_file()).expect("the fake's CA file")
    }

    /// A client that goes through a proxy and trusts one CA file.
    pub fn new(proxy: SocketAddr, ca_file: &Path) -> Result<Self, Failure> {
        Self::by(Way::Proxy(proxy), ca_file)
    }

    /// A client for whom every name leads to one address, and that trusts one CA file.
    pub fn direct(address: SocketAddr, ca_file: &Path) -> Result<Self, Failure> {
        Self::by(Way::Direct(address), ca_file)
    }

    fn by(way: Way, ca_file: &Path) -> Result<Self, Failure> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca_file)?)?;
        let tls = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { way, tls: Arc::new(tls) })
    }

    /// `GET https://{host}{path}`.
    pub fn get(&self, host: &str, path: &str) -> Result<Reply, Failure> {
        self.send(host, Request::get(path).header(HOST, host).body(Full::default())?)
    }

    /// `POST https://{host}{path}` with a form.
    pub fn post_form(
        &self,
        host: &str,
        path: &str,
        form: &[(&str, &str)],
    ) -> Result<Reply, Failure> {
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = Request::post(path)
            .header(HOST, host)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Full::from(form))?;
        self.send(host, request)
    }

    /// Any request to a host; the request brings its own Host header.
    pub fn send(&self, host: &str, request: Request<Full<Bytes>>) -> Result<Reply, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let tunnel = match self.way {
                Way::Proxy(proxy) => connect(proxy, &format!("{host}:443")).await?,
                Way::Direct(address) => TcpStream::connect(address).await?,
            };
            let name = ServerName::try_from(host.to_owned())?;
            let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, tunnel).await?;
            exchange(stream, request).await
        })
    }
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Reply, Failure>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let (parts, body) = sender.send_request(request).await?.into_parts();
    let headers = parts.headers.iter().map(|(name, value)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    });
    Ok(Reply {
        status: parts.status.as_u16(),
        headers: headers.collect(),
        body: body.collect().await?.to_bytes().to_vec(),
    })
}

/// Asks a proxy for a tunnel (RFC 9110 §9.3.6).
async fn connect(proxy: SocketAddr, target: &str) -> Result<TcpStream, Failure> {
    let mut stream = TcpStream::connect(proxy).await?;
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    if head.starts_with(b"HTTP/1.1 200") {
        Ok(stream)
    } else {
        let head = String::from_utf8_lossy(&head);
        Err(format!("the proxy refused {target}: {}", head.lines().next().unwrap_or("")).into())
    }
}
