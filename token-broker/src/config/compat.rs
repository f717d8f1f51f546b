//! Validates what the compat listener offers: each family of endpoints names its identities, and
//! none is offered unasked.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
};

mod auth_sidecar;

pub use auth_sidecar::{AuthSidecar, Callers, DownstreamApi, TokenOf, full_scope};

use super::{
    Api, Authority, Errors, Identity, Listen, ManagedIdentity, Source,
    listen::address,
    raw::{RawCompat, RawManagedIdentityEndpoint},
};

const PATH: &str = "listen.compat";

/// What the compat listener serves; by default nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compat {
    /// The managed identity endpoints.
    pub managed_identity: Option<ManagedIdentityEndpoint>,
    /// The endpoints of Microsoft's auth sidecar.
    pub auth_sidecar: Option<AuthSidecar>,
}

/// The managed identity endpoints, of virtual machines and of App Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagedIdentityEndpoint {
    /// Whose tokens may be asked for.
    pub identities: Vec<Offered>,
    /// Name of the one that a request gets that chooses none.
    pub default: Option<String>,
    /// Where the value of `X-IDENTITY-HEADER` is; without it no App Service form.
    pub identity_header_file: Option<PathBuf>,
    /// Whether the virtual machine's form is served.
    pub imds: bool,
}

/// An identity and what a request may call it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// Its name.
    pub name: String,
    /// What its source says of it.
    pub known_by: KnownBy,
}

/// The one id that the configuration has for an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KnownBy {
    /// An application's, or a managed identity's, client id.
    ClientId(String),
    /// A managed identity's object (principal) id.
    ObjectId(String),
    /// A managed identity's Azure resource id, in any case.
    ResourceId(String),
    /// The machine's own identity, which has no id here.
    Nothing,
}

impl KnownBy {
    fn of(source: &Source) -> Self {
        match source {
            Source::Application { application, .. } => {
                Self::ClientId(application.client_id.clone())
            }
            Source::ManagedIdentity(identity) => match identity {
                ManagedIdentity::ClientId(id) => Self::ClientId(id.clone()),
                ManagedIdentity::ObjectId(id) => Self::ObjectId(id.clone()),
                ManagedIdentity::ResourceId(id) => Self::ResourceId(id.clone()),
                ManagedIdentity::SystemAssigned => Self::Nothing,
            },
        }
    }

    /// Whether a request that names this one could mean the other.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Nothing, _) => false,
            (Self::ResourceId(one), Self::ResourceId(other)) => one.eq_ignore_ascii_case(other),
            _ => self == other,
        }
    }
}

/// The endpoints of a configuration file; `listen` learns the address.
pub(super) fn compat(
    raw: Option<RawCompat>,
    listen: Option<&mut Listen>,
    (authorities, identities): (&[Authority], &BTreeMap<String, Identity>),
    errors: &mut Errors,
) -> Compat {
    let Some(raw) = raw else { return Compat::default() };
    let address = loopback(raw.address, errors);
    if raw.trust_whole_pod != Some(true) {
        errors.push(
            format!("{PATH}.trust_whole_pod"),
            "expected `true`: every process of the pod can have the tokens",
        );
    }
    if let (Some(address), Some(listen)) = (address, listen) {
        let taken = listen.admin == address || listen.api == Api::Tcp(address);
        if taken && address.port() != 0 {
            errors.push(format!("{PATH}.address"), "expected an address of its own");
        }
        listen.compat = Some(address);
    }
    let families = ["managed_identity", "auth_sidecar"].map(|family| format!("{PATH}.{family}"));
    let none = raw.managed_identity.is_none() && raw.auth_sidecar.is_none();
    if none && !families.iter().any(|family| errors.reported_at(family)) {
        errors.push(PATH, "serves nothing; expected `managed_identity`, `auth_sidecar`, or both");
    }
    Compat {
        managed_identity: raw.managed_identity.map(|raw| managed_identity(raw, identities, errors)),
        auth_sidecar: raw
            .auth_sidecar
            .map(|raw| auth_sidecar::auth_sidecar(raw, authorities, identities, errors)),
    }
}

fn loopback(text: Option<String>, errors: &mut Errors) -> Option<SocketAddr> {
    let path = format!("{PATH}.address");
    let Some(text) = text else {
        errors.missing(&path, "a loopback address and port, such as 127.0.0.1:7173");
        return None;
    };
    let address = address(&text, &path, errors)?;
    if !address.ip().is_loopback() {
        errors.push(path, "expected a loopback address: tokens do not leave the pod");
    }
    Some(address)
}

fn managed_identity(
    raw: RawManagedIdentityEndpoint,
    configured: &BTreeMap<String, Identity>,
    errors: &mut Errors,
) -> ManagedIdentityEndpoint {
    let path = format!("{PATH}.managed_identity");
    let identities = offered(raw.identities, configured, &format!("{path}.identities"), errors);
    let default = raw.default;
    if let Some(name) = &default
        && !identities.iter().any(|offered| offered.name == *name)
    {
        errors.push(format!("{path}.default"), "expected one of `identities`");
    }
    let of_header = format!("{path}.identity_header_file");
    let identity_header_file =
        raw.identity_header_file.map(|file| errors.file(file, of_header.as_str()));
    let imds = raw.imds.unwrap_or(true);
    if !imds && identity_header_file.is_none() {
        let expected = "the path of a file: with `imds: false` there is no other form";
        errors.missing(&of_header, expected);
    }
    ManagedIdentityEndpoint { identities, default, identity_header_file, imds }
}

/// Identities that requests choose among: each is there, once, and told from the others.
fn offered(
    names: Option<Vec<Option<String>>>,
    configured: &BTreeMap<String, Identity>,
    path: &str,
    errors: &mut Errors,
) -> Vec<Offered> {
    let names = names.unwrap_or_default();
    if names.is_empty() {
        errors.missing(path, "names of identities, at least one");
    }
    let mut seen = BTreeSet::new();
    let mut identities: Vec<Offered> = Vec::new();
    for (index, name) in names.into_iter().enumerate() {
        let path = format!("{path}[{index}]");
        let Some(name) = name else {
            errors.missing(&path, "the name of an identity");
            continue;
        };
        if !seen.insert(name.clone()) {
            errors.push(path, "this identity stands there twice");
            continue;
        }
        let Some(identity) = configured.get(&name) else {
            // One that is there, but wrong, has its own error.
            if !errors.is_about(&format!("identities.{name}")) {
                errors.push(path, "no such identity in `identities`");
            }
            continue;
        };
        let known_by = KnownBy::of(&identity.source);
        if let Some(other) = identities.iter().find(|other| other.known_by.is_same(&known_by)) {
            let other = &other.name;
            errors.push(path, format!("has the id of `{other}`: no request could tell them apart"));
            continue;
        }
        identities.push(Offered { name, known_by });
    }
    identities
}
