//! Paths and limits of the broker's `api` listener.

/// `POST` [`crate::TokenRequest`] → [`crate::IssuedToken`].
pub const TOKEN: &str = "/v1/token";
/// `GET` → [`crate::KeySets`], with `ETag`; `If-None-Match` answers 304.
pub const KEYS: &str = "/v1/keys";
/// `POST` [`crate::KeysRefresh`] → [`crate::KeySets`] as they are after the fetch.
///
/// At most one fetch per authority per [`REFRESH_INTERVAL_SECONDS`], then 429 `throttled`.
pub const KEYS_REFRESH: &str = "/v1/keys/refresh";

/// Least time between two fetches of one authority's keys on request, in seconds.
///
/// Microsoft asks validators for no more than one refresh on an unknown `kid` per 5 minutes
/// (learn.microsoft.com/entra/identity-platform/signing-key-rollover).
pub const REFRESH_INTERVAL_SECONDS: u64 = 300;

/// Keys older than this, in seconds, are no longer trusted (24 h, same page).
pub const KEY_LIFETIME_SECONDS: u64 = 86_400;

/// Largest request body that the broker reads, in bytes.
pub const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// Largest key set, in bytes, that the broker takes from an authority.
pub const MAX_KEY_SET_BYTES: usize = 512 * 1024;
/// Most keys in one set.
pub const MAX_KEYS: usize = 1_000;
