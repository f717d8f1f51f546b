//! The attacker's TLS: any protocol names, any server certificate, a stolen identity.

use std::{io, path::Path, sync::Arc};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::ring::default_provider,
        pki_types::{
            CertificateDer, PrivateKeyDer, ServerName, UnixTime,
            pem::{self, PemObject},
        },
    },
};

/// How a handshake is made. Whatever certificate the server shows is taken.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    alpn: Vec<Vec<u8>>,
    server_name: Option<String>,
    identity: Option<Identity>,
}

/// A client certificate with its key, such as a workload's that got out.
#[derive(Clone)]
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: Arc<PrivateKeyDer<'static>>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Identity").finish_non_exhaustive()
    }
}

impl Identity {
    /// From PEM texts.
    pub fn from_pem(chain: &str, key: &str) -> Result<Self, pem::Error> {
        let chain = CertificateDer::pem_slice_iter(chain.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
        Ok(Self { chain: chain.collect::<Result<_, _>>()?, key: Arc::new(key) })
    }

    /// From PEM files.
    pub fn from_files(chain: &Path, key: &Path) -> Result<Self, pem::Error> {
        let chain = CertificateDer::pem_file_iter(chain)?.collect::<Result<_, _>>()?;
        Ok(Self { chain, key: Arc::new(PrivateKeyDer::from_pem_file(key)?) })
    }
}

impl Tls {
    /// A handshake that offers these protocols, in this order.
    pub fn alpn(names: &[&str]) -> Self {
        let alpn = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        Self { alpn, ..Self::default() }
    }

    /// Asks for a server by name; without one there is no SNI.
    #[must_use]
    pub fn server_name(mut self, name: &str) -> Self {
        self.server_name = Some(name.to_owned());
        self
    }

    /// Shows a client certificate when it is asked for one.
    #[must_use]
    pub fn identity(mut self, identity: &Identity) -> Self {
        self.identity = Some(identity.clone());
        self
    }

    /// Makes the handshake.
    pub(super) async fn connect(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody));
        let mut config = match &self.identity {
            None => config.with_no_client_auth(),
            Some(Identity { chain, key }) => config
                .with_client_auth_cert(chain.clone(), key.clone_key())
                .map_err(io::Error::other)?,
        };
        config.alpn_protocols.clone_from(&self.alpn);
        config.enable_sni = self.server_name.is_some();
        let name = match &self.server_name {
            Some(name) => ServerName::try_from(name.clone()).map_err(io::Error::other)?,
            None => ServerName::from(stream.peer_addr()?.ip()),
        };
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }
}

/// Takes every server for the right one. For attackers only: nothing else in the project does.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}
