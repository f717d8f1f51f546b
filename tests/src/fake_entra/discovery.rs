//! The public documents: OpenID configuration, key sets, and the list of clouds.
//!
//! Each is written from what Entra publishes at the same address, member for member. Which tenant
//! is meant, and whether there is one, is decided before; nothing here reads a request.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    cloud::{CONSUMERS_TENANT, Cloud},
    signing::{KeyOwner, PublishedKey},
};

/// Which documents: `v2.0` in the path, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
}

/// What stands where a URL names a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Audience {
    /// One Entra tenant, by its GUID.
    Tenant(String),
    /// Any Entra tenant and personal accounts.
    Common,
    /// Any Entra tenant.
    Organizations,
    /// Personal accounts.
    Consumers,
}

impl Audience {
    /// How the documents' own URLs name it.
    fn segment(&self) -> &str {
        match self {
            Self::Tenant(id) => id,
            Self::Common => "common",
            Self::Organizations => "organizations",
            Self::Consumers => "consumers",
        }
    }

    /// How the issuer names it: the literal placeholder where it can be anybody.
    fn issuer_tenant(&self) -> &str {
        match self {
            Self::Common | Self::Organizations => "{tenantid}",
            Self::Tenant(id) => id,
            Self::Consumers => CONSUMERS_TENANT,
        }
    }

    fn shows(&self, owner: KeyOwner) -> bool {
        match owner {
            KeyOwner::AnyTenant => *self != Self::Consumers,
            KeyOwner::Consumers => matches!(self, Self::Common | Self::Consumers),
        }
    }
}

/// `/{tenant}/v2.0/.well-known/openid-configuration` and its version 1.0 sister.
pub(super) fn openid_configuration(cloud: Cloud, audience: &Audience, version: Version) -> Value {
    match version {
        Version::V1 => configuration_v1(cloud, audience),
        Version::V2 => configuration_v2(cloud, audience),
    }
}

fn configuration_v2(cloud: Cloud, audience: &Audience) -> Value {
    let base = format!("https://{}/{}", cloud.host(), audience.segment());
    json!({
        "token_endpoint": format!("{base}/oauth2/v2.0/token"),
        "token_endpoint_auth_methods_supported":
            ["client_secret_post", "private_key_jwt", "client_secret_basic"],
        "jwks_uri": format!("{base}/discovery/v2.0/keys"),
        "response_modes_supported": ["query", "fragment", "form_post"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
        "scopes_supported": ["openid", "profile", "email", "offline_access"],
        "issuer": cloud.issuer_v2(audience.issuer_tenant()),
        "request_uri_parameter_supported": false,
        "userinfo_endpoint": format!("https://{}/oidc/userinfo", cloud.graph_host()),
        "authorization_endpoint": format!("{base}/oauth2/v2.0/authorize"),
        "device_authorization_endpoint": format!("{base}/oauth2/v2.0/devicecode"),
        "http_logout_supported": true,
        "frontchannel_logout_supported": true,
        "end_session_endpoint": format!("{base}/oauth2/v2.0/logout"),
        "claims_supported": [
            "sub", "iss", "cloud_instance_name", "cloud_instance_host_name",
            "cloud_graph_host_name", "msgraph_host", "aud", "exp", "iat", "auth_time", "acr",
            "nonce", "preferred_username", "name", "tid", "ver", "at_hash", "c_hash", "email"
        ],
        "kerberos_endpoint": format!("{base}/kerberos"),
        "tenant_region_scope": region(audience),
        "cloud_instance_name": cloud.instance_name(),
        "cloud_graph_host_name": graph_host_v1(cloud),
        "msgraph_host": cloud.graph_host(),
        "rbac_url": "https://pas.windows.net",
    })
}

fn configuration_v1(cloud: Cloud, audience: &Audience) -> Value {
    let base = format!("https://{}/{}", cloud.host(), audience.segment());
    json!({
        "token_endpoint": format!("{base}/oauth2/token"),
        "token_endpoint_auth_methods_supported":
            ["client_secret_post", "private_key_jwt", "client_secret_basic"],
        // Version 1.0 documents point every tenant at the shared key set.
        "jwks_uri": format!("https://{}/common/discovery/keys", cloud.host()),
        "response_modes_supported": ["query", "fragment", "form_post"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "response_types_supported":
            ["code", "id_token", "code id_token", "token id_token", "token"],
        "scopes_supported": ["openid"],
        "issuer": cloud.issuer_v1(audience.issuer_tenant()),
        "microsoft_multi_refresh_token": true,
        "authorization_endpoint": format!("{base}/oauth2/authorize"),
        "device_authorization_endpoint": format!("{base}/oauth2/devicecode"),
        "http_logout_supported": true,
        "frontchannel_logout_supported": true,
        "end_session_endpoint": format!("{base}/oauth2/logout"),
        "claims_supported": [
            "sub", "iss", "cloud_instance_name", "cloud_instance_host_name",
            "cloud_graph_host_name", "msgraph_host", "aud", "exp", "iat", "auth_time", "acr",
            "amr", "nonce", "email", "given_name", "family_name", "nickname"
        ],
        "check_session_iframe": format!("{base}/oauth2/checksession"),
        "userinfo_endpoint": format!("{base}/openid/userinfo"),
        "kerberos_endpoint": format!("{base}/kerberos"),
        "tenant_region_scope": region(audience),
        "cloud_instance_name": cloud.instance_name(),
        "cloud_graph_host_name": graph_host_v1(cloud),
        "msgraph_host": cloud.graph_host(),
        "rbac_url": "https://pas.windows.net",
    })
}

fn region(audience: &Audience) -> Value {
    match audience {
        Audience::Tenant(_) => json!("EU"),
        _ => Value::Null,
    }
}

fn graph_host_v1(cloud: Cloud) -> &'static str {
    match cloud {
        Cloud::Public | Cloud::UsGovernment => "graph.windows.net",
        Cloud::China => "graph.chinacloudapi.cn",
    }
}

/// `/{tenant}/discovery/v2.0/keys` and its version 1.0 sister, which names no issuers
/// (learn.microsoft.com/entra/identity-platform/access-tokens#validate-the-issuer).
pub(super) fn key_set(
    keys: &[PublishedKey],
    cloud: Cloud,
    audience: &Audience,
    version: Version,
) -> Value {
    let shown = keys.iter().filter(|key| audience.shows(key.owner));
    json!({"keys": shown.map(|key| jwk(key, cloud, audience, version)).collect::<Vec<_>>()})
}

fn jwk(key: &PublishedKey, cloud: Cloud, audience: &Audience, version: Version) -> Value {
    let public = key.key.jwk();
    let mut jwk = json!({
        "kty": "RSA",
        "use": "sig",
        "kid": key.key.kid,
        "x5t": key.thumbprint,
        "n": public.n,
        "e": public.e,
        "x5c": [STANDARD.encode(&key.certificate)],
        "cloud_instance_name": cloud.instance_name(),
    });
    if version == Version::V2 {
        let tenant = match key.owner {
            KeyOwner::AnyTenant => audience.issuer_tenant(),
            KeyOwner::Consumers => CONSUMERS_TENANT,
        };
        jwk["issuer"] = json!(cloud.issuer_v2(tenant));
    }
    jwk
}

/// `/common/discovery/instance`: which host names belong together. MSAL asks this first.
pub(super) fn instance_discovery(tenant_discovery_endpoint: &str) -> Value {
    let metadata = |cloud: Cloud, cache: &str| {
        json!({
            "preferred_network": cloud.host(),
            "preferred_cache": cache,
            "aliases": cloud.hosts(),
        })
    };
    json!({
        "tenant_discovery_endpoint": tenant_discovery_endpoint,
        "api-version": "1.1",
        "metadata": [
            metadata(Cloud::Public, "login.windows.net"),
            metadata(Cloud::China, Cloud::China.host()),
            metadata(Cloud::UsGovernment, Cloud::UsGovernment.host()),
        ],
    })
}
