//! The validated configuration: what is in here can be used without another check.
//!
//! It comes from a YAML file (`config::document`) or, without one, from the environment alone
//! (`config::from_environment`). Either way every error is reported at once, with its path. No
//! member overrides an issuer, a host or a signature: clouds are chosen by name.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use contract::Secret;
use policy::{cloud::Cloud, document::ConfigError};

mod access;
mod auth_sidecar_environment;
mod compat;
pub mod document;
pub mod environment;
mod identity;
mod key_snapshot;
mod listen;
pub mod raw;
mod source;

pub use compat::{
    AuthSidecar, Callers, Compat, DownstreamApi, KnownBy, ManagedIdentityEndpoint, Offered,
    TokenOf, full_scope,
};
use environment::Environment;

use crate::{access::Entry, entra::claims::Capability, https::proxy::Proxy, pod};

/// Where the socket is without a word about it.
pub const DEFAULT_SOCKET: &str = "/run/entra/broker.sock";
/// Where health and metrics are without a word about it: loopback, so that nothing is exposed
/// unasked.
pub const DEFAULT_ADMIN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7172);
/// The user of Istio's proxy.
pub const ISTIO_PROXY_UID: u32 = 1337;
/// The name of the identity that the environment describes.
pub const ENVIRONMENT_IDENTITY: &str = "default";

/// Everything that the broker runs on.
#[derive(Debug, Clone)]
pub struct Config {
    /// Whose keys to keep.
    pub authorities: Vec<Authority>,
    /// The identities by name.
    pub identities: BTreeMap<String, Identity>,
    /// Who may use the identities; without it every pod with this configuration.
    pub access: Option<IdentityAccess>,
    /// The listeners.
    pub listen: Listen,
    /// The file that keeps the keys, if any.
    pub key_snapshot: Option<KeySnapshot>,
    /// What the compat listener serves.
    pub compat: Compat,
    /// Further certificate authorities, PEM.
    pub ca_file: Option<PathBuf>,
    /// The proxy to Entra, if any.
    pub proxy: Proxy,
}

/// Who may use the identities, and how it is known what this pod is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityAccess {
    /// The entries, in the order of the file.
    pub entries: Vec<Entry>,
    /// The evidence.
    pub pod: pod::Settings,
}

/// The file that keeps the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySnapshot {
    /// Its path, absolute.
    pub file: PathBuf,
    /// Age of the oldest keys that are taken from it.
    pub max_age: Duration,
}

/// A tenant of a cloud (or all of them) whose keys are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// The cloud: it alone gives the host.
    pub cloud: Cloud,
    /// Tenant id, or `organizations`.
    pub tenant: String,
}

impl Authority {
    /// The issuer that names this authority on the wire between filter and broker.
    pub fn issuer(&self) -> String {
        self.cloud.authority_issuer(&self.tenant)
    }
}

/// An identity and what may be asked for with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Where its tokens come from.
    pub source: Source,
    /// The allow-list of scopes of its own tokens; empty denies all.
    pub scopes: Vec<String>,
    /// The allow-list of scopes on behalf of a user; empty denies all.
    pub delegated_scopes: Vec<String>,
    /// What it tells Entra that it can do, where a request's destination can do it too.
    pub capability: Capability,
}

/// The kinds of sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// An application that is registered in Entra.
    Application {
        /// Which: one, whatever it proves itself with.
        application: Application,
        /// What proves that the broker is it, in the order in which it is tried; never empty.
        credentials: Vec<Credential>,
    },
    /// An identity of the machine, from its instance metadata service.
    ManagedIdentity(ManagedIdentity),
}

/// What proves that an application is itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// A secret.
    Secret(SecretLocation),
    /// A certificate.
    Certificate {
        /// PEM: the private key, and the certificate that is registered.
        file: PathBuf,
        /// How assertions are signed.
        algorithm: AssertionAlgorithm,
    },
    /// A federated credential for the service account token that is projected into this file.
    ServiceAccount(PathBuf),
    /// A federated credential for a user-assigned identity of the machine.
    ManagedIdentity(ManagedIdentity),
}

/// How an assertion is signed with a certificate's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AssertionAlgorithm {
    /// RSASSA-PSS with SHA-256; the certificate is named by its SHA-256 thumbprint.
    Ps256,
    /// RSASSA-PKCS1-v1_5 with SHA-256; the certificate is named by its SHA-1 thumbprint.
    Rs256,
}

/// Which of the machine's identities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManagedIdentity {
    /// The machine's own.
    SystemAssigned,
    /// The one with this client id.
    ClientId(String),
    /// The one with this object id.
    ObjectId(String),
    /// The one with this Azure resource id.
    ResourceId(String),
}

/// An application registration of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Application {
    /// The cloud: it alone gives the host.
    pub cloud: Cloud,
    /// Tenant id.
    pub tenant: String,
    /// Application (client) id.
    pub client_id: String,
}

/// Where a client secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretLocation {
    /// In a file, read at each acquisition.
    File(PathBuf),
    /// Here: it came in the environment.
    Here(Secret),
}

/// The listeners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Tokens and keys.
    pub api: Api,
    /// Health, metrics, status: nothing secret.
    pub admin: SocketAddr,
    /// Shapes that applications know already; loopback, and off where there is none.
    pub compat: Option<SocketAddr>,
}

/// Who may reach the api listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Api {
    /// Processes of these users.
    Unix {
        /// Path of the socket.
        path: PathBuf,
        /// User ids that may connect.
        allow_uids: Vec<u32>,
    },
    /// Every process of the pod, which the configuration has confirmed.
    Tcp(SocketAddr),
    /// Nobody: the broker only stands for Microsoft's auth sidecar.
    Off,
}

/// The configuration that the azure-workload-identity variables make, or those of Microsoft's auth
/// sidecar, without any file.
pub fn from_environment(environment: &dyn Environment) -> Result<Config, Vec<ConfigError>> {
    use environment::{CLIENT_SECRET, FEDERATED_TOKEN_FILE, SCOPES, TENANT_ID};

    if auth_sidecar_environment::is_there(environment) {
        return auth_sidecar_environment::read(environment);
    }
    let mut errors = Errors::default();
    let proxy = errors.keep(Proxy::from_environment(environment));
    let application = source::application_from_environment(environment, &mut errors);
    let credentials =
        (environment.variable(FEDERATED_TOKEN_FILE), environment.variable(CLIENT_SECRET));
    if let (Some(_), Some(_)) | (None, None) = credentials {
        errors.push(
            FEDERATED_TOKEN_FILE,
            format!("expected exactly one of {FEDERATED_TOKEN_FILE} and {CLIENT_SECRET}"),
        );
    }
    let scopes: Vec<String> = environment
        .variable(SCOPES)
        .unwrap_or_default()
        .split_ascii_whitespace()
        .map(str::to_owned)
        .collect();
    if scopes.is_empty() {
        errors.push(SCOPES, "expected one or more scopes, separated by spaces");
    }
    for scope in &scopes {
        identity::check_scope(scope, SCOPES, &mut errors);
    }
    let credential = match credentials {
        (Some(file), None) => Some(Credential::ServiceAccount(PathBuf::from(file))),
        (None, Some(secret)) => Some(Credential::Secret(SecretLocation::Here(Secret::new(secret)))),
        _ => None,
    };
    let source = application.clone().zip(credential).map(|(application, credential)| {
        Source::Application { application, credentials: vec![credential] }
    });
    if let (Some(application), Some(source), Some(proxy), true) =
        (application, source, proxy, errors.is_empty())
    {
        let Application { cloud, tenant, .. } = application;
        return Ok(Config {
            authorities: vec![Authority { cloud, tenant }],
            identities: BTreeMap::from([(
                ENVIRONMENT_IDENTITY.to_owned(),
                Identity {
                    source,
                    scopes,
                    delegated_scopes: Vec::new(),
                    capability: Capability::None,
                },
            )]),
            access: None,
            listen: Listen { api: listen::default_api(), admin: DEFAULT_ADMIN, compat: None },
            compat: Compat::default(),
            key_snapshot: None,
            ca_file: None,
            proxy,
        });
    }
    Err(errors.or(TENANT_ID, "the environment does not describe an identity"))
}

/// Gathers errors.
#[derive(Debug, Default)]
pub(crate) struct Errors(Vec<ConfigError>);

impl Errors {
    fn push(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(ConfigError::new(path, message));
    }

    /// Notes that something required is not there, unless what was there is already reported.
    fn missing(&mut self, path: &str, expected: &str) {
        if !self.reported_at(path) {
            self.push(path, format!("missing; expected {expected}"));
        }
    }

    fn reported_at(&self, path: &str) -> bool {
        self.0.iter().any(|error| error.path == path)
    }

    /// Whether something is reported at `path` or within it.
    fn is_about(&self, path: &str) -> bool {
        let within =
            |found: &str| found.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
        self.0.iter().any(|error| error.path == path || within(&error.path))
    }

    /// The path of a file: a relative one would hang on where the broker was started, and what is no
    /// file is looked for in vain for ever.
    fn file(&mut self, file: String, path: impl Into<String>) -> PathBuf {
        if !file.starts_with('/') || file.ends_with('/') {
            self.push(path, "expected an absolute path of a file");
        }
        PathBuf::from(file)
    }

    fn keep<T>(&mut self, result: Result<T, ConfigError>) -> Option<T> {
        result.map_err(|error| self.0.push(error)).ok()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The errors; never an empty list, so that a refusal always says something.
    fn or(mut self, path: &str, message: &str) -> Vec<ConfigError> {
        if self.0.is_empty() {
            self.push(path, message);
        }
        self.0
    }
}
