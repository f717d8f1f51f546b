//! An application and its credentials, tried in order: a ladder, of one rung as a rule.
//!
//! Only a refusal that is about the credential leads to the next one, and all are the same
//! application's, so whatever fails, the broker is never somebody else. A lower rung that worked is
//! used first for an hour; then the ladder is tried from the top, so that a repaired credential is
//! used again.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use contract::ErrorKind;
use tokio::time::Instant;

use super::{Credential, Fingerprint, Means, TokenSource, credential::Presented};
use crate::{
    config::Application,
    entra::token_endpoint::{self, Acquired, Wanted},
    failure::{NoToken, Pace, failure},
    https::{Boxed, Transport},
    metrics::{Metrics, kind_label},
};

/// How long a lower rung is used before the ladder is tried from the top.
const FROM_THE_TOP: Duration = Duration::from_secs(3_600);

pub(super) struct OfApplication {
    identity: String,
    application: Application,
    transport: Arc<dyn Transport>,
    metrics: Arc<Metrics>,
    ladder: Vec<Box<dyn Credential>>,
    /// The lower rung that worked, and when it was taken.
    lower: Mutex<Option<(usize, Instant)>>,
}

impl OfApplication {
    pub(super) fn new(
        identity: &str,
        application: Application,
        ladder: Vec<Box<dyn Credential>>,
        means: &Means,
    ) -> Self {
        Self {
            identity: identity.to_owned(),
            application,
            transport: Arc::clone(&means.transport),
            metrics: Arc::clone(&means.metrics),
            ladder,
            lower: Mutex::default(),
        }
    }

    async fn climb(&self, wanted: Wanted<'_>) -> Result<Acquired, NoToken> {
        let mut failed: Option<NoToken> = None;
        for (rung, credential) in self.order(Instant::now()) {
            match self.ask(credential, wanted).await {
                Ok(acquired) => {
                    self.count(rung, None);
                    self.took(rung);
                    return Ok(acquired);
                }
                Err(refused) => {
                    self.count(rung, Some(refused.error.kind));
                    if !refused.of_credential {
                        return Err(refused);
                    }
                    failed = Some(self.worst(rung, refused, failed));
                }
            }
        }
        *self.lower() = None;
        // There is always a rung; without one there would be nothing to prove with.
        Err(failed.unwrap_or_else(|| {
            NoToken::local(failure(ErrorKind::Config, "no_credential: the identity has none"))
        }))
    }

    /// The rungs with their places, in the order in which they are tried now.
    fn order(&self, now: Instant) -> impl Iterator<Item = (usize, &dyn Credential)> {
        let lower = *self.lower();
        let first = lower
            .filter(|(_, since)| now.saturating_duration_since(*since) < FROM_THE_TOP)
            .map(|(rung, _)| rung);
        let all = || self.ladder.iter().map(Box::as_ref).enumerate();
        let preferred = all().filter(move |(rung, _)| first == Some(*rung));
        preferred.chain(all().filter(move |(rung, _)| first != Some(*rung)))
    }

    /// Asks with one credential, and once more where there is another one by then.
    async fn ask(
        &self,
        credential: &dyn Credential,
        wanted: Wanted<'_>,
    ) -> Result<Acquired, NoToken> {
        let presented = credential.present().await;
        let refused = match &presented {
            Ok(presented) => self.ask_with(presented, wanted).await,
            Err(unusable) => Err(unusable.clone()),
        };
        let (presented, refused) = match (presented, refused) {
            (Ok(presented), Ok(acquired)) => {
                credential.worked(presented);
                return Ok(acquired);
            }
            (_, Err(refused)) if !refused.of_credential => return Err(refused),
            (presented, Err(refused)) => (presented.ok(), refused),
            (Err(unusable), Ok(_)) => return Err(unusable),
        };
        let Some(another) = credential.another(presented.as_ref()).await else {
            return Err(refused);
        };
        let acquired = self.ask_with(&another, wanted).await?;
        credential.worked(another);
        Ok(acquired)
    }

    async fn ask_with(
        &self,
        presented: &Presented,
        wanted: Wanted<'_>,
    ) -> Result<Acquired, NoToken> {
        let transport = self.transport.as_ref();
        token_endpoint::ask(transport, &self.application, wanted, &presented.proof).await
    }

    /// The first rung's refusal is the one that a person must mend; as soon as all are local.
    fn worst(&self, rung: usize, refused: NoToken, before: Option<NoToken>) -> NoToken {
        if self.ladder.len() > 1 {
            tracing::warn!(
                identity = self.identity,
                position = rung.saturating_add(1),
                of = self.ladder.len(),
                reason = refused.error.error,
                "credential does not work"
            );
        }
        let Some(before) = before else { return refused };
        let pace = match (before.pace, refused.pace) {
            (Pace::Soon, Pace::Soon) => Pace::Soon,
            _ => Pace::ByKind,
        };
        // What one of them says of one user alone is not so for all.
        let reach = before.reach.min(refused.reach);
        let shown = if rung == 0 { refused } else { before };
        NoToken { pace, reach, ..shown }
    }

    /// A rung worked: a lower one is said and remembered, when it is first taken.
    fn took(&self, rung: usize) {
        let mut lower = self.lower();
        if rung == 0 {
            if lower.take().is_some() {
                tracing::info!(identity = self.identity, "the first credential works again");
            }
            return;
        }
        let now = Instant::now();
        let current = lower.is_some_and(|(known, since)| {
            known == rung && now.saturating_duration_since(since) < FROM_THE_TOP
        });
        if !current {
            *lower = Some((rung, now));
            tracing::warn!(
                identity = self.identity,
                position = rung.saturating_add(1),
                of = self.ladder.len(),
                "a lower credential is used: those before it do not work"
            );
        }
    }

    fn count(&self, rung: usize, refused: Option<ErrorKind>) {
        let outcome = refused.map_or("issued", kind_label);
        self.metrics.credential_used(&self.identity, rung, outcome);
    }

    fn lower(&self) -> std::sync::MutexGuard<'_, Option<(usize, Instant)>> {
        self.lower.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fingerprint(&self) -> Option<Fingerprint> {
        let mut all = Vec::with_capacity(self.ladder.len());
        for credential in &self.ladder {
            all.push(credential.fingerprint().await);
        }
        Fingerprint::of_all(&all)
    }
}

impl TokenSource for OfApplication {
    fn acquire<'a>(&'a self, wanted: Wanted<'a>) -> Boxed<'a, Result<Acquired, NoToken>> {
        Box::pin(self.climb(wanted))
    }

    fn credential(&self) -> Boxed<'_, Option<Fingerprint>> {
        Box::pin(self.fingerprint())
    }
}
