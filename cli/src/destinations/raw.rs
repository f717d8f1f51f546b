//! The list of destinations as it is written: every member optional, no unknown ones.
//!
//! The doc comments here are what editors show, by `entra-sidecar schema destinations`.

use std::collections::BTreeMap;

use policy::config::raw::RawBroker;
use schemars::JsonSchema;
use serde::Deserialize;

/// Where the pods of a namespace send tokens: what the objects for Istio are made from.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawDestinations {
    /// The namespace of the pods, and of all objects. Required.
    pub(crate) namespace: Option<String>,
    /// Labels of the pods. Default `{entra-sidecar/injected: "true"}`, which the injection template
    /// sets.
    pub(crate) labels: Option<BTreeMap<String, Option<String>>>,
    /// The filter. Required.
    pub(crate) module: Option<RawModule>,
    /// The Entra cloud, for the login host and for the hosts of `kind`: `public` (the default),
    /// `us-government`, `china`, `france`, `germany` or `singapore`. Of the last three only Graph's
    /// host is known.
    pub(crate) cloud: Option<String>,
    /// File with the authorities that the proxies trust for the destinations. Default
    /// `/etc/ssl/certs/ca-certificates.crt`, which Istio's proxy image has.
    pub(crate) trusted_ca: Option<String>,
    /// What brings the filter to the proxies: `TrafficExtension` (the default) for Istio 1.30 and
    /// later, `WasmPlugin` for Istio 1.28 and 1.29 and for no other.
    pub(crate) resource: Option<String>,
    /// Where the token broker is. Default `{cluster: token_broker}`.
    pub(crate) broker: Option<RawBroker>,
    /// The destinations. Required.
    pub(crate) destinations: Option<Vec<Option<RawDestination>>>,
}

/// The filter's image.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawModule {
    /// `oci://` with registry, repository and tag. Required.
    pub(crate) image: Option<String>,
    /// Digest of the image's manifest, in hexadecimal: no other is run. Required.
    pub(crate) sha256: Option<String>,
    /// Name of the Secret of the namespace with the registry's credentials, where it wants some.
    pub(crate) pull_secret: Option<String>,
}

/// One host, and the token for it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawDestination {
    /// The destination's name in rules, metrics and logs; its objects are called `entra-` and this.
    /// Required.
    pub(crate) name: Option<String>,
    /// The host, in lower case. This or `kind` is needed.
    pub(crate) host: Option<String>,
    /// An API of Microsoft's, whose host and scope are known: `graph`, `key_vault` or `storage`.
    pub(crate) kind: Option<String>,
    /// Name of the vault or of the storage account. Needed for `key_vault` and `storage`.
    pub(crate) account: Option<String>,
    /// The part of `storage`: `blob` (the default), `queue`, `table`, `file` or `dfs`.
    pub(crate) service: Option<String>,
    /// What the application speaks, and the proxy to the host: `http1` (the default), `http2` or
    /// `grpc`.
    pub(crate) protocol: Option<String>,
    /// The port at which the application calls `http://host`. Default 80. The proxy calls the
    /// host's port 443, with TLS.
    pub(crate) port: Option<u16>,
    /// The token. Required. Its `scope` can be left out where there is a `kind`.
    pub(crate) token: Option<RawDestinationToken>,
    /// What becomes of an Authorization header of the application: `refuse` (the default), `keep`
    /// or `replace`.
    pub(crate) existing_authorization: Option<String>,
    /// Whether claims challenges of the host are answered. Default `false`.
    pub(crate) claims_challenges: Option<bool>,
}

/// Which token a destination gets.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawDestinationToken {
    /// Name of an identity in the broker's configuration. Required.
    pub(crate) identity: Option<String>,
    /// The scope, as the identity's `scopes` lists it. Needed where there is no `kind`.
    pub(crate) scope: Option<String>,
}
