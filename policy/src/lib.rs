//! Every decision, pure: no IO, no clock, no host calls, no globals.
//!
//! A request's way in: [`request`] reads the head, [`inbound`] finds the rule by [`path`], [`host`]
//! and [`route`], looks the token up in the [`decision_cache`] or takes it apart ([`jwt`],
//! [`json`], [`claims`]), asks the [`key_store`] for the key, has the signature checked, and asks
//! [`access`] whether the rule is satisfied. Out comes an [`effect::Effect`] with the one
//! [`decision::Decision`] and, for a refusal, a [`reply::Reply`].
//!
//! A request's way out: [`outbound`] finds the rule by the destination that the cluster names, and
//! asks the [`token_store`].
//!
//! Time is an argument, and so is the signature check ([`inbound::Verify`]): the filter passes
//! Envoy's, tests a native one.

#![cfg_attr(
    test,
    allow(
        clippy::arithmetic_side_effects,
        clippy::string_slice,
        clippy::type_complexity,
        reason = "a test may panic, and its tables are types of their own"
    )
)]

mod access;
pub mod app_service;
pub mod caller_tokens;
pub mod checks;
pub mod claims;
pub mod claims_challenge;
pub mod cloud;
pub mod config;
pub mod decision;
pub mod decision_cache;
pub mod document;
pub mod effect;
pub mod host;
pub mod identity_headers;
pub mod inbound;
pub mod json;
pub mod jwt;
pub mod key_schedule;
pub mod key_store;
pub mod keys;
pub mod outbound;
pub mod path;
pub mod reply;
pub mod request;
pub mod route;
pub mod step_up;
pub mod time;
pub mod token_store;
pub mod verification;
pub mod workload;
pub mod www_authenticate;
