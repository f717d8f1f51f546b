//! Acquires and renews tokens, keeps signing keys fresh, and serves both to the filter.
//!
//! A configuration (`config`) says which identities and authorities there are. For each pair of
//! identity and scope `tokens` keeps a token, got by a `source`; for each authority `keys` keeps
//! the signing keys. Both ask Entra (`entra`) by way of `https`, the only way out. `server`
//! answers the filter on one listener and whoever watches on another. When to ask again is pure
//! arithmetic in `refresh`.
//!
//! No request to the broker can choose where it asks: hosts come from the configured clouds.

use std::sync::Arc;

pub mod config;
pub mod entra;
pub mod failure;
pub mod file;
pub mod https;
pub mod keys;
pub mod metrics;
pub mod refresh;
pub mod server;
pub mod source;
pub mod time;
pub mod tokens;

use config::Config;
use https::Transport;
use keys::Keys;
use metrics::Metrics;
use server::{Listeners, State};
use time::Clock;
use tokens::{Entitlement, Tokens};

/// Starts everything that the configuration names; the first requests to Entra leave at once.
///
/// Must run inside a tokio runtime.
pub fn start(
    config: &Config,
    transport: &Arc<dyn Transport>,
    clock: &Arc<dyn Clock>,
) -> Arc<State> {
    let metrics = Arc::new(Metrics::default());
    let entitlements = config
        .identities
        .iter()
        .map(|(name, identity)| {
            let source = source::from_config(&identity.source, transport);
            let entitlement = Entitlement {
                source,
                scopes: identity.scopes.clone(),
                capability: identity.capability,
            };
            (name.clone(), entitlement)
        })
        .collect();
    let keys = Keys::start(
        config.authorities.clone(),
        Arc::clone(transport),
        Arc::clone(clock),
        Arc::clone(&metrics),
    );
    let tokens = Tokens::start(entitlements, Arc::clone(clock), Arc::clone(&metrics));
    Arc::new(State { tokens, keys, metrics })
}

/// Runs the broker until `stop` is done.
pub async fn run(config: Config, stop: impl Future<Output = ()>) -> Result<(), StartError> {
    let https = https::Https::new(config.ca_file.as_deref(), config.proxy.clone())
        .map_err(|error| StartError(format!("ca_file: {error}")))?;
    let listeners =
        Listeners::bind(&config.listen).await.map_err(|error| StartError(error.to_string()))?;
    let transport: Arc<dyn Transport> = Arc::new(https);
    let clock: Arc<dyn Clock> = Arc::new(time::SystemClock);
    let state = start(&config, &transport, &clock);
    listeners.serve(state, stop).await;
    tracing::info!("stopped");
    Ok(())
}

/// Why the broker did not start, for a person.
#[derive(Debug)]
pub struct StartError(String);

impl std::fmt::Display for StartError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}
