//! An application with a federated credential: the pod's service account token is its proof
//! (learn.microsoft.com/entra/workload-id/workload-identity-federation).

use std::{path::PathBuf, sync::Arc};

use contract::{Secret, TypedError};

use super::{
    TokenSource,
    credential_file::{self, Readers},
    is_about_the_credential,
};
use crate::{
    config::Application,
    entra::token_endpoint::{Acquired, Proof, client_credentials},
    https::{Boxed, Transport},
};

/// The token is projected into a file, which the kubelet renews at 80 % of the token's life.
pub(super) struct WorkloadIdentity {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) application: Application,
    pub(super) token_file: PathBuf,
}

impl TokenSource for WorkloadIdentity {
    fn acquire<'a>(&'a self, scope: &'a str) -> Boxed<'a, Result<Acquired, TypedError>> {
        let ask = async |assertion: &Secret| {
            let proof = Proof::Assertion(assertion);
            client_credentials(self.transport.as_ref(), &self.application, scope, proof).await
        };
        Box::pin(async move {
            let assertion = credential_file::read(&self.token_file, Readers::Any).await?;
            match ask(&assertion).await {
                Err(refused) if is_about_the_credential(&refused) => {
                    // It may have been renewed between reading and asking: once more, if so.
                    let renewed = credential_file::read(&self.token_file, Readers::Any).await?;
                    if renewed == assertion { Err(refused) } else { ask(&renewed).await }
                }
                outcome => outcome,
            }
        })
    }
}
