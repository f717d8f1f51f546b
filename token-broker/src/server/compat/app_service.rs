//! The managed identity endpoint of App Service, Functions and Container Apps
//! (learn.microsoft.com/azure/app-service/overview-managed-identity#rest-endpoint-reference).
//!
//! Azure's libraries ask here where `IDENTITY_ENDPOINT` names it, and show the secret of
//! `IDENTITY_HEADER`: a process of the pod that does not know it gets nothing here.

use std::{path::Path, sync::Arc};

use axum::{
    extract::State as Shared,
    http::{HeaderMap, StatusCode, Uri},
    response::Response,
};
use contract::Secret;

use super::{
    super::{State, answer::json},
    managed_identity::{Life, Wanted},
    refused::{Refused, Shape},
};
use crate::source::{
    Fingerprint,
    credential_file::{Content, CredentialFile, Readers},
};

const IDENTITY_HEADER: &str = "x-identity-header";
/// The later one differs in what is said about revoked tokens, which is refused.
const VERSIONS: [&str; 2] = ["2019-08-01", "2025-03-30"];

pub(super) async fn token(
    Shared(state): Shared<Arc<State>>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    answered(&state, &uri, &headers)
        .await
        .unwrap_or_else(|refused| Shape::AppService.answer(refused))
}

async fn answered(state: &State, uri: &Uri, headers: &HeaderMap) -> Result<Response, Refused> {
    let serving = state.serving();
    let endpoint = serving.compat.managed_identity.as_ref();
    let Some((endpoint, file)) =
        endpoint.and_then(|endpoint| Some((endpoint, endpoint.identity_header_file.as_ref()?)))
    else {
        return Err(Refused::not_served());
    };
    if !is_known(headers, file).await? {
        return Err(Refused::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "X-IDENTITY-HEADER is missing or not the one that was given to the application",
        ));
    }
    let wanted = Wanted::read(uri.query(), &VERSIONS)?;
    let no_identity = "No Managed Identity found for specified ClientId/ResourceId/PrincipalId.";
    let granted = wanted.grant(endpoint, (state, &serving), "app_service", no_identity).await?;
    Ok(json(StatusCode::OK, &granted.answer(Life::Untold)))
}

/// By their digests: how long that takes says nothing about the secret. The file is read only for
/// who shows something, and where it is is the log's to say: whoever asks is nobody yet.
async fn is_known(headers: &HeaderMap, file: &Path) -> Result<bool, Refused> {
    let mut values = headers.get_all(IDENTITY_HEADER).iter();
    let given = values.next().and_then(|value| value.to_str().ok());
    let Some(given) = given.filter(|_| values.next().is_none()) else { return Ok(false) };
    let secret = CredentialFile::new(file.to_owned(), Readers::NotEveryone, Content::Line);
    let secret = secret.read().await.map_err(|unusable| {
        tracing::error!(reason = unusable.error, "no App Service request can be answered");
        Refused::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "identity_header_unreadable",
            "the broker cannot read the value of X-IDENTITY-HEADER; its log says why",
        )
    })?;
    let secret = Fingerprint::of(&secret);
    Ok(Fingerprint::of(&Secret::new(given)) == secret)
}
