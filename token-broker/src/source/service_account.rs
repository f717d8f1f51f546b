//! The pod's service account token as an application's federated credential
//! (learn.microsoft.com/entra/workload-id/workload-identity-federation).

use std::path::PathBuf;

use super::{
    Fingerprint,
    credential::{Credential, Presented},
    credential_file::{Content, CredentialFile, Readers},
};
use crate::{failure::NoToken, https::Boxed};

/// The token is projected into a file, which the kubelet renews at 80 % of the token's life.
pub(super) struct ServiceAccount(CredentialFile);

impl ServiceAccount {
    pub(super) fn new(file: PathBuf) -> Self {
        Self(CredentialFile::new(file, Readers::Any, Content::Line))
    }
}

impl Credential for ServiceAccount {
    fn present(&self) -> Boxed<'_, Result<Presented, NoToken>> {
        Box::pin(async { self.0.read().await.map(Presented::federated).map_err(NoToken::local) })
    }

    fn fingerprint(&self) -> Boxed<'_, Option<Fingerprint>> {
        Box::pin(self.0.fingerprint())
    }
}
