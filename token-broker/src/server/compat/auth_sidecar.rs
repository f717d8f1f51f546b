//! The endpoints of Microsoft's auth sidecar
//! (learn.microsoft.com/entra/msidweb/agent-id-sdk/endpoints).
//!
//! An application asks here whose token it was sent, and for the header of a call to another API.
//! The answers have the original's shape. Where that hides why there is none, more is said: an
//! outage is 503 and throttling 429, not 401, and a claims challenge reaches whoever can answer it.

use std::{iter::once, sync::Arc};

use axum::{
    extract::{Path, State as Shared},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::Response,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use contract::{ErrorKind, Secret, TokenRequest, TypedError};
use policy::{
    claims::Kind,
    decision::{Class, Reason},
    identity_headers::HeaderNames,
    request::{RequestHead, bearer_token},
};
use serde_json::{Value, json};

use super::{
    super::{Serving, State, answer},
    overrides::Asked,
    refused::{Refused, Shape},
};
use crate::{
    config::{Callers, TokenOf},
    validation::{Valid, validate},
};

/// Who asks for a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asker {
    /// Somebody for the caller whose token he shows.
    Caller,
    /// The application for itself.
    Application,
}

pub(super) async fn healthy(Shared(state): Shared<Arc<State>>) -> Response {
    match state.serving().compat.auth_sidecar {
        Some(_) => answer::with_type(StatusCode::OK, "text/plain", "Healthy"),
        None => Shape::Problem.answer(Refused::not_served()),
    }
}

pub(super) async fn makes_no_calls(Shared(state): Shared<Arc<State>>) -> Response {
    let text = "the broker hands out headers and makes no calls for others: ask for the header \
                and make the call, or let the filter put the token in";
    Shape::Problem.answer(match state.serving().compat.auth_sidecar {
        Some(_) => Refused::new(StatusCode::NOT_IMPLEMENTED, "downstream_api_not_served", text),
        None => Refused::not_served(),
    })
}

pub(super) async fn validated(Shared(state): Shared<Arc<State>>, headers: HeaderMap) -> Response {
    let outcome = async {
        let serving = state.serving();
        let Caller { token, valid, .. } = caller(&serving, &headers).await?;
        Ok(json!({"protocol": "Bearer", "token": token.expose(), "claims": valid.claims}))
    };
    answered(outcome.await)
}

pub(super) async fn header_of_caller(
    Shared(state): Shared<Arc<State>>,
    Path(api): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    answered(header(&state, &api, &uri, &headers, Asker::Caller).await)
}

pub(super) async fn header_of_application(
    Shared(state): Shared<Arc<State>>,
    Path(api): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    answered(header(&state, &api, &uri, &headers, Asker::Application).await)
}

async fn header(
    state: &State,
    name: &str,
    uri: &Uri,
    headers: &HeaderMap,
    asker: Asker,
) -> Result<Value, Refused> {
    let serving = state.serving();
    let sidecar = serving.compat.auth_sidecar.as_ref().ok_or_else(Refused::not_served)?;
    let caller = match asker {
        Asker::Caller => Some(caller(&serving, headers).await?),
        Asker::Application => None,
    };
    let Some(api) = sidecar.apis.get(name) else {
        let text = "the configuration has no API of this name";
        return Err(Refused::new(StatusCode::NOT_FOUND, "unknown_api", text));
    };
    let asked = Asked::read(uri.query(), api)?;
    if asker == Asker::Application && asked.scope != api.scope {
        let text = "optionsOverride.Scopes: not without a caller's token";
        return Err(Refused::invalid_request(text));
    }
    let assertion = match (caller, asked.token) {
        (None, _) | (Some(_), TokenOf::Application) => None,
        (Some(caller), TokenOf::Caller) => Some(caller.on_whose_behalf()?),
    };
    let on_behalf = assertion.is_some();
    let request = TokenRequest {
        identity: api.identity.clone(),
        scope: asked.scope,
        destination: "auth_sidecar".to_owned(),
        assertion,
        ..TokenRequest::default()
    };
    let issued = state.issue(&serving.tokens, &request, None).await.map_err(|refused| {
        let callers = sidecar.callers.as_ref().filter(|_| on_behalf);
        no_header(refused, callers)
    })?;
    let mut body = json!({
        "authorizationHeader": format!("{} {}", issued.token_type, issued.access_token.expose()),
        "expiresOn": issued.expires_on,
    });
    if let (false, Some(members)) = (issued.correlation_id.is_empty(), body.as_object_mut()) {
        members.insert("correlationId".to_owned(), issued.correlation_id.into());
    }
    Ok(body)
}

/// Whoever's token a request shows.
struct Caller {
    token: Secret,
    valid: Valid,
    authorization_uri: String,
}

impl Caller {
    /// The assertion for an exchange: a user's token, and no application's.
    fn on_whose_behalf(self) -> Result<Secret, Refused> {
        match self.valid.kind {
            Kind::User => Ok(self.token),
            Kind::Application => Err(invalid(Reason::UserRequired, &self.authorization_uri)),
        }
    }
}

async fn caller(serving: &Serving, headers: &HeaderMap) -> Result<Caller, Refused> {
    let sidecar = serving.compat.auth_sidecar.as_ref();
    let callers = sidecar.and_then(|sidecar| sidecar.callers.as_ref());
    let callers = callers.ok_or_else(Refused::not_served)?;
    let authorization_uri = callers.accepted.authorization_uri();
    let now = serving.tokens.clock().unix_now();
    let outcome = async {
        let token = one_token(headers)?;
        let valid = validate(token.expose().as_bytes(), callers, &serving.keys, now).await?;
        Ok((token, valid))
    };
    match outcome.await {
        Ok((token, valid)) => Ok(Caller { token, valid, authorization_uri }),
        Err(reason) => Err(invalid(reason, &authorization_uri)),
    }
}

/// The one bearer token of a request.
fn one_token(headers: &HeaderMap) -> Result<Secret, Reason> {
    let mut lines = headers.get_all(header::AUTHORIZATION).iter();
    let line = lines.next().ok_or(Reason::TokenMissing)?;
    if lines.next().is_some() {
        return Err(Reason::AuthorizationMalformed);
    }
    let line = (header::AUTHORIZATION.as_str().as_bytes(), line.as_bytes());
    let own = HeaderNames::default();
    let token = RequestHead::read(once(line), &own).credentials().and_then(bearer_token)?;
    let text = std::str::from_utf8(token).map_err(|_binary| Reason::AuthorizationMalformed)?;
    Ok(Secret::new(text))
}

/// A token that is not accepted. The asker is the application that got it: it is told why.
fn invalid(reason: Reason, authorization_uri: &str) -> Refused {
    let (status, error) = match (reason, reason.class()) {
        (Reason::UserRequired, _) => (StatusCode::UNAUTHORIZED, Some("invalid_token")),
        (_, Class::TokenRequired) => (StatusCode::UNAUTHORIZED, None),
        (_, Class::Forbidden) => (StatusCode::FORBIDDEN, Some("insufficient_scope")),
        (_, Class::Unavailable) => (StatusCode::SERVICE_UNAVAILABLE, None),
        _ => (StatusCode::UNAUTHORIZED, Some("invalid_token")),
    };
    let mut refused = Refused::new(status, reason.code(), "the caller's token is not accepted");
    if status == StatusCode::SERVICE_UNAVAILABLE {
        refused.description = "the caller's token cannot be judged now".into();
        refused.retry_after = Some(1);
    } else {
        refused.challenge = Some(challenge(authorization_uri, error, None).into());
    }
    refused
}

/// No token for the header. With `callers` it would have been one on behalf of a caller, who may
/// have to sign in again.
fn no_header(refused: TypedError, callers: Option<&Callers>) -> Refused {
    let (kind, claims) = (refused.kind, refused.claims.clone());
    let mut refused = Refused::from(refused);
    refused.status = match kind {
        ErrorKind::ClaimsChallenge if callers.is_some() => StatusCode::UNAUTHORIZED,
        ErrorKind::ClaimsChallenge | ErrorKind::Disabled | ErrorKind::Denied => {
            StatusCode::FORBIDDEN
        }
        ErrorKind::Throttled => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::Transient | ErrorKind::Credential | ErrorKind::Config => {
            StatusCode::SERVICE_UNAVAILABLE
        }
    };
    if let (StatusCode::UNAUTHORIZED, Some(callers)) = (refused.status, callers) {
        let error = if claims.is_some() { "insufficient_claims" } else { "invalid_token" };
        let uri = callers.accepted.authorization_uri();
        refused.challenge = Some(challenge(&uri, Some(error), claims.as_deref()).into());
    }
    refused.claims = claims.map(Into::into);
    refused
}

/// As APIs challenge (RFC 6750 §3, learn.microsoft.com/entra/identity-platform/claims-challenge).
fn challenge(authorization_uri: &str, error: Option<&str>, claims: Option<&str>) -> String {
    let mut text = format!("Bearer authorization_uri=\"{authorization_uri}\"");
    let claims = claims.map(|claims| STANDARD.encode(claims));
    for (name, value) in [("error", error), ("claims", claims.as_deref())] {
        if let Some(value) = value {
            text.push_str(&format!(", {name}=\"{value}\""));
        }
    }
    text
}

fn answered(outcome: Result<Value, Refused>) -> Response {
    let body = match outcome {
        Ok(body) => body,
        Err(refused) => return Shape::Problem.answer(refused),
    };
    let mut response = answer::json(StatusCode::OK, &body);
    for (name, value) in [
        (header::CACHE_CONTROL, "no-cache, no-store, must-revalidate"),
        (header::PRAGMA, "no-cache"),
        (header::EXPIRES, "0"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use policy::{
        claims::{Audiences, Tenants},
        cloud::Cloud,
        config::Accepted,
    };

    use super::*;

    const CLAIMS: &str = r#"{"access_token":{"polids":{"essential":true,"values":["p"]}}}"#;

    fn check(kind: ErrorKind, claims: Option<&str>, expected: (u16, Option<&str>)) {
        let tenant = "72f988bf-86f1-41af-91ab-2d7cd011db47".to_owned();
        let tenants = Tenants::Listed([tenant].into());
        let accepted = Accepted::new(Cloud::Public, tenants, Audiences(vec!["a".to_owned()]));
        let callers = Callers { accepted, scopes: Vec::new() };
        let mut error = TypedError::new(kind, "interaction_required: AADSTS50076");
        error.claims = claims.map(str::to_owned);
        let refused = no_header(error, Some(&callers));
        let uri = callers.accepted.authorization_uri();
        let challenge = expected.1.map(|rest| format!("Bearer authorization_uri=\"{uri}\"{rest}"));
        let found = refused.challenge.map(String::from);
        assert_eq!((refused.status.as_u16(), found), (expected.0, challenge));
        assert_eq!(refused.claims.as_deref(), claims);
    }

    #[test]
    fn a_caller_who_can_sign_in_again_is_told_with_what() {
        let encoded = STANDARD.encode(CLAIMS);
        let told = format!(", error=\"insufficient_claims\", claims=\"{encoded}\"");
        check(ErrorKind::ClaimsChallenge, Some(CLAIMS), (401, Some(&told)));
        let told = ", error=\"invalid_token\"";
        check(ErrorKind::ClaimsChallenge, None, (401, Some(told)));
        for (kind, status) in [
            (ErrorKind::Denied, 403),
            (ErrorKind::Disabled, 403),
            (ErrorKind::Throttled, 429),
            (ErrorKind::Transient, 503),
            (ErrorKind::Credential, 503),
            (ErrorKind::Config, 503),
        ] {
            check(kind, None, (status, None));
        }
    }
}
