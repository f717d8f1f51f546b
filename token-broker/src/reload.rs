//! Follows the configuration file: what is changed in it is in force some seconds later, without
//! a restart.
//!
//! The whole new configuration is put in force or none of it. What it leaves as it was goes on with
//! its tokens and keys; a file that is wrong, half-written or gone changes nothing, is logged once
//! for each state of the file, and counted. The file is read again and again rather than watched:
//! Kubernetes replaces a mounted ConfigMap by swapping a link, which a watch on the file misses,
//! and the kubelet itself takes up to a minute.

use std::{collections::BTreeMap, convert::Infallible, path::PathBuf, sync::Arc, time::Duration};

use policy::document::ConfigError;
use tokio::time::sleep;

use crate::{
    config::{Config, document, environment::Environment},
    entitlements, file,
    https::{Replaceable, Transport},
    server::{Serving, State},
    source::Means,
};

/// How often the file is read.
const PERIOD: Duration = Duration::from_secs(5);
/// As much of `ca_file` as is compared; a larger one is refused when it is read.
const MAX_CA_BYTES: usize = 4 * 1024 * 1024;

/// Makes the way out that a configuration asks for; an error says what is wrong with `ca_file`.
pub type Connect = Box<dyn Fn(&Config) -> Result<Arc<dyn Transport>, String>>;

/// The configuration in force, and where its successor is to be found.
pub struct Reload {
    file: PathBuf,
    environment: Box<dyn Environment>,
    in_force: Config,
    transport: Arc<Replaceable>,
    connect: Connect,
    /// `ca_file` as it was when the broker was started with it.
    authorities: Option<Result<Vec<u8>, String>>,
    seen: Option<Seen>,
}

/// The files as they were looked at last; an unreadable one as its error.
#[derive(PartialEq, Eq)]
struct Seen {
    text: Result<String, ConfigError>,
    authorities: Option<Result<Vec<u8>, String>>,
}

impl Reload {
    /// Begins with the configuration that the broker was started with.
    pub fn new(
        file: PathBuf,
        environment: Box<dyn Environment>,
        in_force: Config,
        transport: Arc<Replaceable>,
        connect: Connect,
    ) -> Self {
        let authorities = authorities(&in_force);
        Self { file, environment, in_force, transport, connect, authorities, seen: None }
    }

    /// Looks at the file again and again.
    pub async fn follow(mut self, state: &State) -> Infallible {
        loop {
            sleep(PERIOD).await;
            let seen = self.look();
            if self.seen.as_ref() == Some(&seen) {
                continue;
            }
            let next = self.read(&seen);
            // What the broker was started with, unless it was changed since.
            let first = self.seen.is_none() && seen.authorities == self.authorities;
            self.seen = Some(seen);
            let errors = match next {
                Ok((next, _)) if first && self.is_in_force(&next) => continue,
                Ok(next) => {
                    self.put_in_force(next, state);
                    // It may name another `ca_file`: that is no further change.
                    if let Some(seen) = &mut self.seen {
                        seen.authorities = authorities(&self.in_force);
                    }
                    Vec::new()
                }
                Err(errors) => errors,
            };
            state.metrics.configuration_changed(errors.len());
            for error in &errors {
                tracing::error!(
                    file = %self.file.display(),
                    reason = %error,
                    "configuration refused: the one before stays in force"
                );
            }
        }
    }

    /// `listen` cannot be another, and the proxy is the environment's, which stays.
    fn is_in_force(&self, next: &Config) -> bool {
        let Config { authorities, identities, listen: _, ca_file, proxy: _ } = &self.in_force;
        *authorities == next.authorities
            && *identities == next.identities
            && *ca_file == next.ca_file
    }

    fn look(&self) -> Seen {
        Seen { text: document::text(&self.file), authorities: authorities(&self.in_force) }
    }

    fn read(&self, seen: &Seen) -> Result<(Config, Arc<dyn Transport>), Vec<ConfigError>> {
        let text = seen.text.as_ref().map_err(|error| vec![error.clone()])?;
        let next = document::read(text, self.environment.as_ref())?;
        if next.listen != self.in_force.listen {
            let text = "cannot change while the broker runs; restart it";
            return Err(vec![ConfigError::new("listen", text)]);
        }
        let transport =
            (self.connect)(&next).map_err(|error| vec![ConfigError::new("ca_file", error)])?;
        Ok((next, transport))
    }

    fn put_in_force(&mut self, (next, transport): (Config, Arc<dyn Transport>), state: &State) {
        self.transport.replace(transport);
        let (same, other): (BTreeMap<_, _>, BTreeMap<_, _>) = next
            .identities
            .iter()
            .partition(|(name, identity)| self.in_force.identities.get(*name) == Some(identity));
        let same: Vec<String> = same.into_keys().cloned().collect();
        let started: Vec<&str> = other.keys().map(|name| name.as_str()).collect();
        tracing::info!(
            identities = next.identities.len(),
            started = started.join(" "),
            authorities = next.authorities.len(),
            "configuration in force"
        );
        let transport: Arc<dyn Transport> = Arc::<Replaceable>::clone(&self.transport);
        let before = state.serving();
        let means = Means {
            transport,
            clock: Arc::clone(before.tokens.clock()),
            metrics: Arc::clone(&state.metrics),
        };
        state.replace(Serving {
            tokens: Arc::new(before.tokens.followed_by(&same, entitlements(other, &means))),
            keys: Arc::new(before.keys.followed_by(next.authorities.clone())),
        });
        let gone = self.in_force.identities.keys();
        for name in gone.filter(|name| !next.identities.contains_key(*name)) {
            state.metrics.forget_identity(name);
        }
        let gone = self.in_force.authorities.iter();
        for authority in gone.filter(|authority| !next.authorities.contains(authority)) {
            state.metrics.forget_authority(&authority.issuer());
        }
        self.in_force = next;
    }
}

/// What is in the configuration's `ca_file`.
fn authorities(config: &Config) -> Option<Result<Vec<u8>, String>> {
    let read = |path| file::read(path, MAX_CA_BYTES).map_err(|error| error.to_string());
    config.ca_file.as_deref().map(read)
}
