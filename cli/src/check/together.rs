//! What files given together say of each other: whether the broker has what the filter will ask
//! it for.

use policy::{claims::Tenants, cloud::ORGANIZATIONS, config::Config};
use token_broker::{config::Identity, entra::claims::Capability};

use super::{Checked, Finding, Severity, Sound};
use crate::find::Configuration;

/// Warnings, each with its file; none where no broker's configuration was given.
pub(super) fn warnings(checked: &[Checked]) -> Vec<(&str, Finding)> {
    let brokers: Vec<&token_broker::config::Config> = checked
        .iter()
        .flat_map(|checked| &checked.sound)
        .filter_map(|(_, sound)| match sound {
            Sound::Broker(config) => Some(&**config),
            Sound::Filter(_) | Sound::Destinations(_) => None,
        })
        .collect();
    let mut warnings = Vec::new();
    if brokers.is_empty() {
        return warnings;
    }
    for Checked { file, sound } in checked {
        for (configuration, sound) in sound {
            let (config, rules) = match sound {
                Sound::Filter(config) => (config, "rules"),
                Sound::Destinations(list) => (&list.policy, "destinations"),
                Sound::Broker(_) => continue,
            };
            for (path, message) in missing(config, &brokers) {
                let path = path.replacen("rules", rules, 1);
                warnings.push((file.as_str(), finding(configuration, path, message)));
            }
        }
    }
    warnings
}

/// What no broker has of what the filter asks for.
fn missing(config: &Config, brokers: &[&token_broker::config::Config]) -> Vec<(String, String)> {
    let mut missing = Vec::new();
    match config {
        Config::Inbound(config) => {
            let kept = |tenant: &str| {
                let authorities = brokers.iter().flat_map(|broker| &broker.authorities);
                authorities
                    .filter(|authority| authority.cloud == config.cloud)
                    .any(|authority| [tenant, ORGANIZATIONS].contains(&authority.tenant.as_str()))
            };
            let tenants: Vec<&str> = match &config.tenants {
                Tenants::Any => vec![ORGANIZATIONS],
                Tenants::Listed(tenants) => tenants.iter().map(String::as_str).collect(),
            };
            for tenant in tenants.into_iter().filter(|tenant| !kept(tenant)) {
                let message = format!("the broker's `authorities` have no keys of {tenant}");
                missing.push(("tenants".to_owned(), message));
            }
        }
        Config::Outbound(config) => {
            for (index, rule) in config.rules.iter().enumerate() {
                let (identity, scope) = (&rule.token.identity, &rule.token.scope);
                let held: Vec<&Identity> =
                    brokers.iter().filter_map(|broker| broker.identities.get(identity)).collect();
                let answers = |held: &&Identity| held.capability == Capability::ClaimsChallenges;
                if held.is_empty() {
                    let message = format!("the broker has no identity `{identity}`");
                    missing.push((format!("rules[{index}].token.identity"), message));
                } else if !held.iter().any(|held| held.scopes.contains(scope)) {
                    let message = format!("not in the broker's `identities.{identity}.scopes`");
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
