//! Validates the outbound configuration.

use std::{collections::HashSet, rc::Rc};

use contract::TokenRequest;

use super::{
    Errors,
    raw::{RawOutbound, RawOutboundRule},
};

/// What the outbound filter decides by.
#[derive(Debug)]
pub struct OutboundConfig {
    /// The broker's cluster.
    pub broker_cluster: String,
    /// The rules, no two for one destination.
    pub rules: Vec<OutboundRule>,
}

/// Which token goes to a destination.
#[derive(Debug)]
pub struct OutboundRule {
    /// The name in logs.
    pub name: Rc<str>,
    /// The token: identity, scope, and the destination that the rule is for.
    pub token: TokenRequest,
    /// What becomes of the application's own Authorization header.
    pub existing_authorization: ExistingAuthorization,
    /// Whether a connection without TLS is no reason to stop.
    pub plaintext: bool,
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
    let broker_cluster = errors.broker(raw.broker);
    let raw_rules = errors.required("rules", raw.rules, "a list of rules")?;
    if raw_rules.is_empty() {
        errors.add("rules", "must not be empty: without a rule nothing is injected");
    }
    let (mut names, mut destinations) = (HashSet::new(), HashSet::new());
    let mut rules = Vec::new();
    for (index, raw_rule) in raw_rules.into_iter().enumerate() {
        let path = format!("rules[{index}]");
        let Some(raw_rule) = errors.required(&path, raw_rule, "a rule") else { continue };
        let Some(rule) = rule(errors, &path, raw_rule) else { continue };
        if !names.insert(rule.name.clone()) {
            errors.add(&format!("{path}.name"), "is the name of an earlier rule");
        }
        if !destinations.insert(rule.token.destination.clone()) {
            errors
                .add(&format!("{path}.match.destination"), "is the destination of an earlier rule");
        }
        rules.push(rule);
    }
    Some(OutboundConfig { broker_cluster: broker_cluster?, rules })
}

fn rule(errors: &mut Errors, path: &str, raw: RawOutboundRule) -> Option<OutboundRule> {
    let name = errors.name(&format!("{path}.name"), raw.name);
    let destination = {
        let path = format!("{path}.match");
        let matches = errors.required(&path, raw.matches, "{destination: …}");
        matches.and_then(|matches| errors.name(&format!("{path}.destination"), matches.destination))
    };
    let path_of_token = format!("{path}.token");
    let token = errors.required(&path_of_token, raw.token, "{identity: …, scope: …}");
    let (identity, scope) = match token {
        None => (None, None),
        Some(token) => (
            errors.name(&format!("{path_of_token}.identity"), token.identity),
            errors.required(&format!("{path_of_token}.scope"), token.scope, "one scope"),
        ),
    };
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
    Some(OutboundRule {
        name: name?.into(),
        token: TokenRequest {
            identity: identity?,
            scope: scope?,
            destination: destination?,
            claims_challenges: raw.claims_challenges.unwrap_or(false),
            ..TokenRequest::default()
        },
        existing_authorization,
        plaintext: raw.plaintext.unwrap_or(false),
    })
}
