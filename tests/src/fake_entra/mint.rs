//! Tokens that a test or the demo hands to a caller, without the token endpoint.
//!
//! They look exactly like issued ones (`claims` writes both); single claims are changed on top, so
//! that a test says only what is different about its token.

use std::sync::Arc;

use serde_json::{Map, Value};
use tokens::SigningKey;

use super::{
    claims::{self, Delegation, Subject, User},
    directory::{Application, Tenant, TokenVersion},
    signing::PublishedKey,
    state::State,
    token_endpoint::Credential,
};

/// Makes one token. Starts as an application's own, valid, with the roles the directory grants.
#[derive(Clone)]
pub struct TokenBuilder {
    state: Arc<State>,
    tenant: Tenant,
    client: Application,
    resource: Application,
    identifier: String,
    credential: Credential,
    user: Option<User>,
    scopes: Vec<String>,
    roles: Option<Vec<String>>,
    lifetime: u64,
    age: u64,
    changes: Vec<(String, Value)>,
    key: Option<SigningKey>,
}

impl TokenBuilder {
    /// Panics when the directory does not know one of them: that is a mistake of the test.
    pub(super) fn new(state: Arc<State>, tenant: &str, client: &str, resource: &str) -> Self {
        let (tenant, client, found) = {
            let directory = state.directory();
            let tenant = directory.tenants.iter().find(|known| known.id == tenant).cloned();
            let tenant = tenant.expect("a tenant of the directory");
            let client = directory.find_application(&tenant.id, client).cloned();
            let found = directory.find_resource(&tenant.id, resource).cloned();
            (tenant, client, found)
        };
        Self {
            state,
            tenant,
            client: client.expect("an application of the tenant"),
            resource: found.expect("a resource of the tenant"),
            identifier: resource.to_owned(),
            credential: Credential::Secret,
            user: None,
            scopes: Vec::new(),
            roles: None,
            lifetime: 3599,
            age: 0,
            changes: Vec::new(),
            key: None,
        }
    }

    /// Makes it a user's token, with these scopes.
    #[must_use]
    pub fn user(mut self, user: &User, scopes: &[&str]) -> Self {
        self.user = Some(user.clone());
        self.scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        self
    }

    /// Exactly these roles.
    #[must_use]
    pub fn roles(mut self, roles: &[&str]) -> Self {
        self.roles = Some(roles.iter().map(|role| (*role).to_owned()).collect());
        self
    }

    /// How the application authenticated: `azpacr` or `appidacr`.
    #[must_use]
    pub fn credential(mut self, credential: Credential) -> Self {
        self.credential = credential;
        self
    }

    /// Seconds from issue until the end.
    #[must_use]
    pub fn lifetime(mut self, seconds: u64) -> Self {
        self.lifetime = seconds;
        self
    }

    /// Issued this many seconds ago.
    #[must_use]
    pub fn age(mut self, seconds: u64) -> Self {
        self.age = seconds;
        self
    }

    /// Sets a claim to something else, or removes it with null.
    #[must_use]
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.changes.push((name.to_owned(), value.into()));
        self
    }

    /// Signs with a key of the test's own, which Entra never published.
    #[must_use]
    pub fn signed_by(mut self, key: &SigningKey) -> Self {
        self.key = Some(key.clone());
        self
    }

    /// The claims as they will be signed.
    pub fn claims(&self) -> Map<String, Value> {
        let subject = Subject {
            tenant: &self.tenant,
            client: &self.client,
            resource: &self.resource,
            identifier: &self.identifier,
            credential: self.credential,
            now: self.state.now().saturating_sub(self.age),
            lifetime: self.lifetime,
        };
        let mut claims = match &self.user {
            Some(user) => {
                let roles = self.roles.clone().unwrap_or_default();
                claims::of_user(&subject, user, &Delegation { scopes: self.scopes.clone(), roles })
            }
            None => {
                let granted = || self.client.roles_on(&self.resource);
                let roles = self.roles.clone().unwrap_or_else(granted);
                claims::of_application(&subject, &roles)
            }
        };
        for (name, value) in &self.changes {
            if value.is_null() {
                claims.remove(name);
            } else {
                claims.insert(name.clone(), value.clone());
            }
        }
        claims
    }

    /// The token, signed by the current key unless another was given.
    pub fn sign(&self) -> String {
        let claims = self.claims();
        match &self.key {
            Some(key) => key.token(&Value::Object(claims)),
            None => sign(self.state.keys().current(), self.resource.token_version, claims),
        }
    }
}

/// Signs with Entra's header; version 1.0 tokens repeat the key id as `x5t`.
pub(super) fn sign(
    key: &PublishedKey,
    version: TokenVersion,
    claims: Map<String, Value>,
) -> String {
    let kid = &key.key.kid;
    let header = match version {
        TokenVersion::V1 => {
            serde_json::json!({"typ": "JWT", "alg": "RS256", "x5t": kid, "kid": kid})
        }
        TokenVersion::V2 => serde_json::json!({"typ": "JWT", "alg": "RS256", "kid": kid}),
    };
    key.key.token_with(&header, &Value::Object(claims))
}
