//! Checks a federated client assertion the way Entra does: a token of an external issuer in place
//! of a secret (learn.microsoft.com/entra/workload-id/workload-identity-federation).
//!
//! First a federated credential must match issuer, subject and audience exactly, case and all;
//! only then the issuer's keys are looked at; the time comes last. An issuer may be a tenant of this
//! very Entra, where a managed identity is the one that asserts. Assertions signed by an application's own
//! certificate are `certificate_assertion`'s.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::digest::{SHA256, digest};
use serde_json::Value;
use uuid::Uuid;

use super::{
    calls::Presented,
    cloud::Cloud,
    directory::{Application, Directory, Tenant},
    refusal::{Refusal, precise},
    token_endpoint::Realm,
};

/// The application that `api://AzureADTokenExchange` names, in every tenant: `aud` of the tokens of
/// managed identities that go there.
pub const TOKEN_EXCHANGE: &str = "fb60f99c-7a34-4190-8149-302f77469936";

const SEE: &str = "https://learn.microsoft.com/entra/workload-id/workload-identity-federation";
const CHECK: &str = "Check your federated identity credential Subject, Audience and Issuer against \
                     the presented assertion.";

/// Clock difference that Entra forgives, in seconds.
pub(super) const SKEW_SECONDS: u64 = 300;

/// Whether this is to be a federated assertion: those have a URL for an issuer, and an application's
/// own have its id.
pub(super) fn is_federated(text: &str) -> bool {
    let issuer = Token::split(text).map(|token| token.claims["iss"].clone());
    !matches!(issuer, Ok(Value::String(issuer)) if Uuid::try_parse(&issuer).is_ok())
}

/// Holds when the assertion proves to be the application.
pub(super) fn check(
    assertion: &str,
    application: &Application,
    realm: &Realm<'_>,
) -> Result<(), Refusal> {
    let assertion = Assertion::parse(assertion)?;
    let managed_identity = realm.directory.find_own_issuer(realm.cloud, &assertion.issuer);
    let audiences = match managed_identity {
        Some(_tenant) => exchange_audiences(&assertion.audiences, realm.cloud),
        None => assertion.audiences.clone(),
    };
    assertion.matches(application, &audiences)?;
    match managed_identity {
        Some(tenant) => assertion.verify_own(tenant, realm)?,
        None => assertion.verify_external(realm.directory)?,
    }
    in_time(realm.now, assertion.not_before, assertion.expires_at)
}

/// What an assertion says, proven or not, for the record.
pub(super) fn presented(assertion: &str) -> Presented {
    let claims = assertion.split('.').nth(1).and_then(decode).unwrap_or_default();
    let text = |name: &str| claims[name].as_str().map(str::to_owned);
    Presented {
        issuer: text("iss"),
        subject: text("sub"),
        audiences: audiences(&claims["aud"]).unwrap_or_default(),
        issued_at: claims["iat"].as_u64(),
        expires_at: claims["exp"].as_u64(),
        id_hash: text("jti").map(|id| hash(&id)),
        hash: hash(assertion),
    }
}

fn hash(text: &str) -> String {
    let digest = digest(&SHA256, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A compact JWS taken apart (RFC 7515 §7.1), nothing of it proven.
pub(super) struct Token<'a> {
    pub(super) header: Value,
    pub(super) claims: Value,
    pub(super) signed: &'a str,
    pub(super) signature: Vec<u8>,
}

impl<'a> Token<'a> {
    pub(super) fn split(text: &'a str) -> Result<Self, Refusal> {
        let (signed, signature) = text.rsplit_once('.').ok_or_else(malformed)?;
        let (header, payload) = signed.split_once('.').ok_or_else(malformed)?;
        Ok(Self {
            header: decode(header).ok_or_else(malformed)?,
            claims: decode(payload).ok_or_else(malformed)?,
            signed,
            signature: URL_SAFE_NO_PAD.decode(signature).map_err(|_| malformed())?,
        })
    }
}

struct Assertion<'a> {
    kid: String,
    issuer: String,
    subject: String,
    audiences: Vec<String>,
    not_before: u64,
    expires_at: u64,
    signed: &'a str,
    signature: Vec<u8>,
}

impl<'a> Assertion<'a> {
    fn parse(text: &'a str) -> Result<Self, Refusal> {
        let Token { header, claims, signed, signature } = Token::split(text)?;
        let algorithm = header["alg"].as_str().ok_or_else(malformed)?;
        if algorithm != "RS256" {
            return Err(unsupported_algorithm(algorithm, "'RS256'"));
        }
        let kid = header["kid"].as_str().ok_or_else(no_key_named)?;
        let text_claim =
            |name: &str| claims[name].as_str().map(str::to_owned).ok_or_else(malformed);
        Ok(Self {
            kid: kid.to_owned(),
            issuer: text_claim("iss")?,
            subject: text_claim("sub")?,
            audiences: audiences(&claims["aud"]).ok_or_else(malformed)?,
            not_before: match &claims["nbf"] {
                Value::Null => 0,
                value => value.as_u64().ok_or_else(malformed)?,
            },
            expires_at: claims["exp"].as_u64().ok_or_else(malformed)?,
            signed,
            signature,
        })
    }

    fn matches(&self, application: &Application, audiences: &[String]) -> Result<(), Refusal> {
        let Self { issuer, subject, .. } = self;
        let audience = audiences.join(", ");
        if application.federated.is_empty() {
            return Err(Refusal::new(
                70021,
                format!(
                    "No matching federated identity record found for presented assertion. \
                     Assertion Issuer: '{issuer}'. Assertion Subject: '{subject}'. Assertion \
                     Audience: '{audience}'. {SEE}"
                ),
            ));
        }
        let unmatched = |code: u32, what: &str, value: &str, hint: &str| {
            Refusal::new(
                code,
                format!(
                    "No matching federated identity record found for presented assertion {what} \
                     '{value}'. {hint}{CHECK} {SEE}"
                ),
            )
        };
        let of_issuer: Vec<_> =
            application.federated.iter().filter(|known| known.issuer == *issuer).collect();
        if of_issuer.is_empty() {
            return Err(unmatched(700_211, "issuer", issuer, ""));
        }
        let of_subject: Vec<_> =
            of_issuer.iter().filter(|known| known.subject == *subject).collect();
        if of_subject.is_empty() {
            let differs_in_case =
                of_issuer.iter().any(|known| known.subject.eq_ignore_ascii_case(subject));
            return Err(if differs_in_case {
                let hint = "The subject matches with case-insensitive comparison, but not with \
                            case-sensitive comparison. ";
                unmatched(7_002_138, "subject", subject, hint)
            } else {
                unmatched(700_213, "subject", subject, "")
            });
        }
        if !of_subject.iter().any(|known| audiences.contains(&known.audience)) {
            return Err(unmatched(700_212, "audience", &audience, ""));
        }
        Ok(())
    }

    fn verify_external(&self, directory: &Directory) -> Result<(), Refusal> {
        let issuer = directory
            .find_issuer(&self.issuer)
            .ok_or_else(|| Refusal::new(90061, "Request to External OIDC endpoint failed."))?;
        let mut keys = issuer.keys.iter();
        self.verify(keys.find(|(kid, _)| *kid == self.kid).map(|(_, key)| key.clone()))
    }

    /// A token of this Entra counts only when it is a managed identity's own
    /// (learn.microsoft.com/entra/workload-id/workload-identity-federation-config-app-trust-managed-identity).
    fn verify_own(&self, tenant: &Tenant, realm: &Realm<'_>) -> Result<(), Refusal> {
        let mut keys = realm.keys.iter();
        self.verify(keys.find(|key| key.key.kid == self.kid).map(|key| key.key.public_der()))?;
        let mut known = realm.directory.applications.iter();
        let is_managed = known.any(|known| {
            known.tenant == tenant.id
                && known.object_id == self.subject
                && known.managed_identity.is_some()
        });
        if is_managed {
            return Ok(());
        }
        Err(Refusal::new(
            700_236,
            format!(
                "Entra ID tokens issued by issuer '{}' may not be used for federated identity \
                 credential flows for applications or managed identities registered in this \
                 tenant.",
                self.issuer
            ),
        ))
    }

    fn verify(&self, key: Option<Vec<u8>>) -> Result<(), Refusal> {
        let invalid = |reason: &str| {
            Refusal::new(
                700_027,
                format!("Client assertion failed signature validation. [Reason - {reason}]"),
            )
        };
        let key = key.ok_or_else(|| invalid("The key was not found."))?;
        if tokens::verify(&key, self.signed.as_bytes(), &self.signature) {
            Ok(())
        } else {
            Err(invalid("The key used is correct but the signature is not."))
        }
    }
}

/// The audiences of an Entra token, with the exchange's own id as the name that credentials have.
fn exchange_audiences(audiences: &[String], cloud: Cloud) -> Vec<String> {
    let named = |audience: &String| match audience.as_str() {
        TOKEN_EXCHANGE => cloud.exchange_audience().to_owned(),
        other => other.to_owned(),
    };
    audiences.iter().map(named).collect()
}

/// Holds from five minutes before the begin to five after the end.
pub(super) fn in_time(now: u64, not_before: u64, expires_at: u64) -> Result<(), Refusal> {
    let begun = not_before <= now.saturating_add(SKEW_SECONDS);
    let ended = expires_at.saturating_add(SKEW_SECONDS) <= now;
    if begun && !ended { Ok(()) } else { Err(out_of_time(now, not_before, expires_at)) }
}

pub(super) fn out_of_time(now: u64, not_before: u64, expires_at: u64) -> Refusal {
    Refusal::new(
        700_024,
        format!(
            "Client assertion is not within its valid time range. Current time: {}, assertion \
             valid from {}, expiry time of assertion {}. Review the documentation at \
             https://learn.microsoft.com/entra/identity-platform/certificate-credentials .",
            precise(now),
            precise(not_before),
            precise(expires_at)
        ),
    )
}

pub(super) fn malformed() -> Refusal {
    Refusal::new(50027, "JWT token is invalid or malformed.")
}

pub(super) fn unsupported_algorithm(algorithm: &str, supported: &str) -> Refusal {
    Refusal::new(
        5_002_738,
        format!(
            "Invalid JWT token. '{algorithm}' is not a supported signature algorithm. Supported \
             signing algorithms are: {supported}"
        ),
    )
}

pub(super) fn no_key_named() -> Refusal {
    Refusal::new(
        5_002_723,
        "Invalid JWT token. No certificate SHA-1 thumbprint, certificate SHA-256 thumbprint, nor \
         keyId specified in token header.",
    )
}

fn decode(part: &str) -> Option<Value> {
    let value: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()?;
    value.is_object().then_some(value)
}

/// `aud` as a string or, as Kubernetes writes it, an array.
fn audiences(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(one) => Some(vec![one.clone()]),
        Value::Array(all) => all.iter().map(|one| one.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}
