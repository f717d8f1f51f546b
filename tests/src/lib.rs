//! The whole product under a real Envoy: what the end-to-end tests and the demo start.
//!
//! [`fake_entra`] answers as Microsoft Entra ID; the other modules start the real programs, and
//! [`stack`] all of them together.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test support: what goes wrong here fails the test that uses it"
)]

pub mod broker;
pub mod client;
pub mod envoy;
pub mod fake_entra;
pub mod hostile;
pub mod independent_client;
mod ports;
pub mod process;
pub mod stack;
pub mod stand_in;
pub mod upstream;
