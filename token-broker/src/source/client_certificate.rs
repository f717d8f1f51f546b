//! An application with a certificate: its key signs an assertion for each request.
//!
//! Certificates are renewed while the broker runs, and the new one may be half-written, or not
//! registered yet: so the one that worked last is kept until its successor works.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use contract::{ErrorKind, Secret, TypedError};

use super::{
    Fingerprint, TokenSource,
    credential_file::{Content, CredentialFile, Readers},
};
use crate::{
    config::{Application, AssertionAlgorithm},
    entra::{
        client_assertion::Certificate,
        token_endpoint::{Acquired, Proof, Wanted, client_credentials, token_uri},
    },
    failure::failure,
    https::{Boxed, Transport},
    time::Clock,
};

/// The key and the certificate are in one file.
pub(super) struct ClientCertificate {
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    application: Application,
    file: CredentialFile,
    algorithm: AssertionAlgorithm,
    /// What the file held when Entra last took an assertion.
    worked: Mutex<Option<Secret>>,
}

impl ClientCertificate {
    pub(super) fn new(
        transport: Arc<dyn Transport>,
        clock: Arc<dyn Clock>,
        application: Application,
        file: PathBuf,
        algorithm: AssertionAlgorithm,
    ) -> Self {
        let file = CredentialFile::new(file, Readers::NotEveryone, Content::Pem);
        Self { transport, clock, application, file, algorithm, worked: Mutex::default() }
    }

    async fn ask(&self, wanted: Wanted<'_>) -> Result<Acquired, TypedError> {
        let before = self.worked().clone();
        let found = self.file.read().await;
        let outcome = match &found {
            Ok(pem) => self.ask_with(pem, wanted).await,
            Err(unusable) => Err(unusable.clone()),
        };
        match (outcome, before) {
            (Ok(acquired), _) => {
                *self.worked() = found.ok();
                Ok(acquired)
            }
            (Err(refused), Some(before))
                if calls_for_another(refused.kind) && found.as_ref().ok() != Some(&before) =>
            {
                tracing::warn!(
                    file = %self.file.path().display(),
                    reason = refused.error,
                    "new certificate does not work; the one before is used on"
                );
                self.ask_with(&before, wanted).await
            }
            (Err(refused), _) => Err(refused),
        }
    }

    async fn ask_with(&self, pem: &Secret, wanted: Wanted<'_>) -> Result<Acquired, TypedError> {
        let unusable = |reason: &dyn std::fmt::Display| {
            let path = self.file.path().display();
            failure(ErrorKind::Config, format!("credential_file: {path}: {reason}"))
        };
        let certificate = Certificate::from_pem(pem).map_err(|reason| unusable(&reason))?;
        let audience = token_uri(&self.application)
            .map_err(|_malformed| unusable(&"makes no valid request"))?
            .to_string();
        let now = self.clock.unix_now();
        let assertion = certificate
            .assertion(&self.application, &audience, self.algorithm, now)
            .ok_or_else(|| unusable(&"the key does not sign"))?;
        // Not held through the request: signing is done.
        drop(certificate);
        let proof = Proof::Assertion(&assertion);
        client_credentials(self.transport.as_ref(), &self.application, wanted, proof).await
    }

    fn worked(&self) -> std::sync::MutexGuard<'_, Option<Secret>> {
        self.worked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether another certificate could have another end.
fn calls_for_another(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Credential | ErrorKind::Config)
}

impl TokenSource for ClientCertificate {
    fn acquire<'a>(&'a self, wanted: Wanted<'a>) -> Boxed<'a, Result<Acquired, TypedError>> {
        Box::pin(self.ask(wanted))
    }

    fn credential(&self) -> Boxed<'_, Option<Fingerprint>> {
        Box::pin(self.file.fingerprint())
    }
}
