//! The broker's behaviours, one file each, against a scripted Entra in the process.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unreachable,
    clippy::unwrap_used,
    reason = "a test says by a panic that it fails"
)]

mod support;
mod tls;

mod allow_list;
mod certificate;
mod challenges;
mod circuit;
mod cluster_keys;
mod command;
mod compat_app_service;
mod compat_auth_sidecar;
mod compat_config;
mod compat_environment;
mod compat_imds;
mod compat_listener;
mod config_access;
mod config_environment;
mod config_file;
mod credentials;
mod explain_access;
mod half_written;
mod identity_access;
mod key_refresh;
mod key_sets;
mod key_snapshot;
mod ladder;
mod managed_assertion;
mod managed_identity;
mod on_behalf_of;
mod on_behalf_of_refusals;
mod on_behalf_of_reload;
mod peers;
mod readiness;
mod reload;
mod renewal;
mod requests;
mod retries;
mod secrets;
mod shown;
mod single_flight;
mod stop;
mod transport;
mod verdicts;
