//! The admin listener: health, readiness, metrics and a status page. Nothing in it is secret, so
//! it may listen on the pod's address.

use std::{fmt::Write, sync::Arc};

use axum::{
    Router,
    extract::{MatchedPath, Request, State as Shared},
    http::StatusCode,
    middleware::{Next, from_fn_with_state},
    response::Response,
    routing::get,
};
use contract::{ErrorKind, KeySetState, TypedError};
use serde::Serialize;

use super::{
    Serving, State,
    answer::{Refusal, json, with_type},
};
use crate::{
    access::Standing,
    https::circuit::Open,
    refresh::is_lasting,
    tokens::{Counts, IdentityState},
};

/// What the status page begins with while the configuration on disk is not the one in force.
const REFUSED_CONFIGURATION: &str =
    "THE CONFIGURATION ON DISK IS REFUSED, the one before it is in force; the log says why\n\n";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The routes.
pub fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/healthz", get(async || with_type(StatusCode::OK, "text/plain", "ok\n")))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/", get(status))
        .method_not_allowed_fallback(async || Refusal::Method)
        .fallback(async || Refusal::UnknownPath)
        .layer(from_fn_with_state(Arc::clone(&state), count))
        .with_state(state)
}

/// What `/readyz` says.
#[derive(Debug, Serialize)]
struct Readiness {
    ready: bool,
    /// Authorities without keys.
    authorities_without_keys: Vec<String>,
    /// Identities whose last acquisition failed so that a person must act.
    identities_refused: Vec<RefusedIdentity>,
    /// Identities whose last claims challenge Entra refused. They hold tokens that other
    /// destinations take, so this keeps nothing from being ready.
    challenges_refused: Vec<RefusedIdentity>,
    /// Why it cannot be told which identities the pod may use, where that is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    identity_access: Option<String>,
    /// Errors of the newest configuration. For them the one before is in force, so this keeps
    /// nothing from being ready.
    configuration_errors: i64,
}

#[derive(Debug, Serialize)]
struct RefusedIdentity {
    identity: String,
    kind: ErrorKind,
    error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    /// Since the start there was no token: this keeps the broker from being ready.
    never_held: bool,
}

/// Ready when every authority has keys, no identity is refused for good from the start, and it is
/// known what the pod is, where that is asked.
///
/// An identity that fails later is named but does not take the pod out of service: the tokens it
/// holds are still good, and inbound traffic does not need them.
fn readiness(state: &State, Serving { tokens, keys, access, .. }: &Serving) -> Readiness {
    let without_keys: Vec<String> = keys
        .ages()
        .into_iter()
        .filter_map(|(issuer, age, _)| age.is_none().then_some(issuer))
        .collect();
    let states = tokens.states();
    let refused: Vec<RefusedIdentity> = states
        .iter()
        .filter_map(|state| refused_identity(state, state.refused.as_ref()?, state.never_held))
        .collect();
    let challenges = states
        .iter()
        .filter_map(|state| refused_identity(state, state.challenge_refused.as_ref()?, false))
        .collect();
    Readiness {
        ready: without_keys.is_empty()
            && refused.iter().all(|identity| !identity.never_held)
            && access.not_proven().is_none(),
        authorities_without_keys: without_keys,
        identities_refused: refused,
        challenges_refused: challenges,
        identity_access: access.not_proven().map(ToString::to_string),
        configuration_errors: state.metrics.configuration_errors(),
    }
}

/// Only what a person must mend.
fn refused_identity(
    state: &IdentityState,
    refused: &TypedError,
    never_held: bool,
) -> Option<RefusedIdentity> {
    is_lasting(refused.kind).then(|| RefusedIdentity {
        identity: state.identity.clone(),
        kind: refused.kind,
        error: refused.error.clone(),
        correlation_id: refused.correlation_id.clone(),
        trace_id: refused.trace_id.clone(),
        never_held,
    })
}

async fn ready(Shared(state): Shared<Arc<State>>) -> Response {
    let readiness = readiness(&state, &state.serving());
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, &readiness)
}

async fn metrics(Shared(state): Shared<Arc<State>>) -> Response {
    let Serving { tokens, keys, .. } = state.serving();
    for (issuer, age, keys) in keys.ages() {
        state.metrics.key_set(&issuer, age, keys);
    }
    for identity in tokens.states() {
        // Nothing is held ahead of an identity that acts for users alone.
        if identity.wanted > 0 || identity.on_behalf_of.is_none() {
            state.metrics.token_life(&identity.identity, identity.life.as_secs());
        }
        if let Some(counts) = identity.on_behalf_of {
            state.metrics.delegated_tokens(&identity.identity, counts.held);
        }
    }
    with_type(StatusCode::OK, OPENMETRICS, state.metrics.text())
}

/// Plain text for a person at a terminal.
async fn status(Shared(state): Shared<Arc<State>>) -> Response {
    with_type(StatusCode::OK, "text/plain; charset=utf-8", status_text(&state))
}

fn status_text(state: &State) -> String {
    let serving = state.serving();
    let readiness = readiness(state, &serving);
    let Serving { tokens, keys, access, .. } = serving;
    let mut page = format!(
        "entra token broker {}\n{}\n\nkeys\n",
        env!("CARGO_PKG_VERSION"),
        if readiness.ready { "ready" } else { "not ready" },
    );
    if readiness.configuration_errors > 0 {
        page.insert_str(0, REFUSED_CONFIGURATION);
    }
    // Writing to a String does not fail.
    for set in keys.sets().key_sets {
        let word = match set.state {
            KeySetState::Fresh => "fresh",
            KeySetState::Stale => "stale",
            KeySetState::None => "none",
        };
        let _written = writeln!(page, "  {} {word}, {} keys", set.issuer, set.keys.len());
    }
    for Open { authority, failures, pause } in state.circuits.open() {
        let seconds = pause.as_secs();
        let _written = writeln!(
            page,
            "  {authority} does not answer ({failures} calls): not called for {seconds} s"
        );
    }
    page.push_str("\nidentities\n");
    for identity in tokens.states() {
        let _written = writeln!(
            page,
            "  {}: {} of {} tokens held, {} s left",
            identity.identity,
            identity.held,
            identity.wanted,
            identity.life.as_secs()
        );
        if let Some(Counts { held, refused }) = identity.on_behalf_of {
            let _written = writeln!(
                page,
                "    on behalf of users: {held} tokens held, {refused} refusals remembered"
            );
        }
        if let Some(refused) = identity.refused {
            let _written = writeln!(page, "    last refusal: {}", described(&refused));
        }
        if let Some(refused) = identity.challenge_refused {
            let _written = writeln!(page, "    last challenge refused: {}", described(&refused));
        }
    }
    page.push_str(&access_text(&access));
    page
}

/// Which identities the pod may use, and why not.
fn access_text(access: &Standing) -> String {
    match access {
        Standing::Open => String::new(),
        Standing::Undecided(reason) => {
            format!("\nidentity access\n  cannot be decided, no token is handed out: {reason}\n")
        }
        Standing::Refused(reason) => {
            format!("\nidentity access\n  every identity is denied: {reason}\n")
        }
        Standing::Decided { evidence, allowed_by } => {
            let mut text = format!("\nidentity access of {evidence}\n");
            for (identity, entry) in allowed_by {
                let _written = match entry {
                    Some(entry) => {
                        writeln!(text, "  {identity}: allowed by identity_access[{entry}]")
                    }
                    None => writeln!(text, "  {identity}: denied, no entry allows it"),
                };
            }
            text
        }
    }
}

/// The refusal with the ids by which Entra's sign-in log knows it.
fn described(refused: &TypedError) -> String {
    let ids = [("correlation id", &refused.correlation_id), ("trace id", &refused.trace_id)];
    let mut text = refused.error.clone();
    for (name, id) in ids {
        if let Some(id) = id {
            let _written = write!(text, " ({name} {id})");
        }
    }
    text
}

async fn count(Shared(state): Shared<Arc<State>>, request: Request, next: Next) -> Response {
    let route = match request.extensions().get::<MatchedPath>().map(MatchedPath::as_str) {
        Some("/healthz") => "/healthz",
        Some("/readyz") => "/readyz",
        Some("/metrics") => "/metrics",
        Some("/") => "/",
        _ => "unknown",
    };
    let response = next.run(request).await;
    state.metrics.request_answered("admin", route, response.status().as_u16());
    response
}
