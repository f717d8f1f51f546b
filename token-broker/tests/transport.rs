//! The real way out: TLS verified, through a CONNECT proxy, no redirect, bounded, never inside.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use contract::Secret;
use hyper::http::{HeaderMap, Request};
use token_broker::https::{Answer, Https, Transport, TransportFailure, proxy::Proxy};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use crate::tls;

const HOST: &str = "login.microsoftonline.com";
const URI: &str = "https://login.microsoftonline.com/x";

/// A proxy that answers by itself, as whatever host it is asked for, with one certificate.
struct Server {
    _directory: tempfile::TempDir,
    ca_file: PathBuf,
    proxy: SocketAddr,
    /// The heads of the CONNECT requests.
    connects: Arc<Mutex<Vec<String>>>,
    /// The requests inside.
    requests: Arc<AtomicUsize>,
}

impl Server {
    async fn start(certificate_for: &str, answer: &'static [u8]) -> Self {
        let (authority, acceptor) = tls::server(certificate_for);
        let directory = tempfile::tempdir().unwrap();
        let ca_file = directory.path().join("ca.pem");
        std::fs::write(&ca_file, authority).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            _directory: directory,
            ca_file,
            proxy: listener.local_addr().unwrap(),
            connects: Arc::default(),
            requests: Arc::default(),
        };
        let (connects, requests) = (Arc::clone(&server.connects), Arc::clone(&server.requests));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let serving =
                    serve(stream, acceptor.clone(), answer, connects.clone(), requests.clone());
                tokio::spawn(serving);
            }
        });
        server
    }

    fn proxy(&self) -> Proxy {
        let url = format!("http://user:pass@{}", self.proxy);
        let environment = std::collections::BTreeMap::from([("HTTPS_PROXY", url.as_str())]);
        Proxy::from_environment(&environment).unwrap()
    }

    async fn ask(&self, limit: usize) -> Result<Answer, TransportFailure> {
        let https = Https::new(Some(&self.ca_file), self.proxy()).unwrap();
        https.send(request(URI), limit).await
    }
}

async fn serve(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    answer: &'static [u8],
    connects: Arc<Mutex<Vec<String>>>,
    requests: Arc<AtomicUsize>,
) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let connect = head(&mut stream).await?;
    connects.lock().unwrap().push(connect);
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.ok()?;
    let mut inside = BufReader::new(acceptor.accept(stream).await.ok()?);
    head(&mut inside).await?;
    requests.fetch_add(1, Ordering::SeqCst);
    inside.write_all(answer).await.ok()?;
    inside.shutdown().await.ok()?;
    let mut rest = Vec::new();
    inside.read_to_end(&mut rest).await.ok().map(drop)
}

async fn head(stream: &mut (impl AsyncBufReadExt + Unpin)) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    Some(head)
}

fn request(uri: &str) -> Request<Secret> {
    Request::get(uri).body(Secret::new(String::new())).unwrap()
}

#[tokio::test]
async fn an_authority_of_the_ca_file_is_trusted_by_way_of_the_proxy() {
    let server = Server::start(HOST, b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody").await;
    let answer = server.ask(4).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.body.as_slice()), (200, b"body".as_slice()));
    let connects = server.connects.lock().unwrap();
    assert_eq!(connects.len(), 1);
    let expected = "CONNECT login.microsoftonline.com:443 HTTP/1.1\r\n";
    assert!(connects[0].starts_with(expected), "{}", connects[0]);
    assert!(connects[0].contains("dXNlcjpwYXNz"), "the proxy's user is told to it");
}

#[tokio::test]
async fn b14_certificates_that_do_not_fit_are_refused() {
    // Another name; and the right name from an authority that is not trusted.
    let other = Server::start("login.evil.example", b"HTTP/1.1 200 OK\r\n\r\n").await;
    let refused = other.ask(10).await.unwrap_err();
    assert!(
        matches!(&refused, TransportFailure::Connection(reason) if reason.contains("certificate")),
        "{refused}"
    );
    let untrusted = Server::start(HOST, b"HTTP/1.1 200 OK\r\n\r\n").await;
    let https = Https::new(None, untrusted.proxy()).unwrap();
    let refused = https.send(request(URI), 10).await.unwrap_err();
    assert!(
        matches!(&refused, TransportFailure::Connection(reason) if reason.contains("UnknownIssuer")),
        "{refused}"
    );
    for server in [other, untrusted] {
        assert_eq!(server.requests.load(Ordering::SeqCst), 0, "nothing was sent");
    }
}

#[tokio::test]
async fn b04_redirects_are_not_followed() {
    let server = Server::start(
        HOST,
        b"HTTP/1.1 302 Found\r\nlocation: https://login.microsoftonline.com/y\r\ncontent-length: 0\r\n\r\n",
    )
    .await;
    assert_eq!(server.ask(10).await.unwrap().status.as_u16(), 302);
    assert_eq!(server.requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn b08_answers_are_bounded_whatever_length_they_claim() {
    let claimed =
        Server::start(HOST, b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n01234567890").await;
    assert_eq!(claimed.ask(10).await.unwrap_err(), TransportFailure::TooLarge);
    let chunked = Server::start(
        HOST,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\n012345\r\n5\r\n67890\r\n0\r\n\r\n",
    )
    .await;
    assert_eq!(chunked.ask(10).await.unwrap_err(), TransportFailure::TooLarge);
    assert_eq!(chunked.ask(11).await.unwrap().body.len(), 11);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_no_answer() {
    let server = Server::start(HOST, b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nbody").await;
    assert_eq!(server.ask(100).await.unwrap_err(), TransportFailure::Broken);
}

#[tokio::test]
async fn b04_k09_without_a_proxy_no_name_leads_inside() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let https = Https::new(None, Proxy::default()).unwrap();
    let uri = format!("https://localhost:{port}/");
    let refused = https.send(request(&uri), 10).await.unwrap_err();
    assert!(
        matches!(&refused, TransportFailure::Connection(reason) if reason.contains("no allowed address")),
        "{refused}"
    );
}

#[tokio::test]
async fn b14_plain_http_is_not_spoken() {
    let https = Https::new(None, Proxy::default()).unwrap();
    let refused = https.send(request("http://login.microsoftonline.com/"), 10).await.unwrap_err();
    let expected = TransportFailure::Connection("unsupported scheme http".to_owned());
    assert_eq!(refused, expected);
}

#[tokio::test]
async fn a_ca_file_that_holds_none_is_an_error_at_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca.pem");
    let error = |path: &PathBuf| Https::new(Some(path), Proxy::default()).unwrap_err().to_string();
    assert!(error(&path).contains("ca.pem"));
    for content in ["", "no certificate"] {
        std::fs::write(&path, content).unwrap();
        assert!(error(&path).contains("no certificate in it"));
    }
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    std::fs::write(&path, broken).unwrap();
    assert!(error(&path).contains("a certificate cannot be read"));
}

#[test]
fn an_answer_shows_nothing_of_its_body() {
    let answer = Answer {
        status: hyper::StatusCode::OK,
        headers: HeaderMap::new(),
        body: zeroize::Zeroizing::new(b"canary".to_vec()),
    };
    assert_eq!(format!("{answer:?}"), "Answer { status: 200, .. }");
}
