//! What both managed identity endpoints do: from an id and a resource to a token.
//!
//! A request chooses among the identities that the configuration names for these endpoints, and
//! the resource it asks for must be on the identity's own list. Nothing is made up: an unknown id
//! is not the default identity's.

use contract::{IssuedToken, TokenRequest};
use serde::Serialize;

use super::{
    super::{Serving, State},
    query::Query,
    refused::Refused,
};
use crate::config::{KnownBy, ManagedIdentityEndpoint, Offered};

/// The names by which a request can choose an identity.
pub(super) const CLIENT_ID: &str = "client_id";
const OBJECT_ID: &str = "object_id";
const PRINCIPAL_ID: &str = "principal_id";
const MSI_RES_ID: &str = "msi_res_id";
const MI_RES_ID: &str = "mi_res_id";
const CHOICES: [&str; 5] = [CLIENT_ID, OBJECT_ID, PRINCIPAL_ID, MSI_RES_ID, MI_RES_ID];
const API_VERSION: &str = "api-version";
const RESOURCE: &str = "resource";
/// Says what the client can do with a token; every token fits it.
const CAPABILITIES: &str = "xms_cc";
/// What a request may have.
const KNOWN: [&str; 8] = [
    API_VERSION,
    RESOURCE,
    CLIENT_ID,
    OBJECT_ID,
    PRINCIPAL_ID,
    MSI_RES_ID,
    MI_RES_ID,
    CAPABILITIES,
];

/// What is asked for.
#[derive(Debug)]
pub(super) struct Wanted {
    choice: Option<(&'static str, String)>,
    resource: String,
}

/// A token, and what the answer says of it.
pub(super) struct Granted {
    pub(super) token: IssuedToken,
    /// Where the configuration has it.
    pub(super) client_id: Option<String>,
    pub(super) resource: String,
    /// Unix seconds.
    pub(super) now: u64,
}

impl Wanted {
    /// Reads a query under one of these versions of the interface.
    pub(super) fn read(query: Option<&str>, versions: &[&str]) -> Result<Self, Refused> {
        let query = Query::read(query, &KNOWN).map_err(Refused::invalid_request)?;
        match query.value(API_VERSION) {
            Some(version) if versions.contains(&version) => {}
            version => {
                let what = if version.is_some() { "Unsupported" } else { "Missing" };
                return Err(Refused::invalid_request(format!(
                    "{what} api-version; supported: {}",
                    versions.join(", ")
                )));
            }
        }
        let resource = query.value(RESOURCE).filter(|resource| !resource.is_empty());
        let Some(resource) = resource else {
            return Err(Refused::invalid_request("Missing required parameter: resource"));
        };
        let chosen = |name: &&'static str| query.value(name).map(|id| (*name, id.to_owned()));
        let mut choices = CHOICES.iter().filter_map(chosen);
        let choice = choices.next();
        if choices.next().is_some() {
            let text = format!("expected at most one of {}", CHOICES.join(", "));
            return Err(Refused::invalid_request(text));
        }
        Ok(Self { choice, resource: resource.to_owned() })
    }

    /// The identity that a request chooses; none where there is no such.
    fn identity<'a>(&self, endpoint: &'a ManagedIdentityEndpoint) -> Option<&'a Offered> {
        let Some((name, id)) = &self.choice else {
            let default = endpoint.default.as_ref()?;
            return endpoint.identities.iter().find(|offered| offered.name == *default);
        };
        endpoint.identities.iter().find(|offered| match &offered.known_by {
            KnownBy::ClientId(own) => *name == CLIENT_ID && own.eq_ignore_ascii_case(id),
            KnownBy::ObjectId(own) => {
                [OBJECT_ID, PRINCIPAL_ID].contains(name) && own.eq_ignore_ascii_case(id)
            }
            KnownBy::ResourceId(own) => {
                [MSI_RES_ID, MI_RES_ID].contains(name) && own.eq_ignore_ascii_case(id)
            }
            KnownBy::Nothing => false,
        })
    }

    /// Asks for the token. `no_identity` is what the shape says where there is no such identity.
    pub(super) async fn grant(
        self,
        endpoint: &ManagedIdentityEndpoint,
        (state, serving): (&State, &Serving),
        destination: &str,
        no_identity: &str,
    ) -> Result<Granted, Refused> {
        let Some(offered) = self.identity(endpoint) else {
            return Err(Refused::invalid_request(no_identity));
        };
        let request = TokenRequest {
            identity: offered.name.clone(),
            // As MSAL makes a resource of a scope, backwards; the identity's list decides.
            scope: format!("{}/.default", self.resource),
            destination: destination.to_owned(),
            ..TokenRequest::default()
        };
        let token = state.issue(&serving.tokens, &request, None).await?;
        let client_id = match &offered.known_by {
            KnownBy::ClientId(id) => Some(id.clone()),
            KnownBy::ObjectId(_) | KnownBy::ResourceId(_) | KnownBy::Nothing => None,
        };
        let now = serving.tokens.clock().unix_now();
        Ok(Granted { token, client_id, resource: self.resource, now })
    }
}

/// The answer: every value is text. Who reads it may only have a part of the fields, so that one
/// that is not known is left out.
#[derive(Serialize)]
pub(super) struct Answer<'a> {
    access_token: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<&'a str>,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in: Option<String>,
    expires_on: String,
    /// Seconds; no longer than `expires_in`, since nothing is served past its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    ext_expires_in: Option<String>,
    not_before: String,
    resource: &'a str,
    token_type: &'a str,
}

/// Whether an answer says how long a token lives, beside when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    Told,
    Untold,
}

impl Granted {
    pub(super) fn answer(&self, life: Life) -> Answer<'_> {
        let seconds = self.token.expires_on.saturating_sub(self.now).to_string();
        let told = (life == Life::Told).then_some(seconds);
        Answer {
            access_token: self.token.access_token.expose(),
            client_id: self.client_id.as_deref(),
            expires_in: told.clone(),
            expires_on: self.token.expires_on.to_string(),
            ext_expires_in: told,
            not_before: self.now.to_string(),
            resource: &self.resource,
            token_type: &self.token.token_type,
        }
    }
}
