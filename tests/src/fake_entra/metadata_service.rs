//! The instance metadata service of a machine in Azure, as far as it hands out tokens of managed
//! identities (learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token).
//!
//! As strict as the real one: it wants the `Metadata` header, no proxy in between, a version, one
//! resource, and at most one name of an identity that the machine has. It caches, so who asks again
//! gets the same token. The tokens are the fake Entra's; what goes wrong on purpose is planned.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::json;

use super::{
    FakeEntra, directory::Application, mint::TokenBuilder, state::State, token_endpoint::Credential,
};
use crate::upstream::{Recorded, Reply, Upstream};

const PATH: &str = "/metadata/identity/oauth2/token";
/// The oldest version that hands out tokens of managed identities; later ones have later dates.
const OLDEST_VERSION: &str = "2018-02-01";
/// Seconds until a token of a managed identity ends.
const LIFETIME: u64 = 86_400;

/// Whose tokens the machine gets: managed identities of a tenant, by client id.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// The tenant.
    pub tenant: String,
    /// The machine's own.
    pub system_assigned: Option<String>,
    /// Those that were given to it.
    pub user_assigned: Vec<String>,
}

/// The service; it ends when dropped.
pub struct MetadataService {
    upstream: Upstream,
}

impl MetadataService {
    /// Starts the service on a port of its own on loopback. It ends with the fake at the latest.
    pub fn start(entra: &FakeEntra, machine: Machine) -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), entra, machine)
    }

    /// Starts the service on an address; usable with or without a runtime, as the fake is.
    ///
    /// # Panics
    /// When it cannot listen there.
    pub fn start_at(address: SocketAddr, entra: &FakeEntra, machine: Machine) -> Self {
        let runtime = entra.runtime.as_ref().expect("a running fake").handle();
        // On a thread of its own: a caller inside a runtime must not block on another.
        let upstream = std::thread::scope(|scope| {
            scope.spawn(|| runtime.block_on(Upstream::start_at(address))).join()
        });
        let upstream = upstream.expect("the service listens");
        let service = Service { state: Arc::clone(&entra.state), machine, held: Mutex::default() };
        upstream.respond_with(move |request| service.answer(request));
        Self { upstream }
    }

    /// What `AZURE_POD_IDENTITY_AUTHORITY_HOST` is set to.
    pub fn url(&self) -> String {
        format!("http://{}", self.upstream.address)
    }

    /// Every request that came.
    pub fn requests(&self) -> Vec<Recorded> {
        self.upstream.requests()
    }

    /// Answers the next requests with a status: 404 and 410 while it is being updated, 429, 5xx.
    pub fn fail_next(&self, times: usize, status: u16) {
        let error = json!({"error": "server_error", "error_description": "Service unavailable"});
        let reply = Reply { status, ..Reply::json(&error) };
        self.upstream.respond_in_turn(std::iter::repeat_n(reply, times));
    }

    /// Answers the next request with something else.
    pub fn answer_next(&self, reply: Reply) {
        self.upstream.respond_in_turn([reply]);
    }
}

struct Service {
    state: Arc<State>,
    machine: Machine,
    /// Token and its end, by client id and resource.
    held: Mutex<HashMap<(String, String), (String, u64)>>,
}

impl Service {
    fn answer(&self, request: &Recorded) -> Reply {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        if path.strip_suffix('/').unwrap_or(path) != PATH {
            return Reply::status(404);
        }
        if request.method != "GET" {
            return Reply::status(405);
        }
        let meant =
            request.header("metadata").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        if !meant {
            return refused("invalid_request", "Required metadata header not specified");
        }
        if request.header("x-forwarded-for").is_some() {
            return refused("invalid_request", "Request contains a forwarding header");
        }
        let query: Vec<(String, String)> =
            form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        match self.token(&query) {
            Ok(reply) => reply,
            Err((error, description)) => refused(error, &description),
        }
    }

    fn token(&self, query: &[(String, String)]) -> Result<Reply, (&'static str, String)> {
        let invalid = |text: &str| ("invalid_request", text.to_owned());
        let member = |name: &str| -> Result<Option<&str>, (&'static str, String)> {
            let mut found =
                query.iter().filter(|(known, value)| known == name && !value.is_empty());
            let first = found.next().map(|(_, value)| value.as_str());
            match found.next() {
                Some(_again) => Err(invalid(&format!("Parameter {name} was specified twice"))),
                None => Ok(first),
            }
        };
        let version = member("api-version")?
            .ok_or_else(|| invalid("api-version was not specified in the request"))?;
        if version < OLDEST_VERSION || version.len() != OLDEST_VERSION.len() {
            return Err(invalid("The requested api-version is not supported"));
        }
        let resource = member("resource")?
            .ok_or_else(|| invalid("Required audience parameter not specified"))?;
        let names = [member("client_id")?, member("object_id")?, member("msi_res_id")?];
        let identity = self.identity(names)?;
        let known = {
            let directory = self.state.directory();
            directory.find_resource(&self.machine.tenant, resource).is_some()
        };
        if !known {
            let text = format!(
                "AADSTS500011: The resource principal named {resource} was not found in the tenant."
            );
            return Err(("invalid_resource", text));
        }
        let (token, expires_on) = self.held_or_new(&identity, resource);
        let now = self.state.now();
        // All numbers are strings here.
        let left = expires_on.saturating_sub(now).to_string();
        Ok(Reply::json(&json!({
            "access_token": token,
            "client_id": identity.client_id,
            "expires_in": left,
            "expires_on": expires_on.to_string(),
            "ext_expires_in": left,
            "not_before": expires_on.saturating_sub(LIFETIME + 300).to_string(),
            "resource": resource,
            "token_type": "Bearer",
        })))
    }

    /// The one identity that is meant.
    fn identity(&self, names: [Option<&str>; 3]) -> Result<Application, (&'static str, String)> {
        let invalid = |text: &str| ("invalid_request", text.to_owned());
        let Machine { tenant, system_assigned, user_assigned } = &self.machine;
        let directory = self.state.directory();
        let known = |id: &String| directory.find_application(tenant, id).cloned();
        let assigned = || system_assigned.iter().chain(user_assigned).filter_map(known);
        let found = match names {
            [None, None, None] => match (system_assigned, user_assigned.as_slice()) {
                (Some(own), _) => known(own),
                (None, [only]) => known(only),
                (None, []) => None,
                (None, _) => {
                    return Err(invalid(
                        "Multiple user assigned identities exist, please specify the clientId / \
                         resourceId of the identity in the token request",
                    ));
                }
            },
            [Some(id), None, None] => assigned().find(|known| known.client_id == id),
            [None, Some(id), None] => assigned().find(|known| known.object_id == id),
            [None, None, Some(id)] => assigned().find(|known| {
                known.managed_identity.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(id))
            }),
            _ => return Err(invalid("Only one of client_id, object_id, msi_res_id is allowed")),
        };
        found.ok_or_else(|| invalid("Identity not found"))
    }

    fn held_or_new(&self, identity: &Application, resource: &str) -> (String, u64) {
        let now = self.state.now();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (identity.client_id.clone(), resource.to_owned());
        if let Some((token, expires_on)) = held.get(&key)
            && *expires_on > now.saturating_add(LIFETIME / 2)
        {
            return (token.clone(), *expires_on);
        }
        let state = Arc::clone(&self.state);
        let token = TokenBuilder::new(state, &self.machine.tenant, &identity.client_id, resource)
            .credential(Credential::Assertion)
            .lifetime(LIFETIME)
            .claim("xms_mirid", identity.managed_identity.clone())
            .sign();
        let issued = (token, now.saturating_add(LIFETIME));
        held.insert(key, issued.clone());
        issued
    }
}

fn refused(error: &str, description: &str) -> Reply {
    let body = json!({"error": error, "error_description": description});
    Reply { status: 400, ..Reply::json(&body) }
}
