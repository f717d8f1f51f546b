//! Certificates with which applications prove who they are: what Entra keeps of an uploaded one, and
//! the whole with its key, for whoever is to be the application.
//!
//! Signatures are made by ring here, by msal in its tests and by the broker in its own: the check in
//! `certificate_assertion` is shared with none of them.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use contract::Secret;
use ring::{
    digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest},
    rand::SystemRandom,
    signature::{RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair},
};
use serde_json::Value;
use time::OffsetDateTime;
use tokens::SigningKey;
use tokio_rustls::rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject};

use super::certificates;

/// A certificate that was uploaded to an application.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The DER.
    pub der: Vec<u8>,
    /// Its key as a DER RSAPublicKey (RFC 8017 A.1.1).
    pub public_key: Vec<u8>,
    /// Unix seconds of its begin.
    pub not_before: u64,
    /// Unix seconds of its end.
    pub not_after: u64,
}

impl Certificate {
    /// SHA-256 of the DER in base64url: `x5t#S256` (RFC 7515 §4.1.8).
    pub fn sha256(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest(&SHA256, &self.der))
    }

    /// SHA-1 of the DER in base64url: `x5t` (RFC 7515 §4.1.7).
    pub fn sha1(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &self.der))
    }

    /// SHA-1 of the DER in hexadecimal, as portals show it and msal takes it.
    pub fn thumbprint(&self) -> String {
        let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, &self.der);
        digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect()
    }
}

/// A certificate with its key.
pub struct ClientCertificate {
    /// What is uploaded.
    pub certificate: Certificate,
    /// The certificate in PEM.
    pub certificate_pem: String,
    /// The private key in PEM (PKCS #8).
    pub private_key_pem: Secret,
}

impl ClientCertificate {
    /// A self-signed certificate, good between two times in Unix seconds; the same seed gives the
    /// same key.
    pub fn new(seed: u64, name: &str, not_before: u64, not_after: u64) -> Self {
        let key = SigningKey::new(seed, "", "");
        let date = |seconds: u64| {
            let seconds = i64::try_from(seconds).expect("a date");
            OffsetDateTime::from_unix_timestamp(seconds).expect("a date")
        };
        let made = certificates::self_signed(&key, name, (date(not_before), date(not_after)));
        let made = made.expect("a certificate of a key");
        Self {
            certificate: Certificate {
                der: made.der().to_vec(),
                public_key: key.public_pkcs1_der(),
                not_before,
                not_after,
            },
            certificate_pem: made.pem(),
            private_key_pem: Secret::new(key.private_pem()),
        }
    }

    /// Key and certificate in one, as files of credentials have them.
    pub fn pem(&self) -> String {
        format!("{}{}", self.private_key_pem.expose(), self.certificate_pem)
    }

    /// A token of any header and claims, signed as `alg` of the header says: PS256, or else RS256.
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let pem = self.private_key_pem.expose().as_bytes();
        let key = PrivatePkcs8KeyDer::from_pem_slice(pem).expect("a private key in PEM");
        let key = RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).expect("an RSA key");
        let encoding: &'static dyn RsaEncoding =
            if header["alg"] == "PS256" { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let mut signature = vec![0; key.public().modulus_len()];
        key.sign(encoding, &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .expect("a signature");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}
