//! Which of the configured identities the broker holds: those that the pod may use now.
//!
//! An identity that the pod has lost goes with its tokens; one that it has got is acquired at once.
//! While it cannot be told what the pod is, what is held stays held, so that Entra need not be asked
//! again, but is not handed out, and nothing is acquired beside.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    access::Standing,
    config::{Config, Identity},
    entitlements,
    metrics::Metrics,
    pod::Pod,
    source::Means,
    time::Clock,
    tokens::Tokens,
};

/// What is known of the pod, and what the broker holds for it.
pub(super) struct Gate {
    /// None where there is no `identity_access`.
    pod: Option<Pod>,
    clock: Arc<dyn Clock>,
    held: BTreeMap<String, Identity>,
}

impl Gate {
    /// Begins with what [`crate::start`] makes of a configuration.
    pub(super) fn new(config: &Config, clock: &Arc<dyn Clock>) -> Self {
        let held = match config.access {
            None => config.identities.clone(),
            Some(_) => BTreeMap::new(),
        };
        let mut gate = Self { pod: None, clock: Arc::clone(clock), held };
        gate.watch(config);
        gate
    }

    /// Looks for the evidence where this configuration says.
    pub(super) fn watch(&mut self, config: &Config) {
        let settings = config.access.as_ref().map(|access| access.pod.clone());
        if self.pod.as_ref().map(Pod::settings) != settings.as_ref() {
            self.pod = settings.map(|settings| Pod::watch(settings, Arc::clone(&self.clock)));
        }
    }

    /// What this configuration means for the pod as it is now.
    pub(super) fn judge(&mut self, config: &Config) -> Standing {
        match (&config.access, &mut self.pod) {
            (Some(access), Some(pod)) => {
                Standing::of(&access.entries, config.identities.keys(), pod.evidence())
            }
            _ => Standing::Open,
        }
    }

    /// Waits until what is known of the cluster is something else.
    pub(super) async fn changed(&mut self) {
        match &mut self.pod {
            Some(pod) => pod.changed().await,
            None => std::future::pending().await,
        }
    }

    /// The tokens to hand out as `access` says, and the identities that were started for it.
    pub(super) fn tokens(
        &mut self,
        config: &Config,
        access: &Standing,
        before: &Tokens,
        means: &Means,
    ) -> (Tokens, Vec<String>) {
        let undecided = matches!(access, Standing::Undecided(_));
        let (mut kept, mut started) = (BTreeMap::new(), BTreeMap::new());
        for (name, identity) in &config.identities {
            if self.held.get(name) == Some(identity) && (undecided || access.allows(name)) {
                kept.insert(name.clone(), identity.clone());
            } else if access.allows(name) {
                started.insert(name.clone(), identity.clone());
            }
        }
        let names: Vec<String> = kept.keys().cloned().collect();
        let tokens = before.followed_by(&names, entitlements(&started, means)).guarded(access);
        let begun: Vec<String> = started.keys().cloned().collect();
        kept.append(&mut started);
        for gone in self.held.keys().filter(|name| !kept.contains_key(*name)) {
            means.metrics.forget_identity(gone);
        }
        self.held = kept;
        (tokens, begun)
    }
}

/// Says what was decided, once for each change.
pub(super) fn tell(config: &Config, access: &Standing, metrics: &Metrics) {
    let (evidence, allowed_by) = match access {
        Standing::Open => return,
        Standing::Undecided(reason) => {
            tracing::warn!(%reason, "identity_access cannot be decided: no token is handed out");
            (None, None)
        }
        Standing::Refused(reason) => {
            tracing::error!(%reason, "identity_access: the pod is not what it says, every identity is denied");
            (None, None)
        }
        Standing::Decided { evidence, allowed_by } => (Some(evidence), Some(allowed_by)),
    };
    for identity in config.identities.keys() {
        metrics.access_decided(identity, access);
        let (Some(evidence), Some(allowed_by)) = (evidence, allowed_by) else { continue };
        match allowed_by.get(identity).copied().flatten() {
            Some(entry) => tracing::info!(identity, entry, pod = %evidence, "identity allowed"),
            None => tracing::warn!(identity, pod = %evidence, "identity denied by identity_access"),
        }
    }
}
