//! Checks a federated client assertion the way Entra does: a token of an external issuer in place
//! of a secret (learn.microsoft.com/entra/workload-id/workload-identity-federation).
//!
//! First a federated credential must match issuer, subject and audience exactly, case and all;
//! only then the issuer's keys are looked at; the time comes last. Assertions signed by an
//! application's own certificate are another grant, which the fake does not have.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::digest::{SHA256, digest};
use serde_json::Value;

use super::{
    calls::Presented,
    directory::{Application, Directory},
    refusal::{Refusal, precise},
};

const SEE: &str = "https://learn.microsoft.com/entra/workload-id/workload-identity-federation";
const CHECK: &str = "Check your federated identity credential Subject, Audience and Issuer against \
                     the presented assertion.";

/// Clock difference that Entra forgives, in seconds.
const SKEW_SECONDS: u64 = 300;

/// Holds when the assertion proves to be the application.
pub(super) fn check(
    assertion: &str,
    application: &Application,
    directory: &Directory,
    now: u64,
) -> Result<(), Refusal> {
    let assertion = Assertion::parse(assertion)?;
    assertion.matches(application)?;
    assertion.verify(directory)?;
    assertion.in_time(now)
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
        let malformed = || Refusal::new(50027, "JWT token is invalid or malformed.");
        let (signed, signature) = text.rsplit_once('.').ok_or_else(malformed)?;
        let (header, payload) = signed.split_once('.').ok_or_else(malformed)?;
        let header = decode(header).ok_or_else(malformed)?;
        let claims = decode(payload).ok_or_else(malformed)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| malformed())?;

        let algorithm = header["alg"].as_str().ok_or_else(malformed)?;
        if algorithm != "RS256" {
            return Err(Refusal::new(
                5_002_738,
                format!(
                    "Invalid JWT token. '{algorithm}' is not a supported signature algorithm. \
                     Supported signing algorithms are: 'RS256'"
                ),
            ));
        }
        let kid = header["kid"].as_str().ok_or_else(|| {
            Refusal::new(
                5_002_723,
                "Invalid JWT token. No certificate SHA-1 thumbprint, certificate SHA-256 \
                 thumbprint, nor keyId specified in token header.",
            )
        })?;
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

    fn matches(&self, application: &Application) -> Result<(), Refusal> {
        let Self { issuer, subject, audiences, .. } = self;
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

    fn verify(&self, directory: &Directory) -> Result<(), Refusal> {
        let issuer = directory
            .find_issuer(&self.issuer)
            .ok_or_else(|| Refusal::new(90061, "Request to External OIDC endpoint failed."))?;
        let invalid = |reason: &str| {
            Refusal::new(
                700_027,
                format!("Client assertion failed signature validation. [Reason - {reason}]"),
            )
        };
        let (_, key) = issuer
            .keys
            .iter()
            .find(|(kid, _)| *kid == self.kid)
            .ok_or_else(|| invalid("The key was not found."))?;
        if tokens::verify(key, self.signed.as_bytes(), &self.signature) {
            Ok(())
        } else {
            Err(invalid("The key used is correct but the signature is not."))
        }
    }

    fn in_time(&self, now: u64) -> Result<(), Refusal> {
        let begun = self.not_before <= now.saturating_add(SKEW_SECONDS);
        let ended = self.expires_at.saturating_add(SKEW_SECONDS) <= now;
        if begun && !ended {
            return Ok(());
        }
        Err(Refusal::new(
            700_024,
            format!(
                "Client assertion is not within its valid time range. Current time: {}, assertion \
                 valid from {}, expiry time of assertion {}. Review the documentation at \
                 https://learn.microsoft.com/entra/identity-platform/certificate-credentials .",
                precise(now),
                precise(self.not_before),
                precise(self.expires_at)
            ),
        ))
    }
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
