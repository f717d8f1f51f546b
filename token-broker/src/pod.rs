//! What the pod is that the broker runs in: its namespace and service account out of a token that
//! the cluster has signed for it, and its labels out of a file that the kubelet writes.
//!
//! It only reads and verifies. What the evidence is good for, `access` decides.

use std::{path::PathBuf, sync::Arc};

use policy::jwt::MAX_TOKEN_BYTES;

pub mod cluster;
pub mod keys;
mod labels;
pub mod names;
pub mod token;

pub use token::NotProven;

use crate::{access::Evidence, file, time::Clock};
use cluster::{ApiServer, Fetched};
use keys::ClusterKey;
use token::Expected;

/// Where the evidence is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The projected token.
    pub token_file: PathBuf,
    /// The labels (Downward API).
    pub labels_file: PathBuf,
    /// What the token must say.
    pub expected: Expected,
    /// What it is verified by.
    pub keys: KeysFrom,
}

/// Where the cluster's keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeysFrom {
    /// In a file, a JSON Web Key Set.
    File(PathBuf),
    /// At the API server.
    ApiServer(ApiServer),
}

/// Keeps what is needed to say, at any time, what the pod is.
pub struct Pod {
    settings: Settings,
    /// None where they are in a file.
    fetched: Option<Fetched>,
    clock: Arc<dyn Clock>,
}

impl Pod {
    /// Starts to fetch the cluster's keys, where they are to be fetched.
    ///
    /// Must run inside a tokio runtime.
    pub fn watch(settings: Settings, clock: Arc<dyn Clock>) -> Self {
        let fetched = match &settings.keys {
            KeysFrom::File(_) => None,
            KeysFrom::ApiServer(server) => {
                Some(Fetched::start(cluster::from(server.clone()), Arc::clone(&clock)))
            }
        };
        Self { settings, fetched, clock }
    }

    /// Where the evidence is.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What the pod is now: the files are read anew.
    pub fn evidence(&mut self) -> Result<Evidence, NotProven> {
        let keys = match (&self.settings.keys, &self.fetched) {
            (KeysFrom::File(file), _) => read_keys(file)?,
            (KeysFrom::ApiServer(_), Some(fetched)) => fetched.keys()?,
            (KeysFrom::ApiServer(_), None) => return Err(NotProven::NotYet),
        };
        let found = read(&self.settings, &keys, self.clock.unix_now());
        if let (Err(NotProven::UnknownKey), Some(fetched)) = (&found, &mut self.fetched) {
            fetched.want();
        }
        found
    }

    /// Waits until the cluster's keys, or what is known of them, are others.
    pub async fn changed(&mut self) {
        match &mut self.fetched {
            Some(fetched) => fetched.changed().await,
            None => std::future::pending().await,
        }
    }
}

/// What the pod is, asked once.
pub async fn look(settings: &Settings, unix_now: u64) -> Result<Evidence, NotProven> {
    let keys = match &settings.keys {
        KeysFrom::File(file) => read_keys(file)?,
        KeysFrom::ApiServer(server) => cluster::fetch(server).await.map_err(NotProven::NoKeys)?,
    };
    read(settings, &keys, unix_now)
}

fn read_keys(path: &std::path::Path) -> Result<Vec<ClusterKey>, NotProven> {
    let unusable =
        |reason: &dyn std::fmt::Display| NotProven::NoKeys(format!("{}: {reason}", path.display()));
    let set =
        file::read(path, contract::route::MAX_KEY_SET_BYTES).map_err(|error| unusable(&error))?;
    keys::read(&set).map_err(|reason| unusable(&reason))
}

fn read(settings: &Settings, keys: &[ClusterKey], unix_now: u64) -> Result<Evidence, NotProven> {
    let unreadable = |reason: &dyn std::fmt::Display| {
        NotProven::Unreadable(format!("{}: {reason}", settings.token_file.display()))
    };
    let text =
        file::read(&settings.token_file, MAX_TOKEN_BYTES).map_err(|error| unreadable(&error))?;
    if text.is_empty() {
        return Err(unreadable(&"empty"));
    }
    let text = str::from_utf8(&text).map_err(|_binary| NotProven::Malformed)?;
    let claims = token::verify(text, &settings.expected, keys, unix_now)?;
    Ok(Evidence {
        namespace: Some(claims.namespace),
        service_account: Some(claims.service_account),
        labels: labels::read(&settings.labels_file),
        pod: Some(format!("{} ({})", claims.pod, claims.uid)),
    })
}
