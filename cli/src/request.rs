//! One request, put to the filter's own decision.
//!
//! What stands around the filter is played here: the broker's keys come from a file or not at
//! all, the broker's tokens are placeholders. The decision itself is `policy`'s, and so is every
//! word of a reply.

use std::rc::Rc;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use contract::{IssuedToken, Jwk, KeySets, Secret, TokenRequest};
use policy::{
    cloud::{Cloud, TENANT_TEMPLATE},
    config::{InboundConfig, OutboundConfig},
    decision_cache::Verified,
    effect::Effect,
    inbound::{Inbound, Verify},
    jwt::UnverifiedToken,
    outbound::{Attempt, Outbound},
    request::{Protocol, RequestHead},
    time::UnixTime,
    token_store::TokenCallResult,
};
use token_broker::signature;

use crate::{key_file, output::Failure};

/// A request as a person describes it.
#[derive(Debug, Default)]
pub(crate) struct Request {
    /// Method.
    pub(crate) method: String,
    /// Path and query; none for `CONNECT`.
    pub(crate) path: Option<String>,
    /// Host.
    pub(crate) host: String,
    /// Further headers; names in lower case, as Envoy has them.
    pub(crate) headers: Vec<(String, String)>,
    /// The caller's token.
    pub(crate) token: Option<Secret>,
}

/// How often a request is judged again, at most, after what it waited for has come.
const ROUNDS: usize = 4;

/// With which keys the signature is checked.
#[derive(Debug, Clone)]
pub(crate) enum Keys {
    /// With these.
    Given(KeySets),
    /// Not at all: key and signature are taken for good.
    Unchecked,
}

/// What was decided, and what is known besides.
#[derive(Debug)]
pub(crate) struct Judged {
    /// What the filter would do.
    pub(crate) effect: Effect,
    /// The token, where all of it was good.
    pub(crate) verified: Option<Rc<Verified>>,
    /// What decided.
    pub(crate) config: Rc<InboundConfig>,
}

impl Request {
    /// The Authorization header that goes with the token.
    fn authorization(&self) -> Option<Secret> {
        self.token.as_ref().map(|token| Secret::new(format!("Bearer {}", token.expose())))
    }
}

/// Judges a request that comes in.
pub(crate) fn inbound(
    config: InboundConfig,
    request: &Request,
    keys: &Keys,
    now: UnixTime,
) -> Result<Judged, Failure> {
    let cloud = config.accepted.cloud;
    let mut filter = Inbound::new(config);
    let config = filter.config().clone();
    let authorization = request.authorization();
    let mut lines = vec![(":method", request.method.as_str()), (":authority", &request.host)];
    lines.extend(request.path.as_deref().map(|path| (":path", path)));
    lines.extend(request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    lines.extend(authorization.as_ref().map(|value| ("authorization", value.expose())));
    let lines = lines.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let head = RequestHead::read(lines, &config.own_headers);
    let credentials = head.credentials().ok();
    let (key_sets, verify): (KeySets, &Verify<'_>) = match keys {
        Keys::Given(key_sets) => (key_sets.clone(), &signature::verify),
        Keys::Unchecked => (placeholder(credentials, cloud, now), &|_, _, _| true),
    };
    filter.callers().next_call(now);
    filter.callers().on_keys(&key_sets, now);
    // An unknown key is asked for once; then there is an answer without waiting.
    for _ in 0..ROUNDS {
        let effect = filter.on_request(&head, true, now, verify);
        if !matches!(effect, Effect::Wait) {
            let verified =
                credentials.and_then(|credentials| filter.callers().known(credentials, now));
            return Ok(Judged { effect, verified, config });
        }
        if filter.callers().next_call(now).is_some() {
            filter.callers().on_unchanged_keys(now);
        }
    }
    Err(Failure::new("the request cannot be decided with these keys"))
}

/// A key that has the id which the token names, for any tenant; nothing is verified with it.
fn placeholder(credentials: Option<&[u8]>, cloud: Cloud, now: UnixTime) -> KeySets {
    let parsed = credentials.and_then(|token| UnverifiedToken::parse(token).ok());
    let keys = parsed.map(|token| Jwk {
        kid: Some(token.key_id),
        kty: Some("RSA".to_owned()),
        n: Some(URL_SAFE_NO_PAD.encode([0xff; 256])),
        e: Some("AQAB".to_owned()),
        issuer: Some(cloud.v2_issuer(TENANT_TEMPLATE)),
        ..Jwk::default()
    });
    key_file::of_organizations(keys.into_iter().collect(), cloud, now)
}

/// Judges a call that goes out to a destination, as if the broker gave every token that it is
/// asked for. The keys are for callers' tokens, where a rule asks on behalf of callers.
pub(crate) fn outbound(
    config: OutboundConfig,
    destination: &str,
    request: &Request,
    keys: &Keys,
    now: UnixTime,
) -> Result<Effect, Failure> {
    let cloud = config.accepted.as_ref().map(|accepted| accepted.cloud);
    let mut filter = Outbound::new(config);
    let given = request.headers.iter().find(|(name, _)| name == "authorization");
    let authorization = given.map(|(_, value)| value.clone().into_bytes());
    let authorization =
        request.authorization().map(|value| value.expose().as_bytes().to_vec()).or(authorization);
    let credentials = request.token.as_ref().map(|token| token.expose().as_bytes());
    let (key_sets, verify): (KeySets, &Verify<'_>) = match (keys, cloud) {
        (Keys::Given(key_sets), _) => (key_sets.clone(), &signature::verify),
        (Keys::Unchecked, Some(cloud)) => (placeholder(credentials, cloud, now), &|_, _, _| true),
        (Keys::Unchecked, None) => (KeySets::default(), &|_, _, _| false),
    };
    let content_type = request.headers.iter().find(|(name, _)| name == "content-type");
    let protocol = || {
        let value = content_type.map_or("", |(_, value)| value.as_str());
        Protocol::of(value.as_bytes())
    };
    let attempt = Attempt { destination: Some(destination), authorization, ..Attempt::default() };
    if let Some(callers) = filter.callers() {
        callers.next_call(now);
        callers.on_keys(&key_sets, now);
    }
    // For a key that is not known, and then for a token.
    for _ in 0..ROUNDS {
        while let Some(wanted) = filter.next_call(now) {
            let result = placeholder_token(&wanted, now);
            filter.on_result(&wanted, result, now);
        }
        match filter.on_request(&attempt, true, now, protocol, verify) {
            Effect::Wait => {}
            effect => return Ok(effect),
        }
        if let Some(callers) = filter.callers()
            && callers.next_call(now).is_some()
        {
            callers.on_unchanged_keys(now);
        }
    }
    Err(Failure::new("the call cannot be decided"))
}

/// A token that stands for what the broker would give.
fn placeholder_token(wanted: &TokenRequest, now: UnixTime) -> TokenCallResult {
    let issued = serde_json::from_value::<IssuedToken>(serde_json::json!({
        "access_token": "placeholder",
        "token_type": "Bearer",
        "expires_on": now.plus(3600).0,
        "refresh_on": now.plus(1800).0,
        "scope": wanted.scope,
        "identity": wanted.identity,
        "correlation_id": "",
    }));
    issued.map_or(TokenCallResult::Failed, TokenCallResult::Issued)
}
