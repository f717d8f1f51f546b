//! The claims challenge that sends a user back to Entra for an authentication context.
//!
//! It is the same for every request under an alternative, so it is written once, when the
//! configuration is read. Who gets it is decided in `access`; the reply carries it as it is.

use std::rc::Rc;

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::cloud::{Cloud, ORGANIZATIONS};

/// An authentication context that an alternative asks for, and how it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepUp {
    /// The context's id, as `acrs` lists it.
    pub context: String,
    /// The value of `WWW-Authenticate` for a client that answers claims challenges.
    pub challenge: Rc<str>,
}

impl StepUp {
    /// Writes the challenge (learn.microsoft.com/entra/identity-platform/claims-challenge and
    /// developer-guide-conditional-access-authentication-context), whose parts are all
    /// configured: nothing of a request is in it.
    pub fn new(context: &str, cloud: Cloud, tenant: &str, client_id: &str) -> Self {
        let claims =
            format!(r#"{{"access_token":{{"acrs":{{"essential":true,"value":"{context}"}}}}}}"#);
        let claims = STANDARD.encode(claims);
        // Empty where the address is not one tenant's.
        let realm = if tenant == ORGANIZATIONS { "" } else { tenant };
        let uri = cloud.authorization_uri(tenant);
        let challenge = format!(
            "Bearer realm=\"{realm}\", authorization_uri=\"{uri}\", client_id=\"{client_id}\", \
             error=\"insufficient_claims\", claims=\"{claims}\", cc_type=\"authcontext\""
        );
        Self { context: context.to_owned(), challenge: challenge.into() }
    }

    /// Whether this is the id of an authentication context: `c1` to `c99`.
    pub fn is_context(text: &str) -> bool {
        match text.as_bytes() {
            [b'c', b'1'..=b'9'] => true,
            [b'c', b'1'..=b'9', last] => last.is_ascii_digit(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
    const API: &str = "3f1b5b1e-0d2c-4a39-9a63-3f6c2c7a9d10";

    #[test]
    fn the_challenge_has_entras_exact_form() {
        let of = |context, cloud, tenant| StepUp::new(context, cloud, tenant, API).challenge;
        assert_eq!(
            &*of("c2", Cloud::Public, TENANT),
            "Bearer realm=\"72f988bf-86f1-41af-91ab-2d7cd011db47\", \
             authorization_uri=\"https://login.microsoftonline.com/72f988bf-86f1-41af-91ab-2d7cd011db47/oauth2/v2.0/authorize\", \
             client_id=\"3f1b5b1e-0d2c-4a39-9a63-3f6c2c7a9d10\", error=\"insufficient_claims\", \
             claims=\"eyJhY2Nlc3NfdG9rZW4iOnsiYWNycyI6eyJlc3NlbnRpYWwiOnRydWUsInZhbHVlIjoiYzIifX19\", \
             cc_type=\"authcontext\""
        );
        assert_eq!(
            &*of("c17", Cloud::China, ORGANIZATIONS),
            "Bearer realm=\"\", \
             authorization_uri=\"https://login.partner.microsoftonline.cn/organizations/oauth2/v2.0/authorize\", \
             client_id=\"3f1b5b1e-0d2c-4a39-9a63-3f6c2c7a9d10\", error=\"insufficient_claims\", \
             claims=\"eyJhY2Nlc3NfdG9rZW4iOnsiYWNycyI6eyJlc3NlbnRpYWwiOnRydWUsInZhbHVlIjoiYzE3In19fQ==\", \
             cc_type=\"authcontext\""
        );
    }

    #[test]
    fn contexts_are_c1_to_c99() {
        for good in ["c1", "c9", "c10", "c99"] {
            assert!(StepUp::is_context(good), "{good}");
        }
        for bad in ["", "c", "c0", "c01", "c100", "C1", "1", "c1 ", "ca", "c1a", "c\u{661}"] {
            assert!(!StepUp::is_context(bad), "{bad}");
        }
    }
}
