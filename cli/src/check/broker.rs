//! The broker's configuration, read as the broker reads it.

use std::{cell::RefCell, collections::BTreeSet};

use policy::document::ConfigError;
use token_broker::config::{
    Api, Config, document,
    environment::{CLIENT_ID, Environment, FEDERATED_TOKEN_FILE, TENANT_ID},
};

/// The variables that azure-workload-identity will set in the pod, with values that say nothing:
/// the person who checks a file is not in the pod.
#[derive(Default)]
struct Pod {
    asked: RefCell<BTreeSet<&'static str>>,
}

impl Environment for Pod {
    fn variable(&self, name: &str) -> Option<String> {
        const ANY_ID: &str = "00000000-0000-0000-0000-000000000000";
        let variables =
            [(TENANT_ID, ANY_ID), (CLIENT_ID, ANY_ID), (FEDERATED_TOKEN_FILE, "/token")];
        let (name, value) = variables.into_iter().find(|(known, _)| *known == name)?;
        self.asked.borrow_mut().insert(name);
        Some(value.to_owned())
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

type Warnings = Vec<(String, String)>;

/// The configuration and what to warn of, or its errors.
pub(super) fn read(text: &str) -> Result<(Config, Warnings), Vec<ConfigError>> {
    let config = document::read(text, &Pod::default())?;
    let mut warnings = Vec::new();
    if let Api::Tcp(address) = &config.listen.api {
        warnings.push((
            "listen.api.trust_whole_pod".to_owned(),
            format!("every process of the pod can get the tokens from {address}"),
        ));
    }
    if let Some(address) = config.listen.compat {
        warnings.push((
            "listen.compat.trust_whole_pod".to_owned(),
            format!("every process of the pod can get the tokens that are offered at {address}"),
        ));
    }
    for (name, identity) in &config.identities {
        if identity.scopes.is_empty() {
            let message = "empty: no token of this identity can be asked for".to_owned();
            warnings.push((format!("identities.{name}.scopes"), message));
        }
    }
    warnings.extend(access(&config));
    Ok((config, warnings))
}

/// What is in order in `identity_access` and may not be meant.
fn access(config: &Config) -> Warnings {
    let Some(access) = &config.access else { return Vec::new() };
    let mut warnings = Vec::new();
    for (index, entry) in access.entries.iter().enumerate() {
        if entry.namespace.is_none() && entry.service_account.is_none() {
            let message = "labels alone: whoever may label a pod has these identities";
            warnings.push((format!("identity_access[{index}]"), message.to_owned()));
        }
    }
    for name in config.identities.keys() {
        if !access.entries.iter().any(|entry| entry.identities.contains(name)) {
            let message = "no entry of identity_access names it: no pod may use it".to_owned();
            warnings.push((format!("identities.{name}"), message));
        }
    }
    warnings
}

/// What a good configuration means, in a line.
pub(super) fn meaning(config: &Config) -> String {
    let identities: Vec<&str> = config.identities.keys().map(String::as_str).collect();
    let identities = match identities.as_slice() {
        [] => "no identities".to_owned(),
        names => format!("identities {}", names.join(", ")),
    };
    format!("broker: keys of {} authorities, {identities}", config.authorities.len())
}
