//! Follows the configuration file: what is changed in it is in force some seconds later, without
//! a restart. It follows what the pod is, too, where `identity_access` asks for that (`gate`).
//!
//! The whole new configuration is put in force or none of it. What it leaves as it was goes on with
//! its tokens and keys; a file that is wrong, half-written or gone changes nothing, is logged once
//! for each state of the file, and counted. The file is read again and again rather than watched:
//! Kubernetes replaces a mounted ConfigMap by swapping a link, which a watch on the file misses,
//! and the kubelet itself takes up to a minute.

use std::{convert::Infallible, path::PathBuf, sync::Arc, time::Duration};

use policy::document::ConfigError;
use tokio::time::{Instant, sleep_until};

use crate::{
    config::{Config, document, environment::Environment},
    file,
    https::{Replaceable, Transport, circuit::Circuits},
    server::{Serving, State},
    source::Means,
    time::later,
};

mod gate;

use gate::Gate;

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

    /// Looks at the file, and at what the pod is, again and again.
    pub async fn follow(mut self, state: &State) -> Infallible {
        let mut gate = Gate::new(&self.in_force, state.serving().tokens.clock());
        let mut next_look = later(Instant::now(), PERIOD);
        loop {
            self.look_at_pod(&mut gate, state);
            tokio::select! {
                () = sleep_until(next_look) => {
                    next_look = later(Instant::now(), PERIOD);
                    self.look_at_file(&mut gate, state);
                }
                () = gate.changed() => {}
            }
        }
    }

    fn look_at_pod(&self, gate: &mut Gate, state: &State) {
        let before = state.serving();
        let access = gate.judge(&self.in_force);
        if access == *before.access {
            return;
        }
        gate::tell(&self.in_force, &access, &state.metrics);
        let means = Self::means(&before, state);
        let (tokens, _) = gate.tokens(&self.in_force, &access, &before.tokens, &means);
        let (tokens, access) = (Arc::new(tokens), Arc::new(access));
        state.replace(Serving { tokens, access, ..before });
    }

    fn means(before: &Serving, state: &State) -> Means {
        Means {
            transport: Arc::<Circuits>::clone(&state.circuits),
            clock: Arc::clone(before.tokens.clock()),
            metrics: Arc::clone(&state.metrics),
        }
    }

    fn look_at_file(&mut self, gate: &mut Gate, state: &State) {
        let seen = self.look();
        if self.seen.as_ref() == Some(&seen) {
            return;
        }
        let next = self.read(&seen);
        // What the broker was started with, unless it was changed since.
        let first = self.seen.is_none() && seen.authorities == self.authorities;
        self.seen = Some(seen);
        let errors = match next {
            Ok((next, _)) if first && self.is_in_force(&next) => return,
            Ok(next) => {
                self.put_in_force(next, gate, state);
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

    /// `listen` and `key_snapshot` cannot be others, and the proxy is the environment's, which stays.
    fn is_in_force(&self, next: &Config) -> bool {
        let Config {
            authorities,
            identities,
            access,
            listen: _,
            compat,
            key_snapshot: _,
            ca_file,
            proxy: _,
        } = &self.in_force;
        *authorities == next.authorities
            && *compat == next.compat
            && *identities == next.identities
            && *access == next.access
            && *ca_file == next.ca_file
    }

    fn look(&self) -> Seen {
        Seen { text: document::text(&self.file), authorities: authorities(&self.in_force) }
    }

    fn read(&self, seen: &Seen) -> Result<(Config, Arc<dyn Transport>), Vec<ConfigError>> {
        let text = seen.text.as_ref().map_err(|error| vec![error.clone()])?;
        let next = document::read(text, self.environment.as_ref())?;
        for (path, is_another) in [
            ("listen", next.listen != self.in_force.listen),
            ("key_snapshot", next.key_snapshot != self.in_force.key_snapshot),
        ] {
            if is_another {
                let text = "cannot change while the broker runs; restart it";
                return Err(vec![ConfigError::new(path, text)]);
            }
        }
        let transport =
            (self.connect)(&next).map_err(|error| vec![ConfigError::new("ca_file", error)])?;
        Ok((next, transport))
    }

    fn put_in_force(
        &mut self,
        (next, transport): (Config, Arc<dyn Transport>),
        gate: &mut Gate,
        state: &State,
    ) {
        self.transport.replace(transport);
        state.circuits.forget();
        let before = state.serving();
        gate.watch(&next);
        let access = gate.judge(&next);
        let means = Self::means(&before, state);
        let (tokens, started) = gate.tokens(&next, &access, &before.tokens, &means);
        tracing::info!(
            identities = next.identities.len(),
            started = started.join(" "),
            authorities = next.authorities.len(),
            "configuration in force"
        );
        if access != *before.access {
            gate::tell(&next, &access, &state.metrics);
        }
        state.replace(Serving {
            tokens: Arc::new(tokens),
            keys: Arc::new(before.keys.followed_by(next.authorities.clone())),
            access: Arc::new(access),
            compat: Arc::new(next.compat.clone()),
        });
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
