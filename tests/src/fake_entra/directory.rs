//! What the fake knows: tenants, applications, their credentials and the resources they expose.
//!
//! Data and look-ups only. `token_endpoint` decides with it, `claims` writes tokens from it. Names
//! are Entra's: an application of a tenant here is the registration and its service principal.

use tokens::SigningKey;

use super::{claims::User, cloud::Cloud};

pub use super::application::{Application, ClientSecret, FederatedCredential, TokenVersion};

/// Every tenant, application and federated issuer of the fake.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    /// Tenants of all clouds.
    pub tenants: Vec<Tenant>,
    /// Applications of all tenants.
    pub applications: Vec<Application>,
    /// Users of all tenants, as far as Entra is asked about them.
    pub users: Vec<Account>,
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

/// A user's account in a tenant.
#[derive(Debug, Clone)]
pub struct Account {
    /// The tenant's GUID.
    pub tenant: String,
    /// Who it is.
    pub user: User,
    /// Sign-in is blocked.
    pub disabled: bool,
    /// Unix seconds: what was issued before counts no longer (`signInSessionsValidFromDateTime`).
    pub sessions_valid_from: u64,
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

    /// Adds a user of a tenant.
    #[must_use]
    pub fn user(mut self, tenant: &str, user: User) -> Self {
        let tenant = tenant.to_ascii_lowercase();
        self.users.push(Account { tenant, user, disabled: false, sessions_valid_from: 0 });
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

    /// A user of a tenant by object id.
    pub fn find_user(&self, tenant: &str, object_id: &str) -> Option<&Account> {
        let is = |known: &&Account| known.tenant == tenant && known.user.object_id == object_id;
        self.users.iter().find(is)
    }

    /// A user to change in place (blocked, sessions ended).
    pub fn user_mut(&mut self, tenant: &str, object_id: &str) -> Option<&mut Account> {
        let is = |known: &&mut Account| known.tenant == tenant && known.user.object_id == object_id;
        self.users.iter_mut().find(is)
    }

    /// The tenant of this cloud that has this issuer of version 2.0 tokens.
    pub fn find_own_issuer(&self, cloud: Cloud, issuer: &str) -> Option<&Tenant> {
        let is = |tenant: &&Tenant| tenant.cloud == cloud && cloud.issuer_v2(&tenant.id) == issuer;
        self.tenants.iter().find(is)
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
