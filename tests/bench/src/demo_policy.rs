//! The two filters of the repository's own `envoy.yaml`, as the demo runs them.
//!
//! The bench measures what we ship, so it reads the shipped file; only the module's path is put
//! in. It also takes from there what a caller's token must say to be let pass.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// Where a wasm filter's own configuration is: a text of JSON.
const CONFIGURATION: &str = "/typed_config/config/configuration/value";

/// The filters as Envoy's configuration has them, and who may pass.
pub(crate) struct DemoPolicy {
    /// The inbound filter, an entry of `http_filters`.
    pub(crate) inbound: Value,
    /// The outbound filter, an entry of a cluster's `http_filters`.
    pub(crate) outbound: Value,
    /// The metadata of the cluster that the outbound filter is in: its destination.
    pub(crate) destination: Value,
    /// The first tenant that the inbound filter lets in.
    pub(crate) tenant: String,
    /// Its first audience that is a client id, which is what a v2.0 token names.
    pub(crate) audience: String,
    /// A scope that a rule wants.
    pub(crate) scope: String,
    /// A path that this rule matches.
    pub(crate) path: String,
}

impl DemoPolicy {
    /// Reads `envoy.yaml` and points both filters to the module at `module`.
    pub(crate) fn read(envoy_yaml: &str, module: &str) -> Result<Self> {
        let whole: Value = serde_norway::from_str(envoy_yaml).context("envoy.yaml is no YAML")?;
        let mut inbound = named(&whole, "entra-inbound").context("no filter entra-inbound")?;
        let mut outbound = named(&whole, "entra-outbound").context("no filter entra-outbound")?;
        for filter in [&mut inbound, &mut outbound] {
            *filter
                .pointer_mut("/typed_config/config/vm_config/code/local/filename")
                .context("the filter has no module")? = json!(module);
        }
        let clusters = whole
            .pointer("/static_resources/clusters")
            .and_then(Value::as_array)
            .context("none")?;
        let destination = clusters
            .iter()
            .find(|cluster| named(cluster, "entra-outbound").is_some())
            .and_then(|cluster| cluster.get("metadata"))
            .context("the outbound filter's cluster has no metadata")?
            .clone();
        let rules = configuration(&inbound)?;
        let (path, scope) = user_rule(&rules).context("no rule wants a scope of a user")?;
        let Some(tenant) = rules.pointer("/tenants/0").and_then(Value::as_str) else {
            bail!("no tenant")
        };
        let audience = rules
            .get("audiences")
            .and_then(Value::as_array)
            .and_then(|all| all.iter().filter_map(Value::as_str).find(|one| !one.contains(':')))
            .context("no audience is a client id")?
            .to_owned();
        let tenant = tenant.to_owned();
        Ok(Self { inbound, outbound, destination, tenant, audience, scope, path })
    }

    /// The inbound filter with `count` rules, of which only the last one fits.
    pub(crate) fn with_rules(&self, count: usize) -> Result<Value> {
        let wanted = json!([{"scopes": [self.scope]}]);
        let rules: Value = (1..=count)
            .map(|number| {
                let path = if number == count {
                    self.path.clone()
                } else {
                    format!("/service-{number}/{{*}}/items/{{*}}")
                };
                json!({"name": format!("rule-{number}"), "match": {"path": path}, "allow": wanted})
            })
            .collect();
        changed(&self.inbound, "rules", rules)
    }

    /// The inbound filter with a rule that asks for everything a rule can ask a user's token for.
    pub(crate) fn with_every_requirement(&self) -> Result<Value> {
        let wanted = json!([{
            "scopes": [self.scope],
            "roles": ["Orders.Clerk"],
            "groups": ["9a8b7c6d-1111-4222-8333-444455556666"],
            "clients": ["22223333-cccc-4444-dddd-5555eeee6666"],
            "client_credential": "certificate",
            "authentication_context": "c2",
        }]);
        let rule = json!({"name": "everything", "match": {"path": self.path}, "allow": wanted});
        changed(&self.inbound, "rules", json!([rule]))
    }

    /// The outbound filter with `count` rules, each for a destination of its own.
    pub(crate) fn with_destinations(&self, count: usize) -> Result<Value> {
        let rules = configuration(&self.outbound)?;
        let mut rule = rules.pointer("/rules/0").context("no outbound rule")?.clone();
        let mut set = |pointer: &str, value: String| {
            *rule.pointer_mut(pointer).context("an outbound rule of another form")? = json!(value);
            anyhow::Ok(rule.clone())
        };
        let rules: Result<Vec<Value>> = (0..count)
            .map(|number| {
                let name = destination(number);
                set("/name", name.clone())?;
                set("/match/destination", name.clone())?;
                // Tokens of their own: a challenge to one says nothing of the others.
                set("/token/scope", format!("api://{name}/.default"))
            })
            .collect();
        changed(&self.outbound, "rules", json!(rules?))
    }

    /// The inbound filter with `count` tenants, of which the last is the callers'.
    pub(crate) fn with_tenants(&self, count: usize) -> Result<Value> {
        let tenants: Value = (1..count)
            .map(|number| format!("77778888-bbbb-9999-cccc-{number:012}"))
            .chain([self.tenant.clone()])
            .collect();
        changed(&self.inbound, "tenants", tenants)
    }

    /// The issuer of the tenant's v2.0 tokens.
    pub(crate) fn issuer(&self) -> String {
        format!("https://login.microsoftonline.com/{}/v2.0", self.tenant)
    }
}

/// What a cluster of [`DemoPolicy::with_destinations`] calls itself.
pub(crate) fn destination(number: usize) -> String {
    format!("destination-{number}")
}

/// A filter's own configuration.
fn configuration(filter: &Value) -> Result<Value> {
    let text = filter.pointer(CONFIGURATION).and_then(Value::as_str);
    Ok(serde_json::from_str(text.context("the filter's configuration is no text")?)?)
}

/// A filter with one member of its configuration changed.
fn changed(filter: &Value, member: &str, value: Value) -> Result<Value> {
    let mut configuration = configuration(filter)?;
    *configuration
        .get_mut(member)
        .with_context(|| format!("the filter's configuration has no {member}"))? = value;
    let mut filter = filter.clone();
    *filter.pointer_mut(CONFIGURATION).context("the filter has no configuration")? =
        json!(configuration.to_string());
    Ok(filter)
}

/// The first object of this name that has a `typed_config`, at any depth.
fn named(value: &Value, name: &str) -> Option<Value> {
    let children: Vec<&Value> = match value {
        Value::Object(members) => {
            if members.get("name").is_some_and(|own| own == name)
                && members.contains_key("typed_config")
            {
                return Some(value.clone());
            }
            members.values().collect()
        }
        Value::Array(entries) => entries.iter().collect(),
        _ => return None,
    };
    children.into_iter().find_map(|child| named(child, name))
}

/// A path that a rule for users matches, and the scope that it wants.
fn user_rule(policy: &Value) -> Option<(String, String)> {
    policy.get("rules")?.as_array()?.iter().find_map(|rule| {
        let scope = rule
            .get("allow")?
            .as_array()?
            .iter()
            .find_map(|alternative| alternative.pointer("/scopes/0")?.as_str())?;
        let path = rule.pointer("/match/path")?.as_str()?;
        Some((path.replace("{*}", "1017").replace("{**}", "1017"), scope.to_owned()))
    })
}
