//! Environment variables behind a trait, and what the broker reads from them.
//!
//! The names are those that azure-workload-identity's webhook and the Azure SDKs use
//! (azure.github.io/azure-workload-identity/docs/).

use std::collections::BTreeMap;

use policy::{cloud::Cloud, document::ConfigError};

/// Tenant of the identity, and of the keys.
pub const TENANT_ID: &str = "AZURE_TENANT_ID";
/// Application (client) id.
pub const CLIENT_ID: &str = "AZURE_CLIENT_ID";
/// Path of the projected service account token.
pub const FEDERATED_TOKEN_FILE: &str = "AZURE_FEDERATED_TOKEN_FILE";
/// The secret itself; only without a configuration file.
pub const CLIENT_SECRET: &str = "AZURE_CLIENT_SECRET";
/// `https://` and the login host of a known cloud.
pub const AUTHORITY_HOST: &str = "AZURE_AUTHORITY_HOST";
/// Space-separated scopes; only without a configuration file.
pub const SCOPES: &str = "ENTRA_SCOPES";
/// Proxy for connections to Entra: `http://host:port`.
pub const HTTPS_PROXY: &str = "HTTPS_PROXY";
/// Hosts that are reached without the proxy.
pub const NO_PROXY: &str = "NO_PROXY";

/// Reads variables; an empty one counts as not set.
pub trait Environment {
    /// The value of `name`.
    fn variable(&self, name: &str) -> Option<String>;
    /// The names of all that are set.
    fn names(&self) -> Vec<String>;
}

/// The process's own environment.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|value| !value.is_empty())
    }

    fn names(&self) -> Vec<String> {
        std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect()
    }
}

impl Environment for BTreeMap<&str, &str> {
    fn variable(&self, name: &str) -> Option<String> {
        self.get(name).filter(|value| !value.is_empty()).map(|value| (*value).to_owned())
    }

    fn names(&self) -> Vec<String> {
        self.keys().map(|name| (*name).to_owned()).collect()
    }
}

/// The cloud of `AZURE_AUTHORITY_HOST`; the public one without it.
///
/// Only known hosts: what stands here receives the credential.
pub fn cloud(environment: &dyn Environment) -> Result<Cloud, ConfigError> {
    let Some(value) = environment.variable(AUTHORITY_HOST) else { return Ok(Cloud::default()) };
    let host = value.strip_prefix("https://").map(|rest| rest.strip_suffix('/').unwrap_or(rest));
    host.and_then(Cloud::from_login_host).ok_or_else(|| {
        let known: Vec<String> =
            Cloud::ALL.iter().map(|cloud| format!("https://{}/", cloud.login_host())).collect();
        ConfigError::new(
            AUTHORITY_HOST,
            format!(
                "`{}` is not an authority of a known cloud; expected one of {}",
                crate::failure::sanitised(&value),
                known.join(", ")
            ),
        )
    })
}
