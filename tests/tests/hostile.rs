//! The hostile clients tell what came back and how it ended, whatever the other side does.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test: what goes wrong fails it"
)]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use e2e::{
    client::{DEADLINE, Request},
    fake_entra::FakeEntra,
    hostile::{
        Attack, End, Identity, Tls,
        payload::{around_http, spellings},
    },
    upstream::{Reply, Upstream},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig, crypto::ring::default_provider, server::WebPkiClientVerifier,
    },
};

/// Long enough for loopback, and short where a test has to wait for nothing.
const SHORT: Duration = Duration::from_millis(200);

/// A listener that does one thing with its first connection.
async fn server<F>(
    act: impl FnOnce(TcpStream) -> F + Send + 'static,
) -> (SocketAddr, JoinHandle<()>)
where
    F: Future<Output = ()> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let task = tokio::spawn(async move {
        act(listener.accept().await.expect("a connection").0).await;
    });
    (address, task)
}

/// A patience that a test never uses up.
fn on(address: SocketAddr) -> Attack {
    Attack::on(address).patience(DEADLINE)
}

#[tokio::test]
async fn every_way_a_connection_can_end_is_told_apart() {
    let (closing, task) = server(|mut stream| async move {
        let mut word = [0; 5];
        stream.read_exact(&mut word).await.expect("the word");
        stream.write_all(b"bye").await.expect("an answer");
    })
    .await;
    let outcome = on(closing).send(b"hello").await;
    assert_eq!((outcome.received.as_slice(), outcome.end), (&b"bye"[..], End::Closed));
    task.await.expect("the server ends");

    let refused = on(closing).send(b"hello").await;
    assert_eq!((refused.is_silent(), refused.end), (true, End::Refused));

    // What is closed with bytes unread is reset.
    let (resetting, _task) = server(|stream| async move {
        stream.readable().await.expect("bytes");
    })
    .await;
    let outcome = on(resetting).send(b"hello").await;
    assert_eq!((outcome.is_silent(), outcome.end), (true, End::Reset));

    let (holding, _task) = server(|mut stream| async move {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.expect("until the attacker leaves");
    })
    .await;
    let outcome = Attack::on(holding).patience(SHORT).send(b"hello").await;
    assert_eq!((outcome.is_silent(), outcome.end), (true, End::Open));
}

#[tokio::test]
async fn a_banner_comes_to_who_waits_in_silence() {
    let (address, task) = server(|mut stream| async move {
        stream.write_all(b"220 ready\r\n").await.expect("a banner");
        stream.shutdown().await.expect("an end");
        let mut sent = Vec::new();
        stream.read_to_end(&mut sent).await.expect("until the attacker leaves");
        assert!(sent.is_empty(), "who waits sends nothing");
    })
    .await;
    let outcome = on(address).wait().await;
    assert_eq!((outcome.text().as_str(), outcome.end), ("220 ready\r\n", End::Closed));
    task.await.expect("nothing was sent");
}

#[tokio::test]
async fn http_of_both_versions_is_read_to_its_end() {
    let upstream = Upstream::start().await;
    for status in [200, 204, 400, 401, 403, 404, 418, 500, 503] {
        upstream.respond_with(move |_| Reply::status(status));
        let outcome = on(upstream.address).http1(&Request::get("/orders")).await;
        assert_eq!((outcome.status(), &outcome.end), (Some(status), &End::Answered));
        assert_eq!((outcome.http2_status(), outcome.was_served()), (None, status < 400));
        let lines = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/b")];
        let outcome = on(upstream.address).http2(&lines).await;
        assert_eq!((outcome.http2_status(), &outcome.end), (Some(status), &End::Answered));
        assert_eq!((outcome.status(), outcome.was_served()), (None, status < 400));
        assert_eq!(upstream.latest().target, "/b");
    }
}

#[tokio::test]
async fn http2_lines_go_out_as_they_are() {
    let upstream = Upstream::start().await;
    let long = "x".repeat(20_000 - 7_000);
    let head = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")];
    let lines = [&head[..], &[("x-a", "1"), ("x-a", "2"), ("x-long", &long)]].concat();
    assert_eq!(on(upstream.address).http2(&lines).await.http2_status(), Some(200));
    let seen = upstream.latest().headers;
    let wanted = [("x-a", "1"), ("x-a", "2"), ("x-long", &long)];
    let wanted: Vec<_> =
        wanted.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).to_vec();
    assert_eq!(seen, wanted);
    // A name in upper case is malformed (RFC 9113 §8.2.1); a good server ends the stream.
    let lines = [&head[..], &[("X-A", "1")]].concat();
    let outcome = on(upstream.address).http2(&lines).await;
    assert_eq!((outcome.was_served(), upstream.count()), (false, 1), "{outcome:?}");
}

#[tokio::test]
async fn every_payload_arrives_byte_by_byte() {
    let request = Request::get("/orders").bearer("token");
    let payloads = around_http(&request);
    assert_eq!(payloads.len(), 14);
    for (name, payload) in payloads {
        let wanted = payload.clone();
        let (address, task) = server(move |mut stream| async move {
            let mut came = vec![0; wanted.len()];
            stream.read_exact(&mut came).await.expect("the payload");
            assert_eq!(came, wanted, "{name}");
        })
        .await;
        assert_eq!(on(address).send(&payload).await.end, End::Closed, "{name}");
        task.await.expect("the same bytes");
    }
}

#[tokio::test]
async fn every_spelling_has_the_header_in_it() {
    let all = spellings("x-entra-permit", "right");
    assert_eq!(all.len(), 17);
    for (case, lines) in all {
        let request = lines
            .iter()
            .fold(Request::get("/"), |request, (name, value)| request.header(name, value));
        let text = String::from_utf8(request.to_bytes()).expect("text");
        let text = text.to_lowercase().replace('_', "-");
        assert!(text.contains("x-entra-permit") && text.contains("right"), "{case}: {text}");
    }
}

#[tokio::test]
async fn tls_offers_what_it_is_told_and_takes_any_certificate() {
    let entra = FakeEntra::sample().0;
    let upstream = Upstream::start_tls(entra.tls_server_for_any_name("other.example")).await;
    let request = Request::get("/orders");
    for (offered, agreed) in [(&["istio", "http/1.1"][..], Some("http/1.1")), (&[], None)] {
        let attack = on(upstream.address).tls(Tls::alpn(offered).server_name("orders.example"));
        let outcome = attack.http1(&request).await;
        assert_eq!((outcome.status(), outcome.alpn.as_deref()), (Some(200), agreed));
        let seen = upstream.connected().pop().expect("a connection");
        assert_eq!(seen.server_name.as_deref(), Some("orders.example"));
        assert_eq!(seen.alpn.as_deref(), agreed);
    }
    let h2 = on(upstream.address).tls(Tls::alpn(&["h2"]));
    let lines = [(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/")];
    assert_eq!(h2.http2(&lines).await.http2_status(), Some(200));
    assert_eq!(upstream.connected().pop().expect("a connection").server_name, None);

    let nothing_agreed = on(upstream.address).tls(Tls::alpn(&["istio-peer-exchange"]));
    let count = upstream.count();
    let outcome = nothing_agreed.http1(&request).await;
    upstream.wait_until_failed().await;
    assert!(matches!(outcome.end, End::Alert(_) | End::Closed | End::Reset), "{outcome:?}");
    assert_eq!((outcome.is_silent(), outcome.alpn, upstream.count()), (true, None, count));
    let plain = Upstream::start().await;
    let outcome = on(plain.address).tls(Tls::default()).patience(SHORT).send(b"").await;
    assert!(outcome.is_silent() && plain.count() == 0, "{outcome:?}");
}

#[tokio::test]
async fn a_stolen_identity_is_shown_to_who_asks_for_one() {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let authority = CertifiedIssuer::self_signed(params, key).expect("an authority");
    let stolen_key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(["workload".to_owned()]).expect("a name");
    let stolen = params.signed_by(&stolen_key, &authority).expect("a certificate");
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path
    };
    let (chain_file, key_file) =
        (file("chain.pem", &stolen.pem()), file("key.pem", &stolen_key.serialize_pem()));
    let identity = Identity::from_files(&chain_file, &key_file).expect("an identity");
    assert_eq!(format!("{identity:?}"), "Identity { .. }");
    assert!(Identity::from_pem(&stolen.pem(), "no key").is_err());

    let strict = strict_server(authority.der().clone());
    let ask = async |tls: Tls| {
        let acceptor = strict.clone();
        let (address, task) = server(|stream| async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            stream.write_all(b"welcome").await.expect("an answer");
            stream.shutdown().await.expect("an end");
        })
        .await;
        let outcome = on(address).tls(tls).wait().await;
        task.await.expect("the server ends");
        outcome
    };
    let outcome = ask(Tls::alpn(&["istio"]).identity(&identity)).await;
    assert_eq!((outcome.text().as_str(), &outcome.end), ("welcome", &End::Closed), "{outcome:?}");
    assert_eq!(outcome.alpn.as_deref(), Some("istio"));
    let outcome = ask(Tls::alpn(&["istio"])).await;
    assert!(outcome.is_silent() && outcome.end != End::Closed, "{outcome:?}");
}

/// TLS that asks for a client certificate of an authority, as Istio's proxies do.
fn strict_server(
    authority: tokio_rustls::rustls::pki_types::CertificateDer<'static>,
) -> TlsAcceptor {
    let mut roots = RootCertStore::empty();
    roots.add(authority).expect("an authority");
    let provider = Arc::new(default_provider());
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .expect("a verifier");
    let own = rcgen::generate_simple_self_signed(["workload".to_owned()]).expect("a certificate");
    let key = own.signing_key.serialize_der();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS 1.2 and 1.3")
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![own.cert.der().clone()], key.try_into().expect("a key"))
        .expect("a certificate with its key");
    config.alpn_protocols = vec![b"istio".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}
