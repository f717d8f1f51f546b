//! The token endpoint of Azure's instance metadata service
//! (learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token).
//!
//! Azure's libraries ask here where `AZURE_POD_IDENTITY_AUTHORITY_HOST` names the listener.

use std::sync::Arc;

use axum::{
    extract::State as Shared,
    http::{HeaderMap, StatusCode, Uri},
    response::Response,
};

use super::{
    super::{State, answer::json},
    managed_identity::{Life, Wanted},
    refused::{Refused, Shape},
};

/// The field without which nothing is answered: what a browser or a server is led to fetch does not
/// have it.
const METADATA: &str = "metadata";
/// The versions of the metadata service since it has had the token endpoint in this shape
/// (learn.microsoft.com/azure/virtual-machines/instance-metadata-service#supported-api-versions).
const VERSIONS: [&str; 26] = [
    "2018-02-01",
    "2018-04-02",
    "2018-10-01",
    "2019-02-01",
    "2019-03-11",
    "2019-04-30",
    "2019-06-01",
    "2019-06-04",
    "2019-08-01",
    "2019-08-15",
    "2019-11-01",
    "2020-06-01",
    "2020-07-15",
    "2020-09-01",
    "2020-10-01",
    "2020-12-01",
    "2021-01-01",
    "2021-02-01",
    "2021-03-01",
    "2021-05-01",
    "2021-10-01",
    "2021-11-01",
    "2021-11-15",
    "2021-12-13",
    "2023-07-01",
    "2023-11-15",
];

pub(super) async fn token(
    Shared(state): Shared<Arc<State>>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    answered(&state, &uri, &headers).await.unwrap_or_else(|refused| Shape::Imds.answer(refused))
}

async fn answered(state: &State, uri: &Uri, headers: &HeaderMap) -> Result<Response, Refused> {
    let serving = state.serving();
    let endpoint = serving.compat.managed_identity.as_ref();
    let Some(endpoint) = endpoint.filter(|endpoint| endpoint.imds) else {
        return Err(Refused::not_served());
    };
    if !is_marked(headers) {
        return Err(Refused::new(
            StatusCode::BAD_REQUEST,
            "bad_request_102",
            "Required metadata header not specified",
        ));
    }
    let wanted = Wanted::read(uri.query(), &VERSIONS)?;
    let granted = wanted.grant(endpoint, (state, &serving), "imds", "Identity not found").await?;
    Ok(json(StatusCode::OK, &granted.answer(Life::Told)))
}

fn is_marked(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(METADATA).iter();
    let marked = values.next().is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
    marked && values.next().is_none()
}
