//! What files given together say of each other: whether the broker has what the filter will ask
//! it for, and whether the application has what it needs to call on behalf of its callers.

use policy::{
    claims::Tenants,
    cloud::ORGANIZATIONS,
    config::{Accepted, Config, InboundConfig},
};
use token_broker::{config::Identity, entra::claims::Capability};

use super::{Checked, Finding, Severity, Sound};
use crate::find::Configuration;

/// Warnings, each with its file; of the broker none where none of its configurations was given.
pub(super) fn warnings(checked: &[Checked]) -> Vec<(&str, Finding)> {
    let brokers: Vec<&token_broker::config::Config> = checked
        .iter()
        .flat_map(|checked| &checked.sound)
        .filter_map(|(_, sound)| match sound {
            Sound::Broker(config) => Some(&**config),
            Sound::Filter(_) | Sound::Destinations(_) => None,
        })
        .collect();
    let inbound: Vec<&InboundConfig> = checked
        .iter()
        .flat_map(|checked| &checked.sound)
        .filter_map(|(_, sound)| match sound {
            Sound::Filter(Config::Inbound(config)) => Some(&**config),
            _ => None,
        })
        .collect();
    let mut warnings = Vec::new();
    for Checked { file, sound } in checked {
        for (configuration, sound) in sound {
            let (config, rules) = match sound {
                Sound::Filter(config) => (config, "rules"),
                Sound::Destinations(list) => (&list.policy, "destinations"),
                Sound::Broker(_) => continue,
            };
            let of_broker = if brokers.is_empty() { Vec::new() } else { missing(config, &brokers) };
            for (path, message) in of_broker.into_iter().chain(unforwarded(config, &inbound)) {
                let path = path.replacen("rules", rules, 1);
                warnings.push((file.as_str(), finding(configuration, path, message)));
            }
        }
    }
    warnings
}

/// Rules on behalf of callers whose tokens the application never sees: no inbound configuration
/// beside forwards any.
fn unforwarded(config: &Config, inbound: &[&InboundConfig]) -> Vec<(String, String)> {
    let Config::Outbound(config) = config else { return Vec::new() };
    let forwards = |config: &&InboundConfig| {
        config.forward_token || config.rules.iter().any(|rule| rule.forward_token == Some(true))
    };
    if inbound.is_empty() || inbound.iter().any(forwards) {
        return Vec::new();
    }
    let rules = config.rules.iter().enumerate().filter(|(_, rule)| rule.on_behalf_of_caller);
    let message = "the application does not get its callers' tokens: no inbound configuration here \
                   says `forward_token: true`";
    rules
        .map(|(index, _)| (format!("rules[{index}].token.on_behalf_of"), message.to_owned()))
        .collect()
}

/// Tenants of which no broker keeps keys.
fn without_keys(
    accepted: &Accepted,
    brokers: &[&token_broker::config::Config],
) -> Vec<(String, String)> {
    let kept = |tenant: &str| {
        let authorities = brokers.iter().flat_map(|broker| &broker.authorities);
        authorities
            .filter(|authority| authority.cloud == accepted.cloud)
            .any(|authority| [tenant, ORGANIZATIONS].contains(&authority.tenant.as_str()))
    };
    let tenants: Vec<&str> = match &accepted.tenants {
        Tenants::Any => vec![ORGANIZATIONS],
        Tenants::Listed(tenants) => tenants.iter().map(String::as_str).collect(),
    };
    let message = |tenant: &str| format!("the broker's `authorities` have no keys of {tenant}");
    tenants
        .into_iter()
        .filter(|tenant| !kept(tenant))
        .map(|tenant| ("tenants".to_owned(), message(tenant)))
        .collect()
}

/// What no broker has of what the filter asks for.
fn missing(config: &Config, brokers: &[&token_broker::config::Config]) -> Vec<(String, String)> {
    let mut missing = Vec::new();
    match config {
        Config::Inbound(config) => missing = without_keys(&config.accepted, brokers),
        Config::Outbound(config) => {
            if let Some(accepted) = &config.accepted {
                missing = without_keys(accepted, brokers);
            }
            for (index, rule) in config.rules.iter().enumerate() {
                let (identity, scope) = (&rule.token.identity, &rule.token.scope);
                let held: Vec<&Identity> =
                    brokers.iter().filter_map(|broker| broker.identities.get(identity)).collect();
                let answers = |held: &&Identity| held.capability == Capability::ClaimsChallenges;
                let (list, listed): (_, fn(&Identity) -> &Vec<String>) =
                    match rule.on_behalf_of_caller {
                        true => ("delegated_scopes", |held| &held.delegated_scopes),
                        false => ("scopes", |held| &held.scopes),
                    };
                if held.is_empty() {
                    let message = format!("the broker has no identity `{identity}`");
                    missing.push((format!("rules[{index}].token.identity"), message));
                } else if !held.iter().any(|held| listed(held).contains(scope)) {
                    let message = format!("not in the broker's `identities.{identity}.{list}`");
                    missing.push((format!("rules[{index}].token.scope"), message));
                }
                if rule.token.claims_challenges && !held.is_empty() && !held.iter().any(answers) {
                    let message = format!(
                        "the broker's identity `{identity}` has no `client_capabilities: [cp1]`"
                    );
                    missing.push((format!("rules[{index}].claims_challenges"), message));
                }
            }
        }
    }
    missing
}

fn finding(configuration: &Configuration, path: String, message: String) -> Finding {
    Finding { line: configuration.line_of(&path), severity: Severity::Warning, path, message }
}
