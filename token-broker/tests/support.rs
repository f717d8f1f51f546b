//! A scripted Entra behind [`Transport`], a clock that goes with tokio's, and ways to ask.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, to_bytes},
};
use contract::{IssuedToken, Secret, TokenRequest, TypedError};
use hyper::{
    HeaderMap, StatusCode,
    http::{HeaderName, HeaderValue, Request},
};
use serde_json::{Value, json};
use token_broker::{
    config::{Config, from_environment},
    https::{Answer, Boxed, Transport, TransportFailure},
    server::State,
    time::Clock,
};
use tokens::SigningKey;
use tokio::time::{Instant, sleep};
use tower_service::Service;
use zeroize::Zeroizing;

pub(crate) const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
pub(crate) const CLIENT: &str = "3f1b5b1e-0d2c-4a39-9a63-3f6c2c7a9d10";
pub(crate) const SCOPE: &str = "https://graph.microsoft.com/.default";
pub(crate) const OTHER_SCOPE: &str = "https://vault.azure.net/.default";
pub(crate) const SECRET: &str = "canary-client-secret";
/// Every token of the scripted Entra starts so.
pub(crate) const TOKEN: &str = "canary-token-";
/// Where the compat listener is thought to be.
pub(crate) const COMPAT_PORT: u16 = 7173;
/// Unix seconds at which every test starts.
pub(crate) const START: u64 = 1_800_000_000;

/// Unix time that goes with tokio's (paused) time, and can be set off from it.
pub(crate) struct TestClock {
    start: Instant,
    offset: AtomicI64,
}

impl TestClock {
    pub(crate) fn jump(&self, seconds: i64) {
        self.offset.fetch_add(seconds, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn unix_now(&self) -> u64 {
        (START + self.start.elapsed().as_secs())
            .saturating_add_signed(self.offset.load(Ordering::SeqCst))
    }
}

/// What an endpoint does with one request.
#[derive(Clone)]
pub(crate) enum Reply {
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    Fail(TransportFailure),
}

impl Reply {
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::Answer(status, Vec::new(), body.to_string().into_bytes())
    }

    pub(crate) fn error(status: u16, error: &str, code: u64) -> Self {
        let description = format!("AADSTS{code}: {SECRET}");
        Self::json(
            status,
            &json!({"error": error, "error_codes": [code], "error_description": description,
                    "correlation_id": "aaaa-1", "trace_id": "bbbb-2"}),
        )
    }

    pub(crate) fn with_header(self, name: &'static str, value: &str) -> Self {
        match self {
            Self::Answer(status, mut headers, body) => {
                headers.push((name, value.to_owned()));
                Self::Answer(status, headers, body)
            }
            fail @ Self::Fail(_) => fail,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Endpoint {
    Token,
    /// Of the machine: the instance metadata service.
    Machine,
    Metadata,
    Keys,
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) endpoint: Endpoint,
    pub(crate) uri: String,
    pub(crate) form: BTreeMap<String, String>,
    pub(crate) headers: HeaderMap,
    /// Since the start.
    pub(crate) at: Duration,
}

/// Answers well, unless the script for an endpoint says something else.
pub(crate) struct Entra {
    start: Instant,
    calls: Mutex<Vec<Call>>,
    scripts: Mutex<BTreeMap<Endpoint, VecDeque<Reply>>>,
    standing: Mutex<BTreeMap<Endpoint, Reply>>,
    delay: AtomicU64,
    life: Mutex<(Value, Option<Value>)>,
    issued: AtomicU64,
    keys: Mutex<Vec<Value>>,
}

impl Entra {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            calls: Mutex::default(),
            scripts: Mutex::default(),
            standing: Mutex::default(),
            delay: AtomicU64::new(0),
            life: Mutex::new((json!(3_600), None)),
            issued: AtomicU64::new(0),
            keys: Mutex::new(vec![key(1, "k1")]),
        })
    }

    /// The next requests to `endpoint` are answered with these, one each.
    pub(crate) fn script(&self, endpoint: Endpoint, replies: impl IntoIterator<Item = Reply>) {
        self.scripts.lock().unwrap().entry(endpoint).or_default().extend(replies);
    }

    /// Every request to `endpoint` is answered so, from now on; `None` is well again.
    pub(crate) fn always(&self, endpoint: Endpoint, reply: Option<Reply>) {
        let mut standing = self.standing.lock().unwrap();
        match reply {
            Some(reply) => drop(standing.insert(endpoint, reply)),
            None => drop(standing.remove(&endpoint)),
        }
    }

    /// Every answer takes so long.
    pub(crate) fn delay(&self, delay: Duration) {
        self.delay.store(u64::try_from(delay.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// `expires_in` and `refresh_in` of the tokens from now on.
    pub(crate) fn life(&self, expires_in: Value, refresh_in: Option<Value>) {
        *self.life.lock().unwrap() = (expires_in, refresh_in);
    }

    pub(crate) fn keys(&self, keys: Vec<Value>) {
        *self.keys.lock().unwrap() = keys;
    }

    pub(crate) fn calls(&self, endpoint: Endpoint) -> Vec<Call> {
        let calls = self.calls.lock().unwrap();
        calls.iter().filter(|call| call.endpoint == endpoint).cloned().collect()
    }

    pub(crate) fn count(&self, endpoint: Endpoint) -> usize {
        self.calls(endpoint).len()
    }

    fn reply(&self, endpoint: Endpoint, uri: &str) -> Reply {
        if let Some(reply) =
            self.scripts.lock().unwrap().get_mut(&endpoint).and_then(VecDeque::pop_front)
        {
            return reply;
        }
        if let Some(reply) = self.standing.lock().unwrap().get(&endpoint) {
            return reply.clone();
        }
        match endpoint {
            Endpoint::Token | Endpoint::Machine => {
                let number = self.issued.fetch_add(1, Ordering::SeqCst) + 1;
                let (expires_in, refresh_in) = self.life.lock().unwrap().clone();
                let mut body = json!({"token_type": "Bearer", "expires_in": expires_in,
                    "ext_expires_in": expires_in, "access_token": format!("{TOKEN}{number}")});
                if let Some(refresh_in) = refresh_in {
                    body["refresh_in"] = refresh_in;
                }
                Reply::json(200, &body)
            }
            Endpoint::Metadata => Reply::json(200, &metadata(uri)),
            Endpoint::Keys => Reply::json(200, &json!({"keys": *self.keys.lock().unwrap()})),
        }
    }
}

/// The metadata of the authority that `uri` asks for, as Entra gives it.
pub(crate) fn metadata(uri: &str) -> Value {
    let tenant = uri.split('/').nth(3).unwrap();
    let issuer = if tenant == "organizations" { "{tenantid}" } else { tenant };
    json!({
        "issuer": format!("https://login.microsoftonline.com/{issuer}/v2.0"),
        "jwks_uri": format!("https://login.microsoftonline.com/{tenant}/discovery/v2.0/keys"),
        "cloud_instance_name": "microsoftonline.com",
    })
}

/// A key as Entra publishes it: one of three, made once (that takes a while).
pub(crate) fn key(seed: u64, kid: &str) -> Value {
    static KEYS: [OnceLock<Value>; 3] = [const { OnceLock::new() }; 3];
    let made = KEYS[usize::try_from(seed).unwrap()].get_or_init(|| {
        let issuer = "https://login.microsoftonline.com/{tenantid}/v2.0";
        serde_json::to_value(SigningKey::new(seed, "", issuer).jwk()).unwrap()
    });
    let mut key = made.clone();
    key["kid"] = json!(kid);
    key
}

impl Transport for Entra {
    fn send(
        &self,
        request: Request<Secret>,
        limit: usize,
    ) -> Boxed<'_, Result<Answer, TransportFailure>> {
        let uri = request.uri().to_string();
        let endpoint = match request.uri().path() {
            "/metadata/identity/oauth2/token" => Endpoint::Machine,
            path if path.ends_with("/oauth2/v2.0/token") => Endpoint::Token,
            path if path.ends_with("/v2.0/.well-known/openid-configuration") => Endpoint::Metadata,
            path if path.ends_with("/discovery/v2.0/keys") => Endpoint::Keys,
            path => panic!("nobody asks Entra for {path}"),
        };
        let form = form_urlencoded::parse(request.body().expose().as_bytes())
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        let headers = request.headers().clone();
        let at = self.start.elapsed();
        self.calls.lock().unwrap().push(Call { endpoint, uri: uri.clone(), form, headers, at });
        Box::pin(async move {
            sleep(Duration::from_millis(self.delay.load(Ordering::SeqCst))).await;
            match self.reply(endpoint, &uri) {
                Reply::Fail(failure) => Err(failure),
                Reply::Answer(_, _, body) if body.len() > limit => Err(TransportFailure::TooLarge),
                Reply::Answer(status, fields, body) => {
                    let mut headers = HeaderMap::new();
                    for (name, value) in fields {
                        headers.insert(
                            HeaderName::from_static(name),
                            HeaderValue::from_str(&value).unwrap(),
                        );
                    }
                    let status = StatusCode::from_u16(status).unwrap();
                    Ok(Answer { status, headers, body: Zeroizing::new(body) })
                }
            }
        })
    }
}

/// A broker whose Entra and clock are ours; it listens nowhere.
pub(crate) struct Broker {
    pub(crate) entra: Arc<Entra>,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) state: Arc<State>,
}

impl Broker {
    /// One identity `default` with two scopes, by a secret in memory, and its tenant's keys.
    pub(crate) fn start(entra: &Arc<Entra>) -> Self {
        Self::with_config(entra, &config())
    }

    pub(crate) fn with_config(entra: &Arc<Entra>, config: &Config) -> Self {
        let clock = Arc::new(TestClock { start: Instant::now(), offset: AtomicI64::new(0) });
        let (transport, time): (Arc<dyn Transport>, Arc<dyn Clock>) =
            (Arc::<Entra>::clone(entra), Arc::<TestClock>::clone(&clock));
        let state = token_broker::start(config, &transport, &time);
        Self { entra: Arc::clone(entra), clock, state }
    }

    pub(crate) async fn token(&self, scope: &str) -> Result<IssuedToken, TypedError> {
        self.issue(&request("default", scope)).await
    }

    pub(crate) async fn issue(&self, request: &TokenRequest) -> Result<IssuedToken, TypedError> {
        issue(&self.state, request).await
    }

    /// The text of the token for the first scope.
    pub(crate) async fn text(&self) -> Result<String, TypedError> {
        self.token(SCOPE).await.map(|token| token.access_token.expose().to_owned())
    }

    pub(crate) fn api(&self) -> Router {
        token_broker::server::api::router(Arc::clone(&self.state))
    }

    /// The compat listener on [`COMPAT_PORT`].
    pub(crate) fn compat(&self) -> Router {
        token_broker::server::compat::router(Arc::clone(&self.state), COMPAT_PORT)
    }

    pub(crate) fn admin(&self) -> Router {
        token_broker::server::admin::router(Arc::clone(&self.state))
    }
}

/// Asks as the api does.
pub(crate) async fn issue(
    state: &State,
    request: &TokenRequest,
) -> Result<IssuedToken, TypedError> {
    let tokens = state.serving().tokens;
    let challenge = tokens.challenge(request).unwrap();
    state.issue(&tokens, request, challenge.as_ref()).await
}

pub(crate) fn config() -> Config {
    from_environment(&environment(&[])).unwrap()
}

/// The environment of the one identity, with some variables set otherwise.
pub(crate) fn environment<'a>(changes: &[(&'a str, &'a str)]) -> BTreeMap<&'a str, &'a str> {
    let mut variables = BTreeMap::from([
        ("AZURE_TENANT_ID", TENANT),
        ("AZURE_CLIENT_ID", CLIENT),
        ("AZURE_CLIENT_SECRET", SECRET),
        ("ENTRA_SCOPES", "https://graph.microsoft.com/.default https://vault.azure.net/.default"),
    ]);
    variables.extend(changes.iter().copied());
    variables
}

pub(crate) fn request(identity: &str, scope: &str) -> TokenRequest {
    TokenRequest {
        identity: identity.to_owned(),
        scope: scope.to_owned(),
        destination: "graph".to_owned(),
        ..TokenRequest::default()
    }
}

/// Asks a router: status, header fields and body.
pub(crate) async fn ask(router: &Router, request: Request<Body>) -> (u16, HeaderMap, String) {
    let response = router.clone().call(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    (parts.status.as_u16(), parts.headers, String::from_utf8(body.to_vec()).unwrap())
}

pub(crate) fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

/// A request to the compat listener, as an application of the pod makes it.
pub(crate) fn from_pod(path: &str, fields: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::get(path).header("host", format!("127.0.0.1:{COMPAT_PORT}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

pub(crate) fn post(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path).header("content-type", "application/json").body(body.into()).unwrap()
}

/// Lets tasks run and `duration` of paused time pass.
pub(crate) async fn pass(duration: Duration) {
    sleep(duration).await;
}

pub(crate) fn seconds(value: u64) -> Duration {
    Duration::from_secs(value)
}
