//! The fake Entra answers and refuses as Entra does.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test's own functions fail the test"
)]

mod answers;
mod ask;
mod assertions;
mod certificates;
mod claims_requests;
mod cluster;
mod faults;
mod managed_identities;
mod on_behalf_of;
mod refusals;
mod sign_ins;
