//! Validates the outbound configuration.

use std::{borrow::Cow, rc::Rc};

use contract::TokenRequest;

use super::{
    Errors,
    accepted::{Accepted, RawAccepted},
    raw::{RawOutbound, RawOutboundMatch, RawOutboundRule},
};
use crate::host::host;

/// Longest name of a cluster, in bytes: longer than any that a mesh makes.
const MAX_CLUSTER_BYTES: usize = 512;

/// What the outbound filter decides by.
#[derive(Debug)]
pub struct OutboundConfig {
    /// The broker's cluster.
    pub broker_cluster: String,
    /// Where the filter stands; all rules match by what can be seen there.
    pub position: Position,
    /// Whose tokens may be exchanged; none where no rule asks on behalf of anybody.
    pub accepted: Option<Rc<Accepted>>,
    /// The rules, no two for one destination.
    pub rules: Vec<OutboundRule>,
}

/// Which token goes to a destination.
#[derive(Debug)]
pub struct OutboundRule {
    /// The name in logs.
    pub name: Rc<str>,
    /// Host and cluster, in the downstream position.
    pub route: Option<HostAndCluster>,
    /// The token: identity, scope, and the destination that the rule is for; in the downstream
    /// position that is the rule's name.
    pub token: TokenRequest,
    /// Whether the token is the caller's, and not the application's own.
    pub on_behalf_of_caller: bool,
    /// What becomes of the application's own Authorization header; nothing to choose on behalf of
    /// a caller, whose token it is and is always consumed.
    pub existing_authorization: ExistingAuthorization,
    /// Whether a connection without TLS is no reason to stop.
    pub plaintext: bool,
}

/// Where an outbound filter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Position {
    /// In the cluster's own filter chain: the cluster says which destination it is, and every
    /// attempt passes.
    #[default]
    Upstream,
    /// In a listener's filter chain: only the route's choice can be seen, and only the first
    /// attempt passes.
    Downstream,
}

/// Which calls a rule is for in the downstream position.
#[derive(Debug, PartialEq, Eq)]
pub struct HostAndCluster {
    /// As [`crate::host::host`] gives it.
    pub host: String,
    /// The cluster's name.
    pub cluster: String,
}

impl OutboundRule {
    /// Where the filter stands that the rule is for.
    pub fn position(&self) -> Position {
        if self.route.is_some() { Position::Downstream } else { Position::Upstream }
    }
}

/// What becomes of an Authorization header that the application set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExistingAuthorization {
    /// It goes out as it is, and nothing is injected.
    Keep,
    /// The injected token takes its place.
    Replace,
    /// The call is refused.
    Refuse,
}

pub(super) fn validate(raw: RawOutbound, errors: &mut Errors) -> Option<OutboundConfig> {
    let accepted = RawAccepted {
        cloud: raw.cloud,
        tenants: raw.tenants,
        audiences: raw.audiences,
        clock_skew_seconds: raw.clock_skew_seconds,
    };
    let on_behalf = |rule: &RawOutboundRule| rule.token.as_ref()?.on_behalf_of.as_ref().map(drop);
    let accepted = if raw.rules.iter().flatten().flatten().any(|rule| on_behalf(rule).is_some()) {
        Some(Rc::new(accepted.validate(errors)))
    } else {
        accepted.refuse(errors);
        None
    };
    let broker_cluster = errors.broker(raw.broker);
    let raw_rules = errors.required("rules", raw.rules, "a list of rules")?;
    if raw_rules.is_empty() {
        errors.add("rules", "must not be empty: without a rule nothing is injected");
    }
    let mut rules: Vec<OutboundRule> = Vec::new();
    for (index, raw_rule) in raw_rules.into_iter().enumerate() {
        let path = format!("rules[{index}]");
        let Some(raw_rule) = errors.required(&path, raw_rule, "a rule") else { continue };
        let Some(rule) = rule(errors, &path, raw_rule) else { continue };
        if rules.iter().any(|earlier| earlier.name == rule.name) {
            errors.add(&format!("{path}.name"), "is the name of an earlier rule");
        }
        let destination = &rule.token.destination;
        if rules.iter().any(|earlier| earlier.token.destination == *destination) {
            errors
                .add(&format!("{path}.match.destination"), "is the destination of an earlier rule");
        }
        if rule.route.is_some() && rules.iter().any(|earlier| earlier.route == rule.route) {
            errors.add(&format!("{path}.match"), "is the host and cluster of an earlier rule");
        }
        if rules.first().is_some_and(|first| first.position() != rule.position()) {
            let message = "must be like the first rule's, by `destination` or by `host` and \
                           `cluster`: a filter stands in one place";
            errors.add(&format!("{path}.match"), message);
        }
        rules.push(rule);
    }
    let position = rules.first().map(OutboundRule::position).unwrap_or_default();
    Some(OutboundConfig { broker_cluster: broker_cluster?, position, accepted, rules })
}

fn rule(errors: &mut Errors, path: &str, raw: RawOutboundRule) -> Option<OutboundRule> {
    let name = errors.name(&format!("{path}.name"), raw.name);
    let allowed = raw.allow_unverified_destination;
    let matched = {
        let of_match = format!("{path}.match");
        let expected = "{destination: …}";
        let raw = errors.required(&of_match, raw.matches, expected);
        raw.and_then(|raw| matches(errors, path, raw, allowed))
    };
    let path_of_token = format!("{path}.token");
    let token = errors.required(&path_of_token, raw.token, "{identity: …, scope: …}");
    let (identity, scope, on_behalf_of) = match token {
        None => (None, None, None),
        Some(token) => (
            errors.name(&format!("{path_of_token}.identity"), token.identity),
            errors.required(&format!("{path_of_token}.scope"), token.scope, "one scope"),
            token.on_behalf_of,
        ),
    };
    if let Some(whom) = &on_behalf_of {
        if whom != "caller" {
            errors.add(&format!("{path_of_token}.on_behalf_of"), "expected `caller`");
        }
        for (key, is_there, message) in [
            (
                "existing_authorization",
                raw.existing_authorization.is_some(),
                "not beside `on_behalf_of`: the header is the caller's token, and always consumed",
            ),
            (
                "claims_challenges",
                raw.claims_challenges.is_some(),
                "not beside `on_behalf_of`: only the caller can answer a challenge",
            ),
        ] {
            if is_there {
                errors.add(&format!("{path}.{key}"), message);
            }
        }
    }
    if let Some(scope) = &scope
        && (scope.is_empty() || !scope.bytes().all(|byte| byte.is_ascii_graphic()))
    {
        errors.add(&format!("{path_of_token}.scope"), "expected one scope, without spaces");
    }
    let existing_authorization = match raw.existing_authorization.as_deref() {
        None | Some("refuse") => ExistingAuthorization::Refuse,
        Some("keep") => ExistingAuthorization::Keep,
        Some("replace") => ExistingAuthorization::Replace,
        Some(_) => {
            let path = format!("{path}.existing_authorization");
            errors.add(&path, "expected `keep`, `replace` or `refuse`");
            ExistingAuthorization::Refuse
        }
    };
    let name = name?;
    let (destination, route) = match matched? {
        Matched::Destination(destination) => (destination, None),
        Matched::Route(route) => (name.clone(), Some(route)),
    };
    Some(OutboundRule {
        name: name.into(),
        route,
        token: TokenRequest {
            identity: identity?,
            scope: scope?,
            destination,
            claims_challenges: raw.claims_challenges.unwrap_or(false),
            ..TokenRequest::default()
        },
        on_behalf_of_caller: on_behalf_of.is_some(),
        existing_authorization,
        plaintext: raw.plaintext.unwrap_or(false),
    })
}

enum Matched {
    Destination(String),
    Route(HostAndCluster),
}

/// What the rule at `path` matches by.
fn matches(
    errors: &mut Errors,
    path: &str,
    raw: RawOutboundMatch,
    allowed: Option<bool>,
) -> Option<Matched> {
    let path_of_key = format!("{path}.allow_unverified_destination");
    let path = format!("{path}.match");
    if raw.host.is_none() && raw.cluster.is_none() {
        if allowed.is_some() {
            errors.add(&path_of_key, "is only for a match by `host` and `cluster`");
        }
        let expected = "a name; or `host` and `cluster`";
        let path = format!("{path}.destination");
        let destination = errors.required(&path, raw.destination, expected);
        return errors.name(&path, destination).map(Matched::Destination);
    }
    if raw.destination.is_some() {
        errors.add(&path, "expected either `destination`, or `host` and `cluster`");
    }
    if allowed != Some(true) {
        let message = "must be `true` for a match by `host` and `cluster`: nothing then proves where \
                       the token goes";
        errors.add(&path_of_key, message);
    }
    let path_of_host = format!("{path}.host");
    let name = errors.required(&path_of_host, raw.host, "the host that is called");
    let name = name.filter(|name| {
        let exact = host(name.as_bytes()) == Some(Cow::Borrowed(name));
        if !exact {
            errors.add(&path_of_host, "expected one host name in lower case, without port");
        }
        exact
    });
    let path = format!("{path}.cluster");
    let cluster = errors.required(&path, raw.cluster, "the cluster that the route chooses");
    let cluster = cluster.filter(|cluster| {
        let plain = cluster.bytes().all(|byte| byte.is_ascii_graphic());
        let fits = plain && (1..=MAX_CLUSTER_BYTES).contains(&cluster.len());
        if !fits {
            let message = format!("expected 1 to {MAX_CLUSTER_BYTES} characters without spaces");
            errors.add(&path, message);
        }
        fits
    });
    Some(Matched::Route(HostAndCluster { host: name?, cluster: cluster? }))
}
