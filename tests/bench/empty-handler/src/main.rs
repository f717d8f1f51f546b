//! `empty-handler SOCKET BYTES`: an axum handler on a Unix socket that answers so many constant
//! bytes to whatever is asked.
//!
//! `cargo xtask bench --broker` compares the broker's hits with it. So whatever any server of this
//! kind has to do is done as the broker does it (one thread, the peer's user asked of the kernel,
//! hyper's HTTP/1.1 on each connection), and nothing else: it does not look at the request.

use std::{env, error::Error, process::ExitCode};

use axum::{
    Router,
    http::{HeaderValue, header},
    routing::post,
};
use hyper::{body::Bytes, server::conn::http1};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::net::UnixListener;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("empty-handler: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let (Some(socket), Some(length)) = (arguments.next(), arguments.next()) else {
        return Err("empty-handler SOCKET BYTES".into());
    };
    let body = Bytes::from(vec![b'x'; length.parse()?]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(&socket, body))
}

async fn serve(socket: &str, body: Bytes) -> Result<(), Box<dyn Error>> {
    let listener = UnixListener::bind(socket)?;
    let own = rustix::process::geteuid().as_raw();
    let json = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let answer = async move || ([json], body);
    let router = Router::new().route("/v1/token", post(answer));
    loop {
        let (stream, _unnamed) = listener.accept().await?;
        if stream.peer_cred().ok().map(|peer| peer.uid()) != Some(own) {
            continue;
        }
        let service = TowerToHyperService::new(router.clone());
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        tokio::spawn(connection);
    }
}
