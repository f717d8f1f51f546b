//! Explains a call that comes in.

use policy::{
    checks::{self, INBOUND, Verdict},
    claims::{Claims, ClientCredential, Groups, Kind, Tenants, Version},
    config::{Allow, Alternative, InboundConfig, Mode},
    decision::Reason,
    decision_cache::Verified,
    effect::{Edits, Effect},
    json,
    jwt::UnverifiedToken,
    time::UnixTime,
};

use super::{Table, decision, passes, plain, reply};
use crate::{
    output::{Failure, Output},
    request::{self, Judged, Keys, Request},
    time,
};

/// Every check of the request, what decided, and what the application or the caller gets.
pub(super) fn explain(
    config: InboundConfig,
    request: &Request,
    keys: &Keys,
    now: UnixTime,
) -> Result<Output, Failure> {
    let judged = request::inbound(config, request, keys, now)?;
    let mut output = Output { wrong: !passes(&judged.effect), ..Output::default() };
    let Some(made) = judged.effect.decision() else { return Ok(output) };
    let path = request.path.as_deref().unwrap_or_default();
    // Some callers put secrets into the query.
    let path = path.split('?').next().unwrap_or_default();
    let (method, host) = (plain(&request.method), plain(&request.host));
    output.line(format!("{method} {} on {host}, at {}", plain(path), time::shown(now)));
    output.line("");
    let token = Shown::read(request, now);
    let unchecked = matches!(keys, Keys::Unchecked);
    let mut unchecked_reached = false;
    let mut table = Table::default();
    for (check, verdict) in checks::verdicts(INBOUND, made.reason) {
        let skipped = unchecked && ["key", "signature"].contains(&check.name);
        let detail = token.detail(check.name, &judged.config);
        let (word, detail) = match verdict {
            Verdict::NotReached => {
                table.not_made.push(check.name);
                continue;
            }
            Verdict::Passed if skipped => {
                unchecked_reached = true;
                ("not checked", "no --keys".to_owned())
            }
            Verdict::Passed | Verdict::Decided if check.name == "rule" => {
                (verdict_word(verdict, made.reason), rule(&judged))
            }
            Verdict::Passed if check.name == "kind" => {
                ("ok", judged.verified.as_deref().map(kind).unwrap_or_default().to_owned())
            }
            verdict => (verdict_word(verdict, made.reason), detail),
        };
        table.made(check.name, word, &detail);
        if check.name == "allow"
            && let Some(token) = &judged.verified
        {
            alternatives(&mut table, &judged, token);
        }
    }
    let anyone = made.reason == Reason::AllowedAnyone;
    table.print(&mut output, if anyone { "not needed" } else { "not reached" });
    output.line("");
    let reservation = match (unchecked_reached, passes(&judged.effect)) {
        (true, true) => "\nonly if the signature is good: it was not checked",
        (true, false) => "\nwith a good signature; a bad one would be refused before",
        (false, _) => "",
    };
    output.line(decision(passes(&judged.effect), made, reservation));
    match &judged.effect {
        Effect::Continue(edits, _) => application_gets(&mut output, edits),
        Effect::Reply(answer, _) => reply(&mut output, answer),
        Effect::Wait => {}
    }
    Ok(output)
}

fn verdict_word(verdict: Verdict, reason: Reason) -> &'static str {
    match verdict {
        Verdict::Passed => "ok",
        Verdict::Decided => reason.code(),
        Verdict::NotReached => "not reached",
    }
}

fn kind(token: &Verified) -> &'static str {
    match token.kind {
        Kind::User => "a user's token",
        Kind::Application => "an application's own token",
    }
}

/// The rule that the request falls under, and its place.
fn rule(judged: &Judged) -> String {
    let Some(name) = judged.effect.decision().and_then(|decision| decision.rule.as_ref()) else {
        return String::new();
    };
    let index = judged.config.rules.iter().position(|rule| rule.name == *name);
    let index = index.map(|index| format!("rules[{index}], ")).unwrap_or_default();
    let rule = judged.config.rules.iter().find(|rule| rule.name == *name);
    let observed = rule.is_some_and(|rule| rule.mode == Mode::Observe);
    format!("{index}{name}{}", if observed { ", only observed" } else { "" })
}

/// What each way to be allowed asks for, and what the token lacks of it.
fn alternatives(table: &mut Table, judged: &Judged, token: &Verified) {
    let name = judged.effect.decision().and_then(|decision| decision.rule.as_ref());
    let rule = judged.config.rules.iter().find(|rule| Some(&rule.name) == name);
    let Some(Allow::AnyOf(alternatives)) = rule.map(|rule| &rule.allow) else { return };
    for (index, alternative) in alternatives.iter().enumerate() {
        for (name, missing) in alternative.requirements(token, None) {
            let Some(wanted) = wanted(alternative, name) else { continue };
            let name = format!("[{index}].{name}");
            table.below(&name, missing.map_or("ok", Reason::code), &wanted);
        }
    }
}

/// What an alternative asks for by this name; nothing where it does not.
fn wanted(alternative: &Alternative, name: &str) -> Option<String> {
    let any_of = |values: &[String]| (!values.is_empty()).then(|| values.join(" or "));
    match name {
        "kind" if alternative.scopes.is_empty() => Some("an application's token".to_owned()),
        "kind" => Some("a user's token".to_owned()),
        "scopes" => any_of(&alternative.scopes),
        "roles" => any_of(&alternative.roles),
        "clients" => any_of(&alternative.clients),
        "groups" => any_of(&alternative.groups),
        "caller_workload" => any_of(&alternative.caller_workload),
        "client_credential" => alternative.client_credential.map(credential).map(str::to_owned),
        "authentication_context" => {
            alternative.step_up.as_ref().map(|step_up| step_up.context.clone())
        }
        _ => None,
    }
}

fn credential(credential: ClientCredential) -> &'static str {
    match credential {
        ClientCredential::None => "none",
        ClientCredential::Secret => "secret",
        ClientCredential::Certificate => "certificate",
    }
}

fn application_gets(output: &mut Output, edits: &Edits) {
    output.line("the application gets the request");
    for name in edits.removed() {
        output.line(format!("  without {}", plain(&String::from_utf8_lossy(name))));
    }
    for (name, value) in edits.added() {
        output.line(format!("  with {name}: {}", plain(value)));
    }
}

/// What there is to show of a token; decided from it is nothing.
struct Shown {
    key_id: Option<String>,
    claims: Option<Claims>,
    now: UnixTime,
}

impl Shown {
    fn read(request: &Request, now: UnixTime) -> Self {
        let token = request.token.as_ref().map(|token| token.expose().as_bytes());
        let parsed = token.and_then(|token| UnverifiedToken::parse(token).ok());
        let claims = parsed.as_ref().and_then(|token| {
            let payload = json::object(&token.payload)?;
            Claims::read(&payload).ok()
        });
        Self { key_id: parsed.map(|token| token.key_id), claims, now }
    }

    /// What the token says that a check is about, and what is wanted.
    fn detail(&self, check: &str, config: &InboundConfig) -> String {
        let Some(claims) = &self.claims else { return String::new() };
        match check {
            "claims" => {
                let version = match claims.version {
                    Version::V1 => "v1.0",
                    Version::V2 => "v2.0",
                };
                let id = claims.token_id.as_deref().unwrap_or("none");
                format!("{version}, uti {}", plain(id))
            }
            "tenant" => {
                let allowed = match &config.accepted.tenants {
                    Tenants::Any => String::new(),
                    Tenants::Listed(listed) if listed.contains(&claims.tenant) => String::new(),
                    Tenants::Listed(listed) => {
                        let mut listed: Vec<&str> = listed.iter().map(String::as_str).collect();
                        listed.sort_unstable();
                        format!("; `tenants`: {}", listed.join(", "))
                    }
                };
                format!("{}{allowed}", plain(&claims.tenant))
            }
            "issuer" => plain(&claims.issuer),
            "key" => plain(self.key_id.as_deref().unwrap_or_default()),
            "audience" => {
                let listed = config.accepted.audiences.0.contains(&claims.audience);
                let wanted = match listed {
                    true => String::new(),
                    false => format!("; `audiences`: {}", config.accepted.audiences.0.join(", ")),
                };
                format!("{}{wanted}", plain(&claims.audience))
            }
            "end" => format!("{}{}", time::shown(claims.expires), self.distance(claims.expires)),
            "start" => {
                let start = claims.issued.max(claims.not_before);
                format!("{}{}", time::shown(start), self.distance(start))
            }
            "lifetime" => {
                format!("{} s", claims.expires.since(claims.issued.min(claims.not_before)))
            }
            "allow" => grants(claims),
            _ => String::new(),
        }
    }

    fn distance(&self, time: UnixTime) -> String {
        match (time.since(self.now), self.now.since(time)) {
            (0, 0) => ", now".to_owned(),
            (0, ago) => format!(", {ago} s ago"),
            (ahead, _) => format!(", in {ahead} s"),
        }
    }
}

/// What rules can ask for, as the token has it.
fn grants(claims: &Claims) -> String {
    let mut grants = Vec::new();
    let mut list = |name: &str, values: &[String]| {
        if !values.is_empty() {
            grants.push(format!("{name} {}", plain(&values.join(" "))));
        }
    };
    list("scopes", &claims.scopes);
    list("roles", &claims.roles);
    match &claims.groups {
        Groups::Listed(groups) => list("groups", groups),
        Groups::Overage => list("groups", &["(more than fit)".to_owned()]),
    }
    list("acrs", &claims.contexts);
    if claims.answers_challenges {
        list("xms_cc", &["cp1".to_owned()]);
    }
    if let Some(client) = &claims.client {
        let by = claims.client_credential.map_or("unknown", credential);
        grants.push(format!("client {} by {by}", plain(client)));
    }
    format!("the token has {}", grants.join(", "))
}
