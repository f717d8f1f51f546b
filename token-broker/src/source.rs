//! Where tokens come from: one implementation of [`TokenSource`] per kind of identity.
//!
//! A source reads its credential, asks, and answers; it keeps nothing. `tokens` decides when to
//! ask.

use std::sync::Arc;

use contract::{Secret, TypedError};
use ring::digest::{SHA256, digest};

use crate::{
    config::{self, SecretLocation},
    entra::token_endpoint::{Acquired, Wanted},
    https::{Boxed, Transport},
    time::Clock,
};

mod client_certificate;
mod client_secret;
mod credential_file;
mod managed_identity;
mod workload_identity;

/// Gets tokens for one identity.
pub trait TokenSource: Send + Sync + 'static {
    /// A new token. Each call is one acquisition.
    fn acquire<'a>(&'a self, wanted: Wanted<'a>) -> Boxed<'a, Result<Acquired, TypedError>>;

    /// The credential as it is now; `None` where there is none to read, or it cannot change.
    fn credential(&self) -> Boxed<'_, Option<Fingerprint>>;
}

/// Tells one credential from another without holding it. Not shown: it is a digest of a secret.
#[derive(PartialEq, Eq)]
pub struct Fingerprint(Vec<u8>);

impl Fingerprint {
    /// The fingerprint of a credential.
    fn of(credential: &Secret) -> Self {
        Self(digest(&SHA256, credential.expose().as_bytes()).as_ref().to_vec())
    }
}

/// The source that the configuration asks for.
pub fn from_config(
    source: &config::Source,
    transport: &Arc<dyn Transport>,
    clock: &Arc<dyn Clock>,
) -> Arc<dyn TokenSource> {
    let transport = Arc::clone(transport);
    match source.clone() {
        config::Source::ClientSecret { application, secret: SecretLocation::File(file) } => {
            Arc::new(client_secret::FromFile::new(transport, application, file))
        }
        config::Source::ClientSecret { application, secret: SecretLocation::Here(secret) } => {
            Arc::new(client_secret::FromMemory { transport, application, secret })
        }
        config::Source::ClientCertificate { application, file, algorithm } => {
            let clock = Arc::clone(clock);
            Arc::new(client_certificate::ClientCertificate::new(
                transport,
                clock,
                application,
                file,
                algorithm,
            ))
        }
        config::Source::ManagedIdentity(identity) => {
            Arc::new(managed_identity::OfMachine { transport, identity })
        }
        config::Source::WorkloadIdentity { application, token_file } => {
            Arc::new(workload_identity::WorkloadIdentity::new(transport, application, token_file))
        }
    }
}
