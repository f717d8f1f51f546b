//! Microsoft Entra ID on the wire: every fact about its endpoints and answers is in here.
//!
//! These come from Microsoft's documentation and client libraries, each in one place, so that
//! one that proves wrong is easy to mend. It must not know who asks, or what is kept.

pub mod claims;
pub mod client_assertion;
pub mod discovery;
pub mod instance_metadata;
pub mod refusal;
pub mod token_endpoint;
