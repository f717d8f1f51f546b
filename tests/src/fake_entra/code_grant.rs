//! `grant_type=authorization_code`: the code of a sign-in becomes the user's token, once.
//!
//! The access token has `acrs` only for a context that the sign-in was asked for and satisfied, and
//! `xms_cc` only where this request declares it; both only where the API asked for these optional
//! claims. There are no refresh tokens here: a step-up is a new sign-in.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::digest::{SHA256, digest};
use serde_json::{Map, Value, json};

use super::{
    answer::Answer,
    authorize::Code,
    claims::{self, Delegation, Subject},
    claims_request::ClaimsRequest,
    directory::{Application, Tenant, TokenVersion},
    mint,
    refusal::Refusal,
    server::Asked,
    state::State,
    token_endpoint::{self, Credential, Form},
};

const GRANT_TYPE: &str = "authorization_code";

/// Whether this form wants a code redeemed.
pub(super) fn is_meant(form: &Form) -> bool {
    form.optional("grant_type") == Some(GRANT_TYPE)
}

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
    if form.optional("client_secret").is_none() && form.optional("client_assertion").is_none() {
        return Err(Refusal::new(
            7_000_218,
            "The request body must contain the following parameter: 'client_assertion' or \
             'client_secret'.",
        ));
    }
    let credential = token_endpoint::authenticate(form, &client, &directory, now)?;
    let claims = ClaimsRequest::read(form.optional("claims"), now)?;
    let code = take(form, &tenant, &client, now, state)?;
    if !claims.contexts.iter().all(|context| code.contexts.contains(context)) {
        return Err(Refusal::new(
            50076,
            "Due to a configuration change made by your administrator, or because you moved to a \
             new location, you must use multi-factor authentication to access the resource.",
        ));
    }
    let granted = Granted { tenant, client, credential, code, capabilities: claims.capabilities };
    Ok(granted.answer(form.optional("client_info") == Some("1"), now, state))
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

struct Granted {
    tenant: Tenant,
    client: Application,
    credential: Credential,
    code: Code,
    capabilities: Vec<String>,
}

impl Granted {
    fn answer(&self, with_client_info: bool, now: u64, state: &State) -> Answer {
        let lifetime = state.lifetime();
        let code = &self.code;
        let claims = self.access_token(now, lifetime.expires_in);
        let uti = claims.get("uti").and_then(Value::as_str).map(str::to_owned);
        let token = |version, claims| mint::sign(state.keys().current(), version, claims);
        let scopes = code.scopes.iter().map(|scope| format!("{}/{scope}", code.identifier));
        let mut body = json!({
            "token_type": "Bearer",
            "scope": scopes.collect::<Vec<_>>().join(" "),
            "expires_in": lifetime.expires_in,
            "ext_expires_in": lifetime.expires_in,
            "access_token": token(code.resource.token_version, claims),
            "id_token": token(TokenVersion::V2, self.id_token(now)),
        });
        if let Some(refresh_in) = lifetime.refresh_in() {
            body["refresh_in"] = json!(refresh_in);
        }
        if with_client_info {
            let info = json!({"uid": code.user.object_id, "utid": self.tenant.id}).to_string();
            body["client_info"] = json!(URL_SAFE_NO_PAD.encode(info));
        }
        Answer::token(&body, uti)
    }

    fn access_token(&self, now: u64, lifetime: u64) -> Map<String, Value> {
        let code = &self.code;
        let subject = Subject {
            tenant: &self.tenant,
            client: &self.client,
            resource: &code.resource,
            identifier: &code.identifier,
            credential: self.credential,
            now,
            lifetime,
        };
        let delegation = Delegation { scopes: code.scopes.clone(), roles: Vec::new() };
        let mut claims = claims::of_user(&subject, &code.user, &delegation);
        let optional = [
            ("acrs", json!(code.contexts), !code.contexts.is_empty()),
            ("xms_cc", json!(self.capabilities), !self.capabilities.is_empty()),
        ];
        for (name, value, is_there) in optional {
            if is_there && code.resource.optional_claims.iter().any(|wanted| wanted == name) {
                claims.insert(name.to_owned(), value);
            }
        }
        claims
    }

    /// Who signed in, for the client (id-token-claims-reference).
    fn id_token(&self, now: u64) -> Map<String, Value> {
        let user = &self.code.user;
        let mut claims = Map::new();
        for (name, value) in [
            ("aud", json!(self.client.client_id)),
            ("iss", json!(self.tenant.cloud.issuer_v2(&self.tenant.id))),
            ("iat", json!(now)),
            ("nbf", json!(now)),
            ("exp", json!(now.saturating_add(3600))),
            ("name", json!(user.name)),
            ("nonce", json!(self.code.nonce)),
            ("oid", json!(user.object_id)),
            ("preferred_username", json!(user.principal_name)),
            ("sub", json!(claims::pairwise(user, &self.client))),
            ("tid", json!(self.tenant.id)),
            ("ver", json!("2.0")),
        ] {
            if !value.is_null() {
                claims.insert(name.to_owned(), value);
            }
        }
        claims
    }
}
