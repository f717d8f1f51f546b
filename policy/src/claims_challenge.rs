//! The claims of a challenge: what a resource says that a new token must satisfy.
//!
//! They are a stranger's text that ends up in a request to Entra, so nothing passes that real
//! challenges do not have: one object `access_token`, members from a fixed list, values that are
//! plain text. The filter judges them before it asks the broker, and the broker once more before
//! it asks Entra. Must not know where they came from or who asks.

use contract::MAX_CLAIMS_BYTES;

use crate::json::{self, Node, Object};

/// What challenges of Microsoft's resources ask for
/// (learn.microsoft.com/entra/identity-platform/claims-challenge and
/// app-resilience-continuous-access-evaluation; the texts that their client libraries are tested
/// with).
///
/// Not `xms_cc`: what a client can do only the client says.
const MEMBERS: [&str; 6] = ["acrs", "capolids", "nbf", "polids", "xms_caeerror", "xms_rp_ipaddr"];
/// Longest single value, in bytes: room for any address, policy id or time.
const MAX_VALUE_BYTES: usize = 128;
/// Most values of one member.
const MAX_VALUES: usize = 32;

/// The claims as they may be sent on: written anew, without white space, in the order of the text.
///
/// `None` for what is longer than [`MAX_CLAIMS_BYTES`], not JSON in one reading only, or asks for
/// anything but [`MEMBERS`] of the access token.
pub fn accepted(claims: &[u8]) -> Option<String> {
    if claims.len() > MAX_CLAIMS_BYTES {
        return None;
    }
    let document = json::object(claims)?;
    let mut names = document.names();
    let (Some("access_token"), None) = (names.next(), names.next()) else { return None };
    let Some(Node::Object(wanted)) = document.get("access_token") else { return None };
    let mut written = String::new();
    for name in wanted.names() {
        let Some(Node::Object(member)) = wanted.get(name) else { return None };
        if !MEMBERS.contains(&name) {
            return None;
        }
        separate(&mut written);
        written.push_str(&format!(r#""{name}":{{{}}}"#, individual(member)?));
    }
    (!written.is_empty()).then(|| format!(r#"{{"access_token":{{{written}}}}}"#))
}

/// One member's request: `essential`, `value`, `values` (OpenID Connect Core §5.5.1).
fn individual(member: &Object<'_>) -> Option<String> {
    let mut written = String::new();
    for name in member.names() {
        separate(&mut written);
        match (name, member.get(name)?) {
            ("essential", Node::Bool(essential)) => {
                written.push_str(&format!(r#""essential":{essential}"#));
            }
            ("value", Node::Text(value)) => {
                written.push_str(&format!(r#""value":"{}""#, plain(value)?));
            }
            ("values", values @ Node::List(_)) => {
                let values = values.texts().filter(|values| values.len() <= MAX_VALUES)?;
                let values: Vec<&str> = values.into_iter().map(plain).collect::<Option<_>>()?;
                if values.is_empty() {
                    return None;
                }
                written.push_str(&format!(r#""values":["{}"]"#, values.join(r#"",""#)));
            }
            _ => return None,
        }
    }
    (!written.is_empty()).then_some(written)
}

fn separate(written: &mut String) {
    if !written.is_empty() {
        written.push(',');
    }
}

/// Text that needs no escape in JSON and could not be taken for another text.
fn plain(value: &str) -> Option<&str> {
    let fits = (1..=MAX_VALUE_BYTES).contains(&value.len())
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".:-_/".contains(&byte));
    fits.then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(claims: &str, expected: Option<&str>) {
        assert_eq!(accepted(claims.as_bytes()).as_deref(), expected, "{claims:.200}");
    }

    #[test]
    fn what_microsofts_resources_send_is_accepted() {
        for claims in [
            r#"{"access_token":{"nbf":{"essential":true,"value":"1604106651"}}}"#,
            r#"{"access_token":{"nbf":{"essential":true,"value":"1610563006"},"xms_rp_ipaddr":{"value":"1.2.3.4"}}}"#,
            r#"{"access_token":{"nbf":{"essential":true,"value":"1726077595"},"xms_caeerror":{"value":"10012"}}}"#,
            r#"{"access_token":{"xms_rp_ipaddr":{"essential":true,"value":"2001:db8::1"}}}"#,
            r#"{"access_token":{"acrs":{"essential":true,"value":"c1"}}}"#,
            r#"{"access_token":{"acrs":{"essential":true,"values":["c1","c2"]}}}"#,
            r#"{"access_token":{"polids":{"essential":true,"values":["5ce770ea-8690-4747-aa73-c5b3cd509cd4"]}}}"#,
            r#"{"access_token":{"capolids":{"essential":true,"values":["5ce770ea-8690-4747-aa73-c5b3cd509cd4"]}}}"#,
        ] {
            check(claims, Some(claims));
        }
    }

    #[test]
    fn what_is_accepted_is_written_anew() {
        check(
            " {\"access_token\" :\n{ \"nbf\":{\"value\": \"\\u0031\", \"essential\" : false}}} ",
            Some(r#"{"access_token":{"nbf":{"value":"1","essential":false}}}"#),
        );
    }

    #[test]
    fn o07_claims_that_no_challenge_has_are_refused() {
        for claims in [
            "",
            "null",
            "[]",
            "{}",
            "\"access_token\"",
            r#"{"access_token":{}}"#,
            r#"{"access_token":null}"#,
            r#"{"access_token":"x"}"#,
            r#"{"access_token":{"nbf":null}}"#,
            r#"{"access_token":{"nbf":{}}}"#,
            r#"{"access_token":{"nbf":"1"}}"#,
            r#"{"access_token":{"nbf":{"value":1}}}"#,
            r#"{"access_token":{"nbf":{"value":null}}}"#,
            r#"{"access_token":{"nbf":{"value":""}}}"#,
            r#"{"access_token":{"nbf":{"essential":"true"}}}"#,
            r#"{"access_token":{"nbf":{"value":"1","other":"2"}}}"#,
            r#"{"access_token":{"nbf":{"values":"1"}}}"#,
            r#"{"access_token":{"nbf":{"values":[]}}}"#,
            r#"{"access_token":{"nbf":{"values":["1",2]}}}"#,
            r#"{"access_token":{"nbf":{"values":["1",""]}}}"#,
            r#"{"access_token":{"nbf":{"value":"1\""}}}"#,
            r#"{"access_token":{"nbf":{"value":"1\n"}}}"#,
            r#"{"access_token":{"nbf":{"value":"1 2"}}}"#,
            r#"{"access_token":{"nbf":{"value":"\u00e9"}}}"#,
            // A client's capability, another token, and what nobody challenges with.
            r#"{"access_token":{"xms_cc":{"values":["cp1"]}}}"#,
            r#"{"access_token":{"nbf":{"value":"1"},"xms_cc":{"values":["cp1"]}}}"#,
            r#"{"access_token":{"sub":{"value":"somebody"}}}"#,
            r#"{"access_token":{"NBF":{"value":"1"}}}"#,
            r#"{"id_token":{"nbf":{"value":"1"}}}"#,
            r#"{"access_token":{"nbf":{"value":"1"}},"id_token":{"nbf":{"value":"1"}}}"#,
            r#"{"id_token":{"nbf":{"value":"1"}},"access_token":{"nbf":{"value":"1"}}}"#,
            // Two readings.
            r#"{"access_token":{"nbf":{"value":"1"},"nbf":{"value":"2"}}}"#,
            r#"{"access_token":{"nbf":{"value":"1","value":"2"}}}"#,
            r#"{"access_token":{"nbf":{"value":"1"}}}{}"#,
            r#"{"access_token":{"nbf":{"value":"1"}}"#,
        ] {
            check(claims, None);
        }
        assert_eq!(accepted(b"{\"access_token\":{\"nbf\":{\"value\":\"\xff\"}}}"), None);
    }

    #[test]
    fn o07_sizes_are_bounded() {
        let padded = |length: usize| {
            let claims = r#"{"access_token":{"nbf":{"value":"1"}}}"#;
            format!("{claims}{}", " ".repeat(length - claims.len()))
        };
        assert!(accepted(padded(4_096).as_bytes()).is_some());
        assert!(accepted(padded(4_097).as_bytes()).is_none());
        let value = |length| {
            format!(r#"{{"access_token":{{"nbf":{{"value":"{}"}}}}}}"#, "1".repeat(length))
        };
        assert!(accepted(value(128).as_bytes()).is_some());
        assert!(accepted(value(129).as_bytes()).is_none());
        let values = |count| {
            let list = vec![r#""1""#; count].join(",");
            format!(r#"{{"access_token":{{"nbf":{{"values":[{list}]}}}}}}"#)
        };
        assert!(accepted(values(32).as_bytes()).is_some());
        assert!(accepted(values(33).as_bytes()).is_none());
    }
}
