//! What is set up around the filters: the configuration of the Envoy that is measured.
//!
//! The peers' filters are files (`peers/`), so that nobody tunes them in passing; ours come from
//! the repository's `envoy.yaml`. Every filter stands alone on its listener or cluster, and every
//! wasm filter has a VM of its own, so that rows share no cache.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{
    caller_tokens::CallerTokens,
    demo_policy::{DemoPolicy, destination},
    rows::{Filter, Requests, Row},
};

/// What the configurations are made of.
pub(crate) struct Stage<'a> {
    /// Where sockets, certificates and configurations are.
    pub(crate) directory: &'a Path,
    /// The empty module.
    pub(crate) empty_wasm: &'a str,
    /// Our filters.
    pub(crate) policy: &'a DemoPolicy,
    /// Whose keys the peers get.
    pub(crate) callers: &'a CallerTokens,
    /// The token that both outbound filters inject: the same size for both.
    pub(crate) injected: &'a str,
}

impl Stage<'_> {
    /// An Envoy with these rows side by side.
    pub(crate) fn configuration(&self, rows: &[Row]) -> Result<String> {
        let mut listeners = Vec::new();
        let mut clusters = vec![self.broker_cluster()];
        for row in rows {
            let filter = self.filter(row).with_context(|| row.name)?;
            if row.requests == Requests::NoToken {
                let template = include_str!("../stage/outbound.yaml");
                listeners.push(self.filled(template, &[("NAME", row.name)])?);
                clusters.push(self.cluster(row.name, filter, &self.policy.destination)?);
            } else {
                listeners.push(self.inbound(row.name, filter)?);
            }
        }
        Ok(self.whole(&listeners, &clusters))
    }

    /// An Envoy with the outbound filter on these listeners, each with a destination of its own.
    pub(crate) fn replay_configuration(&self, names: &[String]) -> Result<String> {
        let filter = own_vm(&self.policy.with_destinations(names.len())?, "replay")?;
        let mut listeners = Vec::new();
        let mut clusters = vec![self.broker_cluster()];
        for (number, name) in names.iter().enumerate() {
            let template = include_str!("../stage/outbound.yaml");
            listeners.push(self.filled(template, &[("NAME", name)])?);
            let metadata = json!({
                "filter_metadata": {"entra_sidecar": {"destination": destination(number)}},
            });
            clusters.push(self.cluster(name, Some(filter.clone()), &metadata)?);
        }
        Ok(self.whole(&listeners, &clusters))
    }

    fn whole(&self, listeners: &[Value], clusters: &[Value]) -> String {
        let whole = json!({
            "admin": {"address": self.pipe("admin.sock")},
            "static_resources": {
                "listeners": listeners,
                "clusters": clusters,
                "secrets": [{
                    "name": "bench_bearer",
                    "generic_secret": {"secret": {"inline_string": self.injected}},
                }],
            },
        });
        whole.to_string()
    }

    fn filter(&self, row: &Row) -> Result<Option<Value>> {
        let peer = |template| self.peer(template, row.name).map(Some);
        let ours = |filter: &Value| own_vm(filter, row.name).map(Some);
        match row.filter {
            Filter::None => Ok(None),
            Filter::EmptyWasm => peer(include_str!("../peers/empty_wasm.yaml")),
            Filter::JwtAuthn => peer(include_str!("../peers/jwt_authn.yaml")),
            Filter::JwtAuthnCached => peer(include_str!("../peers/jwt_authn_cached.yaml")),
            Filter::CredentialInjector => peer(include_str!("../peers/credential_injector.yaml")),
            Filter::Ours if row.requests == Requests::NoToken => ours(&self.policy.outbound),
            Filter::Ours => ours(&self.policy.inbound),
            Filter::OursWithEveryRequirement => ours(&self.policy.with_every_requirement()?),
            Filter::OursWithRules(count) => ours(&self.policy.with_rules(count)?),
            Filter::OursWithTenants(count) => ours(&self.policy.with_tenants(count)?),
            Filter::Sidecar(_) => bail!("a pod has that in its own Envoy"),
        }
    }

    fn peer(&self, template: &str, vm: &str) -> Result<Value> {
        let keys: Vec<_> =
            self.callers.key_sets.key_sets.iter().flat_map(|set| &set.keys).collect();
        let key_set = json!({"keys": keys}).to_string();
        self.filled(
            template,
            &[
                ("VM_ID", vm),
                ("EMPTY_WASM", self.empty_wasm),
                ("ISSUER", &self.policy.issuer()),
                ("AUDIENCE", &self.policy.audience),
                ("JWKS", &key_set),
            ],
        )
    }

    fn inbound(&self, name: &str, filter: Option<Value>) -> Result<Value> {
        let router = json!({"name": "envoy.filters.http.router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}});
        let filters = chain(filter, router);
        self.filled(include_str!("../stage/inbound.yaml"), &[("NAME", name), ("FILTERS", &filters)])
    }

    fn cluster(&self, name: &str, filter: Option<Value>, metadata: &Value) -> Result<Value> {
        let codec = json!({"name": "envoy.filters.http.upstream_codec", "typed_config": {
            "@type":
                "type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec"
        }});
        let metadata = metadata.to_string();
        self.filled(
            include_str!("../stage/cluster.yaml"),
            &[("NAME", name), ("METADATA", &metadata), ("FILTERS", &chain(filter, codec))],
        )
    }

    fn broker_cluster(&self) -> Value {
        json!({
            "name": "token_broker",
            "connect_timeout": "1s",
            "load_assignment": {"cluster_name": "token_broker", "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": self.pipe("broker.sock")}}]},
            ]},
        })
    }

    fn pipe(&self, socket: &str) -> Value {
        json!({"pipe": {"path": self.directory.join(socket)}})
    }

    /// [`filled`], and read.
    fn filled(&self, template: &str, values: &[(&str, &str)]) -> Result<Value> {
        let directory = self.directory.to_str().context("a directory that is no UTF-8")?;
        let text = filled(&filled(template, values), &[("DIRECTORY", directory)]);
        serde_norway::from_str(&text).with_context(|| format!("no YAML:\n{text}"))
    }
}

/// Puts values into `${NAME}` places; JSON is YAML, so whole structures can go there too.
pub(crate) fn filled(template: &str, values: &[(&str, &str)]) -> String {
    values.iter().fold(template.to_owned(), |text, (name, value)| {
        text.replace(&format!("${{{name}}}"), value)
    })
}

fn chain(filter: Option<Value>, last: Value) -> String {
    Value::from_iter(filter.into_iter().chain([last])).to_string()
}

fn own_vm(filter: &Value, vm: &str) -> Result<Value> {
    let mut filter = filter.clone();
    *filter
        .pointer_mut("/typed_config/config/vm_config/vm_id")
        .context("the filter has no vm_id")? = json!(vm);
    Ok(filter)
}

/// Something of a token's size that is no token: what the outbound filters inject.
pub(crate) fn injected_token() -> String {
    "x".repeat(1_100)
}
