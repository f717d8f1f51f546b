//! Clients that nobody here wrote, against the broker and the fake Entra: `cargo xtask test clients`.
//!
//! A file for each client. Their scripts are in `tests/clients`; each starts once for many cases,
//! for a start is what takes time.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::arithmetic_side_effects,
    reason = "a test's own functions fail the test"
)]

mod agents;
mod agents_node;
mod agents_python;
mod azure_identity_node;
mod azure_identity_python;
mod msal_node;
mod msal_python;
mod stage;
