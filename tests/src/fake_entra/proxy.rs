//! The CONNECT proxy by which clients reach the fake under Entra's own host names.
//!
//! So no client has a setting for another host or issuer: `HTTPS_PROXY` and a CA file are enough.
//! It connects port 443 of Entra's names to the fake and of mapped names to where they were
//! mapped, and refuses everything else; it writes down each target that was asked for.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use http_body_util::Empty;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

use super::{cloud::Cloud, state::State};

/// Accepts clients until the runtime stops.
pub(super) async fn serve(listener: TcpListener, entra: SocketAddr, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        // What comes in pieces is passed on in pieces, and none waits for the one before.
        let _slower = stream.set_nodelay(true);
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let service = service_fn(move |request| tunnel(request, entra, Arc::clone(&state)));
            // Who has nothing more to say still gets its answer.
            let mut http = http1::Builder::new();
            let connection = http.half_close(true).serve_connection(TokioIo::new(stream), service);
            // What goes wrong on a connection is seen by its client.
            drop(connection.with_upgrades().await);
        });
    }
}

async fn tunnel(
    request: Request<Incoming>,
    entra: SocketAddr,
    state: Arc<State>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let target = request.uri().to_string();
    state.connected(&format!("{} {target}", request.method()));
    if request.method() != Method::CONNECT {
        return Ok(empty(StatusCode::FORBIDDEN));
    }
    let Some(address) = address_of(&target, entra, &state) else {
        return Ok(empty(StatusCode::FORBIDDEN));
    };
    let Ok(mut server) = TcpStream::connect(address).await else {
        return Ok(empty(StatusCode::BAD_GATEWAY));
    };
    let _slower = server.set_nodelay(true);
    tokio::spawn(async move {
        if let Ok(client) = hyper::upgrade::on(request).await {
            // Either end may leave at any time.
            drop(copy_bidirectional(&mut TokioIo::new(client), &mut server).await);
        }
    });
    Ok(empty(StatusCode::OK))
}

fn address_of(target: &str, entra: SocketAddr, state: &State) -> Option<SocketAddr> {
    let host = target.strip_suffix(":443")?.to_ascii_lowercase();
    match Cloud::of_host(&host) {
        Some(_) => Some(entra),
        None => state.mapped(&host),
    }
}

fn empty(status: StatusCode) -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = status;
    response
}
