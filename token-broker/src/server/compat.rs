//! The compat listener: tokens in the shapes that applications know already, so that they come
//! along unchanged.
//!
//! Every process of the pod can connect here. So each family of endpoints hands out the tokens of
//! the identities that the configuration names for it, and `guard` refuses what has come by way of
//! a browser or a proxy, before anything is looked at. The tokens are those of `tokens`, got and
//! limited as everybody's.

use std::sync::Arc;

use axum::{
    Router,
    extract::{MatchedPath, Request, State as Shared},
    http::{HeaderValue, Method, StatusCode, Uri, header},
    middleware::{Next, from_fn_with_state},
    response::Response,
    routing::{any, get},
};

mod app_service;
mod auth_sidecar;
mod guard;
mod imds;
mod managed_identity;
mod overrides;
mod query;
mod refused;

use refused::{Refused, Shape};

use super::State;

/// IMDS (learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token).
const IMDS: &str = "/metadata/identity/oauth2/token";
/// App Service: the path is the platform's choice, told in `IDENTITY_ENDPOINT`.
const APP_SERVICE: &str = "/msi/token";
/// Microsoft's auth sidecar.
const VALIDATE: &str = "/Validate";
const HEADER_OF_CALLER: &str = "/AuthorizationHeader/{api}";
const HEADER_OF_APPLICATION: &str = "/AuthorizationHeaderUnauthenticated/{api}";
const CALL_FOR_CALLER: &str = "/DownstreamApi/{api}";
const CALL_FOR_APPLICATION: &str = "/DownstreamApiUnauthenticated/{api}";
const HEALTH: &str = "/healthz";
/// What is counted by its own name.
const COUNTED: [&str; 8] = [
    IMDS,
    APP_SERVICE,
    VALIDATE,
    HEADER_OF_CALLER,
    HEADER_OF_APPLICATION,
    CALL_FOR_CALLER,
    CALL_FOR_APPLICATION,
    HEALTH,
];
/// Both managed identity endpoints, with the slash that some clients write at the end.
const WITH_SLASH: [&str; 2] = ["/metadata/identity/oauth2/token/", "/msi/token/"];

/// The routes of a listener on this port.
pub fn router(state: Arc<State>, port: u16) -> Router {
    let [imds_with_slash, app_service_with_slash] = WITH_SLASH;
    Router::new()
        .route(IMDS, get(imds::token))
        .route(imds_with_slash, get(imds::token))
        .route(APP_SERVICE, get(app_service::token))
        .route(app_service_with_slash, get(app_service::token))
        .route(VALIDATE, get(auth_sidecar::validated))
        .route(HEADER_OF_CALLER, get(auth_sidecar::header_of_caller))
        .route(HEADER_OF_APPLICATION, get(auth_sidecar::header_of_application))
        .route(CALL_FOR_CALLER, any(auth_sidecar::makes_no_calls))
        .route(CALL_FOR_APPLICATION, any(auth_sidecar::makes_no_calls))
        .route(HEALTH, get(auth_sidecar::healthy))
        .method_not_allowed_fallback(async |uri: Uri| wrong_method(&uri))
        .fallback(async |uri: Uri| Shape::of(uri.path()).answer(Refused::not_served()))
        .layer(from_fn_with_state(port, judge))
        .layer(from_fn_with_state(Arc::clone(&state), count))
        .with_state(state)
}

/// Lets through what may come from an application of the pod.
async fn judge(Shared(port): Shared<u16>, request: Request, next: Next) -> Response {
    match guard::refusal(request.uri(), request.headers(), port) {
        Some(refused) => Shape::of(request.uri().path()).answer(refused),
        // The router would take it for GET, and a token would be got for an answer without a body.
        None if request.method() == Method::HEAD => wrong_method(request.uri()),
        None => next.run(request).await,
    }
}

fn wrong_method(uri: &Uri) -> Response {
    let mut response = Shape::of(uri.path()).answer(Refused::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "the endpoint does not take this method",
    ));
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
    response
}

async fn count(Shared(state): Shared<Arc<State>>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let path = path.map(|path| path.strip_suffix('/').unwrap_or(path));
    let route = COUNTED.into_iter().find(|counted| path == Some(counted)).unwrap_or("unknown");
    let response = next.run(request).await;
    state.metrics.request_answered("compat", route, response.status().as_u16());
    response
}
