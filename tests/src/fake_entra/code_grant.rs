//! `grant_type=authorization_code`: the code of a sign-in becomes the user's token, once.
//!
//! The access token has `acrs` only for a context that the sign-in was asked for and satisfied, and
//! `xms_cc` only where this request declares it; both only where the API asked for these optional
//! claims. There are no refresh tokens here: a step-up is a new sign-in.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::digest::{SHA256, digest};

use super::{
    answer::Answer,
    authorize::Code,
    claims_request::ClaimsRequest,
    directory::{Application, Tenant},
    refusal::Refusal,
    server::Asked,
    state::State,
    token_endpoint::{self, Form, Realm},
    user_grant::{UserGrant, Wants},
};

/// `grant_type` of it.
pub(super) const GRANT_TYPE: &str = "authorization_code";

/// Redeems a code.
pub(super) fn redeem(
    form: &Form,
    asked: &Asked,
    tenant_name: &str,
    state: &State,
) -> Result<Answer, Refusal> {
    let directory = state.directory();
    let now = asked.reference.now;
    let tenant = token_endpoint::find_tenant(asked.cloud, tenant_name, &directory)?;
    let client = token_endpoint::find_client(&tenant, form.required("client_id")?, &directory)?;
    token_endpoint::require_credential(form)?;
    let keys = state.published_keys();
    let realm =
        Realm { cloud: asked.cloud, tenant: &tenant, directory: &directory, keys: &keys, now };
    let credential = token_endpoint::authenticate(form, &client, &realm)?;
    let claims = ClaimsRequest::read(form.optional("claims"), now)?;
    let code = take(form, &tenant, &client, now, state)?;
    if !claims.contexts.iter().all(|context| code.contexts.contains(context)) {
        return Err(Refusal::new(
            50076,
            "Due to a configuration change made by your administrator, or because you moved to a \
             new location, you must use multi-factor authentication to access the resource.",
        ));
    }
    let granted = UserGrant {
        tenant,
        client,
        credential,
        user: code.user,
        resource: code.resource,
        identifier: code.identifier,
        scopes: code.scopes,
        contexts: code.contexts,
        capabilities: claims.capabilities,
        nonce: code.nonce,
        wants: Wants { id_token: true, client_info: form.optional("client_info") == Some("1") },
        lifetime: state.lifetime(),
    };
    Ok(granted.answer(&granted.claims(now), now, state))
}

/// The code, if it is this client's, not used, not too old, and its challenge is met.
fn take(
    form: &Form,
    tenant: &Tenant,
    client: &Application,
    now: u64,
    state: &State,
) -> Result<Code, Refusal> {
    let number = form.required("code")?;
    let redirect_uri = form.required("redirect_uri")?;
    let verifier = form.optional("code_verifier");
    let mut sign_ins = state.sign_ins();
    let known = sign_ins.codes.get_mut(number);
    let known = known.filter(|code| code.tenant == tenant.id && code.client == client.client_id);
    let code = known.ok_or_else(|| {
        Refusal::new(70000, "The provided value for the 'code' parameter is not valid.")
    })?;
    if code.redeemed {
        let text = "OAuth2 Authorization code was already redeemed, please retry with a new valid \
                    code or use an existing refresh token.";
        return Err(Refusal::new(54005, text));
    }
    // Whatever is wrong with the rest, this code is spent (RFC 6749 §4.1.2).
    code.redeemed = true;
    if now >= code.expires_at {
        return Err(Refusal::new(70008, "The provided authorization code has expired."));
    }
    if code.redirect_uri != redirect_uri {
        let text = "The reply address does not match the reply address provided when requesting \
                    Authorization code.";
        return Err(Refusal::new(500_112, text));
    }
    let met = |verifier: &str| URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()));
    if code.code_challenge != verifier.map(met) {
        let text = "The Code_Verifier does not match the code_challenge supplied in the \
                    authorization request.";
        return Err(Refusal::new(501_481, text));
    }
    Ok(code.clone())
}
