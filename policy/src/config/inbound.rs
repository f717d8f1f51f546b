//! Validates the inbound configuration.

use std::{collections::HashSet, rc::Rc};

use super::{
    Errors,
    accepted::{Accepted, RawAccepted},
    alternative::{Alternative, Challenges, alternative},
    raw::{RawAllow, RawInbound, RawMatch, RawRule},
};
use crate::{
    app_service::AppServiceHeaders,
    host::HostPattern,
    identity_headers::{self, HeaderNames, IdentityHeaders},
    request::RequestHead,
    route::{PathCase, Pattern, RouteTable},
};

/// What the inbound filter decides by.
#[derive(Debug)]
pub struct InboundConfig {
    /// Whose tokens.
    pub accepted: Rc<Accepted>,
    /// Whether denials are enforced.
    pub mode: Mode,
    /// Whether verified tokens reach the application.
    pub forward_token: bool,
    /// The broker's cluster.
    pub broker_cluster: String,
    /// Which claims the application gets.
    pub identity_headers: IdentityHeaders,
    /// Writes App Service's identity headers, where they are asked for.
    pub app_service_headers: Option<AppServiceHeaders>,
    /// The header on everything that was let pass.
    pub permit_marker: Rc<str>,
    /// The headers that only this filter may set.
    pub own_headers: HeaderNames,
    /// Whether records name the calling workload.
    pub log_caller_workload: bool,
    reads_caller_workload: bool,
    /// The rules, in order.
    pub rules: Vec<Rule>,
    /// The rules by path.
    pub routes: RouteTable,
}

/// Whether a denial is enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Deny.
    Enforce,
    /// Count and log the denial, and let pass.
    Observe,
}

/// A rule.
#[derive(Debug)]
pub struct Rule {
    /// The name in logs.
    pub name: Rc<str>,
    /// Which requests, besides the path.
    pub matches: Match,
    /// Whom it lets pass.
    pub allow: Allow,
    /// Whether its denials are enforced: its own word, else that of the whole configuration.
    pub mode: Mode,
    /// Whether the rule itself asks for the token to be forwarded.
    pub forward_token: Option<bool>,
}

/// What a request must be like besides its path; empty lists match everything.
#[derive(Debug, Default)]
pub struct Match {
    /// Methods.
    pub methods: Vec<String>,
    /// Hosts.
    pub hosts: Vec<HostPattern>,
    /// Only CORS preflights.
    pub cors_preflight: bool,
}

impl Match {
    /// Whether a request fits; `host` is [`crate::host::host`] of its authority.
    pub(crate) fn fits(&self, head: &RequestHead<'_>, host: &str) -> bool {
        let any_method = self.methods.is_empty();
        let method = any_method || self.methods.iter().any(|m| m.as_bytes() == head.method);
        let host = self.hosts.is_empty() || self.hosts.iter().any(|pattern| pattern.fits(host));
        method && host && (!self.cors_preflight || head.is_cors_preflight())
    }
}

/// Whom a rule lets pass.
#[derive(Debug)]
pub enum Allow {
    /// Everybody.
    Anyone,
    /// Whose token meets one of these.
    AnyOf(Vec<Alternative>),
}

impl InboundConfig {
    /// Whether the calling workload is asked for at all: it costs each request a host call.
    pub fn reads_caller_workload(&self) -> bool {
        self.reads_caller_workload
    }
}

pub(super) fn validate(raw: RawInbound, errors: &mut Errors) -> Option<InboundConfig> {
    let app_service_headers = raw.app_service_headers.unwrap_or(false);
    if app_service_headers {
        check_no_own_app_service_header(errors, &raw);
    }
    let mode = mode(errors, "mode", raw.mode.as_deref(), Mode::Enforce);
    let case =
        one_of(
            errors,
            "path_case",
            raw.path_case.as_deref(),
            PathCase::Sensitive,
            |text| match text {
                "sensitive" => Some(PathCase::Sensitive),
                "insensitive" => Some(PathCase::Insensitive),
                _ => None,
            },
        );
    let accepted = RawAccepted {
        cloud: raw.cloud,
        tenants: raw.tenants,
        audiences: raw.audiences,
        clock_skew_seconds: raw.clock_skew_seconds,
    };
    let accepted = accepted.validate(errors);
    let broker_cluster = errors.broker(raw.broker);
    let (identity_headers, permit_marker, own_headers) = identity_headers::validate(
        raw.identity_headers,
        raw.permit_marker,
        &mut |path, message| {
            errors.add(path, message);
        },
    );
    let challenges = Challenges {
        cloud: accepted.cloud,
        tenant: &accepted.challenge_tenant,
        audiences: &accepted.audiences.0,
    };
    let raw_rules = errors.required("rules", raw.rules, "a list of rules")?;
    if raw_rules.is_empty() {
        errors.add("rules", "must not be empty: without a rule everything is denied");
    }
    // Routers do not agree on the case of other letters, so no rule may rest on it.
    for (index, rule) in raw_rules.iter().enumerate() {
        let path = rule.as_ref().and_then(|rule| rule.matches.as_ref()?.path.as_deref());
        if case == PathCase::Insensitive && path.is_some_and(|path| !path.is_ascii()) {
            errors.add(
                &format!("rules[{index}].match.path"),
                "must be ASCII where `path_case` is `insensitive`",
            );
        }
    }
    let mut names = HashSet::new();
    let mut patterns = Vec::new();
    let mut rules = Vec::new();
    for (index, raw_rule) in raw_rules.into_iter().enumerate() {
        let path = format!("rules[{index}]");
        let Some(raw_rule) = errors.required(&path, raw_rule, "a rule") else { continue };
        if let Some((rule, pattern)) = rule(errors, &path, raw_rule, mode, &mut names, &challenges)
        {
            rules.push(rule);
            patterns.push(pattern);
        }
    }
    let log_caller_workload = raw.log_caller_workload.unwrap_or(false);
    let asks_for_workload = |rule: &Rule| match &rule.allow {
        Allow::Anyone => false,
        Allow::AnyOf(alternatives) => {
            alternatives.iter().any(|alternative| !alternative.caller_workload.is_empty())
        }
    };
    Some(InboundConfig {
        reads_caller_workload: log_caller_workload || rules.iter().any(asks_for_workload),
        log_caller_workload,
        accepted: Rc::new(accepted),
        mode,
        forward_token: raw.forward_token.unwrap_or(false),
        broker_cluster: broker_cluster?,
        identity_headers,
        app_service_headers: app_service_headers.then(AppServiceHeaders::default),
        permit_marker,
        own_headers,
        rules,
        routes: RouteTable::new(case, patterns),
    })
}

fn rule(
    errors: &mut Errors,
    path: &str,
    raw: RawRule,
    mode_of_all: Mode,
    names: &mut HashSet<String>,
    challenges: &Challenges<'_>,
) -> Option<(Rule, Option<Pattern>)> {
    let name = errors.name(&format!("{path}.name"), raw.name);
    if let Some(name) = &name
        && !names.insert(name.clone())
    {
        errors.add(&format!("{path}.name"), format!("`{name}` is the name of an earlier rule"));
    }
    let (matches, pattern) =
        matches(errors, &format!("{path}.match"), raw.matches.unwrap_or_default());
    let mode = mode(errors, &format!("{path}.mode"), raw.mode.as_deref(), mode_of_all);
    let allow = allow(errors, &format!("{path}.allow"), raw.allow, challenges);
    let rule =
        Rule { name: name?.into(), matches, allow: allow?, mode, forward_token: raw.forward_token };
    Some((rule, pattern))
}

fn matches(errors: &mut Errors, path: &str, raw: RawMatch) -> (Match, Option<Pattern>) {
    let pattern = raw.path.and_then(|text| {
        Pattern::read(&text)
            .map_err(|message| errors.add(&format!("{path}.path"), format!("`{text}` {message}")))
            .ok()
    });
    let method = |text: &str| {
        let upper = !text.is_empty() && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
        upper.then(|| text.to_owned())
    };
    let methods =
        errors.list(&format!("{path}.methods"), raw.methods, "a method in upper case", &method);
    let hosts = errors.list(
        &format!("{path}.hosts"),
        raw.hosts,
        "a host name in lower case without port, or `*.` and one",
        &HostPattern::read,
    );
    let cors_preflight = raw.cors_preflight.unwrap_or(false);
    if cors_preflight && !methods.iter().all(|method| method == "OPTIONS") {
        errors.add(&format!("{path}.methods"), "a CORS preflight is always OPTIONS");
    }
    (Match { methods, hosts, cors_preflight }, pattern)
}

fn allow(
    errors: &mut Errors,
    path: &str,
    raw: Option<RawAllow>,
    challenges: &Challenges<'_>,
) -> Option<Allow> {
    match errors.required(path, raw, "`anyone` or a list of alternatives")? {
        RawAllow::Anyone(word) if word == "anyone" => Some(Allow::Anyone),
        RawAllow::Anyone(word) => {
            errors.add(path, format!("expected `anyone` or a list of alternatives, not `{word}`"));
            None
        }
        RawAllow::AnyOf(alternatives) => {
            if alternatives.is_empty() {
                errors.add(path, "must not be empty: nobody could pass");
            }
            let mut read = Vec::new();
            for (index, raw) in alternatives.into_iter().enumerate() {
                let path = format!("{path}[{index}]");
                if let Some(raw) = errors.required(&path, raw, "an alternative") {
                    read.push(alternative(errors, &path, raw, challenges));
                }
            }
            Some(Allow::AnyOf(read))
        }
    }
}

/// A header of App Service's that the configuration names too would have two values to choose from.
fn check_no_own_app_service_header(errors: &mut Errors, raw: &RawInbound) {
    let is_app_services = |name: &str| AppServiceHeaders::has(&name.replace('_', "-"));
    for name in raw.identity_headers.iter().flatten().map(|(name, _)| name) {
        if is_app_services(name) {
            let message = "is written by `app_service_headers`";
            errors.add(&format!("identity_headers.{name}"), message);
        }
    }
    if raw.permit_marker.as_deref().is_some_and(is_app_services) {
        errors.add("permit_marker", "is written by `app_service_headers`");
    }
}

fn mode(errors: &mut Errors, path: &str, text: Option<&str>, default: Mode) -> Mode {
    one_of(errors, path, text, default, |text| match text {
        "enforce" => Some(Mode::Enforce),
        "observe" => Some(Mode::Observe),
        _ => None,
    })
}

pub(super) fn one_of<T>(
    errors: &mut Errors,
    path: &str,
    text: Option<&str>,
    default: T,
    read: impl Fn(&str) -> Option<T>,
) -> T {
    let Some(text) = text else { return default };
    read(text).unwrap_or_else(|| {
        errors.add(path, format!("`{text}` is not one of the values that stand in the reference"));
        default
    })
}
