//! What the filter and the token broker say to each other: data only.
//!
//! The filter calls the broker over a local HTTP cluster. `POST /v1/token` answers
//! [`IssuedToken`], `GET /v1/keys` and `POST /v1/keys/refresh` answer [`KeySets`], and every
//! refusal is a [`TypedError`]. The version is in the path ([`route`]).
//!
//! Versioning: the broker refuses request members that it does not know (what it cannot honour it
//! must not seem to), the filter ignores answer members that it does not know, and a version that
//! the broker does not speak is answered 503. So filter N works with broker N±1.

pub mod error;
pub mod keys;
pub mod route;
pub mod secret;
pub mod token;

pub use error::{ErrorKind, TypedError};
pub use keys::{Jwk, KeySet, KeySetState, KeySets, KeysRefresh};
pub use secret::Secret;
pub use token::{IssuedToken, MAX_CLAIMS_BYTES, TokenRequest};
