//! Accepts connections, a bounded number of them, and speaks HTTP/1.1 on each.

use std::{sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
    time::{sleep, timeout},
};

use super::listener::{Accepted, Bound};
use crate::metrics::{Connection, Metrics};

/// Bytes of a request's head: more than any caller of ours sends.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Before accepting again after an error: the usual one is "too many open files".
const PAUSE: Duration = Duration::from_millis(100);

/// Bounds of one listener.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Open at one time; more wait to be accepted.
    pub(super) connections: usize,
    /// For a request's head to arrive, and for an idle connection. None where the peers are known:
    /// a connection of the machine's own does not stay half open.
    pub(super) header_timeout: Option<Duration>,
    /// For one connection from its start to its end. With it a connection serves one request, so
    /// that nobody can hold the places.
    pub(super) lifetime: Option<Duration>,
}

/// Accepts until it is dropped.
pub(super) async fn accept(
    bound: &Bound,
    router: &Router,
    limits: Limits,
    metrics: &Metrics,
    connections: &GracefulShutdown,
) {
    let places = Arc::new(Semaphore::new(limits.connections));
    loop {
        // Fails only when closed, which nobody does.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match bound.accept().await {
            Ok(Accepted::Unix(stream)) => {
                let open = metrics.connection(bound.name());
                serve(stream, router, limits, (place, open), connections);
            }
            Ok(Accepted::Tcp(stream)) => {
                let open = metrics.connection(bound.name());
                serve(stream, router, limits, (place, open), connections);
            }
            Ok(Accepted::Refused(uid)) => {
                let refused = metrics.peer_refused();
                // Not a line for each: whoever is refused could fill the log.
                if refused.is_power_of_two() {
                    tracing::warn!(
                        uid,
                        refused,
                        "connection refused: the user is not in listen.api.allow_uids"
                    );
                }
            }
            Err(error) => {
                tracing::warn!(listener = bound.name(), reason = %error.kind(), "cannot accept");
                sleep(PAUSE).await;
            }
        }
    }
}

fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: &Router,
    limits: Limits,
    held: (tokio::sync::OwnedSemaphorePermit, Connection),
    connections: &GracefulShutdown,
) {
    let mut http = http1::Builder::new();
    if let Some(header_timeout) = limits.header_timeout {
        http.timer(TokioTimer::new()).header_read_timeout(header_timeout);
    }
    let connection = http
        .keep_alive(limits.lifetime.is_none())
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
    let connection = connections.watch(connection);
    tokio::spawn(async move {
        // How it ended is the peer's affair.
        match limits.lifetime {
            Some(lifetime) => drop(timeout(lifetime, connection).await),
            None => drop(connection.await),
        }
        drop(held);
    });
}
