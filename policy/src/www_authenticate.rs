//! Finds the claims challenge in a response's `WWW-Authenticate` (RFC 9110 §11.6.1).
//!
//! Who writes the header is a stranger. What can be read in two ways, or not at all, is no
//! challenge: then the response goes to the application as it is. Whether the claims may be sent
//! to Entra is judged by `claims_challenge`.

use base64::{
    Engine,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http_auth::{ChallengeRef, parser::ChallengeParser};

/// Longest header that is looked at, all lines together, in bytes.
const MAX_HEADER_BYTES: usize = 16 * 1024;

/// The text of the one claims challenge among all lines of the header: what `claims` of a `Bearer`
/// challenge with `error="insufficient_claims"` holds in Base64
/// (learn.microsoft.com/entra/identity-platform/claims-challenge).
pub fn claims<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Option<String> {
    let mut found = None;
    let mut left = MAX_HEADER_BYTES;
    for line in lines {
        left = left.checked_sub(line.len())?;
        for challenge in ChallengeParser::new(std::str::from_utf8(line).ok()?) {
            let Some(claims) = claims_of(&challenge.ok()?)? else { continue };
            // Two that differ leave none that could be chosen.
            if found.replace(claims.clone()).is_some_and(|earlier| earlier != claims) {
                return None;
            }
        }
    }
    decode(&found?)
}

/// The claims of one challenge, `Some(None)` where it is about something else, and none where it
/// can be read in two ways.
fn claims_of(challenge: &ChallengeRef<'_>) -> Option<Option<String>> {
    if !challenge.scheme.eq_ignore_ascii_case("Bearer") {
        return Some(None);
    }
    // Names are compared without case, and none may stand twice (RFC 9110 §11.2).
    let parameter = |name: &str| {
        let mut values = challenge.params.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| value.to_unescaped());
        values.next().is_none().then_some(value)
    };
    match (parameter("error")?.as_deref(), parameter("claims")?) {
        (Some("insufficient_claims"), Some(claims)) => Some(Some(claims)),
        _ => Some(None),
    }
}

/// Base64 in either alphabet, with or without padding: all are in use.
fn decode(text: &str) -> Option<String> {
    let alphabet = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    let config = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(false);
    let claims = GeneralPurpose::new(alphabet, config).decode(text).ok()?;
    String::from_utf8(claims).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIMS: &str = r#"{"access_token":{"nbf":{"essential":true,"value":"1604106651"}}}"#;
    /// [`CLAIMS`] in Base64; its padding is one character.
    const BASE64: &str =
        "eyJhY2Nlc3NfdG9rZW4iOnsibmJmIjp7ImVzc2VudGlhbCI6dHJ1ZSwidmFsdWUiOiIxNjA0MTA2NjUxIn19fQ==";

    fn check(lines: &[&str], expected: Option<&str>) {
        let found = claims(lines.iter().map(|line| line.as_bytes()));
        assert_eq!(found.as_deref(), expected, "{lines:?}");
    }

    /// The header as Microsoft Graph sends it, with this in `claims`.
    fn graph(claims: &str) -> String {
        format!(
            "Bearer realm=\"\", authorization_uri=\"https://login.microsoftonline.com/common/\
             oauth2/authorize\", client_id=\"00000003-0000-0000-c000-000000000000\", \
             error=\"insufficient_claims\", claims=\"{claims}\""
        )
    }

    #[test]
    fn graphs_challenge_is_read() {
        check(&[&graph(BASE64)], Some(CLAIMS));
    }

    #[test]
    fn order_case_escapes_and_spaces_make_no_difference() {
        for line in [
            format!("Bearer error=\"insufficient_claims\", claims=\"{BASE64}\""),
            format!("Bearer claims=\"{BASE64}\", error=\"insufficient_claims\""),
            format!("Bearer claims=\"{BASE64}\",error=insufficient_claims"),
            format!("bearer Error = \"insufficient_claims\" ,\tCLAIMS = \"{BASE64}\""),
            format!("Bearer error=\"insufficient\\_claims\", claims=\"\\e{}\"", &BASE64[1..]),
            format!(
                ", Bearer x=\"a, \\\"Bearer\\\" b\", error=insufficient_claims, claims=\"{BASE64}\""
            ),
            // Without padding the value needs no quotes.
            format!("Bearer error=insufficient_claims, claims={}", BASE64.trim_end_matches('=')),
        ] {
            check(&[&line], Some(CLAIMS));
        }
    }

    #[test]
    fn the_challenge_is_found_among_others_and_in_any_line() {
        let ours = graph(BASE64);
        for lines in [
            vec!["Negotiate".to_owned(), ours.clone()],
            vec![ours.clone(), "Basic realm=\"x\"".to_owned()],
            vec![format!(
                "Negotiate, Basic realm=\"a\", {ours}, PoP error=\"insufficient_claims\""
            )],
            vec![format!("Bearer error=\"invalid_token\", {ours}")],
            vec!["Bearer error=\"insufficient_claims\"".to_owned(), ours.clone()],
            vec![ours.clone(), ours.clone()],
        ] {
            check(&lines.iter().map(String::as_str).collect::<Vec<_>>(), Some(CLAIMS));
        }
    }

    #[test]
    fn claims_are_base64_in_every_spelling_in_use() {
        // `~~~` and `???` make the characters in which the two alphabets differ.
        for (base64, expected) in [
            (BASE64, Some(CLAIMS)),
            (BASE64.trim_end_matches('='), Some(CLAIMS)),
            ("eyJhIjoifn5+Pz8/In0=", Some(r#"{"a":"~~~???"}"#)),
            ("eyJhIjoifn5-Pz8_In0=", Some(r#"{"a":"~~~???"}"#)),
            ("eyJhIjoifn5-Pz8_In0", Some(r#"{"a":"~~~???"}"#)),
            ("eyJhIjoifn5-Pz8/In0", None),
            ("eyJhIjoifn5 Pz8/In0", None),
            ("eyJhIjoifn5+Pz8/In1=", None),
            ("====", None),
            ("/w==", None),
            (CLAIMS, None),
        ] {
            check(&[&graph(&base64.replace('"', "\\\""))], expected);
        }
    }

    #[test]
    fn what_is_no_claims_challenge_is_left_alone() {
        for line in [
            "",
            "Bearer",
            "Negotiate",
            "Bearer error=\"invalid_token\"",
            "Bearer error=\"insufficient_claims\"",
            &format!("Bearer claims=\"{BASE64}\""),
            &format!("Bearer error=\"invalid_token\", claims=\"{BASE64}\""),
            &format!("Bearer error=\"Insufficient_Claims\", claims=\"{BASE64}\""),
            &format!("PoP error=\"insufficient_claims\", claims=\"{BASE64}\""),
            &format!("Bearer error=\"insufficient_claims\", PoP claims=\"{BASE64}\""),
            &format!("Bearer x=\"error=\\\"insufficient_claims\\\", claims=\\\"{BASE64}\\\"\""),
        ] {
            check(&[line], None);
        }
    }

    #[test]
    fn o07_what_can_be_read_in_two_ways_is_no_challenge() {
        let ours = graph(BASE64);
        let other = graph("e30=");
        for lines in [
            vec![ours.clone(), other.clone()],
            vec![format!("{ours}, {other}")],
            vec![format!("{ours}, error=\"insufficient_claims\"")],
            vec![format!("{ours}, error=\"invalid_token\"")],
            vec![format!("{ours}, claims=\"e30=\"")],
            vec![format!("{ours}, CLAIMS=\"{BASE64}\"")],
            vec![ours.clone(), "Bearer error=\"x".to_owned()],
            vec!["Bearer error=\"x".to_owned(), ours.clone()],
            vec![format!("{ours}, \u{e9}")],
            vec![format!("{ours}\u{0}")],
            vec![format!("{ours} x")],
        ] {
            check(&lines.iter().map(String::as_str).collect::<Vec<_>>(), None);
        }
        assert_eq!(claims([ours.as_bytes(), b"\xff"]), None);
    }

    #[test]
    fn the_header_is_bounded_on_both_sides() {
        let ours = graph(BASE64);
        let filler = |size: usize| format!("Basic realm=\"{}\"", "x".repeat(size - 14));
        check(&[&ours, &filler(MAX_HEADER_BYTES - ours.len())], Some(CLAIMS));
        check(&[&ours, &filler(MAX_HEADER_BYTES - ours.len() + 1)], None);
    }
}
