//! Where tokens come from: one implementation of [`TokenSource`] per kind of identity.
//!
//! A source reads its credential, asks, and answers; it keeps no token that it gives. `tokens`
//! decides when to ask.

use std::sync::Arc;

use contract::Secret;
use ring::digest::{Context, SHA256, digest};

use crate::{
    config::{self, SecretLocation},
    entra::token_endpoint::{Acquired, Wanted},
    failure::NoToken,
    https::{Boxed, Transport},
    metrics::Metrics,
    time::Clock,
};

mod application;
mod client_certificate;
mod client_secret;
mod credential;
pub(crate) mod credential_file;
mod managed_identity;
mod service_account;

use credential::Credential;

/// Gets tokens for one identity.
pub trait TokenSource: Send + Sync + 'static {
    /// A new token. Each call is one acquisition.
    fn acquire<'a>(&'a self, wanted: Wanted<'a>) -> Boxed<'a, Result<Acquired, NoToken>>;

    /// The credential as it is now; `None` where there is none to read, or it cannot change.
    fn credential(&self) -> Boxed<'_, Option<Fingerprint>>;
}

/// Tells one credential from another without holding it. Not shown: it is a digest of a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Fingerprint(Vec<u8>);

impl Fingerprint {
    /// The fingerprint of a credential.
    pub(crate) fn of(credential: &Secret) -> Self {
        Self(digest(&SHA256, credential.expose().as_bytes()).as_ref().to_vec())
    }

    /// The fingerprint of several, of which some cannot be read; none where none can be.
    fn of_all(all: &[Option<Self>]) -> Option<Self> {
        let mut context = Context::new(&SHA256);
        for one in all {
            context.update(&[u8::from(one.is_some())]);
            context.update(one.as_ref().map_or(&[], |one| &one.0));
        }
        let known = all.iter().any(Option::is_some);
        known.then(|| Self(context.finish().as_ref().to_vec()))
    }
}

/// What sources are made with.
#[derive(Clone)]
pub struct Means {
    /// The way out.
    pub transport: Arc<dyn Transport>,
    /// The clock that assertions are written by.
    pub clock: Arc<dyn Clock>,
    /// The counters.
    pub metrics: Arc<Metrics>,
}

/// The source that the configuration asks for, of the identity of this name.
pub fn from_config(identity: &str, source: &config::Source, means: &Means) -> Arc<dyn TokenSource> {
    match source.clone() {
        config::Source::Application { application, credentials } => {
            let ladder =
                credentials.into_iter().map(|one| credential(one, &application, means)).collect();
            Arc::new(application::OfApplication::new(identity, application, ladder, means))
        }
        config::Source::ManagedIdentity(identity) => {
            let transport = Arc::clone(&means.transport);
            Arc::new(managed_identity::OfMachine { transport, identity })
        }
    }
}

fn credential(
    credential: config::Credential,
    application: &config::Application,
    means: &Means,
) -> Box<dyn Credential> {
    match credential {
        config::Credential::Secret(SecretLocation::File(file)) => {
            Box::new(client_secret::FromFile::new(file))
        }
        config::Credential::Secret(SecretLocation::Here(secret)) => {
            Box::new(client_secret::FromMemory(secret))
        }
        config::Credential::Certificate { file, algorithm } => {
            let clock = Arc::clone(&means.clock);
            let application = application.clone();
            Box::new(client_certificate::ClientCertificate::new(
                clock,
                application,
                file,
                algorithm,
            ))
        }
        config::Credential::ServiceAccount(file) => {
            Box::new(service_account::ServiceAccount::new(file))
        }
        config::Credential::ManagedIdentity(identity) => {
            Box::new(managed_identity::AsCredential::new(identity, application.cloud, means))
        }
    }
}
