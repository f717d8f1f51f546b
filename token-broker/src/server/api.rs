//! The api listener: `/v1/token`, `/v1/keys`, `/v1/keys/refresh` as [`contract`] has them.
//!
//! Reads a request strictly, asks `tokens` or `keys`, writes the answer. It decides nothing.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::to_bytes,
    extract::{MatchedPath, Request, State as Shared},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use contract::{
    IssuedToken, KeySets, KeysRefresh, TokenRequest,
    route::{KEYS, KEYS_REFRESH, MAX_REQUEST_BYTES, TOKEN},
};
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use tokio::time::timeout;

use super::{
    State,
    answer::{Refusal, json},
};

/// For a request's body to arrive, before the wait for an answer to it begins: both together stay
/// within the 10 s that the filter gives the broker.
const BODY_TIMEOUT: Duration = Duration::from_secs(1);

/// The routes.
pub fn router(state: Arc<State>) -> Router {
    Router::new()
        .route(TOKEN, post(token))
        .route(KEYS, get(keys))
        .route(KEYS_REFRESH, post(keys_refresh))
        .method_not_allowed_fallback(async || Refusal::Method)
        .fallback(async |uri: Uri| unknown(uri.path()))
        .layer(from_fn_with_state(Arc::clone(&state), count))
        .with_state(state)
}

async fn token(Shared(state): Shared<Arc<State>>, request: Request) -> Result<Response, Refusal> {
    let request: TokenRequest = read(request).await?;
    let tokens = state.serving().tokens;
    let challenge =
        tokens.challenge(&request).map_err(|malformed| Refusal::Malformed(malformed.to_owned()))?;
    let token: IssuedToken = tokens.issue(&request, challenge.as_ref()).await?;
    Ok(json(StatusCode::OK, &token))
}

async fn keys(Shared(state): Shared<Arc<State>>, headers: HeaderMap) -> Response {
    shown(&state.serving().keys.sets(), headers.get(header::IF_NONE_MATCH))
}

async fn keys_refresh(
    Shared(state): Shared<Arc<State>>,
    request: Request,
) -> Result<Response, Refusal> {
    let request: KeysRefresh = read(request).await?;
    Ok(shown(&state.serving().keys.refresh(&request).await?, None))
}

/// The key sets with their tag; 304 for who has them already.
fn shown(sets: &KeySets, known: Option<&HeaderValue>) -> Response {
    let mut response = json(StatusCode::OK, sets);
    let Ok(tag) = tag(sets) else { return response };
    if known.is_some_and(|known| known == tag) {
        response = StatusCode::NOT_MODIFIED.into_response();
    }
    response.headers_mut().insert(header::ETAG, tag);
    response
}

/// A strong tag (RFC 9110 §8.8.3): a digest of the content.
fn tag(sets: &KeySets) -> Result<HeaderValue, Box<dyn std::error::Error>> {
    let content = serde_json::to_vec(sets)?;
    let digest = ring::digest::digest(&ring::digest::SHA256, &content);
    let hex: String = digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    Ok(HeaderValue::try_from(format!("\"{hex}\""))?)
}

/// Reads a body of the contract. What the message says about it holds no value of it.
///
/// Only under its own type: a browser's form, and most of what a server can be tricked into
/// sending, has another.
async fn read<T: DeserializeOwned>(request: Request) -> Result<T, Refusal> {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    if content_type.is_none_or(|found| found != "application/json") {
        return Err(Refusal::Body(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "expected `content-type: application/json`",
        ));
    }
    let bytes = timeout(BODY_TIMEOUT, to_bytes(request.into_body(), MAX_REQUEST_BYTES))
        .await
        .map_err(|_late| Refusal::Body(StatusCode::REQUEST_TIMEOUT, "the body came too slowly"))?
        .map_err(|_large| {
            Refusal::Body(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large or broke off")
        })?;
    serde_json::from_slice(&bytes).map_err(|error| {
        let text = error.to_string();
        let named = ["unknown field", "missing field", "duplicate field"]
            .iter()
            .any(|start| text.starts_with(start));
        Refusal::Malformed(match error.classify() {
            Category::Data if named => crate::failure::sanitised(&text),
            Category::Data => "a member has the wrong type".to_owned(),
            Category::Io | Category::Syntax | Category::Eof => "not JSON".to_owned(),
        })
    })
}

/// A version that this broker does not speak is the broker's fault, not the caller's.
fn unknown(path: &str) -> Refusal {
    let version = path
        .strip_prefix("/v")
        .and_then(|rest| rest.split('/').next())
        .filter(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()));
    match version {
        Some("1") | None => Refusal::UnknownPath,
        Some(_other) => Refusal::UnsupportedVersion,
    }
}

async fn count(Shared(state): Shared<Arc<State>>, request: Request, next: Next) -> Response {
    let route = match request.extensions().get::<MatchedPath>().map(MatchedPath::as_str) {
        Some(TOKEN) => TOKEN,
        Some(KEYS) => KEYS,
        Some(KEYS_REFRESH) => KEYS_REFRESH,
        _ => "unknown",
    };
    let response = next.run(request).await;
    state.metrics.request_answered("api", route, response.status().as_u16());
    response
}
