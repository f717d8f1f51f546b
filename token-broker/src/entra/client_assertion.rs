//! The assertion by which an application with a certificate proves that it is itself
//! (learn.microsoft.com/entra/identity-platform/certificate-credentials).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use contract::Secret;
use ring::{
    digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest},
    rand::SystemRandom,
    signature::{RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair},
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::json;
use uuid::Uuid;

use crate::config::{Application, AssertionAlgorithm};

/// How long an assertion is good, as MSAL has it; each is made for one request.
const LIFE_SECONDS: u64 = 600;

/// Why a PEM file is no credential. Never with a piece of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    /// There is no certificate in it.
    NoCertificate,
    /// There is no private key in it, or one that is encrypted.
    NoKey,
    /// Entra takes RSA keys of 2048 bits or more only.
    NotRsa,
    /// The first certificate is of another key.
    AnotherKey,
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::NoCertificate => "no certificate in it",
            Self::NoKey => "no private key in it that can be read without a password",
            Self::NotRsa => "the key is not RSA of 2048 to 8192 bits",
            Self::AnotherKey => "the first certificate is not the private key's",
        })
    }
}

/// A certificate with its key.
pub struct Certificate {
    der: CertificateDer<'static>,
    key: RsaKeyPair,
}

impl Certificate {
    /// The first certificate and the private key of a PEM file.
    pub fn from_pem(pem: &Secret) -> Result<Self, Unusable> {
        let pem = pem.expose().as_bytes();
        let der = CertificateDer::from_pem_slice(pem).map_err(|_none| Unusable::NoCertificate)?;
        let key = match PrivateKeyDer::from_pem_slice(pem).map_err(|_none| Unusable::NoKey)? {
            PrivateKeyDer::Pkcs8(key) => RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()),
            PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der()),
            _ => return Err(Unusable::NotRsa),
        };
        let key = key.map_err(|_refused| Unusable::NotRsa)?;
        // RFC 5280 §4.1: a certificate holds its key's public part as it is (RFC 8017 A.1.1).
        let public = key.public().as_ref();
        if !der.windows(public.len()).any(|part| part == public) {
            return Err(Unusable::AnotherKey);
        }
        Ok(Self { der: der.into_owned(), key })
    }

    /// An assertion for one request to `audience`, the token endpoint.
    pub fn assertion(
        &self,
        application: &Application,
        audience: &str,
        algorithm: AssertionAlgorithm,
        now: u64,
    ) -> Option<Secret> {
        let thumbprint = |algorithm| URL_SAFE_NO_PAD.encode(digest(algorithm, &self.der));
        let encoding: &'static dyn RsaEncoding;
        let header = match algorithm {
            AssertionAlgorithm::Ps256 => {
                encoding = &RSA_PSS_SHA256;
                json!({"alg": "PS256", "typ": "JWT", "x5t#S256": thumbprint(&SHA256)})
            }
            AssertionAlgorithm::Rs256 => {
                encoding = &RSA_PKCS1_SHA256;
                json!({"alg": "RS256", "typ": "JWT", "x5t": thumbprint(&SHA1_FOR_LEGACY_USE_ONLY)})
            }
        };
        let claims = json!({
            "aud": audience,
            "iss": application.client_id,
            "sub": application.client_id,
            "jti": Uuid::new_v4().to_string(),
            "nbf": now,
            "iat": now,
            "exp": now.saturating_add(LIFE_SECONDS),
        });
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key.sign(encoding, &SystemRandom::new(), signed.as_bytes(), &mut signature).ok()?;
        Some(Secret::new(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))))
    }
}
