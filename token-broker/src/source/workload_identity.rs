//! An application with a federated credential: the pod's service account token is its proof
//! (learn.microsoft.com/entra/workload-id/workload-identity-federation).

use std::{path::PathBuf, sync::Arc};

use contract::TypedError;

use super::{
    Fingerprint, TokenSource,
    credential_file::{Content, CredentialFile, Readers},
};
use crate::{
    config::Application,
    entra::token_endpoint::{Acquired, Proof, Wanted},
    https::{Boxed, Transport},
};

/// The token is projected into a file, which the kubelet renews at 80 % of the token's life.
pub(super) struct WorkloadIdentity {
    transport: Arc<dyn Transport>,
    application: Application,
    file: CredentialFile,
}

impl WorkloadIdentity {
    pub(super) fn new(
        transport: Arc<dyn Transport>,
        application: Application,
        file: PathBuf,
    ) -> Self {
        Self {
            transport,
            application,
            file: CredentialFile::new(file, Readers::Any, Content::Line),
        }
    }
}

impl TokenSource for WorkloadIdentity {
    fn acquire<'a>(&'a self, wanted: Wanted<'a>) -> Boxed<'a, Result<Acquired, TypedError>> {
        Box::pin(self.file.acquire(self.transport.as_ref(), &self.application, wanted, |token| {
            Proof::Assertion(token)
        }))
    }

    fn credential(&self) -> Boxed<'_, Option<Fingerprint>> {
        Box::pin(self.file.fingerprint())
    }
}
