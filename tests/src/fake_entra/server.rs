//! The HTTPS side: takes connections for Entra's host names, finds the endpoint, and answers.
//!
//! HTTP/1.1 like Entra. A handshake for an unknown host name fails; a request whose Host is not the
//! name of the handshake is refused. What an answer says is made in `discovery`, `token_endpoint`
//! and `refusal`; this file reads the request, applies planned faults, and writes.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use contract::Secret;
use http_body_util::{BodyExt, Limited};
use hyper::{
    Request, Response,
    body::Incoming,
    header::{HOST, HeaderMap},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use uuid::Uuid;

use super::{
    answer::{Answer, Body},
    assertion,
    calls::{Call, Endpoint},
    cloud::Cloud,
    endpoints,
    fault::Fault,
    refusal::{Reference, Refusal},
    state::State,
    token_endpoint::Form,
};

/// Largest request body that is read.
const MAX_BODY_BYTES: usize = 256 * 1024;

/// A request as the endpoints see it.
pub(super) struct Asked {
    pub(super) cloud: Cloud,
    pub(super) host: String,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: Option<String>,
    pub(super) content_type: Option<String>,
    pub(super) body: Bytes,
    pub(super) reference: Reference,
    /// The caller wants its request id back.
    pub(super) echo: Option<String>,
}

/// Accepts connections until the runtime stops.
pub(super) async fn serve(listener: TcpListener, tls: TlsAcceptor, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        let _slower = stream.set_nodelay(true);
        tokio::spawn(connection(stream, tls.clone(), Arc::clone(&state)));
    }
}

async fn connection(stream: TcpStream, tls: TlsAcceptor, state: Arc<State>) {
    // Plain HTTP and unknown names end here: there is no handshake with them.
    let Ok(stream) = tls.accept(stream).await else { return };
    let Some(name) = stream.get_ref().1.server_name().map(str::to_owned) else { return };
    let service = service_fn(move |request| {
        let (state, name) = (Arc::clone(&state), name.clone());
        async move { respond(request, &name, &state).await }
    });
    // An error is the client's leaving or a planned one; both show in the client.
    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
}

/// The connection ends without an answer.
#[derive(Debug)]
struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("closed on purpose")
    }
}

impl std::error::Error for Closed {}

impl From<Infallible> for Closed {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

async fn respond(
    request: Request<Incoming>,
    name: &str,
    state: &State,
) -> Result<Response<Body>, Closed> {
    let (parts, body) = request.into_parts();
    let Some(cloud) = Cloud::of_host(name) else { return Err(Closed) };
    let named_host = header(&parts.headers, HOST.as_str());
    let same_host = named_host.is_some_and(|host| host.trim_end_matches(":443") == name);
    if !same_host {
        return Ok(Answer::html(400, "Bad Request - Invalid Hostname").into_response());
    }
    let Ok(body) = Limited::new(body, MAX_BODY_BYTES).collect().await else {
        return Ok(Answer::html(413, "Request Entity Too Large").into_response());
    };
    let client_request_id =
        header(&parts.headers, "client-request-id").filter(|id| Uuid::try_parse(id).is_ok());
    let wants_echo = header(&parts.headers, "return-client-request-id")
        .is_some_and(|wanted| wanted.eq_ignore_ascii_case("true"));
    let asked = Asked {
        cloud,
        host: name.to_owned(),
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().map(str::to_owned),
        content_type: header(&parts.headers, "content-type"),
        body: body.to_bytes(),
        reference: Reference {
            trace_id: Uuid::new_v4().to_string(),
            correlation_id: client_request_id.clone().unwrap_or_else(|| Uuid::new_v4().to_string()),
            now: state.now(),
        },
        echo: client_request_id.filter(|_| wants_echo),
    };
    let endpoint = endpoints::find(&asked.path);
    let number = state.calls.arrived(recorded(endpoint, &asked, &parts.headers));
    let answer = answer(endpoint, &asked, state).await?;
    state.calls.answered(number, |call| {
        call.status = Some(answer.status);
        call.refused = answer.refused;
        call.issued.clone_from(&answer.issued);
    });
    Ok(answer.with_reference(&asked).into_response())
}

async fn answer(endpoint: Endpoint, asked: &Asked, state: &State) -> Result<Answer, Closed> {
    let truth = || endpoints::answer(endpoint, asked, state);
    let retry = |answer: Answer, after: Option<String>| match after {
        Some(after) => answer.header("retry-after", &after),
        None => answer,
    };
    Ok(match state.faults.next(endpoint) {
        None => truth(),
        Some(Fault::Close) => return Err(Closed),
        Some(Fault::Hold { gate }) => {
            gate.passed().await;
            truth()
        }
        Some(Fault::Answer { status, headers, body }) => {
            headers.iter().fold(Answer::json_text(status, body), |answer, (name, value)| {
                answer.header(name, value)
            })
        }
        Some(Fault::Status { status, retry_after }) => retry(Answer::empty(status), retry_after),
        Some(Fault::Refuse { code, retry_after }) => {
            let refusal = Refusal::by_number(code);
            retry(Answer::refusal(&refusal, &asked.reference, asked.cloud.host()), retry_after)
        }
        Some(Fault::Html { status }) => Answer::html(status, "Service unavailable"),
        Some(Fault::Huge { bytes }) => Answer::huge(bytes),
        Some(Fault::Redirect { location }) => Answer::empty(302).header("location", &location),
        Some(Fault::ResetMidBody) => truth().cut(),
        Some(Fault::Members { members }) => truth().with_members(members),
        Some(Fault::ManyKeys { count }) => truth().with_many_keys(count),
    })
}

fn recorded(endpoint: Endpoint, asked: &Asked, headers: &HeaderMap) -> Call {
    const CREDENTIALS: [&str; 2] = ["client_secret", "client_assertion"];
    /// A user's token.
    const ASSERTION: &str = "assertion";
    let form = match (endpoint, Form::parse(&asked.body)) {
        (Endpoint::Token, Ok(form)) => form.members().to_vec(),
        _ => Vec::new(),
    };
    let form = form.into_iter().filter(|(name, _)| name != ASSERTION);
    let (secrets, form): (Vec<_>, Vec<_>) =
        form.partition(|(name, _)| CREDENTIALS.contains(&name.as_str()));
    let headers = headers.iter().map(|(name, value)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    });
    let assertion = secrets.iter().find(|(name, _)| name == "client_assertion");
    Call {
        endpoint,
        method: asked.method.clone(),
        host: asked.host.clone(),
        path: match &asked.query {
            Some(query) => format!("{}?{query}", asked.path),
            None => asked.path.clone(),
        },
        headers: headers.collect(),
        form,
        presented: assertion.map(|(_, token)| assertion::presented(token)),
        credential: secrets.into_iter().next().map(|(_, value)| Secret::new(value)),
        status: None,
        refused: None,
        issued: None,
    }
}

/// A header that stands exactly once.
fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    let mut values = headers.get_all(name).iter();
    let only = values.next()?.to_str().ok()?.to_owned();
    values.next().is_none().then_some(only)
}
