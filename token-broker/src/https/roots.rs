//! What the broker trusts in TLS: Mozilla's roots, built in, and those of `ca_file`.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::file;

/// Largest `ca_file` that is read: many times the list that systems come with.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Why there is no trust to start with.
#[derive(Debug)]
pub enum RootsError {
    /// The file cannot be read, or is not PEM.
    File(PathBuf, String),
    /// The file holds no certificate.
    Empty(PathBuf),
    /// A certificate in it is none.
    Certificate(PathBuf),
    /// The TLS library refused its own defaults.
    Library,
}

impl std::fmt::Display for RootsError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path, reason) => write!(formatter, "{}: {reason}", path.display()),
            Self::Empty(path) => {
                write!(formatter, "{}: no certificate in it", path.display())
            }
            Self::Certificate(path) => {
                write!(formatter, "{}: a certificate cannot be read", path.display())
            }
            Self::Library => formatter.write_str("no TLS with these defaults"),
        }
    }
}

impl std::error::Error for RootsError {}

/// TLS that trusts Mozilla's roots and those of the file.
pub(super) fn client_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, RootsError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = ca_file {
        add(&mut roots, path)?;
    }
    trusting(roots)
}

/// TLS that trusts the authorities of the file and no others.
pub(super) fn client_config_of(ca_file: &Path) -> Result<Arc<ClientConfig>, RootsError> {
    let mut roots = RootCertStore::empty();
    add(&mut roots, ca_file)?;
    trusting(roots)
}

fn add(roots: &mut RootCertStore, path: &Path) -> Result<(), RootsError> {
    let unreadable = |error: &dyn std::error::Error| {
        RootsError::File(path.to_owned(), crate::failure::sanitised(&error.to_string()))
    };
    let pem = file::read(path, MAX_BYTES).map_err(|error| unreadable(&error))?;
    let mut found = false;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots
            .add(certificate.map_err(|error| unreadable(&error))?)
            .map_err(|_malformed| RootsError::Certificate(path.to_owned()))?;
        found = true;
    }
    if found { Ok(()) } else { Err(RootsError::Empty(path.to_owned())) }
}

/// TLS 1.2 and 1.3 with verification; there is no way to switch that off.
fn trusting(roots: RootCertStore) -> Result<Arc<ClientConfig>, RootsError> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|_unusable| RootsError::Library)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
