//! Checks an assertion that an application signed with its own certificate
//! (learn.microsoft.com/entra/identity-platform/certificate-credentials).
//!
//! PS256 with `x5t#S256`, or RS256 with `x5t`: the pairs that Microsoft's libraries send. An
//! assertion may come again as long as it lives: msal for Python sends the same for nine minutes,
//! so Entra lets it (RFC 7523 §3 no. 7 leaves it open). Who makes one for each request is seen by
//! [`Presented::id_hash`](super::Presented).

use ring::signature::{
    RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use serde_json::Value;

use super::{
    assertion::{self, Token, malformed, unsupported_algorithm},
    client_certificate::Certificate,
    directory::Application,
    refusal::{Refusal, precise},
    token_endpoint::Realm,
};

/// Longest life of an assertion, in seconds; Microsoft asks for five to ten minutes.
const LONGEST_LIFE_SECONDS: u64 = 600;

/// Holds when a certificate of the application signed this for this token endpoint.
pub(super) fn check(
    text: &str,
    application: &Application,
    realm: &Realm<'_>,
) -> Result<(), Refusal> {
    let token = Token::split(text)?;
    let claim = |name: &str| token.claims[name].as_str().ok_or_else(malformed);
    let seconds = |name: &str| date(&token.claims[name]).ok_or_else(malformed);
    let (issuer, subject, audience) = (claim("iss")?, claim("sub")?, claim("aud")?);
    let (issued_at, expires_at) = (seconds("iat")?, seconds("exp")?);
    // msal for Python leaves it out.
    let not_before = if token.claims["nbf"].is_null() { issued_at } else { seconds("nbf")? };
    if claim("jti")?.is_empty() {
        return Err(malformed());
    }
    let is_itself = |id: &str| id.eq_ignore_ascii_case(&application.client_id);
    if !is_itself(issuer) || !is_itself(subject) {
        return Err(Refusal::new(
            700_021,
            "Client assertion application identifier doesn't match 'client_id' parameter. Review \
             the documentation at \
             https://learn.microsoft.com/entra/identity-platform/certificate-credentials .",
        ));
    }
    verify(&token, application, realm.now)?;
    if !realm.token_endpoints().iter().any(|endpoint| endpoint == audience) {
        return Err(Refusal::new(
            700_023,
            "Client assertion audience claim does not match Realm issuer. Review the documentation \
             at https://learn.microsoft.com/entra/identity-platform/certificate-credentials .",
        ));
    }
    let longest = realm.now.saturating_add(LONGEST_LIFE_SECONDS + assertion::SKEW_SECONDS);
    if expires_at > longest || issued_at > realm.now.saturating_add(assertion::SKEW_SECONDS) {
        return Err(assertion::out_of_time(realm.now, not_before, expires_at));
    }
    assertion::in_time(realm.now, not_before, expires_at)
}

/// A date, of which msal for Python writes the parts of a second, too (RFC 7519 §2).
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range, floored")]
fn date(value: &Value) -> Option<u64> {
    let seconds = value.as_f64()?;
    (0.0..1e12).contains(&seconds).then_some(seconds as u64)
}

fn verify(token: &Token<'_>, application: &Application, now: u64) -> Result<(), Refusal> {
    let thumbprint_of: fn(&Certificate) -> String;
    let algorithm: &'static dyn VerificationAlgorithm;
    let member = match token.header["alg"].as_str().ok_or_else(malformed)? {
        "PS256" => {
            (thumbprint_of, algorithm) = (Certificate::sha256, &RSA_PSS_2048_8192_SHA256);
            "x5t#S256"
        }
        "RS256" => {
            (thumbprint_of, algorithm) = (Certificate::sha1, &RSA_PKCS1_2048_8192_SHA256);
            "x5t"
        }
        other => return Err(unsupported_algorithm(other, "'RS256, PS256'")),
    };
    let Value::String(thumbprint) = &token.header[member] else {
        return Err(assertion::no_key_named());
    };
    let invalid = |reason: &str| {
        Refusal::new(
            700_027,
            format!(
                "The certificate with identifier used to sign the client assertion is not \
                 registered on application. [Reason - {reason}, Thumbprint of key used by client: \
                 '{thumbprint}', Please visit the Azure Portal, Graph Explorer or directly use MS \
                 Graph to see configured keys for app Id '{}'.]",
                application.client_id
            ),
        )
    };
    // msal for Python pads it, which RFC 7515 does not.
    let bare = thumbprint.trim_end_matches('=');
    let mut known = application.certificates.iter();
    let certificate = known
        .find(|known| thumbprint_of(known) == bare)
        .ok_or_else(|| invalid("The key was not found."))?;
    if now < certificate.not_before || certificate.not_after <= now {
        return Err(invalid(&format!(
            "The key used is expired., Found key 'Start={}, End={}'",
            precise(certificate.not_before),
            precise(certificate.not_after)
        )));
    }
    UnparsedPublicKey::new(algorithm, &certificate.public_key)
        .verify(token.signed.as_bytes(), &token.signature)
        .map_err(|_wrong| {
            invalid("The provided signature value did not match the expected signature value.")
        })
}
