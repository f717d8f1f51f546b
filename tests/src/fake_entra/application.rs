//! Applications as the directory has them: registration and service principal in one, with their
//! credentials, the permissions that they expose and the ones that they were granted.
//!
//! Data and builders only; `token_endpoint` decides with it.

use contract::Secret;
use uuid::Uuid;

use super::{client_certificate::Certificate, conditional_access::Policy};

/// An application registration together with its service principal in one tenant.
#[derive(Debug, Clone)]
pub struct Application {
    /// The tenant's GUID.
    pub tenant: String,
    /// Application (client) id, lower-case GUID.
    pub client_id: String,
    /// The service principal's object id: `oid` and `sub` of its own tokens.
    pub object_id: String,
    /// Display name.
    pub name: String,
    /// Sign-in is blocked for it.
    pub disabled: bool,
    /// A Conditional Access policy does not let it have tokens.
    pub blocked: bool,
    /// Unix seconds: resources refuse the tokens that it got before.
    pub tokens_valid_from: u64,
    /// As a resource, it takes part in continuous access evaluation: capable clients get tokens
    /// for it that live long.
    pub continuous_access: bool,
    /// It has no credentials by design; whoever presents some is refused.
    pub public_client: bool,
    /// Client secrets.
    pub secrets: Vec<ClientSecret>,
    /// Uploaded certificates.
    pub certificates: Vec<Certificate>,
    /// Federated identity credentials.
    pub federated: Vec<FederatedCredential>,
    /// App ID URIs; with the client id, the names by which a scope can mean it.
    pub app_id_uris: Vec<String>,
    /// Version of the tokens that it receives (`requestedAccessTokenVersion`).
    pub token_version: TokenVersion,
    /// It asked for the optional claim `idtyp`.
    pub wants_idtyp: bool,
    /// Where browsers may be sent back to, exact.
    pub redirect_uris: Vec<String>,
    /// The delegated permissions that it exposes.
    pub scopes: Vec<String>,
    /// The optional claims `acrs` and `xms_cc`, where it asked for them.
    pub optional_claims: Vec<String>,
    /// App roles granted to it on resources: resource's client id, role value.
    pub granted_roles: Vec<(String, String)>,
    /// Delegated permissions that an administrator let it have: resource's client id, scope.
    pub granted_scopes: Vec<(String, String)>,
    /// As a resource, what Conditional Access demands of users who go to it.
    pub policy: Option<Policy>,
    /// The Azure resource id of the managed identity that it is; those have no credentials.
    pub managed_identity: Option<String>,
}

/// `requestedAccessTokenVersion` of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenVersion {
    /// Also what `null` in the manifest means.
    V1,
    /// Audience is the client id.
    V2,
}

/// A client secret.
#[derive(Debug, Clone)]
pub struct ClientSecret {
    /// The value.
    pub value: Secret,
    /// Unix seconds of its end.
    pub expires_at: u64,
}

/// A federated identity credential: matched exactly, case and all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FederatedCredential {
    /// `iss` of the assertion.
    pub issuer: String,
    /// `sub` of the assertion.
    pub subject: String,
    /// `aud` of the assertion; Entra allows exactly one.
    pub audience: String,
}

impl Application {
    /// An application without credentials, roles or App ID URI; version 2.0 tokens, `idtyp` on.
    pub fn new(tenant: &str, client_id: &str, name: &str) -> Self {
        let object_id =
            Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{tenant}/{client_id}").as_bytes());
        Self {
            tenant: tenant.to_ascii_lowercase(),
            client_id: client_id.to_ascii_lowercase(),
            object_id: object_id.to_string(),
            name: name.to_owned(),
            disabled: false,
            blocked: false,
            tokens_valid_from: 0,
            continuous_access: false,
            public_client: false,
            secrets: Vec::new(),
            certificates: Vec::new(),
            federated: Vec::new(),
            app_id_uris: Vec::new(),
            token_version: TokenVersion::V2,
            wants_idtyp: true,
            redirect_uris: Vec::new(),
            scopes: Vec::new(),
            optional_claims: Vec::new(),
            granted_roles: Vec::new(),
            granted_scopes: Vec::new(),
            policy: None,
            managed_identity: None,
        }
    }

    /// Adds a secret that ends at a time in Unix seconds.
    #[must_use]
    pub fn secret(mut self, value: &str, expires_at: u64) -> Self {
        self.secrets.push(ClientSecret { value: Secret::new(value), expires_at });
        self
    }

    /// Uploads a certificate.
    #[must_use]
    pub fn certificate(mut self, certificate: &Certificate) -> Self {
        self.certificates.push(certificate.clone());
        self
    }

    /// Adds a federated identity credential.
    #[must_use]
    pub fn federated(mut self, issuer: &str, subject: &str, audience: &str) -> Self {
        self.federated.push(FederatedCredential {
            issuer: issuer.to_owned(),
            subject: subject.to_owned(),
            audience: audience.to_owned(),
        });
        self
    }

    /// Adds an App ID URI.
    #[must_use]
    pub fn app_id_uri(mut self, uri: &str) -> Self {
        self.app_id_uris.push(uri.to_owned());
        self
    }

    /// Sets the version of the tokens that it receives.
    #[must_use]
    pub fn token_version(mut self, version: TokenVersion) -> Self {
        self.token_version = version;
        self
    }

    /// Leaves `idtyp` out of its tokens, as registrations do that never asked for it.
    #[must_use]
    pub fn without_idtyp(mut self) -> Self {
        self.wants_idtyp = false;
        self
    }

    /// Lets browsers be sent back to an address.
    #[must_use]
    pub fn redirect_uri(mut self, uri: &str) -> Self {
        self.redirect_uris.push(uri.to_owned());
        self
    }

    /// Exposes a delegated permission.
    #[must_use]
    pub fn scope(mut self, scope: &str) -> Self {
        self.scopes.push(scope.to_owned());
        self
    }

    /// Asks for an optional claim in the tokens that it receives.
    #[must_use]
    pub fn optional_claim(mut self, name: &str) -> Self {
        self.optional_claims.push(name.to_owned());
        self
    }

    /// Grants an app role on a resource.
    #[must_use]
    pub fn role(mut self, resource_client_id: &str, role: &str) -> Self {
        self.granted_roles.push((resource_client_id.to_ascii_lowercase(), role.to_owned()));
        self
    }

    /// Lets it have a delegated permission on a resource, for every user.
    #[must_use]
    pub fn consent(mut self, resource_client_id: &str, scope: &str) -> Self {
        self.granted_scopes.push((resource_client_id.to_ascii_lowercase(), scope.to_owned()));
        self
    }

    /// Puts it under a policy of Conditional Access.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Makes it the service principal of a managed identity.
    #[must_use]
    pub fn managed_identity(mut self, resource_id: &str) -> Self {
        self.managed_identity = Some(resource_id.to_owned());
        self
    }

    /// Blocks sign-in.
    #[must_use]
    pub fn disabled(mut self) -> Self {
        self.disabled = true;
        self
    }

    /// Has Conditional Access block it.
    #[must_use]
    pub fn blocked(mut self) -> Self {
        self.blocked = true;
        self
    }

    /// As a resource, takes part in continuous access evaluation.
    #[must_use]
    pub fn continuous_access(mut self) -> Self {
        self.continuous_access = true;
        self
    }

    /// Makes it a public client.
    #[must_use]
    pub fn public_client(mut self) -> Self {
        self.public_client = true;
        self
    }

    /// Roles that it holds on a resource.
    pub fn roles_on(&self, resource: &Self) -> Vec<String> {
        on(&self.granted_roles, resource)
    }

    /// Delegated permissions that it may use on a resource.
    pub fn scopes_on(&self, resource: &Self) -> Vec<String> {
        on(&self.granted_scopes, resource)
    }
}

fn on(granted: &[(String, String)], resource: &Application) -> Vec<String> {
    let on_resource =
        |(id, name): &(String, String)| (*id == resource.client_id).then(|| name.clone());
    granted.iter().filter_map(on_resource).collect()
}
