//! The only way out: HTTPS requests to the known clouds' login hosts and to the cluster's own API
//! server, and plain ones to the machine's instance metadata service, which is one fixed address.
//!
//! TLS is always verified, against Mozilla's roots (built in, so that the image needs no files)
//! and those of `ca_file`. Redirects are not followed, answers are bounded in bytes and time. It
//! must not know what is asked for; `entra` makes the requests and reads the answers.

use std::{
    future::Future,
    path::Path,
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use contract::Secret;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    HeaderMap, StatusCode,
    body::Bytes,
    http::{Request, Uri},
};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::ClientConfig;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

pub mod address;
pub mod circuit;
pub mod proxy;
mod roots;
mod route;

use proxy::Proxy;
use route::Route;

/// A future that can be kept in a trait object.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// For one request, from looking up the name to the last byte of the answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// For the connection alone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests are hours apart: a connection is worth keeping only for what follows at once.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// Requests under way at one time; more wait.
const MAX_REQUESTS: usize = 16;
/// The machine answers at once, or there is no such service.
const METADATA_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The service refuses more than five at one time, from all of the machine
/// (learn.microsoft.com/azure/virtual-machines/instance-metadata-service#rate-limiting).
const MAX_METADATA_REQUESTS: usize = 2;

/// Sends requests; tests put a scripted Entra in its place.
pub trait Transport: Send + Sync + 'static {
    /// Sends `request` and reads the whole answer, at most `limit` bytes of it.
    fn send(
        &self,
        request: Request<Secret>,
        limit: usize,
    ) -> Boxed<'_, Result<Answer, TransportFailure>>;
}

/// Sends by the transport of the configuration in force, whoever holds it and since when.
pub struct Replaceable(RwLock<Arc<dyn Transport>>);

impl Replaceable {
    /// Sends by `transport` at first.
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Self(RwLock::new(transport))
    }

    /// Sends by `transport` from now on; what is under way ends as it began.
    pub fn replace(&self, transport: Arc<dyn Transport>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = transport;
    }
}

impl Transport for Replaceable {
    fn send(
        &self,
        request: Request<Secret>,
        limit: usize,
    ) -> Boxed<'_, Result<Answer, TransportFailure>> {
        let transport = Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner));
        Box::pin(async move { transport.send(request, limit).await })
    }
}

/// An answer of any status.
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// Header fields.
    pub headers: HeaderMap,
    /// The body, which may hold a token.
    pub body: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Answer").field("status", &self.status).finish_non_exhaustive()
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransportFailure {
    /// Nothing within [`REQUEST_TIMEOUT`].
    Timeout,
    /// Name, address, proxy, TLS or connection; with what the library says of it.
    Connection(String),
    /// The connection broke during the exchange.
    Broken,
    /// More bytes than asked for.
    TooLarge,
    /// The authority's circuit is open (`https::circuit`), for so long.
    NotTried(Duration),
}

impl std::fmt::Display for TransportFailure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Timeout => formatter.write_str("no answer within 10 s"),
            Self::Connection(reason) => write!(formatter, "no connection: {reason}"),
            Self::Broken => formatter.write_str("the connection broke"),
            Self::TooLarge => formatter.write_str("the answer is too large"),
            Self::NotTried(_) => formatter.write_str(
                "not tried: the last calls had no answer, so that Entra is left alone for a while",
            ),
        }
    }
}

/// The real transport.
pub struct Https {
    client: Client<HttpsConnector<Route>, Full<Bytes>>,
    turns: Semaphore,
    metadata: Client<HttpConnector, Full<Bytes>>,
    metadata_turns: Semaphore,
}

impl std::fmt::Debug for Https {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Https").finish_non_exhaustive()
    }
}

impl Https {
    /// A transport that trusts the built-in roots and those in `ca_file`, and goes by `proxy`.
    pub fn new(ca_file: Option<&Path>, proxy: Proxy) -> Result<Self, roots::RootsError> {
        Ok(Self::with(roots::client_config(ca_file)?, proxy))
    }

    /// A transport to the cluster's API server: it trusts the authorities in `ca_file` and no
    /// others, and goes by no proxy.
    pub fn to_cluster(ca_file: &Path) -> Result<Self, roots::RootsError> {
        Ok(Self::with(roots::client_config_of(ca_file)?, Proxy::default()))
    }

    fn with(tls: Arc<ClientConfig>, proxy: Proxy) -> Self {
        let mut connector = HttpsConnector::from((Route::new(proxy, CONNECT_TIMEOUT), tls));
        connector.enforce_https();
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(2)
            .pool_timer(TokioTimer::new())
            .build(connector);
        // Directly, whatever proxy there is: a proxy would answer with its own machine's identity.
        let mut direct = HttpConnector::new();
        direct.set_connect_timeout(Some(METADATA_CONNECT_TIMEOUT));
        Self {
            client,
            turns: Semaphore::new(MAX_REQUESTS),
            metadata: Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(direct),
            metadata_turns: Semaphore::new(MAX_METADATA_REQUESTS),
        }
    }

    async fn exchange(
        &self,
        request: Request<Secret>,
        limit: usize,
    ) -> Result<Answer, TransportFailure> {
        let request = request.map(|body| Full::new(Bytes::from(body.expose().to_owned())));
        let metadata = is_metadata(request.uri());
        // Fails only when closed, which nobody does.
        let turns = if metadata { &self.metadata_turns } else { &self.turns };
        let _turn = turns.acquire().await;
        let sent = match metadata {
            true => self.metadata.request(request),
            false => self.client.request(request),
        };
        let response = sent.await.map_err(|error| {
            if error.is_connect() {
                TransportFailure::Connection(reasons(&error))
            } else {
                TransportFailure::Broken
            }
        })?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, limit).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                TransportFailure::TooLarge
            } else {
                TransportFailure::Broken
            }
        })?;
        let body = Zeroizing::new(body.to_bytes().to_vec());
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }
}

impl Transport for Https {
    fn send(
        &self,
        request: Request<Secret>,
        limit: usize,
    ) -> Boxed<'_, Result<Answer, TransportFailure>> {
        Box::pin(async move {
            tokio::time::timeout(REQUEST_TIMEOUT, self.exchange(request, limit))
                .await
                .unwrap_or(Err(TransportFailure::Timeout))
        })
    }
}

/// The innermost reason tells the most: the certificate error, the refused address.
fn reasons(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    crate::failure::sanitised(&innermost.to_string())
}

/// The instance metadata service of an Azure machine: link-local, so that it is the machine's own
/// (learn.microsoft.com/azure/virtual-machines/instance-metadata-service).
const METADATA: &str = "169.254.169.254";

/// The request line's target at the instance metadata service.
pub fn metadata_uri(path_and_query: &str) -> Result<Uri, hyper::http::Error> {
    Uri::builder().scheme("http").authority(METADATA).path_and_query(path_and_query).build()
}

/// Plain HTTP goes to this one authority; a connector that enforces TLS has everything else.
fn is_metadata(uri: &Uri) -> bool {
    uri.scheme_str() == Some("http")
        && uri.authority().is_some_and(|authority| authority.as_str() == METADATA)
}

/// The request line's target on a login host: hosts come from [`policy::cloud`] alone.
pub fn login_uri(host: &'static str, path: &str) -> Result<Uri, hyper::http::Error> {
    Uri::builder().scheme("https").authority(host).path_and_query(path).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b04_plain_http_goes_to_the_machines_metadata_service_and_nowhere_else() {
        assert!(is_metadata(&metadata_uri("/metadata").unwrap()));
        let others = [
            "https://169.254.169.254/metadata",
            "http://169.254.169.254:80/metadata",
            "http://169.254.169.254.example/metadata",
            "http://user@169.254.169.254/metadata",
            "http://login.microsoftonline.com/metadata",
            "/metadata",
        ];
        for other in others {
            assert!(!is_metadata(&other.parse().unwrap()), "{other}");
        }
    }
}
