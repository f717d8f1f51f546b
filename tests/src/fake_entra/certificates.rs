//! The fake's own certificate authority, and the certificates made by it.
//!
//! Clients get the authority's PEM by file and verify TLS as they would in production; nothing
//! here is ever skipped or pinned. Private keys stay in memory.

use std::{error::Error, sync::Arc};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use time::OffsetDateTime;
use tokio_rustls::rustls::{
    ServerConfig,
    crypto::ring::{default_provider, sign::any_supported_type},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::ResolvesServerCertUsingSni,
    sign::CertifiedKey,
};

/// A certificate authority for one run.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn new() -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = named("Fake Entra test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        validity(&mut params);
        CertifiedIssuer::self_signed(params, KeyPair::generate()?).map(Self)
    }

    pub(super) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A TLS server that knows these host names and refuses a handshake for any other.
    pub(super) fn tls_server(
        &self,
        hosts: &[&str],
    ) -> Result<ServerConfig, Box<dyn Error + Send + Sync>> {
        let mut resolver = ResolvesServerCertUsingSni::new();
        for host in hosts {
            let (chain, private) = self.certificate(host)?;
            resolver.add(host, CertifiedKey::new(chain, any_supported_type(&private)?))?;
        }
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    /// A TLS server that shows one host's certificate whatever name it is asked for.
    pub(super) fn tls_server_for_any_name(
        &self,
        host: &str,
    ) -> Result<ServerConfig, Box<dyn Error + Send + Sync>> {
        let (chain, private) = self.certificate(host)?;
        Ok(ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, private)?)
    }

    fn certificate(
        &self,
        host: &str,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), rcgen::Error> {
        let key = KeyPair::generate()?;
        let certificate = server_params(host)?.signed_by(&key, &self.0)?;
        let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok((vec![certificate.der().clone()], private))
    }
}

/// A self-signed certificate of a token-signing key, as `x5c` shows it. The same key gives the
/// same certificate, so the thumbprint that Entra uses as key id repeats too.
pub(super) fn of_signing_key(key: &tokens::SigningKey) -> Result<Vec<u8>, rcgen::Error> {
    let years = (date_time_ymd(2020, 1, 1), date_time_ymd(2049, 12, 31));
    Ok(self_signed(key, "accounts.accesscontrol.windows.net", years)?.der().to_vec())
}

/// A self-signed certificate of any key, good from one time to the other.
pub(super) fn self_signed(
    key: &tokens::SigningKey,
    common_name: &str,
    (begin, end): (OffsetDateTime, OffsetDateTime),
) -> Result<Certificate, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(common_name);
    params.serial_number = Some(rcgen::SerialNumber::from_slice(&[1]));
    params.not_before = begin;
    params.not_after = end;
    params.self_signed(&RemoteKey { public: key.public_pkcs1_der(), key })
}

/// Lets rcgen sign with a key that it never sees.
struct RemoteKey<'a> {
    key: &'a tokens::SigningKey,
    public: Vec<u8>,
}

impl rcgen::PublicKeyData for RemoteKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_RSA_SHA256
    }
}

impl rcgen::SigningKey for RemoteKey<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.key.signature(message))
    }
}

fn server_params(host: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new([host.to_owned()])?;
    params.distinguished_name = named("Fake Entra");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    validity(&mut params);
    Ok(params)
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// Far enough around any test's clock; TLS is checked against the real time of the machine.
fn validity(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2049, 12, 31);
}
