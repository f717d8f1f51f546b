//! Tokens of a managed identity from the Azure instance metadata service
//! (learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token).
//!
//! The service caches tokens itself and gives the same one again until it renews it, about every
//! day; it takes no claims. When to ask again after a failure is `refresh`'s, by the kind of it.

use contract::{ErrorKind, Secret, TypedError};
use hyper::{
    StatusCode,
    http::{Method, Request},
};
use serde::Deserialize;
use uuid::Uuid;

use super::{
    refusal,
    token_endpoint::{Acquired, MAX_ANSWER_BYTES, Wanted, accept},
};
use crate::{
    config::ManagedIdentity,
    failure::{NoToken, Pace, Reach, failure, sanitised},
    https::{Answer, Transport, metadata_uri},
};

const VERSION: &str = "2018-02-01";

/// Asks for a token of one of the machine's identities.
pub async fn token(
    transport: &dyn Transport,
    identity: &ManagedIdentity,
    wanted: Wanted<'_>,
) -> Result<Acquired, NoToken> {
    if wanted.claims.is_some() {
        let what = "claims_not_supported: the instance metadata service takes no claims";
        return Err(failure(ErrorKind::Denied, what).into());
    }
    if wanted.assertion.is_some() {
        let what = "on_behalf_of_not_supported: a managed identity acts for no user";
        return Err(failure(ErrorKind::Config, what).into());
    }
    let correlation_id = Uuid::new_v4().to_string();
    let request = request(identity, wanted.scope, &correlation_id).map_err(|_malformed| {
        failure(ErrorKind::Config, "malformed_request: the identity makes no valid request")
    })?;
    let outcome = match transport.send(request, MAX_ANSWER_BYTES).await {
        Ok(answer) if answer.status == StatusCode::OK => {
            take(&answer.body, identity, &correlation_id).map_err(NoToken::from)
        }
        Ok(answer) => Err(refused(&answer)),
        Err(failed) => {
            let what = format!("metadata_service_unreachable: {failed}");
            Err(failure(ErrorKind::Transient, what).into())
        }
    };
    outcome.map_err(|mut refused| {
        refused.error.correlation_id.get_or_insert(correlation_id);
        refused
    })
}

fn request(
    identity: &ManagedIdentity,
    scope: &str,
    correlation_id: &str,
) -> Result<Request<Secret>, hyper::http::Error> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    // The service knows resources, not scopes.
    query.append_pair("api-version", VERSION);
    query.append_pair("resource", scope.strip_suffix("/.default").unwrap_or(scope));
    match identity {
        ManagedIdentity::SystemAssigned => &mut query,
        ManagedIdentity::ClientId(id) => query.append_pair("client_id", id),
        ManagedIdentity::ObjectId(id) => query.append_pair("object_id", id),
        ManagedIdentity::ResourceId(id) => query.append_pair("msi_res_id", id),
    };
    let path = format!("/metadata/identity/oauth2/token?{}", query.finish());
    Request::builder()
        .method(Method::GET)
        .uri(metadata_uri(&path)?)
        // What a tricked server or a browser cannot add: the service wants it.
        .header("metadata", "true")
        .header("x-ms-client-request-id", correlation_id)
        .body(Secret::new(String::new()))
}

#[derive(Deserialize)]
struct OfWhom {
    client_id: Option<String>,
}

/// Takes the token, unless it is of another identity than the one asked for.
fn take(
    body: &[u8],
    identity: &ManagedIdentity,
    correlation_id: &str,
) -> Result<Acquired, TypedError> {
    let (access_token, life, refresh_in) = accept(body)?;
    if let ManagedIdentity::ClientId(wanted) = identity {
        let found = serde_json::from_slice::<OfWhom>(body).ok().and_then(|whom| whom.client_id);
        if found.is_some_and(|found| !found.eq_ignore_ascii_case(wanted)) {
            return Err(failure(
                ErrorKind::Config,
                "another_identity: the instance metadata service gave a token of another client id",
            ));
        }
    }
    let correlation_id = correlation_id.to_owned();
    Ok(Acquired { access_token, life, refresh_in, correlation_id })
}

#[derive(Default, Deserialize)]
struct ErrorAnswer {
    error: Option<String>,
}

/// How often a service that is being updated is asked; the update takes up to 70 s.
const UPDATE_PAUSE_SECONDS: u64 = 10;

/// What may pass by itself: what Microsoft lists for retries, all with a delay that doubles, and 410
/// for an update of the service. Any other refusal is for a person.
fn refused(answer: &Answer) -> NoToken {
    let body: ErrorAnswer = serde_json::from_slice(&answer.body).unwrap_or_default();
    let error = sanitised(body.error.as_deref().unwrap_or("no error code"));
    let status = answer.status.as_u16();
    let (kind, hint) = match answer.status {
        StatusCode::TOO_MANY_REQUESTS => (ErrorKind::Throttled, "asked again later"),
        StatusCode::NOT_FOUND | StatusCode::REQUEST_TIMEOUT | StatusCode::GONE => {
            (ErrorKind::Transient, "asked again later")
        }
        other if other.is_server_error() => (ErrorKind::Transient, "asked again later"),
        _ => (ErrorKind::Config, "is the identity assigned to this machine, the scope right?"),
    };
    let mut refused = failure(kind, format!("metadata_service_status_{status}: {error}: {hint}"));
    refused.retry_after = refusal::retry_after(&answer.headers)
        .or_else(|| (answer.status == StatusCode::GONE).then_some(UPDATE_PAUSE_SECONDS));
    // The machine's own service without a word about when: not the minute that Entra wants.
    let pace = if kind == ErrorKind::Throttled { Pace::Soon } else { Pace::ByKind };
    // As a proof it is the same for whomever: no user's token is sent there.
    let reach = Reach::Identity;
    NoToken { error: Box::new(refused), of_credential: kind == ErrorKind::Config, pace, reach }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hyper::HeaderMap;
    use zeroize::Zeroizing;

    use super::*;

    #[test]
    fn the_request_names_one_identity_and_the_resource() {
        let sent = |identity: &ManagedIdentity| {
            let sent = request(identity, "https://vault.azure.net/.default", "id-1").unwrap();
            assert_eq!(sent.headers()["metadata"], "true");
            assert_eq!(sent.method(), Method::GET);
            sent.uri().to_string()
        };
        let start = "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01\
                     &resource=https%3A%2F%2Fvault.azure.net";
        assert_eq!(sent(&ManagedIdentity::SystemAssigned), start);
        let cases = [
            (ManagedIdentity::ClientId("c".to_owned()), "&client_id=c"),
            (ManagedIdentity::ObjectId("o".to_owned()), "&object_id=o"),
            (ManagedIdentity::ResourceId("/s/a b".to_owned()), "&msi_res_id=%2Fs%2Fa+b"),
        ];
        for (identity, end) in cases {
            assert_eq!(sent(&identity), format!("{start}{end}"));
        }
    }

    #[test]
    fn a_token_of_another_identity_is_not_taken() {
        let body = br#"{"access_token":"a.b","client_id":"C-1","expires_in":"86399",
            "expires_on":"1800086399","ext_expires_in":"86399","not_before":"1799999700",
            "resource":"https://vault.azure.net","token_type":"Bearer"}"#;
        let taken = |identity| take(body, &identity, "id");
        let life = taken(ManagedIdentity::ClientId("c-1".to_owned())).unwrap().life;
        assert_eq!(life, Duration::from_secs(86_399));
        taken(ManagedIdentity::ObjectId("c-2".to_owned())).unwrap();
        let refused = taken(ManagedIdentity::ClientId("c-2".to_owned())).unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Config);
    }

    #[test]
    fn refusals_have_the_kinds_of_microsofts_retry_table() {
        let cases = [
            (400, ErrorKind::Config),
            (401, ErrorKind::Config),
            (403, ErrorKind::Config),
            (404, ErrorKind::Transient),
            (405, ErrorKind::Config),
            (408, ErrorKind::Transient),
            (410, ErrorKind::Transient),
            (429, ErrorKind::Throttled),
            (500, ErrorKind::Transient),
            (503, ErrorKind::Transient),
            (302, ErrorKind::Config),
        ];
        for (status, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", "7".parse().unwrap());
            let body = br#"{"error":"invalid_request","error_description":"Identity not found"}"#;
            let status = StatusCode::from_u16(status).unwrap();
            let body = Zeroizing::new(body.to_vec());
            let NoToken { error: found, .. } = refused(&Answer { status, headers, body });
            assert_eq!((found.kind, found.retry_after), (expected, Some(7)), "{status}");
            assert!(found.error.contains("invalid_request"), "{}", found.error);
        }
    }
}
