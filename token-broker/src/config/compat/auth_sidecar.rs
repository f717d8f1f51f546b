//! Validates what the endpoints of Microsoft's auth sidecar do: whose tokens they accept, and for
//! which APIs they make headers with which identity.

use std::collections::BTreeMap;

use policy::{
    claims::{Audiences, Tenants},
    cloud::{ORGANIZATIONS, is_tenant_id},
    config::Accepted,
};

use super::super::{
    Authority, Errors, Identity, Source, document,
    identity::GRAPH,
    raw::{RawAuthSidecar, RawCallers, RawDownstreamApi},
};

const PATH: &str = "listen.compat.auth_sidecar";

/// The endpoints of Microsoft's auth sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthSidecar {
    /// Whose tokens are validated; none where there is no endpoint that takes one.
    pub callers: Option<Callers>,
    /// The APIs by name.
    pub apis: BTreeMap<String, DownstreamApi>,
}

/// Whose tokens are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Callers {
    /// Of which tenants, and for what.
    pub accepted: Accepted,
    /// Of which one must be in a token; empty asks for none.
    pub scopes: Vec<String>,
}

/// An API that headers are made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownstreamApi {
    /// Name of the identity.
    pub identity: String,
    /// Tenant of the identity's application, where it has one here.
    pub tenant: Option<String>,
    /// The scope.
    pub scope: String,
    /// Whose token goes into the header where a caller's token is there.
    pub token: TokenOf,
}

/// Whose token a header is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenOf {
    /// The caller's, exchanged (on-behalf-of).
    Caller,
    /// The application's own.
    Application,
}

/// A scope with the resource that Entra takes it to be of; the identity's lists decide about it.
pub fn full_scope(scope: &str) -> String {
    if scope.contains(['/', ':']) { scope.to_owned() } else { format!("{GRAPH}{scope}") }
}

pub(super) fn auth_sidecar(
    raw: RawAuthSidecar,
    authorities: &[Authority],
    identities: &BTreeMap<String, Identity>,
    errors: &mut Errors,
) -> AuthSidecar {
    if raw.callers.is_none() && raw.apis.is_none() && !errors.is_about(PATH) {
        errors.push(PATH, "serves nothing; expected `callers`, `apis`, or both");
    }
    // What is wrong with them is said at its place, and not once more for each API.
    let takes_callers = raw.callers.is_some() || errors.is_about(&format!("{PATH}.callers"));
    let callers = raw.callers.map(|raw| callers(raw, authorities, errors));
    let mut apis = BTreeMap::new();
    for (name, raw) in raw.apis.unwrap_or_default() {
        let path = format!("{PATH}.apis.{name}");
        // The name is a segment of a path.
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if name.is_empty() || !plain {
            errors.push(path.clone(), "expected a name of letters, digits, `-`, `_` and `.`");
        }
        let Some(raw) = raw else {
            errors.missing(&path, "`identity` and `scope`");
            continue;
        };
        if let Some(api) = api(raw, &path, (identities, takes_callers), errors) {
            apis.insert(name, api);
        }
    }
    AuthSidecar { callers, apis }
}

fn callers(raw: RawCallers, authorities: &[Authority], errors: &mut Errors) -> Callers {
    let path = |member: &str| format!("{PATH}.callers.{member}");
    let cloud = document::cloud(raw.cloud.as_deref(), &path("cloud"), errors).unwrap_or_default();
    let expected = "tenant ids as lower-case GUIDs, or `organizations` alone";
    let listed = texts(raw.tenants, &path("tenants"), expected, errors);
    for (index, tenant) in listed.iter().enumerate() {
        let path = format!("{}[{index}]", path("tenants"));
        let alone = tenant == ORGANIZATIONS && listed.len() == 1;
        if !alone && !is_tenant_id(tenant) {
            errors.push(path, format!("expected {expected}"));
            continue;
        }
        let keeps = |authority: &Authority| {
            let any = authority.tenant == ORGANIZATIONS;
            authority.cloud == cloud && (any || authority.tenant == *tenant)
        };
        if !authorities.iter().any(keeps) && !errors.is_about("authorities") {
            errors.push(path, "no entry of `authorities` keeps this tenant's keys");
        }
    }
    let any = listed.iter().any(|tenant| tenant == ORGANIZATIONS);
    let tenants = if any { Tenants::Any } else { Tenants::Listed(listed.into_iter().collect()) };
    let expected = "a client id or application URI";
    let audiences = Audiences(texts(raw.audiences, &path("audiences"), expected, errors));
    Callers {
        accepted: Accepted::new(cloud, tenants, audiences),
        scopes: match raw.scopes {
            None => Vec::new(),
            scopes => texts(scopes, &path("scopes"), "a scope, as tokens have it", errors),
        },
    }
}

/// A list that must hold something, each element without spaces: compared as it is.
fn texts(
    raw: Option<Vec<Option<String>>>,
    path: &str,
    expected: &str,
    errors: &mut Errors,
) -> Vec<String> {
    let raw = raw.unwrap_or_default();
    if raw.is_empty() {
        errors.missing(path, expected);
    }
    let mut texts = Vec::new();
    for (index, text) in raw.into_iter().enumerate() {
        let plain =
            |text: &String| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        match text.filter(plain) {
            Some(text) => texts.push(text),
            None => errors.missing(&format!("{path}[{index}]"), expected),
        }
    }
    texts
}

fn api(
    raw: RawDownstreamApi,
    path: &str,
    (identities, takes_callers): (&BTreeMap<String, Identity>, bool),
    errors: &mut Errors,
) -> Option<DownstreamApi> {
    let (at_identity, at_scope) = (format!("{path}.identity"), format!("{path}.scope"));
    if raw.identity.is_none() {
        errors.missing(&at_identity, "the name of an identity");
    }
    if raw.scope.is_none() {
        errors.missing(&at_scope, "a scope that the identity lists");
    }
    let (name, scope) = (raw.identity?, raw.scope?);
    let Some(identity) = identities.get(&name) else {
        // One that is there, but wrong, has its own error.
        if !errors.is_about(&format!("identities.{name}")) {
            errors.push(at_identity, "no such identity in `identities`");
        }
        return None;
    };
    let token = match raw.request_app_token {
        Some(true) => TokenOf::Application,
        Some(false) | None => TokenOf::Caller,
    };
    let (own, delegated) = (&identity.scopes, &identity.delegated_scopes);
    // Without a caller's token the application's own is asked for.
    let (own, delegated) = (own.contains(&scope), delegated.contains(&scope));
    match token {
        _ if own => {}
        TokenOf::Caller if delegated && takes_callers => {}
        TokenOf::Caller if delegated => {
            let text = "only on behalf of callers, and without `callers` there are none";
            errors.push(at_scope, text);
        }
        TokenOf::Application | TokenOf::Caller => {
            errors.push(at_scope, format!("not among the scopes of identity `{name}`"));
        }
    }
    Some(DownstreamApi { tenant: tenant(&identity.source), identity: name, scope, token })
}

fn tenant(source: &Source) -> Option<String> {
    match source {
        Source::Application { application, .. } => Some(application.tenant.clone()),
        Source::ManagedIdentity(_) => None,
    }
}
