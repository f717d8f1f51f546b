//! An identity of the machine that the pod runs on, or of the pod where an agent of the node answers
//! in the machine's place (learn.microsoft.com/entra/identity/managed-identities-azure-resources):
//! as a source of tokens, and as an application's federated credential.

use std::{sync::Arc, time::Duration};

use contract::Secret;
use policy::cloud::Cloud;
use tokio::{sync::Mutex, time::Instant};

use super::{
    Fingerprint, Means, TokenSource,
    credential::{Credential, Presented},
};
use crate::{
    config::ManagedIdentity,
    entra::{
        instance_metadata,
        token_endpoint::{Acquired, Wanted},
    },
    failure::NoToken,
    https::{Boxed, Transport},
    time::Clock,
};

/// There is no credential: the machine is known by the wire that it asks on.
pub(super) struct OfMachine {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) identity: ManagedIdentity,
}

impl TokenSource for OfMachine {
    fn acquire<'a>(&'a self, wanted: Wanted<'a>) -> Boxed<'a, Result<Acquired, NoToken>> {
        Box::pin(instance_metadata::token(self.transport.as_ref(), &self.identity, wanted))
    }

    fn credential(&self) -> Boxed<'_, Option<Fingerprint>> {
        Box::pin(std::future::ready(None))
    }
}

/// With less life left than this an assertion is not sent: as MSAL does.
const MARGIN: Duration = Duration::from_secs(300);

/// A token of a managed identity for the exchange is the application's proof
/// (learn.microsoft.com/entra/workload-id/workload-identity-federation-config-app-trust-managed-identity).
pub(super) struct AsCredential {
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    identity: ManagedIdentity,
    scope: String,
    /// Locked while the machine is asked: once for all who need it.
    held: Mutex<Option<Held>>,
}

/// An assertion with its ends, by both clocks.
struct Held {
    token: Secret,
    until: Instant,
    until_unix: u64,
}

impl AsCredential {
    pub(super) fn new(identity: ManagedIdentity, cloud: Cloud, means: &Means) -> Self {
        Self {
            transport: Arc::clone(&means.transport),
            clock: Arc::clone(&means.clock),
            identity,
            scope: format!("{}/.default", cloud.exchange_audience()),
            held: Mutex::default(),
        }
    }

    /// The held assertion while it lives, unless it is `refused`; else a new one.
    async fn current(&self, refused: Option<&Secret>) -> Result<Presented, NoToken> {
        let mut held = self.held.lock().await;
        let (now, unix_now) = (Instant::now(), self.clock.unix_now());
        let usable = held.as_ref().filter(|held| now < held.until && unix_now < held.until_unix);
        if let Some(usable) = usable.filter(|usable| refused != Some(&usable.token)) {
            return Ok(Presented::federated(usable.token.clone()));
        }
        *held = None;
        let wanted = Wanted { scope: &self.scope, assertion: None, claims: None };
        let acquired =
            instance_metadata::token(self.transport.as_ref(), &self.identity, wanted).await?;
        let use_for = acquired.life.saturating_sub(MARGIN.min(acquired.life.mul_f64(0.1)));
        *held = Some(Held {
            token: acquired.access_token.clone(),
            until: crate::time::later(now, use_for),
            until_unix: unix_now.saturating_add(use_for.as_secs()),
        });
        Ok(Presented::federated(acquired.access_token))
    }
}

impl Credential for AsCredential {
    fn present(&self) -> Boxed<'_, Result<Presented, NoToken>> {
        Box::pin(self.current(None))
    }

    /// The machine's service keeps tokens, too: what it gives again is no other.
    fn another<'a>(&'a self, refused: Option<&'a Presented>) -> Boxed<'a, Option<Presented>> {
        Box::pin(async move {
            let refused = refused.map(|refused| &refused.material)?;
            self.current(Some(refused)).await.ok().filter(|other| other.material != *refused)
        })
    }

    /// Nothing says that the machine has another token but asking for it.
    fn fingerprint(&self) -> Boxed<'_, Option<Fingerprint>> {
        Box::pin(std::future::ready(None))
    }
}
