//! What a request to the auth sidecar's endpoints may change of an API's settings: little, and
//! nothing by a name that would be ignored.
//!
//! The original ignores what it does not allow and answers with a token that was not asked for.
//! Here a parameter is honoured, has no effect on a bearer token in the original either, or is
//! refused by its name.

use super::{query::Query, refused::Refused};
use crate::config::{DownstreamApi, TokenOf, full_scope};

/// As the original, names are compared without case; these are in lower case.
const SCOPES: &str = "optionsoverride.scopes";
const APP_TOKEN: &str = "optionsoverride.requestapptoken";
const TENANT: &str = "optionsoverride.acquiretokenoptions.tenant";
const FORCE_REFRESH: &str = "optionsoverride.acquiretokenoptions.forcerefresh";
/// How a downstream API is called: of no effect on the header for it.
const OF_THE_CALL: [&str; 4] = [
    "optionsoverride.relativepath",
    "optionsoverride.httpmethod",
    "optionsoverride.contenttype",
    "optionsoverride.acceptheader",
];
const KNOWN: [&str; 8] = {
    let [path, method, content_type, accept] = OF_THE_CALL;
    [SCOPES, APP_TOKEN, TENANT, FORCE_REFRESH, path, method, content_type, accept]
};

/// What the header is to be made of.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) scope: String,
    pub(super) token: TokenOf,
}

impl Asked {
    /// Reads the query of a request for an API.
    pub(super) fn read(query: Option<&str>, api: &DownstreamApi) -> Result<Self, Refused> {
        let query = Query::read_any_case(query, &KNOWN).map_err(not_honoured)?;
        let scope = match query.value(SCOPES) {
            None => api.scope.clone(),
            Some(scope) => full_scope(scope),
        };
        let token = match flag(&query, APP_TOKEN)? {
            Some(true) => TokenOf::Application,
            // The original takes no notice of it: the API's own setting stays.
            Some(false) if api.token == TokenOf::Application => {
                return Err(not_honoured(format!("{APP_TOKEN}=false")));
            }
            Some(false) | None => api.token,
        };
        if flag(&query, FORCE_REFRESH)? == Some(true) {
            return Err(not_honoured(format!("{FORCE_REFRESH}=true")));
        }
        let tenant = query.value(TENANT);
        if let Some(tenant) = tenant
            && api.tenant.as_deref() != Some(tenant.to_ascii_lowercase().as_str())
        {
            return Err(not_honoured(format!("{TENANT} other than the identity's own")));
        }
        Ok(Self { scope, token })
    }
}

fn not_honoured(what: impl std::fmt::Display) -> Refused {
    Refused::invalid_request(format!("{what}: not honoured here, so it is not ignored either"))
}

/// As .NET reads a boolean.
fn flag(query: &Query, name: &str) -> Result<Option<bool>, Refused> {
    match query.value(name).map(|value| value.trim().to_ascii_lowercase()).as_deref() {
        None => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(_) => Err(Refused::invalid_request(format!("{name}: expected `true` or `false`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT_ID: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";

    fn read(query: &str, token: TokenOf) -> Result<(String, TokenOf), String> {
        let api = DownstreamApi {
            identity: "default".to_owned(),
            tenant: Some(TENANT_ID.to_owned()),
            scope: "api://a/read".to_owned(),
            token,
        };
        Asked::read(Some(query), &api)
            .map(|asked| (asked.scope, asked.token))
            .map_err(|refused| refused.description.into())
    }

    #[test]
    fn what_can_be_honoured_is() {
        let own = || "api://a/read".to_owned();
        let upper = TENANT_ID.to_uppercase();
        for (query, scope, token) in [
            ("", own(), TokenOf::Caller),
            (
                "optionsOverride.Scopes=api%3A%2F%2Fb%2Fwrite",
                "api://b/write".into(),
                TokenOf::Caller,
            ),
            (
                "OPTIONSOVERRIDE.scopes=User.Read",
                "https://graph.microsoft.com/User.Read".into(),
                TokenOf::Caller,
            ),
            ("optionsOverride.RequestAppToken=True", own(), TokenOf::Application),
            ("optionsOverride.RequestAppToken=false", own(), TokenOf::Caller),
            ("optionsOverride.AcquireTokenOptions.ForceRefresh=false", own(), TokenOf::Caller),
            (
                &format!("optionsOverride.AcquireTokenOptions.Tenant={upper}"),
                own(),
                TokenOf::Caller,
            ),
            (
                "optionsOverride.RelativePath=me&optionsOverride.HttpMethod=Get",
                own(),
                TokenOf::Caller,
            ),
        ] {
            assert_eq!(read(query, TokenOf::Caller), Ok((scope, token)), "{query}");
        }
    }

    #[test]
    fn b05_what_would_be_ignored_is_refused_by_its_name() {
        for query in [
            "AgentIdentity=3f1b5b1e-0d2c-4a39-9a63-3f6c2c7a9d10",
            "AgentUsername=a%40b.c",
            "AgentUserId=x",
            "optionsOverride.BaseUrl=https://evil.example",
            "optionsOverride.AcquireTokenOptions.Tenant=organizations",
            "optionsOverride.AcquireTokenOptions.ForceRefresh=true",
            "optionsOverride.AcquireTokenOptions.Claims=%7B%7D",
            "optionsOverride.AcquireTokenOptions.CorrelationId=3f1b5b1e-0d2c-4a39-9a63-3f6c2c7a9d10",
            "optionsOverride.AcquireTokenOptions.FmiPath=a",
            "optionsOverride.AcquireTokenOptions.LongRunningWebApiSessionKey=a",
            "optionsOverride.AcquireTokenOptions.PopPublicKey=a",
            "optionsOverride.AcquireTokenOptions.ManagedIdentity.UserAssignedClientId=a",
            "optionsOverride.ExtraHeaderParameters.a=b",
            "optionsOverride.ExtraQueryParameters.a=b",
            "optionsOverride.Scope=a",
            "tenant=a",
        ] {
            let (name, _) = query.split_once('=').unwrap();
            let refused = read(query, TokenOf::Caller).unwrap_err();
            let named = refused.to_ascii_lowercase().contains(&name.to_ascii_lowercase());
            assert!(named && refused.contains("not ignored"), "{query}: {refused}");
        }
        let refused = read("optionsOverride.RequestAppToken=false", TokenOf::Application);
        assert!(refused.unwrap_err().contains("requestapptoken=false"));
        for query in [
            "optionsOverride.RequestAppToken=1",
            "optionsOverride.Scopes=a&optionsOverride.Scopes=b",
            "optionsOverride.Scopes=a&optionsoverride.scopes=b",
        ] {
            read(query, TokenOf::Caller).unwrap_err();
        }
    }
}
