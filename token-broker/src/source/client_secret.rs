//! An application with a client secret.

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

/// The secret is in a file.
pub(super) struct FromFile {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) application: Application,
    pub(super) file: PathBuf,
}

/// The secret came with the environment.
pub(super) struct FromMemory {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) application: Application,
    pub(super) secret: Secret,
}

impl TokenSource for FromFile {
    fn acquire<'a>(&'a self, scope: &'a str) -> Boxed<'a, Result<Acquired, TypedError>> {
        let ask = async |secret: &Secret| {
            let proof = Proof::Secret(secret);
            client_credentials(self.transport.as_ref(), &self.application, scope, proof).await
        };
        Box::pin(async move {
            let secret = credential_file::read(&self.file, Readers::NotEveryone).await?;
            let outcome = ask(&secret).await;
            match outcome {
                Err(refused) if is_about_the_credential(&refused) => {
                    // It may have been renewed between reading and asking: once more, if so.
                    let renewed = credential_file::read(&self.file, Readers::NotEveryone).await?;
                    if renewed == secret { Err(refused) } else { ask(&renewed).await }
                }
                outcome => outcome,
            }
        })
    }
}

impl TokenSource for FromMemory {
    fn acquire<'a>(&'a self, scope: &'a str) -> Boxed<'a, Result<Acquired, TypedError>> {
        let proof = Proof::Secret(&self.secret);
        Box::pin(client_credentials(self.transport.as_ref(), &self.application, scope, proof))
    }
}
