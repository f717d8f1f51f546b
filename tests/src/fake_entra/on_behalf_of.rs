//! `grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer`: an application that a user called with a
//! token exchanges it for one of the API behind it
//! (learn.microsoft.com/entra/identity-platform/v2-oauth2-on-behalf-of-flow).
//!
//! The assertion must be a user's token, issued by this Entra to the very application that sends it,
//! and still good: its end is exact to the second. Then consent and Conditional Access are the
//! user's for the API behind; what they demand the middle tier cannot do, so its caller is told.
//! There are no refresh tokens here.

use super::{
    answer::Answer,
    assertion::Token,
    authorize,
    claims::User,
    claims_request::ClaimsRequest,
    conditional_access,
    directory::{Application, Directory, Tenant},
    refusal::{Refusal, precise},
    server::Asked,
    state::State,
    token_endpoint::{self, Form, Realm},
    user_grant::{UserGrant, Wants},
};

/// `grant_type` of it.
pub(super) const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// Issues the token, or says why not.
pub(super) fn exchange(
    form: &Form,
    asked: &Asked,
    tenant_name: &str,
    state: &State,
) -> Result<Answer, Refusal> {
    let (directory, keys, now) = (state.directory(), state.published_keys(), asked.reference.now);
    let client_id = form.required("client_id")?;
    let (assertion, scope) = (form.required("assertion")?, form.required("scope")?);
    // The other uses of this grant are not Entra's.
    if form.required("requested_token_use")? != "on_behalf_of" {
        return Err(token_endpoint::malformed());
    }
    let claims = ClaimsRequest::read(form.optional("claims"), now)?;
    let tenant = token_endpoint::find_tenant(asked.cloud, tenant_name, &directory)?;
    let client = token_endpoint::find_client(&tenant, client_id, &directory)?;
    let (identifier, scopes) = authorize::delegated(scope)?;
    token_endpoint::require_credential(form)?;
    let realm =
        Realm { cloud: asked.cloud, tenant: &tenant, directory: &directory, keys: &keys, now };
    let credential = token_endpoint::authenticate(form, &client, &realm)?;
    let assertion = Token::split(assertion)?;
    let user = proven(&assertion, &client, &realm)?;
    let resource = token_endpoint::find_resource(&tenant, &identifier, &directory)?;
    let scopes = consented(scopes, scope, &client, &resource)?;
    if client.blocked {
        return Err(Refusal::by_number(53003));
    }
    if let Some(policy) = &resource.policy {
        policy.check(&assertion.claims, &resource.client_id)?;
    }
    conditional_access::check_contexts(&claims.contexts, &assertion.claims, &resource.client_id)?;
    let long_lived = claims.is_capable() && resource.continuous_access;
    let has_scope = |wanted| scope.split_ascii_whitespace().any(|one| one == wanted);
    let granted = UserGrant {
        lifetime: state.lifetime().of(long_lived),
        tenant,
        client,
        credential,
        user,
        resource,
        identifier,
        scopes,
        contexts: claims.contexts.clone(),
        capabilities: claims.capabilities.clone(),
        nonce: None,
        wants: Wants {
            id_token: has_scope("openid"),
            client_info: form.optional("client_info") == Some("1"),
        },
    };
    let mut token = granted.claims(now);
    claims.begin(&mut token);
    Ok(granted.answer(&token, now, state))
}

/// The user for whom the assertion was issued to this client.
fn proven(token: &Token<'_>, client: &Application, realm: &Realm<'_>) -> Result<User, Refusal> {
    let Realm { tenant, directory, now, .. } = realm;
    let text = |name: &str| token.claims[name].as_str().unwrap_or_default();
    signed(token, realm)?;
    // A version 2.0 token has the id, a version 1.0 token whichever name it was asked for by.
    let audience = text("aud");
    if audience != client.client_id && !client.app_id_uris.iter().any(|uri| uri == audience) {
        return Err(Refusal::new(
            500_131,
            format!(
                "Assertion audience does not match the Client app presenting the assertion. The \
                 audience in the assertion was '{audience}' and the expected audience is '{}' or \
                 one of the Application Uris of this application with App ID '{}'({}). The \
                 downstream client must request a token for the expected audience (the \
                 application that made the OBO request) and this application should use that \
                 token as the assertion.",
                client.client_id, client.client_id, client.name
            ),
        ));
    }
    let expires_at = token.claims["exp"].as_u64().unwrap_or_default();
    if expires_at <= *now {
        return Err(Refusal::new(
            500_133,
            format!(
                "Assertion is not within its valid time range. Ensure that the access token is \
                 not expired before using it for user assertion, or request a new token. Current \
                 time: {}, expiry time of assertion {}.",
                precise(*now),
                precise(expires_at)
            ),
        ));
    }
    if token.claims["scp"].is_null() {
        return Err(no_users(token, client));
    }
    account(text("oid"), text("tid"), token, tenant, directory)
}

/// Signed by Entra in the name of the tenant that it names itself.
fn signed(token: &Token<'_>, realm: &Realm<'_>) -> Result<(), Refusal> {
    let invalid = |reason: &str| {
        Refusal::new(50013, format!("Assertion failed signature validation. [Reason - {reason}]"))
    };
    let kid = token.header["kid"].as_str();
    let mut keys = realm.keys.iter();
    let key = keys.find(|key| Some(key.key.kid.as_str()) == kid);
    let key = key.ok_or_else(|| invalid("The key was not found."))?;
    let is_rs256 = token.header["alg"] == "RS256";
    let signed = token.signed.as_bytes();
    if !is_rs256 || !tokens::verify(&key.key.public_der(), signed, &token.signature) {
        return Err(invalid(
            "The provided signature value did not match the expected signature value.",
        ));
    }
    let tid = token.claims["tid"].as_str().unwrap_or_default();
    let issuers = [realm.cloud.issuer_v1(tid), realm.cloud.issuer_v2(tid)];
    if issuers.iter().any(|issuer| token.claims["iss"] == **issuer) {
        Ok(())
    } else {
        Err(invalid("The issuer is not Entra."))
    }
}

/// The refusal of a token without scopes: an application's own, or an ID token.
fn no_users(token: &Token<'_>, client: &Application) -> Refusal {
    let of_application = !token.claims["azp"].is_null() || !token.claims["appid"].is_null();
    if of_application {
        let id = &client.client_id;
        let text =
            format!("Application '{id}' is not allowed to make application on-behalf-of calls.");
        return Refusal::new(7_000_114, text);
    }
    Refusal::new(
        240_002,
        "Input id_token cannot be used as 'urn:ietf:params:oauth:grant-type:jwt-bearer' grant.",
    )
}

/// The user's account in this tenant, as it stands now.
fn account(
    object_id: &str,
    home: &str,
    token: &Token<'_>,
    tenant: &Tenant,
    directory: &Directory,
) -> Result<User, Refusal> {
    if home != tenant.id {
        return Err(Refusal::new(
            50020,
            format!(
                "User account from identity provider 'https://sts.windows.net/{home}/' does not \
                 exist in tenant '{}' and cannot access the application in that tenant.",
                tenant.name
            ),
        ));
    }
    let account = directory.find_user(&tenant.id, object_id).ok_or_else(|| {
        let name = &tenant.name;
        Refusal::new(50034, format!("The user account does not exist in the {name} directory."))
    })?;
    if account.disabled {
        return Err(Refusal::by_number(50057));
    }
    let issued_at = token.claims["iat"].as_u64().unwrap_or_default();
    if issued_at < account.sessions_valid_from {
        return Err(Refusal::new(
            50173,
            format!(
                "The provided grant has expired due to it being revoked, a fresh auth token is \
                 needed. The user might have changed or reset their password. The grant was issued \
                 on '{}' and the TokensValidFrom date (before which tokens are not valid) for this \
                 user is '{}'.",
                precise(issued_at),
                precise(account.sessions_valid_from)
            ),
        ));
    }
    Ok(account.user.clone())
}

/// What the client may do for the user: of the scopes that it asked for every one, of `.default`
/// whatever was consented to.
fn consented(
    wanted: Vec<String>,
    scope: &str,
    client: &Application,
    resource: &Application,
) -> Result<Vec<String>, Refusal> {
    let granted = client.scopes_on(resource);
    let missing = || {
        Refusal::new(
            65001,
            format!(
                "The user or administrator has not consented to use the application with ID '{}' \
                 named '{}'. Send an interactive authorization request for this user and resource.",
                client.client_id, client.name
            ),
        )
    };
    if wanted.iter().any(|one| one == ".default") {
        if wanted.len() > 1 {
            let text = format!(
                "The provided value for the input parameter 'scope' is not valid. The scope \
                 {scope} is not valid. .default scope can't be combined with resource-specific \
                 scopes."
            );
            return Err(Refusal::new(70011, text));
        }
        return if granted.is_empty() { Err(missing()) } else { Ok(granted) };
    }
    authorize::exist(&wanted, resource)?;
    if wanted.iter().all(|one| granted.contains(one)) { Ok(wanted) } else { Err(missing()) }
}
