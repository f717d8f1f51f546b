//! Every decision, pure: no IO, no clock, no host calls, no globals.
//!
//! Time is an argument, and so is the signature check ([`inbound::Verify`]): the filter passes
//! Envoy's, tests a native one. What is to be done comes back as data ([`effect::Effect`]).

pub mod claims;
pub mod cloud;
pub mod decision;
pub mod document;
pub mod json;
pub mod jwt;
pub mod keys;
pub mod path;
pub mod route;
pub mod time;
