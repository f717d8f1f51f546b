//! What the fake knows: tenants, applications, their credentials and the resources they expose.
//!
//! Data and look-ups only. `token_endpoint` decides with it, `claims` writes tokens from it. Names
//! are Entra's: an application of a tenant here is the registration and its service principal.

use contract::Secret;
use tokens::SigningKey;
use uuid::Uuid;

use super::cloud::Cloud;

/// Every tenant, application and federated issuer of the fake.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    /// Tenants of all clouds.
    pub tenants: Vec<Tenant>,
    /// Applications of all tenants.
    pub applications: Vec<Application>,
    /// Key sets of external OpenID Connect issuers, as the real Entra would fetch them.
    pub issuers: Vec<ExternalIssuer>,
}

/// A tenant.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// Lower-case GUID.
    pub id: String,
    /// Where it lives.
    pub cloud: Cloud,
    /// Display name; error descriptions quote it.
    pub name: String,
    /// Verified domain names, which work in its place in URLs.
    pub domains: Vec<String>,
}

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

/// An issuer whose assertions applications may trust, with its published keys.
#[derive(Debug, Clone)]
pub struct ExternalIssuer {
    /// Issuer identifier, exact.
    pub issuer: String,
    /// Key id and DER SubjectPublicKeyInfo.
    pub keys: Vec<(String, Vec<u8>)>,
}

impl Directory {
    /// Adds a tenant.
    #[must_use]
    pub fn tenant(mut self, tenant: Tenant) -> Self {
        self.tenants.push(tenant);
        self
    }

    /// Adds an application.
    #[must_use]
    pub fn application(mut self, application: Application) -> Self {
        self.applications.push(application);
        self
    }

    /// Publishes the keys of an external issuer.
    #[must_use]
    pub fn issuer(mut self, issuer: &str, keys: &[&SigningKey]) -> Self {
        let keys = keys.iter().map(|key| (key.kid.clone(), key.public_der())).collect();
        self.issuers.push(ExternalIssuer { issuer: issuer.to_owned(), keys });
        self
    }

    /// Publishes these keys of an external issuer from now on, and none that it had before.
    pub fn publish(&mut self, issuer: ExternalIssuer) {
        self.issuers.retain(|known| known.issuer != issuer.issuer);
        self.issuers.push(issuer);
    }

    /// The tenant that a URL of this cloud names by GUID (any case) or domain.
    pub fn find_tenant(&self, cloud: Cloud, name: &str) -> Option<&Tenant> {
        let name = name.to_ascii_lowercase();
        self.tenants
            .iter()
            .find(|tenant| tenant.cloud == cloud && (tenant.id == name || tenant.has_domain(&name)))
    }

    /// The application of a tenant by client id (any case).
    pub fn find_application(&self, tenant: &str, client_id: &str) -> Option<&Application> {
        let client_id = client_id.to_ascii_lowercase();
        self.applications.iter().find(|app| app.tenant == tenant && app.client_id == client_id)
    }

    /// The application that a resource identifier means in a tenant.
    ///
    /// An identifier may carry one slash more than the registered URI, which then is in `aud`
    /// (learn.microsoft.com/entra/identity-platform/scopes-oidc#trailing-slash-and-default).
    pub fn find_resource(&self, tenant: &str, identifier: &str) -> Option<&Application> {
        let names = |app: &Application| {
            app.app_id_uris.iter().any(|uri| {
                identifier == uri || identifier.strip_suffix('/').is_some_and(|bare| bare == uri)
            })
        };
        self.find_application(tenant, identifier)
            .or_else(|| self.applications.iter().find(|app| app.tenant == tenant && names(app)))
    }

    /// Key sets of an external issuer.
    pub fn find_issuer(&self, issuer: &str) -> Option<&ExternalIssuer> {
        self.issuers.iter().find(|known| known.issuer == issuer)
    }

    /// An application to change in place (a rotated secret, a withdrawn role).
    pub fn application_mut(&mut self, tenant: &str, client_id: &str) -> Option<&mut Application> {
        self.applications.iter_mut().find(|app| app.tenant == tenant && app.client_id == client_id)
    }
}

impl Tenant {
    /// A tenant of the public cloud.
    pub fn new(id: &str, name: &str) -> Self {
        Self {
            id: id.to_ascii_lowercase(),
            cloud: Cloud::Public,
            name: name.to_owned(),
            domains: Vec::new(),
        }
    }

    /// Puts it into another cloud.
    #[must_use]
    pub fn cloud(mut self, cloud: Cloud) -> Self {
        self.cloud = cloud;
        self
    }

    /// Adds a verified domain.
    #[must_use]
    pub fn domain(mut self, domain: &str) -> Self {
        self.domains.push(domain.to_ascii_lowercase());
        self
    }

    fn has_domain(&self, name: &str) -> bool {
        self.domains.iter().any(|domain| domain == name)
    }
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
            federated: Vec::new(),
            app_id_uris: Vec::new(),
            token_version: TokenVersion::V2,
            wants_idtyp: true,
            redirect_uris: Vec::new(),
            scopes: Vec::new(),
            optional_claims: Vec::new(),
            granted_roles: Vec::new(),
        }
    }

    /// Adds a secret that ends at a time in Unix seconds.
    #[must_use]
    pub fn secret(mut self, value: &str, expires_at: u64) -> Self {
        self.secrets.push(ClientSecret { value: Secret::new(value), expires_at });
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
        let on_resource =
            |(id, role): &(String, String)| (*id == resource.client_id).then(|| role.clone());
        self.granted_roles.iter().filter_map(on_resource).collect()
    }
}
