//! Calls to the token broker and what their answers mean.
//!
//! Everything is dispatched from a root context's tick: a call that a stream dispatches is lost
//! with that stream, and everybody who waits for it hangs.

use std::time::Duration;

use contract::{ErrorKind, IssuedToken, KeySets, KeysRefresh, TokenRequest, TypedError, route};
use policy::token_store::TokenCallResult;

use crate::host;

/// How long the broker may take: longer than it lets anybody wait, shorter than the stream idle
/// timeout of what we ship.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer that is looked at, in bytes: the keys of about a thousand tenants. Whoever accepts
/// more has the broker keep those of `organizations`, which sign for all.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// Asks for all keys, if they are others than those of `etag`.
pub(crate) fn poll_keys(cluster: &str, etag: Option<&str>) -> Option<u32> {
    let condition = etag.map(|etag| ("if-none-match", etag));
    call(cluster, "GET", route::KEYS, condition, None)
}

/// Asks for a fetch of newer keys.
pub(crate) fn refresh_keys(cluster: &str, refresh: &KeysRefresh) -> Option<u32> {
    let body = serde_json::to_vec(refresh).ok()?;
    call(cluster, "POST", route::KEYS_REFRESH, None, Some(&body))
}

/// Asks for a token.
pub(crate) fn fetch_token(cluster: &str, request: &TokenRequest) -> Option<u32> {
    let body = serde_json::to_vec(request).ok()?;
    call(cluster, "POST", route::TOKEN, None, Some(&body))
}

fn call(
    cluster: &str,
    method: &str,
    path: &str,
    header: Option<(&str, &str)>,
    body: Option<&[u8]>,
) -> Option<u32> {
    let mut headers = vec![(":method", method), (":path", path), (":authority", "token-broker")];
    headers.extend(body.map(|_| ("content-type", "application/json")));
    headers.extend(header);
    host::dispatch(cluster, &headers, body.unwrap_or_default(), TIMEOUT)
}

/// What the broker says about keys.
#[derive(Debug)]
pub(crate) enum KeysAnswer {
    /// These are all there are, with the tag to ask for others by.
    Keys(KeySets, Option<String>),
    /// Still the same.
    Unchanged,
    /// No refresh for so many seconds.
    Limited(u64),
    /// No answer that could be read.
    Failed,
}

/// Reads the answer to a call for keys.
pub(crate) fn keys_answer(body_size: usize) -> KeysAnswer {
    let Some((status, etag, body)) = answer(body_size) else { return KeysAnswer::Failed };
    match status.as_slice() {
        b"200" => match serde_json::from_slice(&body) {
            Ok(keys) => KeysAnswer::Keys(keys, etag),
            Err(_unreadable) => KeysAnswer::Failed,
        },
        b"304" => KeysAnswer::Unchanged,
        b"429" => match serde_json::from_slice::<TypedError>(&body) {
            Ok(error) if error.kind == ErrorKind::Throttled => {
                KeysAnswer::Limited(error.retry_after.unwrap_or(route::REFRESH_INTERVAL_SECONDS))
            }
            _ => KeysAnswer::Failed,
        },
        _ => KeysAnswer::Failed,
    }
}

/// Reads the answer to a call for a token.
pub(crate) fn token_answer(body_size: usize) -> TokenCallResult {
    let Some((status, _, body)) = answer(body_size) else { return TokenCallResult::Failed };
    if status == b"200" {
        return match serde_json::from_slice::<IssuedToken>(&body) {
            Ok(token) => TokenCallResult::Issued(token),
            Err(_unreadable) => TokenCallResult::Failed,
        };
    }
    match serde_json::from_slice::<TypedError>(&body) {
        Ok(error) => TokenCallResult::Refused(error),
        Err(_unreadable) => TokenCallResult::Failed,
    }
}

type Answer = (Vec<u8>, Option<String>, Vec<u8>);

fn answer(body_size: usize) -> Option<Answer> {
    if body_size > MAX_ANSWER_BYTES {
        return None;
    }
    let headers = host::call_response_headers()?;
    let status = headers.get(b":status")?.to_vec();
    let etag = headers.get(b"etag").and_then(|etag| std::str::from_utf8(etag).ok());
    Some((status, etag.map(str::to_owned), host::call_response_body(body_size)?))
}
