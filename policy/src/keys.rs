//! Signing keys: which of the published ones are usable, and which one a token may name.
//!
//! A key is usable when it is an RSA signing key of a sane size; it is trusted for a token when
//! the key's own issuer fits the token's tenant. `key_store` holds them.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use contract::Jwk;

use crate::cloud::{Cloud, TENANT_TEMPLATE};

/// Smallest RSA modulus in bytes: RFC 7518 §3.3 asks for 2048 bits.
const MIN_MODULUS_BYTES: usize = 256;
/// Largest, 4096 bits: beyond it one verification costs more CPU than a request may.
const MAX_MODULUS_BYTES: usize = 512;
/// Longest key id that is taken from a set or looked up from a token.
pub const MAX_KEY_ID_BYTES: usize = 256;

/// Why a published key is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyRefused {
    /// No `kid`, or one that is empty or too long.
    KeyId,
    /// `kty` is not `RSA`, `use` not `sig`, or `alg` not `RS256`.
    Purpose,
    /// `n` or `e` is missing or not base64url.
    Encoding,
    /// Below 2048 or above 4096 bits, or an even modulus.
    Modulus,
    /// An exponent that is even, 1, or longer than 4 bytes.
    Exponent,
    /// No `issuer`: Entra states whose tokens a key may sign.
    Issuer,
}

/// A usable key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedKey {
    /// Key id.
    pub kid: String,
    /// Whose tokens it may sign: an issuer or the template with `{tenantid}`.
    pub issuer: String,
    /// The cloud instance, where the set names it.
    pub cloud_instance_name: Option<String>,
    /// DER SubjectPublicKeyInfo (RFC 5280 §4.1.2.7), as the host's verifier wants it.
    pub spki: Vec<u8>,
}

impl TrustedKey {
    /// Takes a key as published, or says why not.
    pub fn from_jwk(jwk: &Jwk) -> Result<Self, KeyRefused> {
        let kid = jwk.kid.as_deref().unwrap_or_default();
        if kid.is_empty() || kid.len() > MAX_KEY_ID_BYTES {
            return Err(KeyRefused::KeyId);
        }
        let purpose = jwk.kty.as_deref() == Some("RSA")
            && jwk.usage.as_deref().is_none_or(|usage| usage == "sig")
            && jwk.alg.as_deref().is_none_or(|algorithm| algorithm == "RS256");
        if !purpose {
            return Err(KeyRefused::Purpose);
        }
        let modulus = integer(jwk.n.as_deref())?;
        let exponent = integer(jwk.e.as_deref())?;
        let size = MIN_MODULUS_BYTES..=MAX_MODULUS_BYTES;
        // The top bit is part of the size: 2041 bits also fill 256 bytes.
        let full = modulus.first().is_some_and(|first| first & 0x80 != 0);
        if !size.contains(&modulus.len()) || !full || !odd(&modulus) {
            return Err(KeyRefused::Modulus);
        }
        if exponent.len() > 4 || !odd(&exponent) || exponent == [1] {
            return Err(KeyRefused::Exponent);
        }
        let issuer = jwk.issuer.as_deref().filter(|issuer| !issuer.is_empty());
        Ok(Self {
            kid: kid.to_owned(),
            issuer: issuer.ok_or(KeyRefused::Issuer)?.to_owned(),
            cloud_instance_name: jwk.cloud_instance_name.clone(),
            spki: public_key_info(&modulus, &exponent),
        })
    }

    /// Whether this key may sign tokens of `tenant` in `cloud`.
    ///
    /// A template stands for every tenant; anything else is one issuer, compared exactly: the
    /// consumers' key in a common set signs for consumers alone. v1 tokens are compared by their
    /// v2 issuer, which is what Entra's key sets name.
    pub fn signs_for(&self, cloud: Cloud, tenant: &str) -> bool {
        let instance = self.cloud_instance_name.as_deref();
        instance.is_none_or(|name| name == cloud.instance_name())
            && (self.issuer == cloud.v2_issuer(tenant)
                || self.issuer == cloud.v2_issuer(TENANT_TEMPLATE))
    }
}

/// An unsigned big-endian integer without leading zeros (RFC 7518 §6.3.1).
fn integer(text: Option<&str>) -> Result<Vec<u8>, KeyRefused> {
    let bytes = URL_SAFE_NO_PAD
        .decode(text.unwrap_or_default())
        .map_err(|_malformed| KeyRefused::Encoding)?;
    match bytes.first() {
        None | Some(0) => Err(KeyRefused::Encoding),
        Some(_) => Ok(bytes),
    }
}

fn odd(integer: &[u8]) -> bool {
    integer.last().is_some_and(|last| last & 1 == 1)
}

/// DER of SubjectPublicKeyInfo with rsaEncryption (RFC 3279 §2.3.1).
fn public_key_info(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    const SEQUENCE: u8 = 0x30;
    const BIT_STRING: u8 = 0x03;
    const RSA_ENCRYPTION: [u8; 15] =
        [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
    let key = der(SEQUENCE, &[&der_integer(modulus), &der_integer(exponent)]);
    der(SEQUENCE, &[&RSA_ENCRYPTION, &der(BIT_STRING, &[&[0], &key])])
}

fn der_integer(magnitude: &[u8]) -> Vec<u8> {
    const INTEGER: u8 = 0x02;
    let negative = magnitude.first().is_some_and(|first| first & 0x80 != 0);
    let sign: &[u8] = if negative { &[0] } else { &[] };
    der(INTEGER, &[sign, magnitude])
}

fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = content.len().to_be_bytes();
    let significant = length.iter().skip_while(|byte| **byte == 0).copied().collect::<Vec<u8>>();
    let mut encoded = vec![tag];
    if content.len() < 0x80 {
        encoded.extend(significant.first().or(Some(&0)));
    } else {
        // At most 8 bytes of length: the sum fits.
        encoded.push(0x80 | u8::try_from(significant.len()).unwrap_or(0));
        encoded.extend(significant);
    }
    encoded.extend(content);
    encoded
}

#[cfg(test)]
mod tests {
    use tokens::SigningKey;

    use super::*;

    const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
    const OTHER: &str = "5a1d3a0e-8c0b-4c4f-9a37-0b1f3f7c5d11";

    fn published() -> Jwk {
        SigningKey::new(1, "k1", &Cloud::Public.v2_issuer(TENANT)).jwk()
    }

    fn encoded(bytes: &[u8]) -> Option<String> {
        Some(URL_SAFE_NO_PAD.encode(bytes))
    }

    fn modulus(bytes: usize, first: u8, last: u8) -> Option<String> {
        let mut modulus = vec![7; bytes];
        modulus[0] = first;
        modulus[bytes - 1] = last;
        encoded(&modulus)
    }

    #[test]
    fn a_published_key_verifies_what_its_private_half_signed() {
        let signer = SigningKey::new(1, "k1", "i");
        let key = TrustedKey::from_jwk(&signer.jwk()).unwrap();
        let signature = signer.signature(b"text");
        assert!(tokens::verify(&key.spki, b"text", &signature));
        assert!(!tokens::verify(&key.spki, b"tex", &signature));
    }

    #[test]
    fn der_lengths_are_right_on_both_sides_of_their_forms() {
        let length = |content: usize| {
            let encoded = der(0x04, &[&vec![0; content]]);
            encoded[1..encoded.len() - content].to_vec()
        };
        assert_eq!(length(0), [0]);
        assert_eq!(length(127), [127]);
        assert_eq!(length(128), [0x81, 128]);
        assert_eq!(length(256), [0x82, 1, 0]);
    }

    #[test]
    fn unusable_keys_are_refused_each_for_its_reason() {
        let key = published();
        let refused = |change: fn(&mut Jwk)| {
            let mut changed = published();
            change(&mut changed);
            TrustedKey::from_jwk(&changed).err()
        };
        assert!(TrustedKey::from_jwk(&key).is_ok());
        let cases: [(fn(&mut Jwk), Option<KeyRefused>); 27] = [
            (|k| k.kid = None, Some(KeyRefused::KeyId)),
            (|k| k.kid = Some(String::new()), Some(KeyRefused::KeyId)),
            (|k| k.kid = Some("k".repeat(256)), None),
            (|k| k.kid = Some("k".repeat(257)), Some(KeyRefused::KeyId)),
            (|k| k.kty = None, Some(KeyRefused::Purpose)),
            (|k| k.kty = Some("oct".into()), Some(KeyRefused::Purpose)),
            (|k| k.kty = Some("EC".into()), Some(KeyRefused::Purpose)),
            (|k| k.usage = Some("enc".into()), Some(KeyRefused::Purpose)),
            (|k| k.usage = None, None),
            (|k| k.alg = Some("RS256".into()), None),
            (|k| k.alg = Some("PS256".into()), Some(KeyRefused::Purpose)),
            (|k| k.n = None, Some(KeyRefused::Encoding)),
            (|k| k.n = Some("a+b/".into()), Some(KeyRefused::Encoding)),
            (|k| k.e = Some("AQAB=".into()), Some(KeyRefused::Encoding)),
            (|k| k.e = encoded(&[0, 1, 0, 1]), Some(KeyRefused::Encoding)),
            (|k| k.n = modulus(256, 0x80, 1), None),
            (|k| k.n = modulus(256, 0x7f, 1), Some(KeyRefused::Modulus)),
            (|k| k.n = modulus(255, 0x80, 1), Some(KeyRefused::Modulus)),
            (|k| k.n = modulus(512, 0x80, 1), None),
            (|k| k.n = modulus(513, 0x80, 1), Some(KeyRefused::Modulus)),
            (|k| k.n = modulus(2048, 0x80, 1), Some(KeyRefused::Modulus)),
            (|k| k.n = modulus(256, 0x80, 2), Some(KeyRefused::Modulus)),
            (|k| k.e = encoded(&[1]), Some(KeyRefused::Exponent)),
            (|k| k.e = encoded(&[1, 0, 0]), Some(KeyRefused::Exponent)),
            (|k| k.e = encoded(&[1, 0, 0, 0, 1]), Some(KeyRefused::Exponent)),
            (|k| k.e = encoded(&[1, 0, 0, 1]), None),
            (|k| k.issuer = None, Some(KeyRefused::Issuer)),
        ];
        for (index, (change, expected)) in cases.into_iter().enumerate() {
            assert_eq!(refused(change), expected, "case {index}");
        }
    }

    #[test]
    fn a_key_signs_only_for_its_own_issuer_and_cloud() {
        let signs = |issuer: &str, instance: Option<&str>, cloud: Cloud, tenant: &str| {
            let mut key = TrustedKey::from_jwk(&published()).unwrap();
            key.issuer = issuer.to_owned();
            key.cloud_instance_name = instance.map(str::to_owned);
            key.signs_for(cloud, tenant)
        };
        let (public, instance) = (Cloud::Public, Some("microsoftonline.com"));
        let own = public.v2_issuer(TENANT);
        let template = public.v2_issuer(TENANT_TEMPLATE);
        assert!(signs(&own, instance, public, TENANT));
        assert!(signs(&own, None, public, TENANT));
        assert!(signs(&template, instance, public, TENANT));
        assert!(!signs(&own, instance, public, OTHER));
        assert!(!signs(&own, Some("microsoftonline.us"), public, TENANT));
        assert!(!signs(&template, None, Cloud::UsGovernment, TENANT));
        assert!(!signs(
            &public.v2_issuer("9188040d-6c67-4c5b-b112-36a304b66dad"),
            instance,
            public,
            TENANT
        ));
        assert!(!signs(&public.v1_issuer(TENANT).unwrap(), instance, public, TENANT));
    }
}
