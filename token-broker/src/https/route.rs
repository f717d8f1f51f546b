//! Connects to a login host: through the proxy where there is one, else directly to an address
//! that `address` allows.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
    vec,
};

use hyper::http::Uri;
use hyper_util::{
    client::legacy::connect::{
        HttpConnector,
        dns::{GaiResolver, Name},
        proxy::Tunnel,
    },
    rt::TokioIo,
};
use tokio::net::TcpStream;
use tower_service::Service;

use super::{address, proxy::Proxy};

type Error = Box<dyn std::error::Error + Send + Sync>;
type Connecting<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The TCP part of the connector.
#[derive(Clone)]
pub(super) struct Route {
    proxy: Proxy,
    direct: HttpConnector<Resolver>,
    to_proxy: HttpConnector,
}

impl Route {
    pub(super) fn new(proxy: Proxy, timeout: Duration) -> Self {
        let mut direct = HttpConnector::new_with_resolver(Resolver(GaiResolver::new()));
        let mut to_proxy = HttpConnector::new();
        direct.enforce_http(false);
        direct.set_connect_timeout(Some(timeout));
        direct.set_nodelay(true);
        to_proxy.set_connect_timeout(Some(timeout));
        to_proxy.set_nodelay(true);
        Self { proxy, direct, to_proxy }
    }
}

impl Service<Uri> for Route {
    type Response = TokioIo<TcpStream>;
    type Error = Error;
    type Future = Connecting<Result<Self::Response, Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.direct.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, destination: Uri) -> Self::Future {
        match self.proxy.hop(&destination) {
            // The proxy's own address may be anything: the person who runs the pod chose it.
            Some(hop) => {
                let mut tunnel = Tunnel::new(hop.address, self.to_proxy.clone());
                if let Some(authorization) = hop.authorization {
                    tunnel = tunnel.with_auth(authorization);
                }
                let connecting = tunnel.call(destination);
                Box::pin(async move { connecting.await.map_err(Into::into) })
            }
            None => {
                let connecting = self.direct.call(destination);
                Box::pin(async move { connecting.await.map_err(Into::into) })
            }
        }
    }
}

/// Looks names up and leaves out the addresses that are not allowed.
#[derive(Clone)]
struct Resolver(GaiResolver);

impl Service<Name> for Resolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Connecting<io::Result<Self::Response>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let looking_up = self.0.call(name);
        Box::pin(async move {
            let allowed: Vec<SocketAddr> =
                looking_up.await?.filter(|found| address::is_allowed(found.ip())).collect();
            if allowed.is_empty() {
                return Err(io::Error::other("the name leads to no allowed address"));
            }
            Ok(allowed.into_iter())
        })
    }
}
