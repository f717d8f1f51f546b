//! The cluster's keys from its API server, kept: fetched hourly, soon again after a failure, and
//! when a token names an unknown one, at most once in five minutes. Those of the last good answer
//! serve for 24 h.
//!
//! The server is the one that the kubelet names to every container. It is asked by TLS against the
//! cluster's own authority and no other, never by way of a proxy.

use std::{path::PathBuf, sync::Arc, time::Duration};

use contract::{
    ErrorKind, Secret,
    route::{KEY_LIFETIME_SECONDS, MAX_KEY_SET_BYTES, REFRESH_INTERVAL_SECONDS},
};
use hyper::{
    StatusCode,
    http::{HeaderValue, Request, Uri, header},
};
use policy::jwt::MAX_TOKEN_BYTES;
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::Instant,
};

use super::{
    NotProven,
    keys::{self, ClusterKey},
};
use crate::{
    failure::Pace,
    file,
    https::{Boxed, Https, Transport},
    keys::upkeep::wait,
    refresh,
    time::Clock,
};

/// Kubernetes' address for its keys
/// (kubernetes.io/docs/tasks/configure-pod-container/configure-service-account).
const PATH: &str = "/openid/v1/jwks";

/// The API server, and how a pod asks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiServer {
    /// Host and port; none where the environment names none, which is so outside a cluster.
    pub authority: Option<String>,
    /// PEM: the only authority that is trusted.
    pub ca_file: PathBuf,
    /// A token for the API server itself.
    pub token_file: PathBuf,
}

/// Asks for the keys; the error says why there are none.
pub type Fetch = Box<dyn Fn() -> Boxed<'static, Result<Vec<ClusterKey>, String>> + Send + Sync>;

/// Asks this server.
pub fn from(server: ApiServer) -> Fetch {
    Box::new(move || {
        let server = server.clone();
        Box::pin(async move { fetch(&server).await })
    })
}

/// Asks the API server for its keys, once.
pub async fn fetch(server: &ApiServer) -> Result<Vec<ClusterKey>, String> {
    let authority = server.authority.as_deref().ok_or("KUBERNETES_SERVICE_HOST is not set")?;
    let uri = Uri::builder()
        .scheme("https")
        .authority(authority)
        .path_and_query(PATH)
        .build()
        .map_err(|_odd| "KUBERNETES_SERVICE_HOST is no host".to_owned())?;
    let token = file::read(&server.token_file, MAX_TOKEN_BYTES)
        .map_err(|error| format!("{}: {error}", server.token_file.display()))?;
    let token = Secret::new(String::from_utf8_lossy(token.trim_ascii()).into_owned());
    let mut bearer = HeaderValue::try_from(format!("Bearer {}", token.expose()))
        .map_err(|_odd| format!("{}: not a token", server.token_file.display()))?;
    bearer.set_sensitive(true);
    let request = Request::get(uri)
        .header(header::ACCEPT, "application/jwk-set+json, application/json")
        .header(header::AUTHORIZATION, bearer)
        .body(Secret::new(String::new()))
        .map_err(|error| error.to_string())?;
    // Made anew each time, which is seldom: the authority may be another by then.
    let https = Https::to_cluster(&server.ca_file).map_err(|error| error.to_string())?;
    let answer =
        https.send(request, MAX_KEY_SET_BYTES).await.map_err(|failed| failed.to_string())?;
    if answer.status != StatusCode::OK {
        return Err(format!("the API server answered with status {}", answer.status.as_u16()));
    }
    keys::read(&answer.body).map_err(|reason| format!("the API server's answer: {reason}"))
}

/// The keys as they were fetched last.
#[derive(Default)]
struct Kept {
    keys: Vec<ClusterKey>,
    /// When they came, by both clocks.
    fetched: Option<(Instant, u64)>,
    /// Why the last fetch gave none.
    failed: Option<String>,
}

/// Fetches the keys and keeps them.
pub struct Fetched {
    kept: watch::Receiver<Kept>,
    wanted: Arc<Notify>,
    /// The last fetch that was asked for.
    requested: Option<Instant>,
    clock: Arc<dyn Clock>,
    /// Ends with the owner.
    _upkeep: JoinSet<()>,
}

impl Fetched {
    /// Starts to fetch at once.
    pub fn start(fetch: Fetch, clock: Arc<dyn Clock>) -> Self {
        let (sender, kept) = watch::channel(Kept::default());
        let wanted = Arc::new(Notify::new());
        let mut upkeep = JoinSet::new();
        upkeep.spawn(keep(fetch, sender, Arc::clone(&wanted), Arc::clone(&clock)));
        Self { kept, wanted, requested: None, clock, _upkeep: upkeep }
    }

    /// The keys, while they are not too old by either clock.
    pub fn keys(&self) -> Result<Vec<ClusterKey>, NotProven> {
        let kept = self.kept.borrow();
        let age = kept.fetched.map(|(at, at_unix)| {
            let by_wall = self.clock.unix_now().saturating_sub(at_unix);
            at.elapsed().as_secs().max(by_wall)
        });
        match (age, &kept.failed) {
            (Some(age), _) if age <= KEY_LIFETIME_SECONDS => Ok(kept.keys.clone()),
            (_, Some(reason)) => Err(NotProven::NoKeys(reason.clone())),
            (_, None) => Err(NotProven::NotYet),
        }
    }

    /// Fetches again soon, unless that was wanted a short time ago.
    pub fn want(&mut self) {
        let interval = Duration::from_secs(REFRESH_INTERVAL_SECONDS);
        if self.requested.is_none_or(|last| last.elapsed() >= interval) {
            self.requested = Some(Instant::now());
            self.wanted.notify_one();
        }
    }

    /// Waits until there are others, or another reason why there are none.
    pub async fn changed(&mut self) {
        if self.kept.changed().await.is_err() {
            // The upkeep has ended: the broker is stopping.
            std::future::pending::<()>().await;
        }
    }
}

async fn keep(fetch: Fetch, kept: watch::Sender<Kept>, wanted: Arc<Notify>, clock: Arc<dyn Clock>) {
    let mut failures: u32 = 0;
    loop {
        let pause = match fetch().await {
            Ok(keys) => {
                failures = 0;
                let fetched = Some((Instant::now(), clock.unix_now()));
                kept.send_if_modified(|kept| {
                    let other = kept.keys != keys || kept.failed.is_some();
                    *kept = Kept { keys, fetched, failed: None };
                    other
                });
                refresh::keys_after(fastrand::f64())
            }
            Err(reason) => {
                failures = failures.saturating_add(1);
                let kind = ErrorKind::Transient;
                let jitter = fastrand::f64();
                let pause = refresh::retry_after(kind, Pace::ByKind, failures, None, jitter);
                tracing::warn!(
                    reason,
                    failures,
                    retry_in_seconds = pause.as_secs(),
                    "the cluster's keys not fetched; the last known good ones stay"
                );
                kept.send_if_modified(|kept| {
                    let other = kept.failed.as_ref() != Some(&reason);
                    kept.failed = Some(reason);
                    other
                });
                pause
            }
        };
        tokio::select! {
            () = wait(pause, clock.as_ref()) => {}
            () = wanted.notified() => {}
        }
    }
}
