//! A certificate: its key signs an assertion for each request.
//!
//! Certificates are renewed while the broker runs, and the new one may be half-written, or not
//! registered yet: so the one that worked last is kept until its successor works.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use contract::{ErrorKind, Secret};

use super::{
    Fingerprint,
    credential::{Credential, Presented},
    credential_file::{Content, CredentialFile, Readers},
};
use crate::{
    config::{Application, AssertionAlgorithm},
    entra::{
        client_assertion::Certificate,
        token_endpoint::{Proof, token_uri},
    },
    failure::{NoToken, failure},
    https::Boxed,
    memory::Shielded,
    time::Clock,
};

/// The key and the certificate are in one file.
pub(super) struct ClientCertificate {
    clock: Arc<dyn Clock>,
    application: Application,
    file: CredentialFile,
    algorithm: AssertionAlgorithm,
    /// What the file held when Entra last took an assertion. It lies there for months.
    worked: Mutex<Option<Shielded>>,
}

impl ClientCertificate {
    pub(super) fn new(
        clock: Arc<dyn Clock>,
        application: Application,
        file: PathBuf,
        algorithm: AssertionAlgorithm,
    ) -> Self {
        let file = CredentialFile::new(file, Readers::NotEveryone, Content::Pem);
        Self { clock, application, file, algorithm, worked: Mutex::default() }
    }

    async fn of_file(&self) -> Result<Presented, NoToken> {
        let pem = self.file.read().await.map_err(NoToken::local)?;
        self.signed(pem)
    }

    /// An assertion by the key in a PEM.
    fn signed(&self, pem: Secret) -> Result<Presented, NoToken> {
        let unusable = |reason: &dyn std::fmt::Display| {
            let path = self.file.path().display();
            let text = format!("credential_file: {path}: {reason}");
            NoToken::local(failure(ErrorKind::Config, text))
        };
        let certificate = Certificate::from_pem(&pem).map_err(|reason| unusable(&reason))?;
        let audience = token_uri(&self.application)
            .map_err(|_malformed| unusable(&"makes no valid request"))?
            .to_string();
        let now = self.clock.unix_now();
        let assertion = certificate
            .assertion(&self.application, &audience, self.algorithm, now)
            .ok_or_else(|| unusable(&"the key does not sign"))?;
        Ok(Presented { material: pem, proof: Proof::Assertion(assertion) })
    }

    fn worked(&self) -> std::sync::MutexGuard<'_, Option<Shielded>> {
        self.worked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Credential for ClientCertificate {
    fn present(&self) -> Boxed<'_, Result<Presented, NoToken>> {
        Box::pin(self.of_file())
    }

    /// What the file holds by now, else the one before.
    fn another<'a>(&'a self, refused: Option<&'a Presented>) -> Boxed<'a, Option<Presented>> {
        let differs =
            move |other: &Secret| refused.is_none_or(|refused| refused.material != *other);
        Box::pin(async move {
            let now = self.of_file().await.ok().filter(|now| differs(&now.material));
            if now.is_some() {
                return now;
            }
            let before = self.worked().as_ref().and_then(Shielded::open).filter(differs)?;
            tracing::warn!(
                file = %self.file.path().display(),
                "new certificate does not work; the one before is used on"
            );
            self.signed(before).ok()
        })
    }

    fn worked(&self, presented: Presented) {
        *self.worked() = Shielded::new(&presented.material);
    }

    fn fingerprint(&self) -> Boxed<'_, Option<Fingerprint>> {
        Box::pin(self.file.fingerprint())
    }
}
