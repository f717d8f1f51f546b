//! The compact form of a signed token (RFC 7515 §7.1), taken apart strictly.
//!
//! Nothing read here is trusted: it says which key to ask and what to verify. `claims` reads the
//! payload, `inbound` has the signature checked.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{decision::Reason, json, json::Node, keys::MAX_KEY_ID_BYTES};

/// Longest token, in bytes. Entra keeps tokens below this by its groups overage.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// A token whose signature nobody has checked yet.
#[derive(PartialEq, Eq)]
pub struct UnverifiedToken<'a> {
    /// The key that the header names.
    pub key_id: String,
    /// What was signed: header and payload as they were sent.
    pub signed: &'a [u8],
    /// The signature.
    pub signature: Vec<u8>,
    /// The payload, decoded.
    pub payload: Vec<u8>,
}

impl std::fmt::Debug for UnverifiedToken<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = formatter.debug_struct("UnverifiedToken");
        shown.field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

impl<'a> UnverifiedToken<'a> {
    /// Takes the token apart, or says what is wrong with it.
    pub fn parse(token: &'a [u8]) -> Result<Self, Reason> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Reason::TokenTooLarge);
        }
        let mut parts = token.split(|byte| *byte == b'.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Reason::TokenMalformed);
        };
        let signed_length = header.len().saturating_add(payload.len()).saturating_add(1);
        let signed = token.get(..signed_length).ok_or(Reason::TokenMalformed)?;
        Ok(Self {
            key_id: key_id(&decode(header)?)?,
            signed,
            signature: decode(signature)?,
            payload: decode(payload)?,
        })
    }
}

/// Decodes base64url without padding, whitespace or unused bits (RFC 7515 §2, RFC 4648 §3.5), so
/// that one token has one spelling.
pub fn decode(part: &[u8]) -> Result<Vec<u8>, Reason> {
    match URL_SAFE_NO_PAD.decode(part) {
        Ok(bytes) if !bytes.is_empty() => Ok(bytes),
        _ => Err(Reason::TokenMalformed),
    }
}

/// Reads the header (RFC 7515 §4) for the one thing it may decide: which key to try.
fn key_id(header: &[u8]) -> Result<String, Reason> {
    let header = json::object(header).ok_or(Reason::TokenMalformed)?;
    // Entra signs with RS256. Taking the algorithm from the token is the oldest attack there is.
    if header.get("alg").and_then(Node::text) != Some("RS256") {
        return Err(Reason::AlgorithmRefused);
    }
    // Extensions that change what the signature or the payload means (RFC 7515 §4.1.11, RFC 7797,
    // RFC 7516): none is understood here, so none may be there.
    if ["crit", "b64", "zip", "enc"].iter().any(|name| header.get(name).is_some()) {
        return Err(Reason::HeaderRefused);
    }
    let is_jwt = |kind: &Node<'_>| kind.text().is_some_and(|kind| kind.eq_ignore_ascii_case("jwt"));
    if !header.get("typ").is_none_or(is_jwt) {
        return Err(Reason::HeaderRefused);
    }
    match header.get("kid").and_then(Node::text) {
        Some(key_id) if !key_id.is_empty() && key_id.len() <= MAX_KEY_ID_BYTES => {
            Ok(key_id.to_owned())
        }
        _ => Err(Reason::KeyIdMissing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = r#"{"typ":"JWT","alg":"RS256","kid":"k"}"#;

    fn encode(text: &str) -> String {
        URL_SAFE_NO_PAD.encode(text)
    }

    fn token(header: &str) -> String {
        format!("{}.{}.{}", encode(header), encode("{}"), encode("s"))
    }

    fn check(token: &str, expected: Result<(), Reason>) {
        let found = UnverifiedToken::parse(token.as_bytes()).map(|_| ());
        let shown: String = token.chars().take(80).collect();
        assert_eq!(found, expected, "{shown}");
    }

    #[test]
    fn the_parts_are_what_was_sent() {
        let text = token(HEADER);
        let parsed = UnverifiedToken::parse(text.as_bytes()).unwrap();
        assert_eq!(parsed.key_id, "k");
        assert_eq!(parsed.payload, b"{}");
        assert_eq!(parsed.signature, b"s");
        assert_eq!(parsed.signed, text.rsplit_once('.').unwrap().0.as_bytes());
    }

    #[test]
    fn p04_only_three_full_parts_are_a_token() {
        let good = token(HEADER);
        check(&good, Ok(()));
        for bad in [
            "",
            ".",
            "..",
            "a",
            "a.b",
            &format!(".{good}"),
            &format!("{good}."),
            &good.replacen('.', "..", 1),
            &format!("{good}.x"),
            &format!("{good}.x.y"),
            &format!("{}..{}", encode(HEADER), encode("s")),
            &format!("{}.{}.", encode(HEADER), encode("{}")),
            &format!(".{}.{}", encode("{}"), encode("s")),
        ] {
            check(bad, Err(Reason::TokenMalformed));
        }
    }

    #[test]
    fn p01_p02_p03_one_token_has_one_spelling() {
        let (header, payload) = (encode(HEADER), encode("{}"));
        // "cw" is the one spelling of "s"; "cx" has unused bits set.
        check(&format!("{header}.{payload}.cw"), Ok(()));
        for signature in
            ["cw=", "cw==", "cx", "c w", "cw\n", "c+", "c/", "cw?", "cw#", "cw\0", "cé"]
        {
            check(&format!("{header}.{payload}.{signature}"), Err(Reason::TokenMalformed));
        }
        check(&format!("{header}=.{payload}.cw"), Err(Reason::TokenMalformed));
        check(&format!("{header}.{payload}=.cw"), Err(Reason::TokenMalformed));
    }

    #[test]
    fn p11_size_is_bounded_on_both_sides() {
        let rest = token(HEADER);
        let fill = |size: usize| {
            let mut text = rest.clone();
            text.push_str(&"A".repeat(size - rest.len()));
            text
        };
        // 16 KiB decodes or not by its length modulo 4; what counts is that it is not "too large".
        let at_limit = UnverifiedToken::parse(fill(MAX_TOKEN_BYTES).as_bytes()).err();
        assert_ne!(at_limit, Some(Reason::TokenTooLarge));
        for size in [MAX_TOKEN_BYTES + 1, 64 * 1024, 1024 * 1024] {
            check(&fill(size), Err(Reason::TokenTooLarge));
        }
    }

    #[test]
    fn j01_j02_j03_j04_only_rs256_is_an_algorithm() {
        for algorithm in [
            r#""none""#,
            r#""None""#,
            r#""NONE""#,
            r#""nOnE""#,
            r#""HS256""#,
            r#""HS384""#,
            r#""HS512""#,
            r#""RS384""#,
            r#""RS512""#,
            r#""PS256""#,
            r#""ES256""#,
            r#""EdDSA""#,
            r#""rs256""#,
            r#""RS256 ""#,
            r#"" RS256""#,
            r#""RS256\u0000""#,
            r#""""#,
            "256",
            "null",
            r#"["RS256"]"#,
            "{}",
        ] {
            check(
                &token(&format!(r#"{{"typ":"JWT","alg":{algorithm},"kid":"k"}}"#)),
                Err(Reason::AlgorithmRefused),
            );
        }
        check(&token(r#"{"typ":"JWT","kid":"k"}"#), Err(Reason::AlgorithmRefused));
        check(&token(r#"{"typ":"JWT","ALG":"RS256","kid":"k"}"#), Err(Reason::AlgorithmRefused));
    }

    #[test]
    fn j12_j13_j15_extensions_are_refused() {
        for member in [
            r#""crit":["x"]"#,
            r#""crit":[]"#,
            r#""crit":"exp""#,
            r#""crit":["alg"]"#,
            r#""crit":null"#,
            r#""b64":false"#,
            r#""b64":true"#,
            r#""zip":"DEF""#,
            r#""enc":"A256GCM""#,
        ] {
            let header = HEADER.replacen('{', &format!("{{{member},"), 1);
            check(&token(&header), Err(Reason::HeaderRefused));
        }
    }

    #[test]
    fn j14_other_kinds_of_token_are_refused() {
        for kind in ["at+jwt", "JWE", "dpop+jwt", "secevent+jwt", "pop", "JWT ", ""] {
            check(&token(&HEADER.replace("JWT", kind)), Err(Reason::HeaderRefused));
        }
        check(&token(&HEADER.replace("\"JWT\"", "1")), Err(Reason::HeaderRefused));
        check(&token(&HEADER.replace("\"JWT\"", "\"jwt\"")), Ok(()));
        check(&token(&HEADER.replace("\"typ\":\"JWT\",", "")), Ok(()));
    }

    #[test]
    fn j07_j08_the_key_id_is_a_bounded_string() {
        for key_id in ["1", "null", "[\"k\"]", "\"\"", "{}"] {
            check(&token(&HEADER.replace("\"k\"", key_id)), Err(Reason::KeyIdMissing));
        }
        check(&token(&HEADER.replace(",\"kid\":\"k\"", "")), Err(Reason::KeyIdMissing));
        check(&token(&HEADER.replace("\"k\"", &format!("\"{}\"", "k".repeat(256)))), Ok(()));
        check(
            &token(&HEADER.replace("\"k\"", &format!("\"{}\"", "k".repeat(257)))),
            Err(Reason::KeyIdMissing),
        );
        for odd in ["../../dev/null", "' OR 1=1 --", "http://evil.example/k", "\\u0000"] {
            check(&token(&HEADER.replace("\"k\"", &format!("\"{odd}\""))), Ok(()));
        }
    }

    #[test]
    fn j06_keys_in_the_header_are_not_looked_at() {
        let header = HEADER.replacen(
            '{',
            r#"{"jwk":{"kty":"RSA"},"jku":"https://evil.example","x5u":"https://evil.example","x5c":["x"],"#,
            1,
        );
        let text = token(&header);
        assert_eq!(UnverifiedToken::parse(text.as_bytes()).unwrap().key_id, "k");
    }

    #[test]
    fn p05_p07_j19_the_header_is_strict_json() {
        for header in [
            r#"{"alg":"RS256","alg":"RS256","kid":"k"}"#,
            r#"{"alg":"RS256","Alg":"none","kid":"k"}"#,
            r#"{"alg":"RS256","kid":"k","kid":"l"}"#,
            "{'alg':'RS256','kid':'k'}",
            "[]",
            "1",
            "",
            r#"{"alg":"RS256","kid":"k"}{}"#,
        ] {
            check(&token(header), Err(Reason::TokenMalformed));
        }
        check(
            r#"{"payload":"e30","signatures":[{"signature":"cw"}]}"#,
            Err(Reason::TokenMalformed),
        );
    }
}
