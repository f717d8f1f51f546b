//! The listeners: `api` hands out tokens and keys, `admin` shows how the broker is, `compat` speaks
//! as what applications know already.
//!
//! Each has its own router and its own trust. This part binds, serves and stops; what is answered
//! is in `api`, `admin` and `compat`, who may connect in `listener`.

use std::{
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use axum::{Router, middleware::from_fn};
use contract::{IssuedToken, TokenRequest, TypedError};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::{sync::watch, task::JoinSet, time::timeout};

pub mod admin;
pub mod answer;
pub mod api;
mod caller;
pub mod compat;
mod connection;
pub mod listener;

use connection::Limits;
use listener::{BindError, Bound};

use crate::{
    access::Standing,
    config::{Compat, Listen},
    https::circuit::Circuits,
    keys::Keys,
    metrics::Metrics,
    tokens::{Tokens, challenges::Challenge, slow},
};

/// What the answers are made of.
pub struct State {
    serving: RwLock<Serving>,
    /// The way out.
    pub circuits: Arc<Circuits>,
    /// The counters.
    pub metrics: Arc<Metrics>,
}

/// What the configuration in force has made. Who answers a request takes it once, so that no answer
/// is made of two configurations.
#[derive(Clone)]
pub struct Serving {
    /// The tokens.
    pub tokens: Arc<Tokens>,
    /// The keys.
    pub keys: Arc<Keys>,
    /// Whether the pod may use the identities.
    pub access: Arc<Standing>,
    /// What the compat listener offers.
    pub compat: Arc<Compat>,
}

impl State {
    /// The state of a broker that has just started.
    pub fn new(serving: Serving, circuits: Arc<Circuits>, metrics: Arc<Metrics>) -> Self {
        Self { serving: RwLock::new(serving), circuits, metrics }
    }

    /// What serves now.
    pub fn serving(&self) -> Serving {
        self.serving.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A token of `tokens`, which served when the request came. One that was waited for is judged
    /// again by what serves by then: the pod may have lost the identity, or it may not be known any
    /// more what the pod is. That judgement waits for nothing.
    pub async fn issue(
        &self,
        tokens: &Arc<Tokens>,
        request: &TokenRequest,
        challenge: Option<&Challenge>,
    ) -> Result<IssuedToken, TypedError> {
        let token = tokens.issue(request, challenge).await?;
        let now = self.serving().tokens;
        if Arc::ptr_eq(tokens, &now) {
            return Ok(token);
        }
        timeout(Duration::ZERO, now.issue(request, challenge)).await.unwrap_or_else(|_| Err(slow()))
    }

    /// Serves the next configuration, also those that wait for a token.
    pub fn replace(&self, serving: Serving) {
        *self.serving.write().unwrap_or_else(PoisonError::into_inner) = serving;
    }
}

/// How long open requests may take to end after a stop was asked for.
const DRAIN: Duration = Duration::from_secs(10);

/// The api listener's peers are Envoy's workers.
const API: Limits = Limits { connections: 512, header_timeout: None, lifetime: None };
/// Over TCP they are whoever runs in the pod. Envoy keeps idle connections; closing them under it
/// would fail a call now and then.
const API_TCP: Limits = Limits { header_timeout: Some(Duration::from_secs(600)), ..API };
/// The admin listener's are probes and scrapers, or anyone.
const ADMIN: Limits = Limits {
    connections: 64,
    header_timeout: Some(Duration::from_secs(5)),
    lifetime: Some(Duration::from_secs(5)),
};
/// The compat listener's are the pod's own applications.
const COMPAT: Limits =
    Limits { connections: 256, header_timeout: Some(Duration::from_secs(60)), lifetime: None };

/// The listeners, bound.
pub struct Listeners {
    api: Option<Bound>,
    admin: Bound,
    compat: Option<Bound>,
}

impl Listeners {
    /// Binds all that there are to be.
    pub async fn bind(listen: &Listen) -> Result<Self, BindError> {
        let admin = Bound::admin(listen.admin).await?;
        let compat = match listen.compat {
            Some(address) => Some(Bound::compat(address).await?),
            None => None,
        };
        let api = Bound::api(&listen.api).await?;
        Ok(Self { api, admin, compat })
    }

    /// The address of `admin`, with the port that was given where 0 was asked for.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.tcp_address()
    }

    /// The address of `compat`, likewise; none where it is not served.
    pub fn compat_address(&self) -> Option<SocketAddr> {
        self.compat.as_ref().and_then(Bound::tcp_address)
    }

    /// Serves until `stop` is done, then lets open requests end.
    pub async fn serve(self, state: Arc<State>, stop: impl Future<Output = ()>) {
        let (stopping, stopped) = watch::channel(false);
        let mut serving = JoinSet::new();
        let api = self.api.map(|bound| {
            let router = api::router(Arc::clone(&state));
            match bound.tcp_address() {
                Some(_) => (bound, router.layer(from_fn(caller::judge)), API_TCP),
                None => (bound, router, API),
            }
        });
        let compat = self.compat.and_then(|bound| {
            let port = bound.tcp_address()?.port();
            Some((bound, compat::router(Arc::clone(&state), port), COMPAT))
        });
        let admin = (self.admin, admin::router(Arc::clone(&state)), ADMIN);
        for (bound, router, limits) in [admin].into_iter().chain(api).chain(compat) {
            let metrics = Arc::clone(&state.metrics);
            serving.spawn(serve_one(bound, router, limits, metrics, stopped.clone()));
        }
        stop.await;
        tracing::info!("stopping: open requests may end");
        stopping.send_replace(true);
        while serving.join_next().await.is_some() {}
    }
}

async fn serve_one(
    bound: Bound,
    router: Router,
    limits: Limits,
    metrics: Arc<Metrics>,
    mut stopped: watch::Receiver<bool>,
) {
    let connections = GracefulShutdown::new();
    tokio::select! {
        () = connection::accept(&bound, &router, limits, &metrics, &connections) => {}
        _ = stopped.wait_for(|stopped| *stopped) => {}
    }
    // The socket goes first: nobody new can come.
    drop(bound);
    if timeout(DRAIN, connections.shutdown()).await.is_err() {
        tracing::warn!("stopped with requests still open");
    }
}
