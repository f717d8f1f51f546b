//! `POST /{tenant}/oauth2/v2.0/token`: decides whether a token is issued, and for whom.
//!
//! Client credentials, with a secret, a certificate or a federated assertion; `code_grant` and
//! `on_behalf_of` have the grants of users.
//! Pure: the request, the directory and the time come in, a [`Grant`] or a [`Refusal`] goes out;
//! `claims` writes the token of a grant. The order of the checks is Entra's as far as it is known:
//! the request's shape, the tenant, the application, the scope's form, the credential, the resource,
//! Conditional Access.

use contract::Secret;

use super::{
    assertion, certificate_assertion,
    claims_request::ClaimsRequest,
    cloud::Cloud,
    directory::{Application, Directory, Tenant},
    refusal::{Refusal, precise},
    signing::PublishedKey,
};

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const FORM: &str = "application/x-www-form-urlencoded";

/// A request to the token endpoint.
pub(super) struct TokenRequest<'a> {
    pub(super) cloud: Cloud,
    /// The path segment that names the tenant.
    pub(super) tenant: &'a str,
    pub(super) method: &'a str,
    pub(super) content_type: Option<&'a str>,
    pub(super) body: &'a [u8],
}

/// What a client's proof is judged by.
pub(super) struct Realm<'a> {
    pub(super) cloud: Cloud,
    pub(super) tenant: &'a Tenant,
    pub(super) directory: &'a Directory,
    /// Entra's own keys.
    pub(super) keys: &'a [PublishedKey],
    pub(super) now: u64,
}

impl Realm<'_> {
    /// The addresses of this tenant's token endpoint, by id and by its domains.
    pub(super) fn token_endpoints(&self) -> Vec<String> {
        let Tenant { id, domains, .. } = self.tenant;
        let address =
            |name: &String| format!("https://{}/{name}/oauth2/v2.0/token", self.cloud.host());
        domains.iter().chain([id]).map(address).collect()
    }
}

/// What was proven and what is granted.
pub(super) struct Grant {
    pub(super) tenant: Tenant,
    pub(super) client: Application,
    pub(super) resource: Application,
    /// The resource as the scope named it, which is `aud` of a version 1.0 token.
    pub(super) identifier: String,
    pub(super) credential: Credential,
    /// What the token is to have beside.
    pub(super) claims: ClaimsRequest,
}

/// How an application authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential {
    /// It did not: a public client.
    None,
    /// A client secret.
    Secret,
    /// A certificate or an assertion.
    Assertion,
}

/// Decides on a request.
pub(super) fn decide(
    request: &TokenRequest<'_>,
    directory: &Directory,
    keys: &[PublishedKey],
    now: u64,
) -> Result<Grant, Refusal> {
    if request.method != "POST" {
        let method = request.method;
        return Err(Refusal::new(
            900_561,
            format!("The endpoint only accepts POST requests. Received a {method} request."),
        ));
    }
    let form = Form::read(request)?;
    let grant_type = form.required("grant_type")?;
    if grant_type != "client_credentials" {
        let text = format!("The app requested an unsupported grant type '{grant_type}'.");
        return Err(Refusal::new(70003, text));
    }
    let client_id = form.required("client_id")?;
    let scope = form.required("scope")?;
    let claims = ClaimsRequest::read(form.optional("claims"), now)?;
    let tenant = find_tenant(request.cloud, request.tenant, directory)?;
    let client = find_client(&tenant, client_id, directory)?;
    let identifier = resource_identifier(scope)?;
    let realm = Realm { cloud: request.cloud, tenant: &tenant, directory, keys, now };
    let credential = authenticate(&form, &client, &realm)?;
    let resource = find_resource(&tenant, &identifier, directory)?;
    if client.blocked {
        return Err(Refusal::by_number(53003));
    }
    Ok(Grant { resource, tenant, client, identifier, credential, claims })
}

pub(super) fn find_resource(
    tenant: &Tenant,
    identifier: &str,
    directory: &Directory,
) -> Result<Application, Refusal> {
    directory.find_resource(&tenant.id, identifier).cloned().ok_or_else(|| {
        Refusal::new(
            500_011,
            format!(
                "The resource principal named {identifier} was not found in the tenant named {}. \
                 This can happen if the application has not been installed by the administrator \
                 of the tenant or consented to by any user in the tenant. You might have sent \
                 your authentication request to the wrong tenant.",
                tenant.name
            ),
        )
    })
}

pub(super) fn find_tenant(
    cloud: Cloud,
    name: &str,
    directory: &Directory,
) -> Result<Tenant, Refusal> {
    if matches!(name, "common" | "organizations" | "consumers") {
        return Err(Refusal::new(
            50059,
            "No tenant-identifying information found in either the request or implied by any \
             provided credentials.",
        ));
    }
    directory.find_tenant(cloud, name).cloned().ok_or_else(|| no_such_tenant(name))
}

/// The refusal of a tenant that this cloud does not have.
pub(super) fn no_such_tenant(name: &str) -> Refusal {
    Refusal::new(
        90002,
        format!(
            "Tenant '{name}' not found. Check to make sure you have the correct tenant ID and are \
             signing into the correct cloud. Check with your subscription administrator, this may \
             happen if there are no active subscriptions for the tenant."
        ),
    )
}

pub(super) fn find_client(
    tenant: &Tenant,
    client_id: &str,
    directory: &Directory,
) -> Result<Application, Refusal> {
    let client = directory.find_application(&tenant.id, client_id).ok_or_else(|| {
        Refusal::new(
            700_016,
            format!(
                "Application with identifier '{client_id}' was not found in the directory '{}'. \
                 This can happen if the application has not been installed by the administrator \
                 of the tenant or consented to by any user in the tenant. You may have sent your \
                 authentication request to the wrong tenant.",
                tenant.name
            ),
        )
    })?;
    if client.disabled {
        let text = format!("Application '{}'({}) is disabled.", client.client_id, client.name);
        return Err(Refusal::new(7_000_112, text));
    }
    Ok(client.clone())
}

/// The one resource that a scope names: `<resource>/.default` and nothing beside it.
fn resource_identifier(scope: &str) -> Result<String, Refusal> {
    let invalid = |scope: &str| {
        Refusal::new(
            1_002_012,
            format!(
                "The provided value for scope {scope} is not valid. Client credential flows must \
                 have a scope value with /.default suffixed to the resource identifier \
                 (application ID URI)."
            ),
        )
    };
    let mut resources = Vec::new();
    for one in scope.split_ascii_whitespace() {
        resources.push(one.strip_suffix("/.default").ok_or_else(|| invalid(scope))?);
    }
    match resources.as_slice() {
        [] => Err(invalid(scope)),
        [""] => Err(Refusal::new(
            70011,
            format!(
                "The provided request must include a 'scope' input parameter. The provided value \
                 for the input parameter 'scope' is not valid. The scope {scope} is not valid."
            ),
        )),
        [resource] => Ok((*resource).to_owned()),
        _ => Err(several_resources(scope)),
    }
}

pub(super) fn several_resources(scope: &str) -> Refusal {
    Refusal::new(
        28000,
        format!(
            "Provided value for the input parameter scope is not valid because it contains more \
             than one resource. Scope {scope} is not valid."
        ),
    )
}

/// Grants of users want a client that can prove who it is.
pub(super) fn require_credential(form: &Form) -> Result<(), Refusal> {
    if form.optional("client_secret").is_none() && form.optional("client_assertion").is_none() {
        return Err(Refusal::new(
            7_000_218,
            "The request body must contain the following parameter: 'client_assertion' or \
             'client_secret'.",
        ));
    }
    Ok(())
}

pub(super) fn authenticate(
    form: &Form,
    client: &Application,
    realm: &Realm<'_>,
) -> Result<Credential, Refusal> {
    let secret = form.optional("client_secret");
    let assertion = form.optional("client_assertion");
    if client.public_client && (secret.is_some() || assertion.is_some()) {
        return Err(Refusal::new(
            700_025,
            "Client is public so neither 'client_assertion' nor 'client_secret' should be \
             presented.",
        ));
    }
    match (secret, assertion) {
        // RFC 6749 §2.3: one authentication method in a request.
        (Some(_), Some(_)) => Err(malformed()),
        (None, None) => Err(Refusal::new(
            7_000_216,
            "'client_assertion', 'client_secret' or 'request' is required for the \
             'client_credentials' grant type.",
        )),
        (Some(secret), None) => {
            check_secret(secret, client, realm.now)?;
            Ok(Credential::Secret)
        }
        (None, Some(assertion)) => {
            // Microsoft documents no number of its own for an unknown type.
            if form.required("client_assertion_type")? != ASSERTION_TYPE {
                return Err(malformed());
            }
            match assertion::is_federated(assertion) {
                true => assertion::check(assertion, client, realm)?,
                false => certificate_assertion::check(assertion, client, realm)?,
            }
            Ok(Credential::Assertion)
        }
    }
}

fn check_secret(presented: &str, client: &Application, now: u64) -> Result<(), Refusal> {
    let presented = Secret::new(presented);
    let known = client.secrets.iter().find(|secret| secret.value == presented);
    match known {
        Some(secret) if now < secret.expires_at => Ok(()),
        Some(secret) => Err(Refusal::new(
            7_000_222,
            format!(
                "The provided client secret keys for app '{}' are expired since {}. Visit the \
                 Azure portal to create new keys for your app: https://aka.ms/NewClientSecret, or \
                 consider using certificate credentials for added security: \
                 https://aka.ms/certCreds.",
                client.client_id,
                precise(secret.expires_at)
            ),
        )),
        None => Err(Refusal::new(
            7_000_215,
            format!(
                "Invalid client secret provided. Ensure the secret being sent in the request is \
                 the client secret value, not the client secret ID, for a secret added to app \
                 '{}'.",
                client.client_id
            ),
        )),
    }
}

/// The members of a form, each at most once.
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    pub(super) fn read(request: &TokenRequest<'_>) -> Result<Self, Refusal> {
        if !request.content_type.is_some_and(is_form) {
            // Entra does not read such a body at all, so the first member is missing to it.
            return Err(missing("grant_type"));
        }
        Self::parse(request.body)?.without_duplicates()
    }

    /// The members of a query, each at most once.
    pub(super) fn of_query(query: &str) -> Result<Self, Refusal> {
        Self::parse(query.as_bytes())?.without_duplicates()
    }

    fn without_duplicates(self) -> Result<Self, Refusal> {
        let members = self;
        for (at, (name, _)) in members.0.iter().enumerate() {
            // RFC 6749 §3.2: parameters must not be included more than once.
            if members.0.iter().skip(at + 1).any(|(other, _)| other == name) {
                return Err(malformed());
            }
        }
        Ok(members)
    }

    /// Reads the members as they stand, duplicates and all.
    pub(super) fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let members: Vec<(String, String)> = form_urlencoded::parse(body).into_owned().collect();
        // The parser puts this where bytes are not UTF-8.
        let broken = |text: &String| text.contains(char::REPLACEMENT_CHARACTER);
        match members.iter().any(|(name, value)| broken(name) || broken(value)) {
            true => Err(malformed()),
            false => Ok(Self(members)),
        }
    }

    pub(super) fn members(&self) -> &[(String, String)] {
        &self.0
    }

    /// A member that must be there; empty is as good as missing (RFC 6749 §3.2).
    pub(super) fn required(&self, name: &str) -> Result<&str, Refusal> {
        self.optional(name).ok_or_else(|| missing(name))
    }

    pub(super) fn optional(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(member, _)| member == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }
}

fn is_form(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case(FORM)
}

fn missing(name: &str) -> Refusal {
    let text = format!("The request body must contain the following parameter: '{name}'.");
    Refusal::new(900_144, text)
}

pub(super) fn malformed() -> Refusal {
    Refusal::new(9_002_313, "Invalid request. Request is malformed or invalid.")
}
