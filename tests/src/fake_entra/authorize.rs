//! `GET /{tenant}/oauth2/v2.0/authorize`: a person signs in, and the client gets a code.
//!
//! The authorization code flow (RFC 6749 §4.1, PKCE by RFC 7636) as far as a web application needs
//! it to answer a step-up. The [`Person`] at the browser is the test's: who it is, and which
//! authentication contexts they can satisfy. `code_grant` redeems the code.

use std::collections::HashMap;

use uuid::Uuid;

use super::{
    answer::Answer,
    claims::User,
    claims_request::{self, ClaimsRequest},
    conditional_access::SATISFIED,
    directory::{Application, Directory, Tenant},
    refusal::Refusal,
    server::Asked,
    state::State,
    token_endpoint::{self, Form},
};

/// Scopes of OpenID Connect, which name no resource.
const OPENID_SCOPES: [&str; 4] = ["openid", "profile", "email", "offline_access"];
/// Seconds until a code is no longer taken.
const CODE_LIFETIME: u64 = 600;

/// Who sits at the browser, signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The user.
    pub user: User,
    /// The authentication contexts and the policies (by GUID) that they can satisfy: a second
    /// factor at hand, a managed device. Any other that is asked for ends on Entra's page.
    pub contexts: Vec<String>,
}

/// The browser's session, and the codes that were handed out.
#[derive(Default)]
pub(super) struct SignIns {
    pub(super) person: Option<Person>,
    pub(super) codes: HashMap<String, Code>,
}

/// What a code stands for.
#[derive(Clone)]
pub(super) struct Code {
    pub(super) tenant: String,
    pub(super) client: String,
    pub(super) redirect_uri: String,
    pub(super) user: User,
    pub(super) resource: Application,
    /// The resource as the scopes named it.
    pub(super) identifier: String,
    pub(super) scopes: Vec<String>,
    /// The authentication contexts that were asked for and satisfied.
    pub(super) contexts: Vec<String>,
    pub(super) nonce: Option<String>,
    pub(super) code_challenge: Option<String>,
    pub(super) expires_at: u64,
    pub(super) redeemed: bool,
}

/// What Entra answers to a browser.
pub(super) fn authorize(asked: &Asked, state: &State) -> Answer {
    if asked.method != "GET" {
        return Answer::empty(405).header("allow", "GET");
    }
    let form = match Form::of_query(asked.query.as_deref().unwrap_or_default()) {
        Ok(form) => form,
        Err(refusal) => return page(&refusal),
    };
    let directory = state.directory();
    // Until the client and its address are known, nothing goes back to any address.
    let (tenant, client, redirect_uri) = match client(asked, &form, &directory) {
        Ok(known) => known,
        Err(refusal) => return page(&refusal),
    };
    let asked_for = match read(&form, &tenant, &directory, asked.reference.now) {
        Ok(asked_for) => asked_for,
        Err((error, refusal)) => {
            let text = format!("AADSTS{}: {}", refusal.code, refusal.text);
            let back =
                redirect(&redirect_uri, &form, &[("error", error), ("error_description", &text)]);
            return back.refused_as(&refusal);
        }
    };
    let mut sign_ins = state.sign_ins();
    let Some(person) = sign_ins.person.clone() else {
        return Answer::html(200, "Sign in to your account");
    };
    if !asked_for.contexts.iter().all(|context| person.contexts.contains(context)) {
        return page(&Refusal::by_number(53003));
    }
    let number = Uuid::new_v4().to_string();
    let satisfied = |context: String| match claims_request::is_context(&context) {
        true => context,
        false => SATISFIED.to_owned(),
    };
    let code = Code {
        contexts: asked_for.contexts.into_iter().map(satisfied).collect(),
        tenant: tenant.id,
        client: client.client_id,
        redirect_uri: redirect_uri.clone(),
        user: person.user,
        expires_at: asked.reference.now.saturating_add(CODE_LIFETIME),
        redeemed: false,
        ..asked_for
    };
    sign_ins.codes.insert(number.clone(), code);
    redirect(&redirect_uri, &form, &[("code", &number)])
}

fn client(
    asked: &Asked,
    form: &Form,
    directory: &Directory,
) -> Result<(Tenant, Application, String), Refusal> {
    let name = asked.path.split('/').nth(1).unwrap_or_default();
    let tenant = token_endpoint::find_tenant(asked.cloud, name, directory)?;
    let client = token_endpoint::find_client(&tenant, form.required("client_id")?, directory)?;
    let redirect_uri = form.required("redirect_uri")?.to_owned();
    if !client.redirect_uris.contains(&redirect_uri) {
        return Err(Refusal::new(
            50011,
            format!(
                "The redirect URI '{redirect_uri}' specified in the request does not match the \
                 redirect URIs configured for the application '{}'.",
                client.client_id
            ),
        ));
    }
    Ok((tenant, client, redirect_uri))
}

/// What a code would stand for, apart from who signs in; or the OAuth error that goes back.
fn read(
    form: &Form,
    tenant: &Tenant,
    directory: &Directory,
    now: u64,
) -> Result<Code, (&'static str, Refusal)> {
    let invalid = |refusal| ("invalid_request", refusal);
    if form.required("response_type").map_err(invalid)? != "code" {
        let text = "The provided value for the input parameter 'response_type' is not allowed.";
        return Err(("unsupported_response_type", Refusal::new(700_054, text)));
    }
    // No other way back is needed here.
    if !matches!(form.optional("response_mode"), None | Some("query")) {
        return Err(invalid(token_endpoint::malformed()));
    }
    let code_challenge = form.optional("code_challenge");
    if code_challenge.is_some() != (form.optional("code_challenge_method") == Some("S256")) {
        let text = "The provided code_challenge_method is not supported.";
        return Err(invalid(Refusal::new(501_491, text)));
    }
    let claims = ClaimsRequest::read(form.optional("claims"), now).map_err(invalid)?;
    let scope = form.required("scope").map_err(invalid)?;
    let (identifier, scopes) = delegated(scope).map_err(|refusal| ("invalid_scope", refusal))?;
    let resource = directory.find_resource(&tenant.id, &identifier).ok_or_else(|| {
        let text = format!("The resource principal named {identifier} was not found.");
        ("invalid_resource", Refusal::new(500_011, text))
    })?;
    exist(&scopes, resource).map_err(|refusal| ("invalid_client", refusal))?;
    Ok(Code {
        tenant: String::new(),
        client: String::new(),
        redirect_uri: String::new(),
        user: User { object_id: String::new(), principal_name: String::new(), name: String::new() },
        resource: resource.clone(),
        identifier,
        scopes,
        contexts: claims.contexts.into_iter().chain(claims.policies).collect(),
        nonce: form.optional("nonce").map(str::to_owned),
        code_challenge: code_challenge.map(str::to_owned),
        expires_at: 0,
        redeemed: false,
    })
}

/// Holds when the resource exposes every one of these permissions.
pub(super) fn exist(scopes: &[String], resource: &Application) -> Result<(), Refusal> {
    match scopes.iter().find(|scope| !resource.scopes.contains(scope)) {
        None => Ok(()),
        Some(unknown) => Err(Refusal::new(
            650_053,
            format!(
                "The application asked for scope '{unknown}' that doesn't exist on the resource \
                 '{}'.",
                resource.client_id
            ),
        )),
    }
}

/// The one resource and its scopes: `<resource>/<scope>` each.
pub(super) fn delegated(scope: &str) -> Result<(String, Vec<String>), Refusal> {
    let invalid = || {
        let text = format!(
            "The provided value for the input parameter 'scope' is not valid. The scope {scope} \
             is not valid."
        );
        Refusal::new(70011, text)
    };
    let asked = scope.split_ascii_whitespace().filter(|one| !OPENID_SCOPES.contains(one));
    let mut resource = None;
    let mut scopes = Vec::new();
    for one in asked {
        let (identifier, name) = one.rsplit_once('/').ok_or_else(invalid)?;
        if name.is_empty() {
            return Err(invalid());
        }
        if resource.is_some_and(|known| known != identifier) {
            return Err(token_endpoint::several_resources(scope));
        }
        resource = Some(identifier);
        scopes.push(name.to_owned());
    }
    Ok((resource.ok_or_else(invalid)?.to_owned(), scopes))
}

/// Sends the browser back to the client, with its own `state`.
fn redirect(uri: &str, form: &Form, members: &[(&str, &str)]) -> Answer {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(members);
    if let Some(state) = form.optional("state") {
        query.append_pair("state", state);
    }
    let separator = if uri.contains('?') { '&' } else { '?' };
    Answer::empty(302).header("location", &format!("{uri}{separator}{}", query.finish()))
}

/// Entra's page for the person at the browser.
fn page(refusal: &Refusal) -> Answer {
    let text = format!("AADSTS{}: {}", refusal.code, refusal.text);
    Answer::html(400, &text).refused_as(refusal)
}
