//! The control listener: what a test does by method calls, for whoever runs the fake as a program.
//!
//! Plain HTTP on loopback, JSON in and out. It is no part of Entra, and nothing under test knows it.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{
    access_evaluation,
    calls::Endpoint,
    claims::User,
    fault::{Fault, Gate},
    federation,
    mint::TokenBuilder,
    state::{Lifetime, State},
};

const MAX_BODY_BYTES: usize = 1024 * 1024;

/// Gates of the faults that were planned here, which `POST /release` opens.
type Gates = Arc<Mutex<Vec<Gate>>>;

/// Accepts connections until the runtime stops.
pub(super) async fn serve(listener: TcpListener, state: Arc<State>) {
    let gates = Gates::default();
    while let Ok((stream, _)) = listener.accept().await {
        let (state, gates) = (Arc::clone(&state), Arc::clone(&gates));
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let (state, gates) = (Arc::clone(&state), Arc::clone(&gates));
                async move { Ok::<_, Infallible>(respond(request, &state, &gates).await) }
            });
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

async fn respond(
    request: Request<Incoming>,
    state: &Arc<State>,
    gates: &Gates,
) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let Ok(body) = Limited::new(body, MAX_BODY_BYTES).collect().await else {
        return response(StatusCode::PAYLOAD_TOO_LARGE, String::new());
    };
    let body = body.to_bytes();
    let done = match (parts.method, parts.uri.path()) {
        (Method::GET, "/calls") => Ok(json!(state.calls.all())),
        (Method::POST, "/calls/forget") => {
            state.calls.forget();
            Ok(json!({}))
        }
        (Method::POST, "/faults") => plan(&body, state, gates),
        (Method::POST, "/faults/clear") => {
            state.faults.clear();
            Ok(json!({}))
        }
        (Method::POST, "/release") => {
            for gate in gates.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
                gate.open();
            }
            Ok(json!({}))
        }
        (Method::POST, "/keys/roll") => roll(&body, state),
        (Method::POST, "/clock") => read::<Clock>(&body).map(|clock| {
            state.set_clock_offset(clock.offset_seconds);
            json!({"now": state.now()})
        }),
        (Method::POST, "/lifetime") => read::<Life>(&body).map(|life| {
            let Life { expires_in, refresh_in } = life;
            state.set_lifetime(Lifetime { expires_in, refresh_in });
            json!({})
        }),
        (Method::POST, "/revoke") => revoke(&body, state),
        (Method::POST, "/issuers") => trust(&body, state),
        (Method::POST, "/tokens") => mint(&body, state),
        _ => return response(StatusCode::NOT_FOUND, String::new()),
    };
    match done {
        Ok(value) => response(StatusCode::OK, value.to_string()),
        Err(error) => response(StatusCode::BAD_REQUEST, json!({"error": error}).to_string()),
    }
}

#[derive(Deserialize)]
struct Plan {
    endpoint: Endpoint,
    #[serde(default = "once")]
    times: usize,
    #[serde(flatten)]
    fault: Fault,
}

fn once() -> usize {
    1
}

fn plan(body: &[u8], state: &State, gates: &Gates) -> Result<Value, String> {
    let plan: Plan = read(body)?;
    if let Fault::Hold { gate } = &plan.fault {
        gates.lock().unwrap_or_else(PoisonError::into_inner).push(gate.clone());
    }
    state.faults.plan(plan.endpoint, plan.times, plan.fault);
    Ok(json!({}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Roll {
    overlap: bool,
}

fn roll(body: &[u8], state: &State) -> Result<Value, String> {
    let Roll { overlap } = read(body)?;
    let mut keys = state.keys();
    let kid = if overlap { keys.roll() } else { keys.roll_without_overlap() };
    Ok(json!({"kid": kid}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoke {
    tenant: String,
    client: String,
}

fn revoke(body: &[u8], state: &State) -> Result<Value, String> {
    let Revoke { tenant, client } = read(body)?;
    let now = state.now();
    let valid_from = access_evaluation::revoke(&mut state.directory(), &tenant, &client, now);
    Ok(json!({"valid_from": valid_from.ok_or("unknown application")?}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Issuer {
    issuer: String,
    /// As the issuer publishes it, read as strictly as a file.
    key_set: Value,
}

fn trust(body: &[u8], state: &State) -> Result<Value, String> {
    let Issuer { issuer, key_set } = read(body)?;
    let known = federation::read_key_set(&issuer, &key_set.to_string());
    let known = known.map_err(|error| error.to_string())?;
    let kids: Vec<_> = known.keys.iter().map(|(kid, _)| kid.clone()).collect();
    state.directory().publish(known);
    Ok(json!({"kids": kids}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Clock {
    offset_seconds: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Life {
    expires_in: u64,
    refresh_in: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mint {
    tenant: String,
    client: String,
    resource: String,
    user: Option<MintUser>,
    #[serde(default)]
    scopes: Vec<String>,
    roles: Option<Vec<String>>,
    lifetime: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MintUser {
    object_id: String,
    principal_name: String,
    name: String,
}

fn mint(body: &[u8], state: &Arc<State>) -> Result<Value, String> {
    let mint: Mint = read(body)?;
    let known = {
        let directory = state.directory();
        directory.tenants.iter().any(|tenant| tenant.id == mint.tenant)
            && directory.find_application(&mint.tenant, &mint.client).is_some()
            && directory.find_resource(&mint.tenant, &mint.resource).is_some()
    };
    if !known {
        return Err("unknown tenant, client or resource".to_owned());
    }
    let mut token =
        TokenBuilder::new(Arc::clone(state), &mint.tenant, &mint.client, &mint.resource);
    if let Some(MintUser { object_id, principal_name, name }) = mint.user {
        let scopes: Vec<_> = mint.scopes.iter().map(String::as_str).collect();
        token = token.user(&User { object_id, principal_name, name }, &scopes);
    }
    if let Some(roles) = mint.roles {
        token = token.roles(&roles.iter().map(String::as_str).collect::<Vec<_>>());
    }
    if let Some(lifetime) = mint.lifetime {
        token = token.lifetime(lifetime);
    }
    Ok(json!({"access_token": token.sign()}))
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

fn response(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let json = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, json);
    response
}
