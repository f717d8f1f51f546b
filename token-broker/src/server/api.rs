//! The api listener: `/v1/token`, `/v1/keys`, `/v1/keys/refresh` as [`contract`] has them.
//!
//! Reads a request strictly, asks `tokens` or `keys`, writes the answer. It decides nothing.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Bytes, to_bytes},
    extract::{Request, State as Shared},
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use contract::{
    IssuedToken, KeySets, KeysRefresh, TokenRequest,
    route::{KEYS, KEYS_REFRESH, MAX_REQUEST_BYTES, TOKEN},
};
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use tokio::time::sleep;

use super::{
    State,
    answer::{JSON, Refusal, json, with_type},
};
use crate::tokens::Tokens;

/// For a request's body to arrive, before the wait for an answer to it begins: both together stay
/// within the 10 s that the filter gives the broker.
const BODY_TIMEOUT: Duration = Duration::from_secs(1);

/// One handler for all: a router's way to one of three paths takes longer than the answer.
pub fn router(state: Arc<State>) -> Router {
    Router::new().fallback(answer).with_state(state)
}

async fn answer(Shared(state): Shared<Arc<State>>, request: Request) -> Response {
    let (route, answer) = match request.uri().path() {
        TOKEN => (TOKEN, token(&state, request).await),
        KEYS => (KEYS, keys(&state, request)),
        KEYS_REFRESH => (KEYS_REFRESH, Box::pin(keys_refresh(&state, request)).await),
        path => ("unknown", Err(unknown(path))),
    };
    let mut response = answer.unwrap_or_else(IntoResponse::into_response);
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        // RFC 9110 §15.5.6.
        let allowed = HeaderValue::from_static(if route == KEYS { "GET" } else { "POST" });
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    state.metrics.request_answered("api", route, response.status().as_u16());
    response
}

async fn token(state: &State, request: Request) -> Result<Response, Refusal> {
    only(&request, &Method::POST)?;
    let body = body(request).await?;
    let tokens = state.serving().tokens;
    if let Some(answer) = tokens.shown(&body) {
        return Ok(with_type(StatusCode::OK, JSON, answer));
    }
    // Rarely, and with much to remember meanwhile: a hit is not to make room for that.
    Box::pin(issue(state, &tokens, &body)).await
}

async fn issue(state: &State, tokens: &Arc<Tokens>, body: &[u8]) -> Result<Response, Refusal> {
    let request: TokenRequest = read(body)?;
    let challenge =
        tokens.challenge(&request).map_err(|malformed| Refusal::Malformed(malformed.to_owned()))?;
    let token: IssuedToken = state.issue(tokens, &request, challenge.as_ref()).await?;
    Ok(match tokens.show(body, &request, &token) {
        Ok(answer) => with_type(StatusCode::OK, JSON, answer),
        Err(_unserialisable) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    })
}

fn keys(state: &State, request: Request) -> Result<Response, Refusal> {
    only(&request, &Method::GET)?;
    Ok(shown(&state.serving().keys.sets(), request.headers().get(header::IF_NONE_MATCH)))
}

async fn keys_refresh(state: &State, request: Request) -> Result<Response, Refusal> {
    only(&request, &Method::POST)?;
    let request: KeysRefresh = read(&body(request).await?)?;
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

fn only(request: &Request, method: &Method) -> Result<(), Refusal> {
    if request.method() == method { Ok(()) } else { Err(Refusal::Method) }
}

/// The body of a request.
///
/// Only under its own type: a browser's form, and most of what a server can be tricked into
/// sending, has another.
async fn body(request: Request) -> Result<Bytes, Refusal> {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    if content_type.is_none_or(|found| found != JSON) {
        return Err(Refusal::Body(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "expected `content-type: application/json`",
        ));
    }
    tokio::select! {
        // Mostly it is there already, and then there is no timer to be made.
        biased;
        read = to_bytes(request.into_body(), MAX_REQUEST_BYTES) => read.map_err(|_large| {
            Refusal::Body(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large or broke off")
        }),
        () = async { sleep(BODY_TIMEOUT).await } => {
            Err(Refusal::Body(StatusCode::REQUEST_TIMEOUT, "the body came too slowly"))
        }
    }
}

/// Reads a body of the contract. What the message says about it holds no value of it.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| {
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
