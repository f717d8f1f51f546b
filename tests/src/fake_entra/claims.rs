//! Writes the claims of access tokens as Entra does: user or application, version 1.0 or 2.0.
//!
//! Sources: learn.microsoft.com/entra/identity-platform/access-token-claims-reference and
//! optional-claims-reference. The same writer serves the token endpoint and the tokens that a test
//! mints, so both look alike; a test changes single claims on top.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::digest::{SHA256, digest};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    directory::{Application, Tenant, TokenVersion},
    token_endpoint::Credential,
};

/// Who is meant, for whom, and how long.
pub(super) struct Subject<'a> {
    pub(super) tenant: &'a Tenant,
    pub(super) client: &'a Application,
    pub(super) resource: &'a Application,
    /// The resource as it was asked for.
    pub(super) identifier: &'a str,
    pub(super) credential: Credential,
    /// Unix seconds; Entra dates tokens five minutes back.
    pub(super) now: u64,
    /// Seconds from `now` until the token ends.
    pub(super) lifetime: u64,
}

/// A person in a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Object id, a GUID.
    pub object_id: String,
    /// User principal name.
    pub principal_name: String,
    /// Display name.
    pub name: String,
}

/// What a user let an application do.
#[derive(Debug, Clone, Default)]
pub(super) struct Delegation {
    pub(super) scopes: Vec<String>,
    pub(super) roles: Vec<String>,
}

/// Claims of an application's own token.
pub(super) fn of_application(subject: &Subject<'_>, roles: &[String]) -> Map<String, Value> {
    let mut claims = shared(subject);
    claims.insert("oid".into(), json!(subject.client.object_id));
    claims.insert("sub".into(), json!(subject.client.object_id));
    if subject.resource.wants_idtyp {
        claims.insert("idtyp".into(), json!("app"));
    }
    if subject.resource.token_version == TokenVersion::V1 {
        claims.insert("idp".into(), json!(subject.tenant.cloud.issuer_v1(&subject.tenant.id)));
    }
    if !roles.is_empty() {
        claims.insert("roles".into(), json!(roles));
    }
    claims
}

/// Claims of a token by which an application acts for a user.
pub(super) fn of_user(
    subject: &Subject<'_>,
    user: &User,
    delegation: &Delegation,
) -> Map<String, Value> {
    let mut claims = shared(subject);
    claims.insert("oid".into(), json!(user.object_id));
    claims.insert("sub".into(), json!(pairwise(user, subject.resource)));
    claims.insert("name".into(), json!(user.name));
    claims.insert("scp".into(), json!(delegation.scopes.join(" ")));
    if !delegation.roles.is_empty() {
        claims.insert("roles".into(), json!(delegation.roles));
    }
    match subject.resource.token_version {
        TokenVersion::V1 => {
            let (given, family) = user.name.split_once(' ').unwrap_or((user.name.as_str(), ""));
            claims.insert("acr".into(), json!("1"));
            claims.insert("amr".into(), json!(["pwd", "mfa"]));
            claims.insert("given_name".into(), json!(given));
            claims.insert("family_name".into(), json!(family));
            claims.insert("ipaddr".into(), json!("203.0.113.7"));
            claims.insert("unique_name".into(), json!(user.principal_name));
            claims.insert("upn".into(), json!(user.principal_name));
        }
        TokenVersion::V2 => {
            claims.insert("preferred_username".into(), json!(user.principal_name));
            claims.insert("sid".into(), json!(Uuid::new_v4().to_string()));
        }
    }
    claims
}

fn shared(subject: &Subject<'_>) -> Map<String, Value> {
    let Subject { tenant, client, resource, now, lifetime, .. } = subject;
    let issued_at = now.saturating_sub(300);
    let strength = match subject.credential {
        Credential::None => "0",
        Credential::Secret => "1",
        Credential::Assertion => "2",
    };
    let versioned = match resource.token_version {
        TokenVersion::V1 => json!({
            "aud": subject.identifier,
            "iss": tenant.cloud.issuer_v1(&tenant.id),
            "appid": client.client_id,
            "appidacr": strength,
            "ver": "1.0",
        }),
        TokenVersion::V2 => json!({
            "aud": resource.client_id,
            "iss": tenant.cloud.issuer_v2(&tenant.id),
            "azp": client.client_id,
            "azpacr": strength,
            "ver": "2.0",
        }),
    };
    let common = json!({
        "iat": issued_at,
        "nbf": issued_at,
        "exp": now.saturating_add(*lifetime),
        "aio": opaque(32),
        "rh": format!("1.{}.", opaque(33)),
        "tid": tenant.id,
        "uti": opaque(16),
    });
    let mut claims = Map::new();
    for part in [versioned, common] {
        if let Value::Object(part) = part {
            claims.extend(part);
        }
    }
    claims
}

/// `sub` differs for each resource that a user goes to.
pub(super) fn pairwise(user: &User, resource: &Application) -> String {
    let text = format!("{}/{}", user.object_id, resource.client_id);
    URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes()))
}

/// Random text that nobody but Entra reads, of `bytes` bytes before encoding.
fn opaque(bytes: usize) -> String {
    let random = std::iter::repeat_with(Uuid::new_v4).flat_map(Uuid::into_bytes);
    URL_SAFE_NO_PAD.encode(random.take(bytes).collect::<Vec<u8>>())
}
