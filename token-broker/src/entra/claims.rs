//! The `claims` parameter of the token endpoint (OpenID Connect Core §5.5): what a token must have.
//!
//! Two things come together in it: what this client can do, and what a resource's challenge asks
//! for. The challenge has been judged (`policy::claims_challenge`); here is only the joining.

use serde_json::{Map, Value, json};

/// What the application says that it can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    /// Nothing beyond the protocol.
    None,
    /// It answers claims challenges (`cp1`): Entra then issues tokens that live long and that their
    /// resource can refuse at any moment
    /// (learn.microsoft.com/entra/identity-platform/app-resilience-continuous-access-evaluation).
    ClaimsChallenges,
}

/// The value of `claims`, as MSAL merges it; `None` where there is nothing to say.
pub fn parameter(capability: Capability, challenge: Option<&str>) -> Option<String> {
    // The challenge was written by ourselves: what cannot be read is none.
    let mut wanted = challenge
        .and_then(|challenge| serde_json::from_str::<Map<String, Value>>(challenge).ok())
        .and_then(|mut challenge| match challenge.remove("access_token") {
            Some(Value::Object(wanted)) => Some(wanted),
            _ => None,
        })
        .unwrap_or_default();
    match capability {
        Capability::None => {}
        Capability::ClaimsChallenges => {
            wanted.insert("xms_cc".to_owned(), json!({"values": ["cp1"]}));
        }
    }
    (!wanted.is_empty()).then(|| json!({"access_token": wanted}).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capability_and_challenge_go_in_one_document() {
        let challenge = r#"{"access_token":{"nbf":{"essential":true,"value":"1604106651"}}}"#;
        let cases = [
            (Capability::None, None, None),
            (Capability::None, Some(challenge), Some(challenge)),
            (
                Capability::ClaimsChallenges,
                None,
                Some(r#"{"access_token":{"xms_cc":{"values":["cp1"]}}}"#),
            ),
            (
                Capability::ClaimsChallenges,
                Some(challenge),
                Some(
                    r#"{"access_token":{"nbf":{"essential":true,"value":"1604106651"},"xms_cc":{"values":["cp1"]}}}"#,
                ),
            ),
        ];
        for (capability, challenge, expected) in cases {
            let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
            let found = parameter(capability, challenge);
            assert_eq!(found.as_deref().map(read), expected.map(read), "{challenge:?}");
        }
    }
}
