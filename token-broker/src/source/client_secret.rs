//! A client secret.

use std::path::PathBuf;

use contract::Secret;

use super::{
    Fingerprint,
    credential::{Credential, Presented},
    credential_file::{Content, CredentialFile, Readers},
};
use crate::{failure::NoToken, https::Boxed};

/// The secret is in a file, which whoever renews it replaces.
pub(super) struct FromFile(CredentialFile);

impl FromFile {
    pub(super) fn new(file: PathBuf) -> Self {
        Self(CredentialFile::new(file, Readers::NotEveryone, Content::Line))
    }
}

impl Credential for FromFile {
    fn present(&self) -> Boxed<'_, Result<Presented, NoToken>> {
        Box::pin(async { self.0.read().await.map(Presented::secret).map_err(NoToken::local) })
    }

    fn fingerprint(&self) -> Boxed<'_, Option<Fingerprint>> {
        Box::pin(self.0.fingerprint())
    }
}

/// The secret came with the environment.
pub(super) struct FromMemory(pub(super) Secret);

impl Credential for FromMemory {
    fn present(&self) -> Boxed<'_, Result<Presented, NoToken>> {
        Box::pin(std::future::ready(Ok(Presented::secret(self.0.clone()))))
    }

    /// It cannot change while the process lives.
    fn fingerprint(&self) -> Boxed<'_, Option<Fingerprint>> {
        Box::pin(std::future::ready(None))
    }
}
