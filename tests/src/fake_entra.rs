//! A fake of Microsoft Entra ID, as strict as the real one, for tests and the demo.
//!
//! It answers over TLS as `login.microsoftonline.com` and the national clouds' hosts, and is
//! reached through its own CONNECT proxy: `HTTPS_PROXY` and the CA file are all that a client
//! needs, so nothing under test has a setting for another host or issuer. Where names can be made
//! to lead to it (a cluster's DNS), [`Config::listen`] puts it on port 443 itself. It has discovery,
//! keys, client credentials with a secret, a certificate or a federated assertion, with claims where
//! they are asked for, sign-ins of a person by the authorization code flow, and tokens on behalf of
//! a user; everything else is refused. [`MetadataService`] has its managed identities.
//!
//! A request's way: `proxy` → `server` → `endpoints` → `discovery` or `token_endpoint` (which asks
//! `directory`, `assertion`, `certificate_assertion` and `claims_request`, and refuses with
//! `refusal`) → `claims` → `mint` → `answer`. A person's: `authorize`, then `code_grant` in
//! `token_endpoint`'s place; an application's that a user called: `on_behalf_of` in its place.
//! [`FakeEntra`] owns the listeners; its methods change what they answer and show what was asked.

use std::{
    error::Error,
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{net::TcpListener, runtime::Runtime};
use tokio_rustls::TlsAcceptor;

pub mod access_evaluation;
mod answer;
pub mod application;
pub mod assertion;
pub mod authorize;
pub mod calls;
mod certificate_assertion;
mod certificates;
pub mod claims;
mod claims_request;
pub mod client;
pub mod client_certificate;
pub mod cloud;
mod code_grant;
pub mod conditional_access;
mod control;
pub mod directory;
mod discovery;
mod endpoints;
pub mod fault;
mod federation;
pub mod metadata_service;
pub mod mint;
mod on_behalf_of;
mod proxy;
pub mod refusal;
pub mod sample;
mod server;
mod signing;
mod state;
mod token_endpoint;
mod user_grant;

pub use access_evaluation::Standing;
pub use authorize::Person;
pub use calls::{Call, Endpoint, Presented};
pub use claims::User;
pub use client_certificate::{Certificate, ClientCertificate};
pub use cloud::Cloud;
pub use conditional_access::{Demand, Policy};
pub use directory::{Application, Directory, Tenant, TokenVersion};
pub use fault::{Fault, Gate};
pub use federation::{KeySetError, read_key_set, service_account};
pub use metadata_service::MetadataService;
pub use mint::TokenBuilder;
pub use state::Lifetime;
pub use token_endpoint::Credential;

use state::State;

/// How to start a fake.
#[derive(Debug, Clone)]
pub struct Config {
    /// Tenants, applications and external issuers.
    pub directory: Directory,
    /// The same seed gives the same signing keys; fakes with different seeds share none.
    pub key_seed: u64,
    /// Where the TLS listener is, for clients that get there by name; a loopback port by default.
    pub listen: Option<SocketAddr>,
    /// Port of the proxy on loopback; 0 takes a free one.
    pub proxy_port: u16,
    /// Port of the control listener on loopback, which whoever runs the fake as a program needs.
    pub control_port: Option<u16>,
    /// Where to write the CA's PEM; by default a temporary file that goes with the fake.
    pub ca_file: Option<PathBuf>,
}

impl Config {
    /// A fake with this directory, free ports and no control listener.
    pub fn new(directory: Directory) -> Self {
        Self {
            directory,
            key_seed: 1,
            listen: None,
            proxy_port: 0,
            control_port: None,
            ca_file: None,
        }
    }

    /// Serves TLS on this address, beside the proxy.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = Some(address);
        self
    }
}

impl From<Directory> for Config {
    fn from(directory: Directory) -> Self {
        Self::new(directory)
    }
}

/// A running fake. It stops when dropped.
pub struct FakeEntra {
    state: Arc<State>,
    authority: certificates::Authority,
    address: SocketAddr,
    proxy: SocketAddr,
    control: Option<SocketAddr>,
    ca_file: PathBuf,
    _ca_folder: Option<TempDir>,
    runtime: Option<Runtime>,
}

impl FakeEntra {
    /// Starts the sample company's Entra, with the cluster whose service accounts it trusts.
    pub fn sample() -> (Self, sample::Cluster) {
        let cluster = sample::Cluster::sample();
        (Self::start(sample::directory(&cluster)), cluster)
    }

    /// Starts listening on loopback, on a thread of its own; usable from tests with or without a
    /// runtime. A [`Directory`] alone is configuration enough.
    ///
    /// # Panics
    /// When it cannot listen; [`Self::try_start`] says why.
    pub fn start(config: impl Into<Config>) -> Self {
        Self::try_start(config.into()).expect("the fake Entra starts")
    }

    /// As [`Self::start`], for whoever shows the error to a person.
    pub fn try_start(config: Config) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let authority = certificates::Authority::new()?;
        let hosts: Vec<_> = Cloud::ALL.into_iter().flat_map(Cloud::hosts).copied().collect();
        let tls = authority.tls_server(&hosts)?;
        let (ca_file, folder) = match config.ca_file {
            Some(file) => (file, None),
            None => {
                let folder = tempfile::tempdir()?;
                (folder.path().join("entra-ca.pem"), Some(folder))
            }
        };
        std::fs::write(&ca_file, authority.pem())?;

        let state = Arc::new(State::new(config.directory, config.key_seed));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("fake-entra")
            .enable_all()
            .build()?;
        let _entered = runtime.enter();
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (entra, entra_listener) = listen(config.listen.unwrap_or(loopback(0)))?;
        let (proxy, proxy_listener) = listen(loopback(config.proxy_port))?;
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        runtime.spawn(server::serve(entra_listener, acceptor, Arc::clone(&state)));
        runtime.spawn(proxy::serve(proxy_listener, entra, Arc::clone(&state)));
        let control = match config.control_port {
            Some(port) => {
                let (address, listener) = listen(loopback(port))?;
                runtime.spawn(control::serve(listener, Arc::clone(&state)));
                Some(address)
            }
            None => None,
        };
        drop(_entered);
        Ok(Self {
            state,
            authority,
            address: entra,
            proxy,
            control,
            ca_file,
            _ca_folder: folder,
            runtime: Some(runtime),
        })
    }

    /// Where it serves TLS.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What `HTTPS_PROXY` is set to.
    pub fn proxy_url(&self) -> String {
        format!("http://{}", self.proxy)
    }

    /// Where the proxy listens.
    pub fn proxy_address(&self) -> SocketAddr {
        self.proxy
    }

    /// The authority that signed the fake's certificates, as PEM.
    pub fn ca_pem(&self) -> String {
        self.authority.pem()
    }

    /// The PEM file of the authority that signed the fake's certificates.
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// Where the control listener is, if there is one.
    pub fn control_url(&self) -> Option<String> {
        self.control.map(|address| format!("http://{address}"))
    }

    /// Lets the proxy connect port 443 of another host name to an address.
    pub fn map_host(&self, host: &str, address: SocketAddr) {
        self.state.map_host(host, address);
    }

    /// Every target that clients asked the proxy for, as `CONNECT host:port`.
    pub fn connections(&self) -> Vec<String> {
        self.state.connections()
    }

    /// Reads or changes tenants, applications and issuers; the next request sees the change.
    pub fn directory<R>(&self, change: impl FnOnce(&mut Directory) -> R) -> R {
        change(&mut self.state.directory())
    }

    /// Starts a token of an application (`client`) for a resource, by client id or App ID URI.
    pub fn token(&self, tenant: &str, client: &str, resource: &str) -> TokenBuilder {
        TokenBuilder::new(Arc::clone(&self.state), tenant, client, resource)
    }

    /// The fake's clock, in Unix seconds.
    pub fn now(&self) -> u64 {
        self.state.now()
    }

    /// Moves the fake's clock against the machine's.
    pub fn set_clock_offset(&self, seconds: i64) {
        self.state.set_clock_offset(seconds);
    }

    /// Puts a person at the browser, signed in, who can satisfy these authentication contexts.
    pub fn at_the_browser(&self, user: &User, contexts: &[&str]) {
        let contexts = contexts.iter().map(|context| (*context).to_owned()).collect();
        self.state.sign_ins().person = Some(Person { user: user.clone(), contexts });
    }

    /// Sets how long tokens live that are issued from now on.
    pub fn set_lifetime(&self, lifetime: Lifetime) {
        self.state.set_lifetime(lifetime);
    }
}

/// Keys: what signs, what is published, and how that changes.
impl FakeEntra {
    /// Id of the key that signs now.
    pub fn signing_key_id(&self) -> String {
        self.state.keys().current().key.kid.clone()
    }

    /// The key that signs now, to sign what Entra would never sign.
    pub fn signing_key(&self) -> tokens::SigningKey {
        self.state.keys().current().key.clone()
    }

    /// The key set as a tenant's v2.0 document shows it.
    pub fn key_set(&self, tenant: &str) -> Value {
        let cloud = {
            let directory = self.state.directory();
            let known = directory.tenants.iter().find(|known| known.id == tenant);
            known.expect("a tenant of the directory").cloud
        };
        let audience = discovery::Audience::Tenant(tenant.to_owned());
        let keys = self.state.published_keys();
        discovery::key_set(&keys, cloud, &audience, discovery::Version::V2)
    }

    /// Publishes one more key, which does not sign yet; answers its id.
    pub fn add_key(&self) -> String {
        self.state.keys().add(signing::KeyOwner::AnyTenant)
    }

    /// Withdraws a key that does not sign now.
    pub fn remove_key(&self, kid: &str) {
        self.state.keys().remove(kid);
    }

    /// Signs with the announced key from now on; the old one stays published.
    pub fn roll_keys(&self) -> String {
        self.state.keys().roll()
    }

    /// Withdraws all keys at once and signs with one that nobody has seen.
    pub fn roll_keys_without_overlap(&self) -> String {
        self.state.keys().roll_without_overlap()
    }

    /// Puts other key material under an id in use.
    pub fn replace_key_material(&self, kid: &str) {
        self.state.keys().replace_material(kid);
    }
}

/// What goes wrong, and what was asked.
impl FakeEntra {
    /// Spoils the next answers of an endpoint.
    pub fn fail_next(&self, endpoint: Endpoint, times: usize, fault: Fault) {
        self.state.faults.plan(endpoint, times, fault);
    }

    /// Holds the next answers of an endpoint until the gate is opened.
    pub fn hold_next(&self, endpoint: Endpoint, times: usize) -> Gate {
        let gate = Gate::default();
        self.fail_next(endpoint, times, Fault::Hold { gate: gate.clone() });
        gate
    }

    /// Forgets all planned faults.
    pub fn clear_faults(&self) {
        self.state.faults.clear();
    }

    /// Every request since the start or the last [`Self::forget_calls`].
    pub fn calls(&self) -> Vec<Call> {
        self.state.calls.all()
    }

    /// Requests of one endpoint.
    pub fn calls_of(&self, endpoint: Endpoint) -> Vec<Call> {
        self.calls().into_iter().filter(|call| call.endpoint == endpoint).collect()
    }

    /// How many requests of one endpoint arrived.
    pub fn count(&self, endpoint: Endpoint) -> usize {
        self.calls_of(endpoint).len()
    }

    /// How many tokens were issued by the token endpoint.
    pub fn issued(&self) -> usize {
        self.calls().iter().filter(|call| call.issued.is_some()).count()
    }

    /// Starts counting anew.
    pub fn forget_calls(&self) {
        self.state.calls.forget();
    }

    /// Blocks until that many requests of an endpoint arrived, held ones too; false after 20 s.
    pub fn wait_for_calls(&self, endpoint: Endpoint, times: usize) -> bool {
        self.state.calls.wait_for(times, |call| call.endpoint == endpoint)
    }
}

impl std::fmt::Debug for FakeEntra {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("FakeEntra").field("proxy", &self.proxy).finish_non_exhaustive()
    }
}

impl Drop for FakeEntra {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Not a blocking stop: a test may drop it inside its own runtime.
            runtime.shutdown_background();
        }
    }
}

/// A listener for the runtime that is entered.
fn listen(address: SocketAddr) -> io::Result<(SocketAddr, TcpListener)> {
    let named = |error: io::Error| {
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
    };
    let listener = std::net::TcpListener::bind(address).map_err(named)?;
    listener.set_nonblocking(true)?;
    Ok((listener.local_addr()?, TcpListener::from_std(listener)?))
}
