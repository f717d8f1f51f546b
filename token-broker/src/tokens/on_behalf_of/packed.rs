//! A token at rest: 10,000 of them are most of the memory that the broker needs.
//!
//! Entra's tokens are base64url (RFC 7515 §7.1), which takes a third more room than what it stands
//! for. Whatever is not, is kept as it is.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use contract::Secret;
use zeroize::Zeroizing;

/// A token with a few bytes beside it, in one piece.
#[derive(Clone)]
pub(super) struct Packed(Zeroizing<Box<[u8]>>);

/// What stands before the token: what is kept with it, and the lengths of a JWT's first two parts.
const BESIDE: usize = 16;
const LENGTHS: usize = 4;

impl Packed {
    pub(super) fn new(token: &Secret, beside: [u8; BESIDE]) -> Self {
        let packed = Self::decoded(token, beside);
        // One that comes back otherwise would be another token.
        match packed.filter(|packed| packed.token() == *token) {
            Some(packed) => packed,
            None => Self::joined(beside, [0; LENGTHS], &[token.expose().as_bytes()]),
        }
    }

    fn decoded(token: &Secret, beside: [u8; BESIDE]) -> Option<Self> {
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok().map(Zeroizing::new);
        let (header, rest) = token.expose().split_once('.')?;
        let (payload, signature) = rest.split_once('.')?;
        let (header, payload, signature) = (decode(header)?, decode(payload)?, decode(signature)?);
        let [a, b] = u16::try_from(header.len()).ok()?.to_be_bytes();
        let [c, d] = u16::try_from(payload.len()).ok()?.to_be_bytes();
        Some(Self::joined(beside, [a, b, c, d], &[&header, &payload, &signature]))
    }

    fn joined(beside: [u8; BESIDE], lengths: [u8; LENGTHS], parts: &[&[u8]]) -> Self {
        // In one allocation of the right size: a vector that grows leaves copies behind.
        let size =
            parts.iter().fold(BESIDE + LENGTHS, |size, part| size.saturating_add(part.len()));
        let mut bytes = Vec::with_capacity(size);
        bytes.extend_from_slice(&beside);
        bytes.extend_from_slice(&lengths);
        for part in parts {
            bytes.extend_from_slice(part);
        }
        Self(Zeroizing::new(bytes.into_boxed_slice()))
    }

    /// The token as it came.
    pub(super) fn token(&self) -> Secret {
        self.parts().map_or_else(|| Secret::new(""), |(_, lengths, rest)| unpacked(lengths, rest))
    }

    /// What was kept with it.
    pub(super) fn beside(&self) -> [u8; BESIDE] {
        self.parts().map_or([0; BESIDE], |(beside, ..)| beside)
    }

    /// Bytes that it takes.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    fn parts(&self) -> Option<([u8; BESIDE], [u8; LENGTHS], &[u8])> {
        let (beside, rest) = self.0.split_first_chunk()?;
        let (lengths, rest) = rest.split_first_chunk()?;
        Some((*beside, *lengths, rest))
    }
}

fn unpacked([a, b, c, d]: [u8; LENGTHS], rest: &[u8]) -> Secret {
    let header = usize::from(u16::from_be_bytes([a, b]));
    let payload = usize::from(u16::from_be_bytes([c, d]));
    if header == 0 {
        return Secret::new(String::from_utf8_lossy(rest));
    }
    let (header, rest) = rest.split_at_checked(header).unwrap_or((rest, &[]));
    let (payload, signature) = rest.split_at_checked(payload).unwrap_or((rest, &[]));
    let bytes = header.len().saturating_add(payload.len()).saturating_add(signature.len());
    // A third more, two points, and what the ends of three parts round up to.
    let mut text = String::with_capacity(bytes.saturating_add(bytes / 3).saturating_add(8));
    for (index, part) in [header, payload, signature].into_iter().enumerate() {
        if index > 0 {
            text.push('.');
        }
        URL_SAFE_NO_PAD.encode_string(part, &mut text);
    }
    Secret::new(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_as_it_was_and_a_jwt_takes_three_quarters() {
        let jwt = format!("{}.{}.{}", "QUJD".repeat(30), "eyJh".repeat(150), "c2ln".repeat(85));
        assert_eq!(Packed::new(&Secret::new(jwt.clone()), [7; 16]).len(), 20 + 265 * 3);
        for token in [
            jwt.as_str(),
            "a",
            "",
            "opaque-token_1~+/=",
            "a.b.c",
            "QUJD.QUJD",
            "QUJD.QUJD.QUJD.QUJD",
            "..",
            ".QUJD.QUJD",
            "QUJD.QUJD.",
            // Unused bits set, padding: another spelling of the same bytes.
            "QUJD.QUJD.QR",
            "QUJD.QUJD.QQ==",
            "QUJD.QUJD.QQ",
        ] {
            let token = Secret::new(token);
            let packed = Packed::new(&token, [7; 16]);
            assert_eq!((packed.token(), packed.beside()), (token, [7; 16]));
        }
    }
}
