//! RSA keys and Entra-shaped tokens for tests: the same natively and under wasm.
//!
//! Everything is made from a seed, so no private key stands in the tree and runs repeat.

use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use rsa::{
    BigUint, Pkcs1v15Sign, RsaPrivateKey, RsaPublicKey,
    pkcs1::EncodeRsaPublicKey,
    pkcs8::{DecodePublicKey, EncodePrivateKey, EncodePublicKey, LineEnding},
    sha2::{Digest, Sha256},
    traits::PublicKeyParts,
};
use serde_json::{Value, json};

/// A signing key with its id and the issuer that the key set names for it.
#[derive(Clone)]
pub struct SigningKey {
    /// Key id.
    pub kid: String,
    /// The key set's `issuer` member for this key.
    pub issuer: String,
    key: RsaPrivateKey,
}

impl SigningKey {
    /// Makes a 2048-bit key; the same seed gives the same key.
    pub fn new(seed: u64, kid: &str, issuer: &str) -> Self {
        Self::with_bits(seed, 2048, kid, issuer)
    }

    /// Makes a key of any size, for the tests of what must be refused.
    #[allow(clippy::expect_used, reason = "test support")]
    pub fn with_bits(seed: u64, bits: usize, kid: &str, issuer: &str) -> Self {
        // Making a key takes longer than a whole table of tests: each is made once a process.
        static MADE: LazyLock<Mutex<HashMap<(u64, usize), RsaPrivateKey>>> =
            LazyLock::new(Mutex::default);
        let mut made = MADE.lock().expect("no panic while a key is made");
        let key = made.entry((seed, bits)).or_insert_with(|| {
            let mut rng = ChaCha20Rng::seed_from_u64(seed);
            RsaPrivateKey::new(&mut rng, bits).expect("an RSA key of this size")
        });
        Self { kid: kid.to_owned(), issuer: issuer.to_owned(), key: key.clone() }
    }

    /// The public half as the key set shows it.
    pub fn jwk(&self) -> contract::Jwk {
        let public = self.key.to_public_key();
        contract::Jwk {
            kid: Some(self.kid.clone()),
            kty: Some("RSA".to_owned()),
            usage: Some("sig".to_owned()),
            alg: None,
            n: Some(URL_SAFE_NO_PAD.encode(public.n().to_bytes_be())),
            e: Some(URL_SAFE_NO_PAD.encode(public.e().to_bytes_be())),
            issuer: Some(self.issuer.clone()),
            cloud_instance_name: Some("microsoftonline.com".to_owned()),
        }
    }

    /// Signs claims with Entra's header (`typ`, `alg`, `kid`).
    pub fn token(&self, claims: &Value) -> String {
        self.token_with(&json!({"typ": "JWT", "alg": "RS256", "kid": self.kid}), claims)
    }

    /// Signs claims under any header.
    pub fn token_with(&self, header: &Value, claims: &Value) -> String {
        self.sign_text(header.to_string().as_bytes(), claims.to_string().as_bytes())
    }

    /// Signs raw header and payload bytes, which need not be JSON.
    pub fn sign_text(&self, header: &[u8], payload: &[u8]) -> String {
        let signed =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let signature = self.signature(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// RSASSA-PKCS1-v1_5 with SHA-256 over any bytes.
    #[allow(clippy::expect_used, reason = "test support")]
    pub fn signature(&self, text: &[u8]) -> Vec<u8> {
        self.key
            .sign(Pkcs1v15Sign::new::<Sha256>(), &Sha256::digest(text))
            .expect("a signature of a digest")
    }

    /// The private key in PEM (PKCS #8), for whoever has a certificate made for it.
    #[allow(clippy::expect_used, reason = "test support")]
    pub fn private_pem(&self) -> String {
        let pem = self.key.to_pkcs8_pem(LineEnding::LF).expect("a private key encodes");
        pem.as_str().to_owned()
    }

    /// The public half as a DER SubjectPublicKeyInfo, which is what [`verify`] takes.
    #[allow(clippy::expect_used, reason = "test support")]
    pub fn public_der(&self) -> Vec<u8> {
        self.key.to_public_key().to_public_key_der().expect("a public key encodes").into_vec()
    }

    /// The public half as a DER RSAPublicKey (RFC 8017 A.1.1), for whoever makes a certificate.
    #[allow(clippy::expect_used, reason = "test support")]
    pub fn public_pkcs1_der(&self) -> Vec<u8> {
        self.key.to_public_key().to_pkcs1_der().expect("a public key encodes").into_vec()
    }
}

/// A public key of modulus and exponent (big-endian) as a DER SubjectPublicKeyInfo; `None` when no
/// RSA key has them.
pub fn public_der_of(modulus: &[u8], exponent: &[u8]) -> Option<Vec<u8>> {
    let number = BigUint::from_bytes_be;
    let key = RsaPublicKey::new(number(modulus), number(exponent)).ok()?;
    Some(key.to_public_key_der().ok()?.into_vec())
}

/// RS256 over a DER SubjectPublicKeyInfo: what Envoy's `verify_signature` does.
pub fn verify(spki: &[u8], text: &[u8], signature: &[u8]) -> bool {
    RsaPublicKey::from_public_key_der(spki).is_ok_and(|key| {
        key.verify(Pkcs1v15Sign::new::<Sha256>(), &Sha256::digest(text), signature).is_ok()
    })
}
