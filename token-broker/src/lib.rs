//! Acquires and renews tokens, keeps signing keys fresh, and serves both to the filter.
//!
//! A configuration (`config`) says which identities and authorities there are. For each pair of
//! identity and scope `tokens` keeps a token, got by a `source`; for each authority `keys` keeps
//! the signing keys. Both ask Entra (`entra`) by way of `https`, the only way out. `server`
//! answers the filter on one listener and whoever watches on another. When to ask again is pure
//! arithmetic in `refresh`.
//!
//! Where the configuration says which pods may use which identity, `access` decides from what `pod`
//! has verified, and there are tokens of the identities that it allows and of no others.
//!
//! No request to the broker can choose where it asks: hosts come from the configured clouds.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

pub mod access;
pub mod config;
pub mod entra;
pub mod explain_access;
pub mod failure;
pub mod file;
pub mod https;
pub mod keys;
pub mod memory;
pub mod metrics;
pub mod pod;
pub mod refresh;
pub mod reload;
pub mod server;
pub mod signature;
pub mod source;
pub mod time;
pub mod tokens;
pub mod validation;

use access::Standing;
use config::{Config, Identity, Source, environment::Environment};
use https::{Replaceable, Transport, circuit::Circuits};
use keys::Keys;
use metrics::Metrics;
use pod::NotProven;
use reload::Reload;
use server::{Listeners, Serving, State};
use source::Means;
use time::Clock;
use tokens::{Delegation, Entitlement, Tokens};

/// Starts everything that the configuration names; the first requests to Entra leave at once.
///
/// Must run inside a tokio runtime.
pub fn start(
    config: &Config,
    transport: &Arc<dyn Transport>,
    clock: &Arc<dyn Clock>,
) -> Arc<State> {
    let metrics = Arc::new(Metrics::default());
    let circuits = Arc::new(Circuits::new(Arc::clone(transport), Arc::clone(&metrics)));
    let transport: Arc<dyn Transport> = Arc::<Circuits>::clone(&circuits);
    let means = Means {
        transport: Arc::clone(&transport),
        clock: Arc::clone(clock),
        metrics: Arc::clone(&metrics),
    };
    let access = match config.access {
        None => Standing::Open,
        Some(_) => Standing::Undecided(NotProven::NotYet),
    };
    let allowed = config.identities.iter().filter(|(name, _)| access.allows(name));
    let entitlements = entitlements(allowed, &means);
    let keys = Keys::start(
        config.authorities.clone(),
        config.key_snapshot.as_ref(),
        transport,
        circuits.recoveries(),
        Arc::clone(clock),
        Arc::clone(&metrics),
    );
    let recoveries = circuits.recoveries();
    let tokens = Tokens::start(entitlements, recoveries, Arc::clone(clock), Arc::clone(&metrics));
    let tokens = tokens.guarded(&access);
    let serving = Serving {
        tokens: Arc::new(tokens),
        keys: Arc::new(keys),
        access: Arc::new(access),
        compat: Arc::new(config.compat.clone()),
    };
    let state = Arc::new(State::new(serving, circuits, metrics));
    if let Some(snapshot) = &config.key_snapshot {
        tokio::spawn(keys::keeping::keep(snapshot.clone(), Arc::downgrade(&state)));
    }
    state
}

/// What may be asked for with each identity.
fn entitlements<'a>(
    identities: impl IntoIterator<Item = (&'a String, &'a Identity)>,
    means: &Means,
) -> BTreeMap<String, Entitlement> {
    let entitled = |(name, identity): (&String, &Identity)| {
        let source = source::from_config(name, &identity.source, means);
        let (scopes, capability) = (identity.scopes.clone(), identity.capability);
        let delegation = match &identity.source {
            Source::Application { application, .. } if !identity.delegated_scopes.is_empty() => {
                Some(Delegation {
                    tenant: application.tenant.clone(),
                    scopes: identity.delegated_scopes.clone(),
                })
            }
            _ => None,
        };
        (name.clone(), Entitlement { source, scopes, capability, delegation })
    };
    identities.into_iter().map(entitled).collect()
}

/// Runs the broker until `stop` is done. It follows changes of `file`, where the configuration
/// comes from one.
pub async fn run(
    config: Config,
    file: Option<PathBuf>,
    environment: Box<dyn Environment>,
    stop: impl Future<Output = ()>,
) -> Result<(), StartError> {
    let connect: reload::Connect = Box::new(|config| {
        https::Https::new(config.ca_file.as_deref(), config.proxy.clone())
            .map(|https| Arc::new(https) as Arc<dyn Transport>)
            .map_err(|error| error.to_string())
    });
    if let Some(snapshot) = &config.key_snapshot {
        snapshot.has_its_place().map_err(|error| StartError(error.to_string()))?;
    }
    let first = connect(&config).map_err(|error| StartError(format!("ca_file: {error}")))?;
    let listeners =
        Listeners::bind(&config.listen).await.map_err(|error| StartError(error.to_string()))?;
    let replaceable = Arc::new(Replaceable::new(first));
    let transport: Arc<dyn Transport> = Arc::<Replaceable>::clone(&replaceable);
    let clock: Arc<dyn Clock> = Arc::new(time::SystemClock);
    let state = start(&config, &transport, &clock);
    let following = async {
        match file {
            Some(file) => {
                let reload = Reload::new(file, environment, config, replaceable, connect);
                reload.follow(&state).await
            }
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = listeners.serve(Arc::clone(&state), stop) => {}
        never = following => match never {},
    }
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
