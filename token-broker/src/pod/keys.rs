//! The cluster's keys: the public halves of those by which its API server signs service accounts'
//! tokens (RFC 7517, kubernetes.io/docs/tasks/configure-pod-container/configure-service-account
//! #service-account-issuer-discovery).

use contract::route::MAX_KEYS;
use policy::{
    json::{self, Node, Object},
    jwt,
};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};

/// How a token may be signed: by these two ways, and each by its own kind of key. A cluster's key
/// is RSA (kubeadm and every cloud) or, where the operator chose so, on the curve P-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 7518 §3.3).
    Rs256,
    /// ECDSA on P-256 with SHA-256 (RFC 7518 §3.4).
    Es256,
}

impl Algorithm {
    /// The algorithm of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "RS256" => Some(Self::Rs256),
            "ES256" => Some(Self::Es256),
            _ => None,
        }
    }
}

/// One public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterKey {
    id: String,
    material: Material,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Material {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// An uncompressed point (SEC 1 §2.3.3).
    P256(Vec<u8>),
}

impl ClusterKey {
    /// What a token's header calls it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether it has signed `text`. What kind of key it is decides how, not the token.
    pub fn verifies(&self, algorithm: Algorithm, text: &[u8], signature: &[u8]) -> bool {
        match (&self.material, algorithm) {
            (Material::Rsa { modulus, exponent }, Algorithm::Rs256) => {
                let key = RsaPublicKeyComponents { n: modulus, e: exponent };
                key.verify(&RSA_PKCS1_2048_8192_SHA256, text, signature).is_ok()
            }
            (Material::P256(point), Algorithm::Es256) => {
                let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
                key.verify(text, signature).is_ok()
            }
            (Material::Rsa { .. }, Algorithm::Es256) | (Material::P256(_), Algorithm::Rs256) => {
                false
            }
        }
    }

    fn from_jwk(jwk: &Object<'_>) -> Option<Self> {
        let text = |name| jwk.get(name).and_then(Node::text);
        let number = |name| text(name).and_then(|text| jwt::decode(text.as_bytes()).ok());
        let id = text("kid").filter(|id| !id.is_empty())?.to_owned();
        if jwk.get("use").is_some_and(|usage| usage.text() != Some("sig")) {
            return None;
        }
        let (material, algorithm) = match (text("kty")?, text("crv")) {
            ("RSA", None) => {
                (Material::Rsa { modulus: number("n")?, exponent: number("e")? }, "RS256")
            }
            ("EC", Some("P-256")) => {
                // Both of full length (RFC 7518 §6.2.1.2).
                let (x, y) = (number("x")?, number("y")?);
                if (x.len(), y.len()) != (32, 32) {
                    return None;
                }
                (Material::P256([&[4], x.as_slice(), &y].concat()), "ES256")
            }
            _ => return None,
        };
        let named = jwk.get("alg");
        named.is_none_or(|named| named.text() == Some(algorithm)).then_some(Self { id, material })
    }
}

/// The keys of a set, or why there are none. A key of another kind is left out.
pub fn read(set: &[u8]) -> Result<Vec<ClusterKey>, &'static str> {
    let set = json::object(set).ok_or("not a key set")?;
    let Some(Node::List(found)) = set.get("keys") else { return Err("not a key set") };
    if found.len() > MAX_KEYS {
        return Err("too many keys");
    }
    let mut keys: Vec<ClusterKey> = Vec::new();
    for key in found {
        let Node::Object(jwk) = key else { return Err("not a key set") };
        let Some(key) = ClusterKey::from_jwk(jwk) else { continue };
        if keys.iter().any(|other| other.id == key.id) {
            return Err("two keys of one id");
        }
        keys.push(key);
    }
    if keys.is_empty() { Err("no usable key") } else { Ok(keys) }
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    use ring::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
    };
    use serde_json::{Value, json};
    use tokens::SigningKey;

    use super::*;

    fn rsa(seed: u64, kid: &str) -> (SigningKey, Value) {
        let key = SigningKey::new(seed, kid, "");
        let shown = key.jwk();
        let jwk = json!({"use": "sig", "kty": "RSA", "kid": kid, "alg": "RS256",
            "n": shown.n, "e": shown.e});
        (key, jwk)
    }

    fn p256(kid: &str) -> (EcdsaKeyPair, Value) {
        let random = SystemRandom::new();
        let kind = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(kind, document.as_ref(), &random).unwrap();
        let point = key.public_key().as_ref();
        let (x, y) = point.get(1..).unwrap().split_at(32);
        let [x, y] = [x, y].map(|number| URL_SAFE_NO_PAD.encode(number));
        let jwk = json!({"use": "sig", "kty": "EC", "kid": kid, "alg": "ES256", "crv": "P-256",
            "x": x, "y": y});
        (key, jwk)
    }

    fn with(mut jwk: Value, member: &str, value: Value) -> Value {
        jwk.as_object_mut().unwrap().insert(member.to_owned(), value);
        jwk
    }

    fn set(keys: &[Value]) -> Result<Vec<ClusterKey>, &'static str> {
        read(json!({"keys": keys}).to_string().as_bytes())
    }

    #[test]
    fn a_signature_counts_by_its_own_key_and_algorithm_alone() {
        let ((rsa, rsa_jwk), (p256, p256_jwk)) = (rsa(1, "r"), p256("e"));
        let keys = set(&[rsa_jwk, p256_jwk]).unwrap();
        let [of_rsa, of_p256] = keys.as_slice() else { panic!("two keys") };
        let by_rsa = rsa.signature(b"text");
        let by_p256 = p256.sign(&SystemRandom::new(), b"text").unwrap();
        let by_p256 = by_p256.as_ref();
        assert!(of_rsa.verifies(Algorithm::Rs256, b"text", &by_rsa));
        assert!(of_p256.verifies(Algorithm::Es256, b"text", by_p256));
        for (key, algorithm, text, signature) in [
            (of_rsa, Algorithm::Rs256, b"Text", by_rsa.as_slice()),
            (of_rsa, Algorithm::Es256, b"text", &by_rsa),
            (of_rsa, Algorithm::Rs256, b"text", by_p256),
            (of_rsa, Algorithm::Rs256, b"text", b""),
            (of_p256, Algorithm::Es256, b"Text", by_p256),
            (of_p256, Algorithm::Rs256, b"text", by_p256),
            (of_p256, Algorithm::Es256, b"text", &by_rsa),
            (of_p256, Algorithm::Es256, b"text", &[0; 64]),
        ] {
            assert!(!key.verifies(algorithm, text, signature), "{algorithm:?}");
        }
    }

    #[test]
    fn the_algorithms_are_two() {
        assert_eq!(Algorithm::from_name("RS256"), Some(Algorithm::Rs256));
        assert_eq!(Algorithm::from_name("ES256"), Some(Algorithm::Es256));
        for name in ["none", "HS256", "RS384", "PS256", "ES384", "EdDSA", "rs256", "RS256 ", ""] {
            assert_eq!(Algorithm::from_name(name), None, "{name}");
        }
    }

    #[test]
    fn a_key_of_another_kind_is_left_out_and_an_ambiguous_set_is_none() {
        let ((_, rsa), (_, p256)) = (rsa(1, "r"), p256("e"));
        let others = [
            with(rsa.clone(), "use", json!("enc")),
            with(rsa.clone(), "alg", json!("RS512")),
            with(rsa.clone(), "alg", json!("ES256")),
            with(rsa.clone(), "kty", json!("oct")),
            with(rsa.clone(), "crv", json!("P-256")),
            with(rsa.clone(), "kid", json!("")),
            with(rsa.clone(), "n", json!("not base64!")),
            with(p256.clone(), "crv", json!("P-384")),
            with(p256.clone(), "x", json!("AQAB")),
            with(p256.clone(), "alg", json!("RS256")),
        ];
        for other in &others {
            assert_eq!(set(std::slice::from_ref(other)), Err("no usable key"), "{other}");
            let both = set(&[other.clone(), with(p256.clone(), "kid", json!("second"))]).unwrap();
            assert_eq!(both.len(), 1, "{other}");
        }
        let without = with(with(rsa.clone(), "use", json!("sig")), "alg", json!("RS256"));
        assert_eq!(set(&[without]).unwrap().len(), 1);
        assert_eq!(set(&[]), Err("no usable key"));
        assert_eq!(set(&[rsa.clone(), with(p256, "kid", json!("r"))]), Err("two keys of one id"));
        assert_eq!(set(&vec![rsa; MAX_KEYS + 1]), Err("too many keys"));
        for text in
            ["", "[]", "{}", r#"{"keys": {}}"#, r#"{"keys": [1]}"#, r#"{"keys":[],"Keys":[]}"#]
        {
            assert_eq!(read(text.as_bytes()), Err("not a key set"), "{text}");
        }
    }
}
