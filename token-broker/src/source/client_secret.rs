//! An application with a client secret.

use std::{path::PathBuf, sync::Arc};

use contract::{Secret, TypedError};

use super::{
    Fingerprint, TokenSource,
    credential_file::{Content, CredentialFile, Readers},
};
use crate::{
    config::Application,
    entra::token_endpoint::{Acquired, Proof, Wanted, client_credentials},
    https::{Boxed, Transport},
};

/// The secret is in a file, which whoever renews it replaces.
pub(super) struct FromFile {
    transport: Arc<dyn Transport>,
    application: Application,
    file: CredentialFile,
}

impl FromFile {
    pub(super) fn new(
        transport: Arc<dyn Transport>,
        application: Application,
        file: PathBuf,
    ) -> Self {
        let file = CredentialFile::new(file, Readers::NotEveryone, Content::Line);
        Self { transport, application, file }
    }
}

impl TokenSource for FromFile {
    fn acquire<'a>(&'a self, wanted: Wanted<'a>) -> Boxed<'a, Result<Acquired, TypedError>> {
        Box::pin(self.file.acquire(self.transport.as_ref(), &self.application, wanted, |secret| {
            Proof::Secret(secret)
        }))
    }

    fn credential(&self) -> Boxed<'_, Option<Fingerprint>> {
        Box::pin(self.file.fingerprint())
    }
}

/// The secret came with the environment.
pub(super) struct FromMemory {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) application: Application,
    pub(super) secret: Secret,
}

impl TokenSource for FromMemory {
    fn acquire<'a>(&'a self, wanted: Wanted<'a>) -> Boxed<'a, Result<Acquired, TypedError>> {
        let proof = Proof::Secret(&self.secret);
        Box::pin(client_credentials(self.transport.as_ref(), &self.application, wanted, proof))
    }

    /// It cannot change while the process lives.
    fn credential(&self) -> Boxed<'_, Option<Fingerprint>> {
        Box::pin(std::future::ready(None))
    }
}
