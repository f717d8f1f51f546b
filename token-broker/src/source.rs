//! Where tokens come from: one implementation of [`TokenSource`] per kind of identity.
//!
//! A source reads its credential, asks, and answers; it keeps nothing. `tokens` decides when to
//! ask.

use std::sync::Arc;

use contract::TypedError;

use crate::{
    config::{self, SecretLocation},
    entra::token_endpoint::Acquired,
    https::{Boxed, Transport},
};

mod client_secret;
mod credential_file;
mod workload_identity;

/// Gets tokens for one identity.
pub trait TokenSource: Send + Sync + 'static {
    /// A new token for one scope. Each call is one acquisition.
    fn acquire<'a>(&'a self, scope: &'a str) -> Boxed<'a, Result<Acquired, TypedError>>;
}

/// The source that the configuration asks for.
pub fn from_config(
    source: &config::Source,
    transport: &Arc<dyn Transport>,
) -> Arc<dyn TokenSource> {
    let transport = Arc::clone(transport);
    match source.clone() {
        config::Source::ClientSecret { application, secret: SecretLocation::File(file) } => {
            Arc::new(client_secret::FromFile::new(transport, application, file))
        }
        config::Source::ClientSecret { application, secret: SecretLocation::Here(secret) } => {
            Arc::new(client_secret::FromMemory { transport, application, secret })
        }
        config::Source::WorkloadIdentity { application, token_file } => {
            Arc::new(workload_identity::WorkloadIdentity::new(transport, application, token_file))
        }
    }
}
