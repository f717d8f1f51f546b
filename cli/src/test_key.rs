//! Keys that sign test tokens, and that nobody takes for anything else.
//!
//! The file has a PEM label of its own: neither is another key taken for a test key, nor this one
//! by anything that reads keys. The key id says what it is in every token and key set, and is made
//! from the key, so no other key can have it.

use std::{io::Write, os::unix::fs::OpenOptionsExt, path::Path};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use contract::Jwk;
use policy::cloud::{Cloud, TENANT_TEMPLATE};
use ring::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    rsa::{KeyPair, PublicKeyComponents},
    signature::RSA_PKCS1_SHA256,
};
use rsa::pkcs8::{EncodePrivateKey, LineEnding, SecretDocument};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::output::{self, Failure};

/// The label of the file.
const LABEL: &str = "ENTRA SIDECAR TEST KEY";
/// How every key id begins.
const KEY_ID: &str = "entra-sidecar-test-";
/// What Entra's keys have.
const BITS: usize = 2048;

/// A key that signs test tokens.
#[derive(Debug)]
pub(crate) struct TestKey {
    pair: KeyPair,
    key_id: String,
}

impl TestKey {
    /// Makes a key that lives as long as this process.
    pub(crate) fn new() -> Result<Self, Failure> {
        Self::of(&document()?)
    }

    /// Makes a key and writes it into a new file that only its owner can read.
    pub(crate) fn write_new(path: &Path) -> Result<Self, Failure> {
        let document = document()?;
        let pem = document.to_pem(LABEL, LineEnding::LF).map(Zeroizing::new);
        let pem =
            pem.map_err(|error| Failure::new(format!("the key cannot be written: {error}")))?;
        let mut options = std::fs::OpenOptions::new();
        // Never over a file: it may be the key of tokens that are still in use.
        let file = options.write(true).create_new(true).mode(0o600).open(path);
        file.and_then(|mut file| file.write_all(pem.as_bytes()))
            .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
        Self::of(&document)
    }

    /// Reads a test key, and no other.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let text = Zeroizing::new(output::read(path)?);
        match SecretDocument::from_pem(&text) {
            Ok((LABEL, document)) => Self::of(&document),
            Ok(_) | Err(_) => Err(Failure::new(format!(
                "{}: no test key; `entra-sidecar test-token --new-key` makes one",
                path.display()
            ))),
        }
    }

    fn of(document: &SecretDocument) -> Result<Self, Failure> {
        let pair = KeyPair::from_pkcs8(document.as_bytes())
            .map_err(|error| Failure::new(format!("the test key is not usable: {error}")))?;
        let hash = digest(&SHA256, pair.public().as_ref());
        let hash: String = hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { pair, key_id: format!("{KEY_ID}{hash}") })
    }

    /// The public half, for tokens of any tenant of a cloud.
    pub(crate) fn jwk(&self, cloud: Cloud) -> Jwk {
        let public: PublicKeyComponents<Vec<u8>> = self.pair.public().into();
        Jwk {
            kid: Some(self.key_id.clone()),
            kty: Some("RSA".to_owned()),
            usage: Some("sig".to_owned()),
            alg: None,
            n: Some(URL_SAFE_NO_PAD.encode(public.n)),
            e: Some(URL_SAFE_NO_PAD.encode(public.e)),
            issuer: Some(cloud.v2_issuer(TENANT_TEMPLATE)),
            cloud_instance_name: None,
        }
    }

    /// Signs claims.
    pub(crate) fn token(&self, claims: &Value) -> Result<String, Failure> {
        let header = json!({"typ": "JWT", "alg": "RS256", "kid": self.key_id});
        let part = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", part(&header), part(claims));
        let mut signature = vec![0; self.pair.public().modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .map_err(|_unspecified| Failure::new("the token cannot be signed"))?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

fn document() -> Result<SecretDocument, Failure> {
    let made = rsa::RsaPrivateKey::new(&mut rand_core::OsRng, BITS);
    let written = made
        .map_err(|error| error.to_string())
        .and_then(|key| key.to_pkcs8_der().map_err(|error| error.to_string()));
    written.map_err(|error| Failure::new(format!("no key can be made: {error}")))
}
