//! The filter's configuration as it is written: every member optional, no unknown ones.
//!
//! The doc comments here are the reference in `docs/configuration.md`.

use std::collections::BTreeMap;

#[cfg(feature = "schema")]
use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor, value::SeqAccessDeserializer},
};

/// Validates the calls that come in.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct RawInbound {
    /// `inbound`. Required: the direction is never inferred from the listener.
    pub direction: Option<String>,
    /// The Entra cloud that issues the tokens: `public` (the default), `us-government`, `china`,
    /// `france`, `germany` or `singapore`. In the last three v1.0 tokens are refused: their issuers
    /// are not known.
    pub cloud: Option<String>,
    /// Ids of the tenants whose tokens are accepted, as lower-case GUIDs; or `organizations`
    /// alone for any Entra tenant. Required, never empty.
    pub tenants: Option<Vec<Option<String>>>,
    /// What the API is called in a token's `aud`: its client id, and for v1 tokens its application
    /// URIs. Compared exactly, so each spelling is listed. Required, never empty.
    pub audiences: Option<Vec<Option<String>>>,
    /// `enforce` (the default), or `observe`: decide, count and log, but let pass.
    pub mode: Option<String>,
    /// Whether the application gets the caller's verified token. Default `false`.
    pub forward_token: Option<bool>,
    /// Tolerance for the clocks of issuer and proxy, in seconds. Default 60, at most 300.
    pub clock_skew_seconds: Option<u64>,
    /// Where the token broker is. Required.
    pub broker: Option<RawBroker>,
    /// Which request header gives the application which claim. Default
    /// `{x-entra-object-id: oid, x-entra-tenant-id: tid, x-entra-client-id: azp}`; `azp` stands
    /// for `appid` in v1 tokens. Lists are joined with commas; whatever could break a header is
    /// percent-encoded.
    pub identity_headers: Option<BTreeMap<String, Option<String>>>,
    /// `true`: the application also gets `x-ms-client-principal`, `-id`, `-name` and `-idp`, as Azure
    /// App Service's built-in authentication writes them. Default `false`.
    pub app_service_headers: Option<bool>,
    /// The header that marks what this filter let pass. Default `x-entra-permit`.
    pub permit_marker: Option<String>,
    /// Whether rules tell `/Orders` from `/orders`: `sensitive` (the default), or `insensitive`
    /// for an application whose router does not, such as ASP.NET.
    pub path_case: Option<String>,
    /// `true`: the access log's record names the calling workload, `workload=spiffe://…`, as the
    /// connection's client certificate does (mesh mTLS). Default `false`: it costs each request a
    /// microsecond.
    pub log_caller_workload: Option<bool>,
    /// The rules: the first whose `match` fits decides, and no match denies. Required.
    pub rules: Option<Vec<Option<RawRule>>>,
}

/// Injects tokens into the calls that go out.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct RawOutbound {
    /// `outbound`. Required.
    pub direction: Option<String>,
    /// Beside a rule with `on_behalf_of` only: the Entra cloud that issues the callers' tokens, as
    /// inbound.
    pub cloud: Option<String>,
    /// Beside a rule with `on_behalf_of`, and required there: ids of the tenants whose users' tokens
    /// are accepted, as inbound.
    pub tenants: Option<Vec<Option<String>>>,
    /// Beside a rule with `on_behalf_of`, and required there: what the identity's own application is
    /// called in the `aud` of its callers' tokens, as inbound.
    pub audiences: Option<Vec<Option<String>>>,
    /// Beside a rule with `on_behalf_of` only: tolerance for the clocks of issuer and proxy, in
    /// seconds. Default 60, at most 300. None for a token's end: what is asked in a user's name ends
    /// with it.
    pub clock_skew_seconds: Option<u64>,
    /// Where the token broker is. Required.
    pub broker: Option<RawBroker>,
    /// One rule per destination. Required.
    pub rules: Option<Vec<Option<RawOutboundRule>>>,
}

/// Where the token broker is.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct RawBroker {
    /// Name of the Envoy cluster that leads to the broker. Required.
    pub cluster: Option<String>,
}

/// Who may do what.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct RawRule {
    /// The name in logs. Required, unique.
    pub name: Option<String>,
    /// Which requests the rule is for; what is left out matches everything.
    #[serde(rename = "match")]
    pub matches: Option<RawMatch>,
    /// `anyone`, or a list of alternatives of which one must hold. Required.
    pub allow: Option<RawAllow>,
    /// `enforce` or `observe` for this rule, whatever the whole configuration says.
    pub mode: Option<String>,
    /// Whether the application gets the caller's token under this rule: also an unverified one,
    /// where the rule allows `anyone` or only observes.
    pub forward_token: Option<bool>,
}

/// Which requests a rule is for: every member that is there must fit.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct RawMatch {
    /// A path pattern: exact, `{*}` for one segment, `{**}` at the end for any rest. A rule without
    /// it also matches requests without a path (`CONNECT`).
    pub path: Option<String>,
    /// Methods, in upper case.
    pub methods: Option<Vec<Option<String>>>,
    /// Hosts without port, in lower case; `*.example.com` for every name below.
    pub hosts: Option<Vec<Option<String>>>,
    /// `true`: only CORS preflights, which are `OPTIONS` with `Origin` and
    /// `Access-Control-Request-Method`. Browsers send them without a token.
    pub cors_preflight: Option<bool>,
}

/// Whom a rule lets pass.
#[derive(Debug)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[cfg_attr(feature = "schema", schemars(untagged))]
pub enum RawAllow {
    /// `anyone`: no token is wanted; one that is sent is neither checked nor forwarded.
    Anyone(String),
    /// Alternatives, any of which is enough.
    AnyOf(Vec<Option<RawAlternative>>),
}

/// One way to be allowed: every member must hold; within a list one value is enough.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct RawAlternative {
    /// Delegated permissions (`scp`). Only users' tokens have them; an alternative without
    /// `scopes` is only met by an application's token.
    pub scopes: Option<Vec<Option<String>>>,
    /// Application permissions or a user's app roles (`roles`).
    pub roles: Option<Vec<Option<String>>>,
    /// Client ids of the calling applications (`azp`, `appid`).
    pub clients: Option<Vec<Option<String>>>,
    /// Object ids of groups. A token whose groups did not fit is refused.
    pub groups: Option<Vec<Option<String>>>,
    /// Least strength of the client's credential: `secret`, or `certificate` (a certificate or
    /// federated assertion).
    pub client_credential: Option<String>,
    /// SPIFFE ids of the calling workloads, exactly as in the connection's client certificate
    /// (`spiffe://cluster.local/ns/shop/sa/till`). Beside `scopes`, `roles` or `clients`, and only
    /// where this Envoy itself takes mutual TLS and checks the client's certificate.
    pub caller_workload: Option<Vec<Option<String>>>,
    /// Conditional Access authentication context that the user's sign-in must have satisfied
    /// (`acrs`): `c1` to `c99`. Only beside `scopes`, and with exactly one client id (GUID) in
    /// `audiences`. A client that declares `cp1` gets a claims challenge, any other 403:
    /// `docs/conditional-access.md`.
    pub authentication_context: Option<String>,
}

/// Which token goes where.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct RawOutboundRule {
    /// The name in logs. Required, unique.
    pub name: Option<String>,
    /// Which calls the rule is for. Required.
    #[serde(rename = "match")]
    pub matches: Option<RawOutboundMatch>,
    /// Which token they get. Required.
    pub token: Option<RawToken>,
    /// What to do with an Authorization header of the application: `refuse` the call (the
    /// default), `keep` it and inject nothing, or `replace` it. Not beside `on_behalf_of`.
    pub existing_authorization: Option<String>,
    /// `true` where the connection's TLS is not Envoy's to see (loopback, mesh mTLS done
    /// elsewhere). Otherwise a response over a connection without TLS stops injection.
    pub plaintext: Option<bool>,
    /// `true`: a claims challenge to the injected token is answered with a new token, and the call
    /// is made again. Needs the route's `retry_policy` of `envoy.yaml`. Under a rule by `host` and
    /// `cluster` the application gets the challenge, and its next call the new token. Default
    /// `false`: the application gets the challenge, and nobody asks for another token. Not beside
    /// `on_behalf_of`: there the challenge is the caller's to answer.
    pub claims_challenges: Option<bool>,
    /// `true` is required beside `match: {host: …, cluster: …}`, and refused elsewhere: such a rule
    /// gives a token before Envoy has connected, by what the route says and not by what the cluster
    /// says of itself. `docs/decisions/0020-the-downstream-position.md` has what that means.
    pub allow_unverified_destination: Option<bool>,
}

/// Which outgoing calls a rule is for: by `destination`, where the filter stands in the cluster's
/// filter chain; or by `host` and `cluster` together, where it stands in a listener's. All rules of
/// one configuration in the same way.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(extend(
        "minProperties" = 1,
        "dependentRequired" = {"host": ["cluster"], "cluster": ["host"]},
    ))
)]
#[serde(default, deny_unknown_fields)]
pub struct RawOutboundMatch {
    /// The destination that the cluster names itself in its metadata
    /// (`filter_metadata.entra_sidecar.destination`). Unique.
    pub destination: Option<String>,
    /// The host that the application calls, without port, in lower case. Compared exactly.
    pub host: Option<String>,
    /// The Envoy cluster that the route has chosen, as in `outbound|80||graph.microsoft.com`.
    /// Compared exactly.
    pub cluster: Option<String>,
}

/// Which token a call gets.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct RawToken {
    /// Name of an identity in the broker's configuration. Required.
    pub identity: Option<String>,
    /// The scope, as the identity's `scopes` lists it, or beside `on_behalf_of` its
    /// `delegated_scopes`. Required.
    pub scope: Option<String>,
    /// `caller`: the token is the caller's, not the application's own. The application sends its
    /// caller's token as Authorization of the call; it is verified, never forwarded, and exchanged for
    /// one of the same user. `docs/on-behalf-of.md` has what that needs. Without it the token is the
    /// application's own.
    pub on_behalf_of: Option<String>,
}

impl<'de> Deserialize<'de> for RawAllow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AllowVisitor)
    }
}

struct AllowVisitor;

impl<'de> Visitor<'de> for AllowVisitor {
    type Value = RawAllow;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("`anyone` or a list of alternatives")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<RawAllow, E> {
        Ok(RawAllow::Anyone(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<RawAllow, A::Error> {
        Deserialize::deserialize(SeqAccessDeserializer::new(access)).map(RawAllow::AnyOf)
    }
}
