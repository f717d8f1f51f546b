//! The program as a person runs it: arguments in, text and exit code out.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test says by a panic that it fails"
)]

mod cases;
mod check;
mod check_mesh;
mod check_resources;
mod check_warnings;
mod destinations;
mod documents;
mod explain;
mod explain_outbound;
mod istio_objects;
mod keys;
mod on_behalf_of;
mod program;
mod schema;
