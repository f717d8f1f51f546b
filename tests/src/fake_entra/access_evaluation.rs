//! Continuous access evaluation: what a resource such as Microsoft Graph knows of a token that has
//! not expired, and the challenge with which it refuses one.
//!
//! A test's upstream asks here and answers accordingly. The directory says since when the tokens of
//! an application are good; `token_endpoint` alone does not make a token newer than that, only the
//! claims of the challenge do.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};

use super::{FakeEntra, directory::Directory};

/// What a resource makes of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It is good.
    Good,
    /// Refused; its client answers challenges, so it is told what a new one must have (JSON).
    Challenged(String),
    /// Refused, and its client would not know what to do about it.
    Revoked,
}

impl FakeEntra {
    /// Ends every token that an application has got until now; answers from when on tokens are good.
    ///
    /// # Panics
    /// When the directory does not know the application.
    pub fn revoke_tokens(&self, tenant: &str, client_id: &str) -> u64 {
        let now = self.now();
        self.directory(|directory| revoke(directory, tenant, client_id, now))
            .expect("an application of the tenant")
    }

    /// Ends every session of a user until now; answers from when on their tokens are good.
    ///
    /// # Panics
    /// When the directory does not know the user.
    pub fn revoke_sessions(&self, tenant: &str, object_id: &str) -> u64 {
        let now = self.now();
        self.directory(|directory| {
            let user = directory.user_mut(tenant, object_id).expect("a user of the tenant");
            user.sessions_valid_from = now.max(user.sessions_valid_from.saturating_add(1));
            user.sessions_valid_from
        })
    }

    /// What a resource that takes part in continuous access evaluation makes of a token of the fake.
    pub fn standing(&self, token: &str) -> Standing {
        let claims = unverified(token).unwrap_or_default();
        let text = |name: &str| claims[name].as_str().unwrap_or_default();
        let client = if claims["azp"].is_string() { text("azp") } else { text("appid") };
        let valid_from = self.directory(|directory| {
            let client = directory.find_application(text("tid"), client);
            let of_client = client.map_or(u64::MAX, |client| client.tokens_valid_from);
            let user = directory.find_user(text("tid"), text("oid"));
            of_client.max(user.map_or(0, |user| user.sessions_valid_from))
        });
        let capable = claims["xms_cc"].as_array().is_some_and(|names| !names.is_empty());
        match claims["iat"].as_u64() {
            Some(issued) if issued >= valid_from => Standing::Good,
            Some(_) if capable && valid_from != u64::MAX => {
                let nbf = json!({"essential": true, "value": valid_from.to_string()});
                Standing::Challenged(json!({"access_token": {"nbf": nbf}}).to_string())
            }
            _ => Standing::Revoked,
        }
    }
}

/// `WWW-Authenticate` with claims, as Microsoft Graph writes it.
pub fn challenge_header(resource: &str, claims: &str) -> String {
    format!(
        "Bearer realm=\"\", \
         authorization_uri=\"https://login.microsoftonline.com/common/oauth2/authorize\", \
         client_id=\"{resource}\", error=\"insufficient_claims\", \
         error_description=\"Continuous access evaluation resulted in challenge with result: \
         InteractionRequired and code: TokenIssuedBeforeRevocationTimestamp\", claims=\"{}\"",
        STANDARD.encode(claims)
    )
}

/// Ends the tokens; later than any that was made to satisfy an earlier challenge.
pub(super) fn revoke(
    directory: &mut Directory,
    tenant: &str,
    client_id: &str,
    now: u64,
) -> Option<u64> {
    let client = directory.application_mut(tenant, client_id)?;
    client.tokens_valid_from = now.max(client.tokens_valid_from.saturating_add(1));
    Some(client.tokens_valid_from)
}

fn unverified(token: &str) -> Option<Value> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&claims).ok()
}
