//! Mutual TLS with a real Envoy: the caller's workload is what its certificate says, and no header.

#![allow(
    clippy::expect_used,
    clippy::arithmetic_side_effects,
    reason = "a test: what goes wrong fails it"
)]

use std::sync::Arc;

use e2e::{
    client::{DEADLINE, Request},
    stack::{Builder, Record, Stack, world::user},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, SanType, string::Ia5String,
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring::default_provider,
        pki_types::{PrivatePkcs8KeyDer, ServerName},
    },
};

const TILL: &str = "spiffe://cluster.local/ns/shop/sa/till";
const OTHER: &str = "spiffe://cluster.local/ns/shop/sa/other";

/// A mesh's authority.
struct Mesh(CertifiedIssuer<'static, KeyPair>);

impl Mesh {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        // A name of its own, or each certificate would look like one that signed itself.
        params.distinguished_name.push(DnType::CommonName, "mesh");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    /// A certificate with these names, and its key.
    fn certificate(&self, names: Vec<SanType>) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        (params.signed_by(&key, &self.0).expect("a certificate"), key)
    }

    /// Has the inbound listener take TLS, and ask for certificates of this authority.
    fn guard(&self, builder: Builder, require: bool) -> Builder {
        let name = Ia5String::try_from("shop.example").expect("a name");
        let (certificate, key) = self.certificate(vec![SanType::DnsName(name)]);
        let context = json!({
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3\
                      .DownstreamTlsContext",
            "require_client_certificate": require,
            "common_tls_context": {
                "tls_certificates": [{
                    "certificate_chain": {"inline_string": certificate.pem()},
                    "private_key": {"inline_string": key.serialize_pem()},
                }],
                "validation_context": {"trusted_ca": {"inline_string": self.0.pem()}},
            },
        });
        builder.configure(|config| {
            let chain = config.listener_mut("inbound").pointer_mut("/filter_chains/0");
            chain.and_then(|chain| chain.as_object_mut()).expect("a filter chain").insert(
                "transport_socket".to_owned(),
                json!({"name": "envoy.transport_sockets.tls", "typed_config": context}),
            );
        })
    }

    /// Sends a request with a certificate of these URI names, or with none; gives the status and
    /// what the filter noted.
    async fn call(&self, stack: &Stack, uris: &[&str], request: Request) -> (u16, Record) {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("an authority");
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("TLS 1.2 and 1.3")
            .with_root_certificates(roots);
        let config = if uris.is_empty() {
            builder.with_no_client_auth()
        } else {
            let name = |uri: &&str| SanType::URI(Ia5String::try_from(*uri).expect("a URI"));
            let (certificate, key) = self.certificate(uris.iter().map(name).collect());
            let key = PrivatePkcs8KeyDer::from(key.serialize_der());
            let chain = vec![certificate.der().clone()];
            builder.with_client_auth_cert(chain, key.into()).expect("a certificate with its key")
        };
        let id = Stack::next_id();
        let request = request.header("x-request-id", &id).header("connection", "close");
        let stream = TcpStream::connect(stack.envoy.inbound).await.expect("a connection");
        let name = ServerName::try_from("shop.example").expect("a name");
        let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
        let mut stream = connecting.await.expect("TLS");
        stream.write_all(&request.to_bytes()).await.expect("a connection that takes a request");
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        // Whether the connection ends with a goodbye is not what this is about.
        let _end = tokio::time::timeout(DEADLINE, read).await.expect("an answer in time");
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.expect("a status"), stack.record(&id).await)
    }
}

/// A rule that only lets the till read.
fn for_the_till() -> Builder {
    let alternative = json!([{"scopes": ["Orders.Read"], "caller_workload": [TILL]}]);
    let builder = Stack::builder().inbound("/log_caller_workload", json!(true));
    builder.configure(|config| {
        let rules = config.policy_mut("entra-inbound").get_mut("rules");
        let rules = rules.and_then(|rules| rules.as_array_mut()).expect("rules");
        let read = rules.iter_mut().find(|rule| rule.get("name") == Some(&json!("read")));
        *read.and_then(|rule| rule.get_mut("allow")).expect("the rule") = alternative;
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn w01_the_callers_workload_is_what_its_certificate_says() {
    let mesh = Mesh::new();
    let stack = mesh.guard(for_the_till(), true).start().await;
    let token = user(&stack.entra, &["Orders.Read"]).sign();
    let read = || Request::get("/orders/7").bearer(&token);
    let spoofed = |uri: &str| {
        let certificate = format!("By=spiffe://a/b;Hash=00;URI={uri}");
        read().header("x-forwarded-client-cert", certificate)
    };
    let allowed = (200, "allowed");
    let refused = (403, "caller_workload_refused");
    for (uris, request, (status, reason), workload) in [
        (&[TILL][..], read(), allowed, TILL),
        (&[TILL], spoofed(OTHER), allowed, TILL),
        (&[OTHER], read(), refused, OTHER),
        (&[OTHER], spoofed(TILL), refused, OTHER),
        (&["https://cluster.local/till"], read(), refused, "https://cluster.local/till"),
        (&["spiffe://a/b%20c?d=e"], read(), refused, "spiffe://a/b%2520c%3Fd%3De"),
        // The host gives the first name only: what stands behind it is not looked at.
        (&[OTHER, TILL], read(), refused, OTHER),
    ] {
        let before = (stack.application.count(), stack.application.bytes());
        let (answered, record) = mesh.call(&stack, uris, request).await;
        assert_eq!((answered, record.get("reason")), (status, Some(reason)), "{record:?}");
        assert_eq!(record.get("workload"), Some(workload), "{record:?}");
        let after = (stack.application.count(), stack.application.bytes());
        assert_eq!(after != before, status == 200, "{uris:?}");
    }
    // Also of who brings no token.
    let (status, record) = mesh.call(&stack, &[OTHER], Request::get("/orders/7")).await;
    assert_eq!((status, record.get("workload")), (401, Some(OTHER)));
}

#[tokio::test(flavor = "multi_thread")]
async fn w01_without_a_certificate_there_is_no_workload() {
    let mesh = Mesh::new();
    let stack = mesh.guard(for_the_till(), false).start().await;
    let token = user(&stack.entra, &["Orders.Read"]).sign();
    let read = Request::get("/orders/7").bearer(&token);
    let spoofed = read.clone().header("x-forwarded-client-cert", format!("URI={TILL}"));
    for request in [read, spoofed] {
        let (status, record) = mesh.call(&stack, &[], request).await;
        assert_eq!((status, record.get("reason")), (403, Some("caller_workload_refused")));
        assert_eq!(record.get("workload"), None, "{record:?}");
    }
    assert_eq!((stack.application.count(), stack.application.bytes()), (0, 0));
}
