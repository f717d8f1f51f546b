//! RS256 with ring, in the place of Envoy's verifier.

use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

/// Verifies what `policy` wants verified: a DER SubjectPublicKeyInfo, the text, its signature.
pub fn verify(spki: &[u8], text: &[u8], signature: &[u8]) -> bool {
    rsa_public_key(spki).is_some_and(|key| {
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key).verify(text, signature).is_ok()
    })
}

/// The RSAPublicKey (RFC 8017 A.1.1) inside a SubjectPublicKeyInfo, which is what ring takes.
fn rsa_public_key(spki: &[u8]) -> Option<&[u8]> {
    const SEQUENCE: u8 = 0x30;
    const BIT_STRING: u8 = 0x03;
    let (outer, []) = element(spki, SEQUENCE)? else { return None };
    let (_algorithm, rest) = element(outer, SEQUENCE)?;
    // The first octet counts unused bits.
    match element(rest, BIT_STRING)? {
        ([0, key @ ..], []) => Some(key),
        _ => None,
    }
}

/// The content of the first DER element, which must have this tag, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, length], rest) = bytes.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81..=0x84 => {
            let (octets, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            let length = octets.iter().fold(0, |sum: usize, octet| sum << 8 | usize::from(*octet));
            (length, rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}
