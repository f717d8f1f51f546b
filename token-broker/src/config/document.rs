//! Reads the configuration file: YAML to raw types to [`Config`], with every error at once.

use std::path::Path;

use policy::{cloud::Cloud, cloud::ORGANIZATIONS, cloud::is_tenant_id, document};

use super::{
    Authority, Config, Errors, access, compat,
    environment::Environment,
    identity, key_snapshot, listen,
    raw::{RawAuthority, RawConfig},
};
use crate::{config::ConfigError, https::proxy::Proxy};

/// Largest file that is read.
pub const MAX_BYTES: usize = 1024 * 1024;

/// The text of a configuration file.
pub fn text(file: &Path) -> Result<String, ConfigError> {
    let unreadable = |error: &dyn std::error::Error| {
        ConfigError::new("", format!("cannot read {}: {error}", file.display()))
    };
    let bytes = crate::file::read(file, MAX_BYTES).map_err(|error| unreadable(&error))?;
    String::from_utf8(bytes).map_err(|error| unreadable(&error))
}

/// The configuration that `text` (YAML, or JSON as a part of it) and the environment make.
pub fn read(text: &str, environment: &dyn Environment) -> Result<Config, Vec<ConfigError>> {
    if text.len() > MAX_BYTES {
        return Err(vec![ConfigError::new("", "larger than 1 MiB")]);
    }
    // By way of the YAML value: that one refuses a member that stands there twice.
    let document = serde_norway::from_str::<serde_norway::Value>(text)
        .map_err(|error| error.to_string())
        .and_then(|yaml| serde_json::to_value(yaml).map_err(|error| error.to_string()))
        .map_err(|message| vec![ConfigError::new("", message)])?;
    let (raw, found) = document::read::<RawConfig>(document);
    let mut errors = Errors(found);
    let proxy = errors.keep(Proxy::from_environment(environment));
    let Some(mut raw) = raw else {
        return Err(errors.or("", "not a configuration"));
    };
    let raw_compat = raw.listen.as_mut().and_then(|listen| listen.compat.take());
    let authorities = authorities(raw.authorities, &mut errors);
    let named = raw.identities.iter().flat_map(|all| all.keys().cloned()).collect();
    let access = access::access(raw.identity_access, raw.pod, &named, environment, &mut errors);
    let identities = identity::identities(raw.identities, environment, &mut errors);
    let mut listen = listen::listen(raw.listen, &mut errors);
    let compat =
        compat::compat(raw_compat, listen.as_mut(), (&authorities, &identities), &mut errors);
    let key_snapshot = key_snapshot::key_snapshot(raw.key_snapshot, &mut errors);
    if authorities.is_empty() && identities.is_empty() && errors.is_empty() {
        errors.push("", "nothing to do; expected `authorities`, `identities`, or both");
    }
    match (listen, proxy, errors.is_empty()) {
        (Some(listen), Some(proxy), true) => Ok(Config {
            authorities,
            identities,
            access,
            listen,
            key_snapshot,
            compat,
            ca_file: raw.ca_file.map(Into::into),
            proxy,
        }),
        _ => Err(errors.or("", "not a configuration")),
    }
}

fn authorities(raw: Option<Vec<Option<RawAuthority>>>, errors: &mut Errors) -> Vec<Authority> {
    let mut authorities: Vec<Authority> = Vec::new();
    for (index, entry) in raw.unwrap_or_default().into_iter().enumerate() {
        let path = format!("authorities[{index}]");
        let Some(entry) = entry else {
            errors.missing(&path, "`cloud` and `tenants`");
            continue;
        };
        let cloud = cloud(entry.cloud.as_deref(), &format!("{path}.cloud"), errors);
        if entry.cloud.is_none() {
            errors.missing(&format!("{path}.cloud"), &Cloud::names());
        }
        let tenants = entry.tenants.unwrap_or_default();
        if tenants.is_empty() {
            errors.missing(&format!("{path}.tenants"), "tenant ids, or `organizations`");
        }
        for (index, tenant) in tenants.into_iter().enumerate() {
            let path = format!("{path}.tenants[{index}]");
            let Some(tenant) = tenant else {
                errors.missing(&path, "a tenant id or `organizations`");
                continue;
            };
            if tenant != ORGANIZATIONS && !is_tenant_id(&tenant) {
                errors.push(path, "expected a GUID in lower case, or `organizations`");
                continue;
            }
            let Some(cloud) = cloud else { continue };
            let authority = Authority { cloud, tenant };
            if authorities.contains(&authority) {
                errors.push(path, "this tenant stands there twice");
            } else {
                authorities.push(authority);
            }
        }
    }
    authorities
}

/// The cloud of a name; an unknown name is an error, no name is none.
pub(super) fn cloud(name: Option<&str>, path: &str, errors: &mut Errors) -> Option<Cloud> {
    let found = Cloud::from_name(name?);
    if found.is_none() {
        errors.push(path, format!("unknown cloud; expected {}", Cloud::names()));
    }
    found
}
