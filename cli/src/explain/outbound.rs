//! Explains a call that goes out.

use std::collections::{HashMap, HashSet};

use policy::{
    checks::{self, OUTBOUND, Verdict},
    config::OutboundConfig,
    effect::Effect,
    time::UnixTime,
};

use super::{Table, decision, passes, plain, reply};
use crate::{
    output::{Failure, Output},
    request::{self, Request},
};

/// Every check of the call, and what goes out.
pub(super) fn explain(
    config: OutboundConfig,
    destination: &str,
    request: &Request,
    now: UnixTime,
) -> Result<Output, Failure> {
    let whose: HashMap<String, String> = config
        .rules
        .iter()
        .map(|rule| {
            let (identity, scope) = (&rule.token.identity, &rule.token.scope);
            (rule.name.to_string(), format!("a token of identity {identity} for {scope}"))
        })
        .collect();
    let answering = config.rules.iter().filter(|rule| rule.token.claims_challenges);
    let answering: HashSet<String> = answering.map(|rule| rule.name.to_string()).collect();
    let effect = request::outbound(config, destination, request, now)?;
    let mut output = Output { wrong: !passes(&effect), ..Output::default() };
    let Some(made) = effect.decision() else { return Ok(output) };
    let whose = made.rule.as_deref().and_then(|rule| whose.get(rule));
    output.line(format!("a call to destination {}", plain(destination)));
    output.line("");
    let mut table = Table::default();
    for (check, verdict) in checks::verdicts(OUTBOUND, made.reason) {
        let (word, detail) = match (verdict, check.name) {
            (Verdict::NotReached, name) => {
                table.not_made.push(name);
                continue;
            }
            (Verdict::Decided, _) => (made.reason.code(), String::new()),
            (Verdict::Passed, "destination") => {
                ("ok", format!("rule {}", made.rule.as_deref().unwrap_or_default()))
            }
            (Verdict::Passed, "listener") => ("ok", "taken for an outbound one".to_owned()),
            (Verdict::Passed, "tls") => ("ok", "no connection without TLS seen".to_owned()),
            (Verdict::Passed, "authorization") => match has_authorization(request) {
                true => ("ok", "the application's own is replaced".to_owned()),
                false => ("ok", "the application sends none".to_owned()),
            },
            (Verdict::Passed, "token") => ("ok", "taken for given by the broker".to_owned()),
            (Verdict::Passed, _) => ("ok", String::new()),
        };
        table.made(check.name, word, &detail);
    }
    table.print(&mut output, "not reached");
    output.line("");
    output.line(decision(passes(&effect), made, ""));
    match &effect {
        Effect::Continue(edits, _) => {
            output.line("what goes out:");
            for name in edits.removed() {
                output.line(format!("  without {}", plain(&String::from_utf8_lossy(name))));
            }
            if edits.authorization.is_some() {
                let whose = whose.map_or("a token", String::as_str);
                output.line(format!("  authorization: Bearer <{whose}>"));
            }
            let answers = made.rule.as_deref().is_some_and(|rule| answering.contains(rule));
            if answers && edits.authorization.is_some() {
                output.line("  a claims challenge to it is answered, where route and broker are set up for it");
            }
            if edits.removed().next().is_none() && edits.authorization.is_none() {
                output.line("  the call as the application made it");
            }
        }
        Effect::Reply(answer, _) => reply(&mut output, answer),
        Effect::Wait => {}
    }
    Ok(output)
}

fn has_authorization(request: &Request) -> bool {
    request.token.is_some() || request.headers.iter().any(|(name, _)| name == "authorization")
}
