//! The claims of an Entra access token: read strictly, judged against the configuration.
//!
//! Reading comes first, because tenant and version say which key to ask; judging comes after the
//! signature. Nothing here knows rules or headers.
//!
//! Source of the claims' meanings: learn.microsoft.com/entra/identity-platform/
//! access-token-claims-reference and claims-validation.

use crate::{
    cloud::{Cloud, is_tenant_id},
    decision::Reason,
    json::{Node, Object},
    time::UnixTime,
};

/// Longest life of a token, in seconds: Entra's longest are 28 h (continuous access evaluation).
pub const MAX_LIFETIME_SECONDS: u64 = 29 * 3600;

/// The tenant of personal Microsoft accounts: no Entra tenant, whatever `organizations` says.
pub const CONSUMERS_TENANT: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";

/// The client capability that stands for "answers claims challenges".
const CHALLENGE_CAPABILITY: &str = "cp1";

/// The version of a token, which the API's own registration decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// `ver` 1.0
    V1,
    /// `ver` 2.0
    V2,
}

/// Whose token it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A user's, delegated to the client.
    User,
    /// An application's own.
    Application,
}

/// How the client authenticated (`azpacr`, `appidacr`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClientCredential {
    /// A public client: no credential.
    None,
    /// A client secret.
    Secret,
    /// A certificate or a federated assertion.
    Certificate,
}

/// The groups of the principal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Groups {
    /// All of them, as far as the API's registration asks for them.
    Listed(Vec<String>),
    /// More than fit into a token: who is in which is unknown (never "in none").
    Overage,
}

/// Claims with the right types, not yet judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// `ver`
    pub version: Version,
    /// `tid`
    pub tenant: String,
    /// `iss`
    pub issuer: String,
    /// `aud`
    pub audience: String,
    /// `exp`
    pub expires: UnixTime,
    /// `nbf`
    pub not_before: UnixTime,
    /// `iat`
    pub issued: UnixTime,
    /// `scp` of a user's token.
    pub scopes: Vec<String>,
    /// `roles`
    pub roles: Vec<String>,
    /// `groups`
    pub groups: Groups,
    /// `azp` (v2) or `appid` (v1)
    pub client: Option<String>,
    /// `azpacr` (v2) or `appidacr` (v1)
    pub client_credential: Option<ClientCredential>,
    /// `acrs`: ids of the authentication contexts that the sign-in satisfied.
    pub contexts: Vec<String>,
    /// Whether `xms_cc` has `cp1`: the client answers claims challenges.
    pub answers_challenges: bool,
    /// `uti`
    pub token_id: Option<String>,
    kind: Option<Kind>,
}

impl Claims {
    /// Reads the claims out of a payload, or says that they are not those of an access token.
    pub fn read(payload: &Object<'_>) -> Result<Self, Reason> {
        Self::read_typed(payload).ok_or(Reason::ClaimsMalformed)
    }

    fn read_typed(payload: &Object<'_>) -> Option<Self> {
        let version = match text(payload, "ver")?.as_deref()? {
            "1.0" => Version::V1,
            "2.0" => Version::V2,
            _ => return None,
        };
        let (client, credential) = match version {
            Version::V1 => ("appid", "appidacr"),
            Version::V2 => ("azp", "azpacr"),
        };
        let client = text(payload, client)?;
        let client_credential = match text(payload, credential)?.as_deref() {
            None => None,
            Some("0") => Some(ClientCredential::None),
            Some("1") => Some(ClientCredential::Secret),
            Some("2") => Some(ClientCredential::Certificate),
            Some(_) => return None,
        };
        let scope = text(payload, "scp")?;
        let issued = time(payload, "iat")??;
        Some(Self {
            version,
            tenant: text(payload, "tid")??,
            issuer: text(payload, "iss")??,
            audience: text(payload, "aud")??,
            expires: time(payload, "exp")??,
            // Entra always sends it; without one the token is valid from its issue.
            not_before: time(payload, "nbf")?.unwrap_or(issued),
            issued,
            kind: kind(
                scope.as_deref(),
                text(payload, "idtyp")?.as_deref(),
                text(payload, "oid")?.as_deref(),
                text(payload, "sub")?.as_deref(),
                client.is_some(),
            ),
            scopes: scope.as_deref().map(scopes).unwrap_or_default(),
            roles: texts(payload, "roles")?,
            groups: groups(payload)?,
            client,
            client_credential,
            contexts: texts(payload, "acrs")?,
            // Capabilities are compared without case (identity-platform/claims-challenge).
            answers_challenges: texts(payload, "xms_cc")?
                .iter()
                .any(|capability| capability.eq_ignore_ascii_case(CHALLENGE_CAPABILITY)),
            token_id: text(payload, "uti")?,
        })
    }

    /// Whether tenant and issuer are of this cloud and each other.
    ///
    /// To be asked before keys are looked for: the tenant decides which are.
    pub fn check_issuer(&self, cloud: Cloud, tenants: &Tenants) -> Result<(), Reason> {
        if !is_tenant_id(&self.tenant) {
            return Err(Reason::ClaimsMalformed);
        }
        if !tenants.allow(&self.tenant) {
            return Err(Reason::TenantRefused);
        }
        let expected = match self.version {
            Version::V1 => cloud.v1_issuer(&self.tenant),
            Version::V2 => Some(cloud.v2_issuer(&self.tenant)),
        };
        let matches = expected.is_some_and(|expected| self.issuer == expected);
        if matches { Ok(()) } else { Err(Reason::IssuerMismatch) }
    }

    /// Judges what the signature made true: audience, times, kind.
    ///
    /// `skew` is in seconds and works for the caller on both sides (RFC 7519 §4.1.4, §4.1.5).
    pub fn check(&self, audiences: &Audiences, skew: u64, now: UnixTime) -> Result<Kind, Reason> {
        if !audiences.allow(self.version, &self.audience) {
            return Err(Reason::AudienceMismatch);
        }
        if now > self.expires.plus(skew) {
            return Err(Reason::TokenExpired);
        }
        let begins = self.issued.max(self.not_before);
        // One that ends before it begins is never valid, though the skew may cover both.
        if begins > now.plus(skew) || begins > self.expires {
            return Err(Reason::TokenNotYetValid);
        }
        let lifetime = self.expires.since(self.issued.min(self.not_before));
        if lifetime > MAX_LIFETIME_SECONDS {
            return Err(Reason::LifetimeExcessive);
        }
        self.kind.ok_or(Reason::TokenKindUnknown)
    }
}

/// The tenants whose tokens are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tenants {
    /// Any Entra tenant (`organizations`).
    Any,
    /// These; never empty.
    Listed(std::collections::HashSet<String>),
}

impl Tenants {
    fn allow(&self, tenant: &str) -> bool {
        match self {
            Self::Any => tenant != CONSUMERS_TENANT,
            Self::Listed(tenants) => tenants.contains(tenant),
        }
    }
}

/// The audiences that stand for the protected API; never empty, compared exactly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audiences(pub Vec<String>);

impl Audiences {
    /// A v2 token names the API by its client id, a v1 token by that or by an application URI.
    fn allow(&self, version: Version, audience: &str) -> bool {
        (version == Version::V1 || is_tenant_id(audience))
            && self.0.iter().any(|allowed| allowed == audience)
    }
}

/// Whose token it is; none where that cannot be told.
///
/// A missing `scp` alone does not make an application's token: an ID token has none either.
/// Agent tokens carry a `scp` of `/`, which grants nothing.
fn kind(
    scope: Option<&str>,
    declared: Option<&str>,
    object: Option<&str>,
    subject: Option<&str>,
    client: bool,
) -> Option<Kind> {
    match (scope.filter(|scope| *scope != "/"), declared) {
        (Some(scope), None | Some("user")) if !scopes(scope).is_empty() => Some(Kind::User),
        (None, Some("app")) => Some(Kind::Application),
        (None, None) if client && object.is_some() && object == subject => Some(Kind::Application),
        _ => None,
    }
}

fn scopes(scope: &str) -> Vec<String> {
    scope.split(' ').filter(|scope| !scope.is_empty() && *scope != "/").map(str::to_owned).collect()
}

fn groups(payload: &Object<'_>) -> Option<Groups> {
    let sources = match payload.get("_claim_names") {
        Some(Node::Object(sources)) => sources.get("groups").is_some(),
        Some(_) => return None,
        None => false,
    };
    // Any `hasgroups` but a plain false, and the implicit grant's `groups:src1`, mean overage too.
    let has_groups = !matches!(payload.get("hasgroups"), None | Some(Node::Bool(false)));
    if sources || has_groups || payload.names().any(|name| name.starts_with("groups:")) {
        return Some(Groups::Overage);
    }
    texts(payload, "groups").map(Groups::Listed)
}

/// A string claim: absent is fine, another type or a NUL is not.
#[allow(clippy::option_option, reason = "malformed, absent and present are three answers")]
fn text(payload: &Object<'_>, name: &str) -> Option<Option<String>> {
    match payload.get(name) {
        None => Some(None),
        Some(Node::Text(text)) if !text.contains('\0') => Some(Some(text.to_string())),
        Some(_) => None,
    }
}

/// A claim that is a list of strings: absent is empty.
fn texts(payload: &Object<'_>, name: &str) -> Option<Vec<String>> {
    match payload.get(name) {
        None => Some(Vec::new()),
        Some(node) => node.texts().map(|texts| texts.into_iter().map(str::to_owned).collect()),
    }
}

/// A NumericDate (RFC 7519 §2), rounded down; zero, negative and beyond 2^53 are malformed.
#[allow(clippy::option_option, reason = "malformed, absent and present are three answers")]
fn time(payload: &Object<'_>, name: &str) -> Option<Option<UnixTime>> {
    const LAST: u64 = 1 << 53;
    let seconds = match payload.get(name) {
        None => return Some(None),
        Some(Node::Unsigned(seconds)) => *seconds,
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a float saturates, and zero and the end are refused below"
        )]
        Some(Node::Number(seconds)) => *seconds as u64,
        Some(_) => return None,
    };
    (1..LAST).contains(&seconds).then_some(Some(UnixTime(seconds)))
}
