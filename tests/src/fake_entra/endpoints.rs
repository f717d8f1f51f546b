//! Which endpoint a path means, and its true answer.

use serde_json::json;

use super::{
    answer::Answer,
    authorize,
    calls::Endpoint,
    claims::{self, Subject},
    cloud::{CONSUMERS_TENANT, Cloud},
    code_grant,
    discovery::{self, Audience, Version},
    on_behalf_of,
    refusal::Refusal,
    server::Asked,
    state::State,
    token_endpoint::{self, Form, Grant, TokenRequest},
};

const INSTANCE_DISCOVERY: &str = "/common/discovery/instance";

/// The endpoint of a path.
pub(super) fn find(path: &str) -> Endpoint {
    if path == INSTANCE_DISCOVERY {
        return Endpoint::InstanceDiscovery;
    }
    match split(path) {
        Some((_, "v2.0/.well-known/openid-configuration" | ".well-known/openid-configuration")) => {
            Endpoint::Discovery
        }
        Some((_, "discovery/v2.0/keys" | "discovery/keys")) => Endpoint::Keys,
        Some((_, "oauth2/v2.0/authorize")) => Endpoint::Authorize,
        Some((_, "oauth2/v2.0/token")) => Endpoint::Token,
        _ => Endpoint::Unknown,
    }
}

/// The tenant's segment and the rest of a path.
fn split(path: &str) -> Option<(&str, &str)> {
    let (tenant, rest) = path.strip_prefix('/')?.split_once('/')?;
    (!tenant.is_empty()).then_some((tenant, rest))
}

/// What Entra answers.
pub(super) fn answer(endpoint: Endpoint, asked: &Asked, state: &State) -> Answer {
    match endpoint {
        Endpoint::InstanceDiscovery => instance_discovery(asked),
        Endpoint::Discovery | Endpoint::Keys => document(endpoint, asked, state),
        Endpoint::Authorize => authorize::authorize(asked, state),
        Endpoint::Token => token(asked, state),
        Endpoint::Unknown => Answer::html(404, "404 - File or directory not found."),
    }
}

fn refuse(refusal: &Refusal, asked: &Asked) -> Answer {
    Answer::refusal(refusal, &asked.reference, asked.cloud.host())
}

fn instance_discovery(asked: &Asked) -> Answer {
    if asked.method != "GET" {
        return Answer::empty(405).header("allow", "GET");
    }
    let query = asked.query.as_deref().unwrap_or_default();
    let member = |name: &str| {
        let mut members = form_urlencoded::parse(query.as_bytes());
        members.find(|(member, _)| member == name).map(|(_, value)| value.into_owned())
    };
    if !matches!(member("api-version").as_deref(), Some("1.0" | "1.1")) {
        let text = "The request has an invalid or missing value for parameter: 'api-version'.";
        return refuse(&Refusal::new(90014, text), asked);
    }
    let endpoint = member("authorization_endpoint")
        .and_then(|url| discovery_of(&url))
        .ok_or_else(|| Refusal::new(50049, "Unknown or invalid instance."));
    match endpoint {
        Ok(endpoint) => Answer::document(&discovery::instance_discovery(&endpoint)),
        Err(refusal) => refuse(&refusal, asked),
    }
}

/// The discovery document of the authority that an authorize URL belongs to.
fn discovery_of(authorize: &str) -> Option<String> {
    let (host, path) = authorize.strip_prefix("https://")?.split_once('/')?;
    let cloud = Cloud::of_host(host)?;
    let (tenant, rest) = path.split_once('/')?;
    let version = if rest.contains("v2.0") { "v2.0/" } else { "" };
    Some(format!("https://{}/{tenant}/{version}.well-known/openid-configuration", cloud.host()))
}

fn document(endpoint: Endpoint, asked: &Asked, state: &State) -> Answer {
    if asked.method != "GET" {
        return Answer::empty(405).header("allow", "GET");
    }
    let Some((tenant, rest)) = split(&asked.path) else { return Answer::empty(404) };
    let audience = match tenant {
        "common" => Audience::Common,
        "organizations" => Audience::Organizations,
        "consumers" | CONSUMERS_TENANT => Audience::Consumers,
        _ => match state.directory().find_tenant(asked.cloud, tenant) {
            Some(tenant) => Audience::Tenant(tenant.id.clone()),
            None => return refuse(&token_endpoint::no_such_tenant(tenant), asked),
        },
    };
    let version = if rest.contains("v2.0") { Version::V2 } else { Version::V1 };
    let document = if endpoint == Endpoint::Keys {
        discovery::key_set(&state.published_keys(), asked.cloud, &audience, version)
    } else {
        discovery::openid_configuration(asked.cloud, &audience, version)
    };
    Answer::document(&document)
}

fn token(asked: &Asked, state: &State) -> Answer {
    let Some((tenant, _)) = split(&asked.path) else { return Answer::empty(404) };
    let request = TokenRequest {
        cloud: asked.cloud,
        tenant,
        method: &asked.method,
        content_type: asked.content_type.as_deref(),
        body: &asked.body,
    };
    if asked.method == "POST"
        && let Ok(form) = Form::read(&request)
    {
        let of_a_user = match form.optional("grant_type") {
            Some(code_grant::GRANT_TYPE) => Some(code_grant::redeem(&form, asked, tenant, state)),
            Some(on_behalf_of::GRANT_TYPE) => {
                Some(on_behalf_of::exchange(&form, asked, tenant, state))
            }
            _ => None,
        };
        if let Some(answer) = of_a_user {
            return answer.unwrap_or_else(|refusal| refuse(&refusal, asked));
        }
    }
    let (now, keys) = (asked.reference.now, state.published_keys());
    let decision = token_endpoint::decide(&request, &state.directory(), &keys, now);
    match decision {
        Ok(grant) => issue(&grant, asked, state),
        Err(refusal) => refuse(&refusal, asked),
    }
}

fn issue(grant: &Grant, asked: &Asked, state: &State) -> Answer {
    let long_lived = grant.claims.is_capable() && grant.resource.continuous_access;
    let lifetime = state.lifetime().of(long_lived);
    let subject = Subject {
        tenant: &grant.tenant,
        client: &grant.client,
        resource: &grant.resource,
        identifier: &grant.identifier,
        credential: grant.credential,
        now: asked.reference.now,
        lifetime: lifetime.expires_in,
    };
    let mut claims = claims::of_application(&subject, &grant.client.roles_on(&grant.resource));
    grant.claims.apply(&mut claims);
    let uti = claims.get("uti").and_then(|uti| uti.as_str()).map(str::to_owned);
    let token = super::mint::sign(state.keys().current(), grant.resource.token_version, claims);
    let mut body = json!({
        "token_type": "Bearer",
        "expires_in": lifetime.expires_in,
        "ext_expires_in": lifetime.expires_in,
    });
    if let Some(refresh_in) = lifetime.refresh_in() {
        body["refresh_in"] = json!(refresh_in);
    }
    body["access_token"] = json!(token);
    Answer::token(&body, uti)
}
