//! Tokens by which an application acts for a user, and the answer that carries them: what the grants
//! of users have in common.
//!
//! `code_grant` and `on_behalf_of` decide; here it is written out. The access token has `acrs` and
//! `xms_cc` only where the API asked for these optional claims; one that takes part in continuous
//! access evaluation needs no asking for `xms_cc`.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

use super::{
    answer::Answer,
    claims::{self, Delegation, Subject, User},
    directory::{Application, Tenant, TokenVersion},
    mint,
    state::{Lifetime, State},
    token_endpoint::Credential,
};

/// What was decided.
pub(super) struct UserGrant {
    pub(super) tenant: Tenant,
    pub(super) client: Application,
    pub(super) credential: Credential,
    pub(super) user: User,
    pub(super) resource: Application,
    /// The resource as the scopes named it.
    pub(super) identifier: String,
    pub(super) scopes: Vec<String>,
    pub(super) contexts: Vec<String>,
    pub(super) capabilities: Vec<String>,
    pub(super) nonce: Option<String>,
    pub(super) wants: Wants,
    pub(super) lifetime: Lifetime,
}

/// What the client wants beside the access token.
pub(super) struct Wants {
    pub(super) id_token: bool,
    pub(super) client_info: bool,
}

impl UserGrant {
    /// The answer of the token endpoint; `claims` are those of the access token.
    pub(super) fn answer(&self, claims: &Map<String, Value>, now: u64, state: &State) -> Answer {
        let uti = claims.get("uti").and_then(Value::as_str).map(str::to_owned);
        let token = |version, claims| mint::sign(state.keys().current(), version, claims);
        let scopes = self.scopes.iter().map(|scope| format!("{}/{scope}", self.identifier));
        let mut body = json!({
            "token_type": "Bearer",
            "scope": scopes.collect::<Vec<_>>().join(" "),
            "expires_in": self.lifetime.expires_in,
            "ext_expires_in": self.lifetime.expires_in,
            "access_token": token(self.resource.token_version, claims.clone()),
        });
        if self.wants.id_token {
            body["id_token"] = json!(token(TokenVersion::V2, self.id_token(now)));
        }
        if let Some(refresh_in) = self.lifetime.refresh_in() {
            body["refresh_in"] = json!(refresh_in);
        }
        if self.wants.client_info {
            let info = json!({"uid": self.user.object_id, "utid": self.tenant.id}).to_string();
            body["client_info"] = json!(URL_SAFE_NO_PAD.encode(info));
        }
        Answer::token(&body, uti)
    }

    /// Claims of the access token.
    pub(super) fn claims(&self, now: u64) -> Map<String, Value> {
        let subject = Subject {
            tenant: &self.tenant,
            client: &self.client,
            resource: &self.resource,
            identifier: &self.identifier,
            credential: self.credential,
            now,
            lifetime: self.lifetime.expires_in,
        };
        let delegation = Delegation { scopes: self.scopes.clone(), roles: Vec::new() };
        let mut claims = claims::of_user(&subject, &self.user, &delegation);
        let evaluated = self.resource.continuous_access;
        for (name, values, unasked) in
            [("acrs", &self.contexts, false), ("xms_cc", &self.capabilities, evaluated)]
        {
            let asked = self.resource.optional_claims.iter().any(|wanted| wanted == name);
            if !values.is_empty() && (asked || unasked) {
                claims.insert(name.to_owned(), json!(values));
            }
        }
        claims
    }

    /// Who signed in, for the client (id-token-claims-reference).
    fn id_token(&self, now: u64) -> Map<String, Value> {
        let user = &self.user;
        let mut claims = Map::new();
        for (name, value) in [
            ("aud", json!(self.client.client_id)),
            ("iss", json!(self.tenant.cloud.issuer_v2(&self.tenant.id))),
            ("iat", json!(now)),
            ("nbf", json!(now)),
            ("exp", json!(now.saturating_add(3600))),
            ("name", json!(user.name)),
            ("nonce", json!(self.nonce)),
            ("oid", json!(user.object_id)),
            ("preferred_username", json!(user.principal_name)),
            ("sub", json!(claims::pairwise(user, &self.client))),
            ("tid", json!(self.tenant.id)),
            ("ver", json!("2.0")),
        ] {
            if !value.is_null() {
                claims.insert(name.to_owned(), value);
            }
        }
        claims
    }
}
