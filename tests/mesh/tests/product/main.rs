//! The product in a real mesh: what a platform team installs, and what attackers try on it.
//!
//! `world` is what all tests share: the fakes on the bridge, the images in the registry, the
//! injection template in istiod. `shop` is a namespace with the chart and an application in it.
//! Each of the other files is one promise of `istio/` and the documents. The tests run in the
//! mesh's network: `cargo xtask mesh test`.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test says by a panic that it fails"
)]

mod admission;
mod beside;
mod callers;
mod closed;
mod filters;
mod holes;
mod identity;
mod install;
mod metadata;
mod migration;
mod no_native;
mod nothing;
mod outage;
mod outbound;
mod patches;
mod pull;
mod rotation;
mod same_policy;
mod shop;
mod tenants;
mod upgrade;
mod validate;
mod values;
mod watch;
mod workload;
mod world;
