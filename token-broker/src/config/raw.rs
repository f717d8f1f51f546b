//! The configuration as a person wrote it: every member optional, nothing checked.
//!
//! `deny_unknown_fields` is the guard against typing errors; what is required, and what values
//! may be, `config` says. The comments here are what the documents show.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The token broker's configuration.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields, expecting = "a configuration")]
pub struct RawConfig {
    /// Whose signing keys to keep for the filter. Not needed where nothing inbound is validated.
    pub authorities: Option<Vec<Option<RawAuthority>>>,
    /// The identities whose tokens the filter may ask for, by name (letters, digits, `-`, `_` and
    /// `.`, at most 64).
    pub identities: Option<BTreeMap<String, Option<RawIdentity>>>,
    /// Which pods may use which identity. Without it every pod that runs with this configuration
    /// may use all; with it, also with an empty list, only what an entry says, and it needs `pod`.
    pub identity_access: Option<Vec<Option<RawAccess>>>,
    /// How the broker knows what its pod is, for `identity_access`.
    pub pod: Option<RawPod>,
    /// Where the broker listens. Another address needs a restart.
    pub listen: Option<RawListen>,
    /// Keeps the signing keys in a file too, so that a broker that starts while Entra cannot be
    /// reached has some. Its change needs a restart.
    pub key_snapshot: Option<RawKeySnapshot>,
    /// PEM file with further certificate authorities to trust, beside Mozilla's that are built
    /// in. For a TLS-inspecting proxy, or a test authority.
    pub ca_file: Option<String>,
}

/// The file with the keys. It holds public keys and no token.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields, expecting = "`file`")]
pub struct RawKeySnapshot {
    /// Path of the file, absolute, in a directory that is there and that no other user can write to:
    /// who writes the file can make keys. Required.
    pub file: Option<String>,
    /// Keys that were fetched longer ago are not taken from the file: seconds, at most 86400 (24
    /// hours), which is also the default.
    pub max_age_seconds: Option<u64>,
}

/// Tenants of one cloud.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields, expecting = "`cloud` and `tenants`")]
pub struct RawAuthority {
    /// `public`, `us-government`, `china`, `france`, `germany` or `singapore`. Required.
    pub cloud: Option<String>,
    /// Tenant ids (GUIDs in lower case), or `organizations` for the keys of any Entra tenant.
    /// Required, at least one.
    pub tenants: Option<Vec<Option<String>>>,
}

/// One identity: where its tokens come from (exactly one of the first five), and for what they may
/// be asked.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields, expecting = "a source and `scopes`")]
pub struct RawIdentity {
    /// An application with a client secret.
    pub client_secret: Option<RawClientSecret>,
    /// An application with a certificate.
    pub client_certificate: Option<RawClientCertificate>,
    /// An application with a federated credential for the pod's service account token, or for a
    /// managed identity.
    pub workload_identity: Option<RawWorkloadIdentity>,
    /// A managed identity of the machine, from its instance metadata service.
    pub managed_identity: Option<RawManagedIdentity>,
    /// An application with one to eight credentials, each a mapping with one of `client_secret`,
    /// `client_certificate` and `workload_identity`, all of the same cloud, tenant and client id.
    /// They are tried in order; the next one only when Entra refuses the one before as a
    /// credential, or it cannot be read.
    pub credentials: Option<Vec<Option<RawCredential>>>,
    /// The scopes that may be asked for, each `<resource>/.default`. Required; an empty list
    /// denies all.
    pub scopes: Option<Vec<Option<String>>>,
    /// The scopes that may be asked for on behalf of a user, compared exactly, each
    /// `<resource>/<permission>` or `<resource>/.default`. Without it none; not with
    /// `managed_identity`, which acts for no user.
    pub delegated_scopes: Option<Vec<Option<String>>>,
    /// `[cp1]`: the identity's tokens for rules with `claims_challenges: true` are asked for as
    /// ones that can be refused at any moment (continuous access evaluation). They live up to 28
    /// hours, and the filter answers their resource's challenges. Without it no token is asked for
    /// so.
    pub client_capabilities: Option<Vec<Option<String>>>,
}

/// One credential of an application: exactly one of these.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields, expecting = "one credential")]
pub struct RawCredential {
    /// A client secret.
    pub client_secret: Option<RawClientSecret>,
    /// A certificate.
    pub client_certificate: Option<RawClientCertificate>,
    /// A federated credential.
    pub workload_identity: Option<RawWorkloadIdentity>,
}

/// Client credentials with an assertion that a certificate's key signs.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields, expecting = "`tenant`, `client_id` and `file`")]
pub struct RawClientCertificate {
    /// As in `authorities`; without it the cloud of `AZURE_AUTHORITY_HOST`, else `public`.
    pub cloud: Option<String>,
    /// Tenant id. Required.
    pub tenant: Option<String>,
    /// Application (client) id. Required.
    pub client_id: Option<String>,
    /// Path of a PEM file with the RSA private key and the registered certificate; further
    /// certificates are not looked at. It is read at each acquisition, and what it held before
    /// serves until what is new in it works. It must not be readable by everyone. Required.
    pub file: Option<String>,
    /// `ps256` (the default), or `rs256` for a certificate that Entra knows by its SHA-1 thumbprint
    /// alone.
    pub algorithm: Option<String>,
}

/// Exactly one of these says which: a machine may have several, and none is guessed.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields, expecting = "one of the ids, or `system_assigned: true`")]
pub struct RawManagedIdentity {
    /// Client id of a user-assigned identity.
    pub client_id: Option<String>,
    /// Object (principal) id of a user-assigned identity.
    pub object_id: Option<String>,
    /// Azure resource id of a user-assigned identity:
    /// `/subscriptions/…/providers/Microsoft.ManagedIdentity/userAssignedIdentities/…`.
    pub resource_id: Option<String>,
    /// `true`: the machine's own identity.
    pub system_assigned: Option<bool>,
}

/// Client credentials with a secret out of a file.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields, expecting = "`tenant`, `client_id` and `file`")]
pub struct RawClientSecret {
    /// As in `authorities`; without it the cloud of `AZURE_AUTHORITY_HOST`, else `public`.
    pub cloud: Option<String>,
    /// Tenant id. Required.
    pub tenant: Option<String>,
    /// Application (client) id. Required.
    pub client_id: Option<String>,
    /// Path of the file with the secret. It is read at each acquisition, one trailing newline
    /// does not count, and it must not be readable by everyone. Required.
    pub file: Option<String>,
}

/// Client credentials with a federated token (workload identity federation).
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields, expecting = "a mapping, which may be empty")]
pub struct RawWorkloadIdentity {
    /// As in `authorities`; without it the cloud of `AZURE_AUTHORITY_HOST`, else `public`.
    pub cloud: Option<String>,
    /// Tenant id; without it `AZURE_TENANT_ID`.
    pub tenant: Option<String>,
    /// Application (client) id; without it `AZURE_CLIENT_ID`.
    pub client_id: Option<String>,
    /// Path of the projected service account token, read at each acquisition; without it
    /// `AZURE_FEDERATED_TOKEN_FILE`.
    pub token_file: Option<String>,
    /// In place of `token_file`: the user-assigned managed identity whose token is the proof.
    pub managed_identity: Option<RawManagedIdentity>,
}

/// Pods, and the identities that they may use. Everything that is said of the pods must be so,
/// exactly; there are no patterns. At least one of `namespace`, `service_account` and `labels`.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields, expecting = "pods and `identities`")]
pub struct RawAccess {
    /// The pods' namespace.
    pub namespace: Option<String>,
    /// The pods' service account.
    pub service_account: Option<String>,
    /// Labels that the pods all have. Whoever may change a pod's labels can change these.
    pub labels: Option<BTreeMap<String, String>>,
    /// Names out of `identities`. Required, at least one.
    pub identities: Option<Vec<Option<String>>>,
}

/// The pod's evidence. The defaults are where the injection template puts it.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields, expecting = "a mapping with `cluster`")]
pub struct RawPod {
    /// Absolute path of a projected token of the pod's service account, which gives namespace and service
    /// account. Without it `/var/run/secrets/entra-pod/token`.
    pub token_file: Option<String>,
    /// The one audience of that token. Without it `entra-sidecar`.
    pub audience: Option<String>,
    /// Absolute path of the pod's labels as the Downward API writes them. Without it
    /// `/var/run/secrets/entra-pod/labels`.
    pub labels_file: Option<String>,
    /// Whose token it is, and what it is verified by. Required.
    pub cluster: Option<RawCluster>,
}

/// The cluster, and where its keys are: at its API server, or in `keys_file`.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields, expecting = "a mapping with `issuer`")]
pub struct RawCluster {
    /// The issuer of the cluster's service account tokens, exactly: what
    /// `kubectl get --raw /.well-known/openid-configuration` calls `issuer`. Required.
    pub issuer: Option<String>,
    /// Absolute path of a file with the cluster's keys (`kubectl get --raw /openid/v1/jwks`), for
    /// pods that cannot reach the API server. Without it the API server is asked, which is the one that the
    /// kubelet names in `KUBERNETES_SERVICE_HOST`.
    pub keys_file: Option<String>,
    /// Absolute path of a PEM file with the authority of the API server's certificate, the only one that is trusted
    /// for it. Without it `/var/run/secrets/entra-pod/ca.crt`.
    pub ca_file: Option<String>,
    /// Absolute path of a token for the API server. Without it `/var/run/secrets/entra-pod/api-token`.
    pub token_file: Option<String>,
}

/// The listeners.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields, expecting = "`api` and `admin`")]
pub struct RawListen {
    /// Hands out tokens and keys. Without it the Unix socket `/run/entra/broker.sock`.
    pub api: Option<RawApi>,
    /// Address of `/healthz`, `/readyz`, `/metrics` and the status page, which hold nothing
    /// secret. Without it `127.0.0.1:7172`; for probes and scraping `0.0.0.0:7172`.
    pub admin: Option<String>,
    /// Endpoints in the shapes that applications know already. Without it there are none.
    pub compat: Option<RawCompat>,
}

/// The compat listener: an address, and one or more families of endpoints.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields, expecting = "`address`, `trust_whole_pod` and endpoints")]
pub struct RawCompat {
    /// Loopback address, as in `127.0.0.1:7173`. Every process of the pod can have the tokens of
    /// the identities that are named here. Required.
    pub address: Option<String>,
    /// Must be `true`: says that whoever runs in the pod may have these tokens.
    pub trust_whole_pod: Option<bool>,
    /// The managed identity endpoints of Azure's virtual machines and of App Service.
    pub managed_identity: Option<RawManagedIdentityEndpoint>,
    /// The endpoints of Microsoft's auth sidecar.
    pub auth_sidecar: Option<RawAuthSidecar>,
}

/// The endpoints of Microsoft's auth sidecar.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields, expecting = "`callers`, `apis`, or both")]
pub struct RawAuthSidecar {
    /// Whose tokens are validated. Without it `/Validate` and `/AuthorizationHeader/{api}` are not
    /// served.
    pub callers: Option<RawCallers>,
    /// The APIs that headers are made for, by the name in the path.
    pub apis: Option<BTreeMap<String, Option<RawDownstreamApi>>>,
}

/// Whose tokens the auth sidecar's endpoints accept.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields, expecting = "`tenants` and `audiences`")]
pub struct RawCallers {
    /// As in `authorities`; without it `public`.
    pub cloud: Option<String>,
    /// Tenant ids (GUIDs in lower case) whose keys `authorities` keeps, or `organizations` alone.
    /// Required.
    pub tenants: Option<Vec<Option<String>>>,
    /// What the application is called in a token's `aud`, each spelling. Required.
    pub audiences: Option<Vec<Option<String>>>,
    /// Scopes of which a token must have one. Without it any user's and any application's token of
    /// the audience is valid, as with the original.
    pub scopes: Option<Vec<Option<String>>>,
}

/// An API that headers are made for.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields, expecting = "`identity` and `scope`")]
pub struct RawDownstreamApi {
    /// Name of the identity. Required.
    pub identity: Option<String>,
    /// The scope: on behalf of a caller one of the identity's `delegated_scopes`, for the
    /// application's own token one of its `scopes`. Required.
    pub scope: Option<String>,
    /// `true`: the application's own token, also where a caller's token is there. Default `false`.
    pub request_app_token: Option<bool>,
}

/// The managed identity endpoints of Azure's virtual machines and of App Service.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields, expecting = "`identities`, and perhaps `default`")]
pub struct RawManagedIdentityEndpoint {
    /// The identities whose tokens are handed out here, by name; a request chooses by client id
    /// (of a managed identity by the id that it is configured with). Required, at least one.
    pub identities: Option<Vec<Option<String>>>,
    /// Which of them a request gets that names none. Without it such a request is refused.
    pub default: Option<String>,
    /// Absolute path of the file with the value of `X-IDENTITY-HEADER`, which must not be readable by
    /// everyone. Without it the App Service form is not served.
    pub identity_header_file: Option<String>,
    /// `false`: the virtual machine's form is not served, so that only who knows the value of
    /// `X-IDENTITY-HEADER` gets a token. Default `true`.
    pub imds: Option<bool>,
}

/// The api listener: either `unix`, or `tcp` with `trust_whole_pod`.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields, expecting = "`unix`, or `tcp` with `trust_whole_pod`")]
pub struct RawApi {
    /// Path of the Unix socket, absolute, in a directory that the application cannot enter.
    pub unix: Option<String>,
    /// User ids that may connect to the socket. Without it the broker's own and 1337 (Istio's
    /// proxy).
    pub allow_uids: Option<Vec<Option<u32>>>,
    /// Loopback address instead of a socket. Every process of the pod can then have the tokens.
    pub tcp: Option<String>,
    /// Must be `true` beside `tcp`: says that whoever runs in the pod may have the tokens.
    pub trust_whole_pod: Option<bool>,
}
