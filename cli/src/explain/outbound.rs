//! Explains a call that goes out.

use std::collections::HashMap;

use policy::{
    checks::{self, ON_BEHALF_OF, OUTBOUND, Verdict},
    config::{OutboundConfig, OutboundRule},
    effect::Effect,
    time::UnixTime,
};

use super::{Table, decision, passes, plain, reply};
use crate::{
    output::{Failure, Output},
    request::{self, Keys, Request},
};

/// Every check of the call, and what goes out.
pub(super) fn explain(
    config: OutboundConfig,
    destination: &str,
    request: &Request,
    keys: &Keys,
    now: UnixTime,
) -> Result<Output, Failure> {
    let rules: HashMap<String, Named> =
        config.rules.iter().map(|rule| (rule.name.to_string(), Named::of(rule))).collect();
    let effect = request::outbound(config, destination, request, keys, now)?;
    let mut output = Output { wrong: !passes(&effect), ..Output::default() };
    let Some(made) = effect.decision() else { return Ok(output) };
    let rule = made.rule.as_deref().and_then(|rule| rules.get(rule));
    let for_caller = rule.is_some_and(|rule| rule.for_caller);
    let unchecked = matches!(keys, Keys::Unchecked);
    let mut unchecked_reached = false;
    output.line(format!("a call to destination {}", plain(destination)));
    output.line("");
    let mut table = Table::default();
    let all = if for_caller { ON_BEHALF_OF } else { OUTBOUND };
    for (check, verdict) in checks::verdicts(all, made.reason) {
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
            (Verdict::Passed, "key" | "signature") if unchecked => {
                unchecked_reached = true;
                ("not checked", "no --keys".to_owned())
            }
            (Verdict::Passed, "authorization") if for_caller => {
                ("ok", "taken for the caller's token".to_owned())
            }
            (Verdict::Passed, "user") => ("ok", "a user's token".to_owned()),
            (Verdict::Passed, "exchange") => ("ok", "taken for made by the broker".to_owned()),
            (Verdict::Passed, "token") if for_caller => ("ok", String::new()),
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
    let reservation = match (unchecked_reached, passes(&effect)) {
        (true, true) => "\nonly if the signature is good: it was not checked",
        (true, false) => "\nwith a good signature; a bad one would be refused before",
        (false, _) => "",
    };
    output.line(decision(passes(&effect), made, reservation));
    match &effect {
        Effect::Continue(edits, _) => {
            output.line("what goes out:");
            for name in edits.removed() {
                output.line(format!("  without {}", plain(&String::from_utf8_lossy(name))));
            }
            if edits.authorization.is_some() {
                let whose = rule.map_or("a token", |rule| rule.whose.as_str());
                output.line(format!("  authorization: Bearer <{whose}>"));
            }
            if rule.is_some_and(|rule| rule.answers_challenges) && edits.authorization.is_some() {
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

/// What a rule injects, in words.
struct Named {
    whose: String,
    for_caller: bool,
    answers_challenges: bool,
}

impl Named {
    fn of(rule: &OutboundRule) -> Self {
        let (identity, scope) = (&rule.token.identity, &rule.token.scope);
        let for_caller = rule.on_behalf_of_caller;
        let user = if for_caller { " of the caller, exchanged" } else { "" };
        let by = if for_caller { "by" } else { "of" };
        Self {
            whose: format!("a token{user} {by} identity {identity} for {scope}"),
            for_caller,
            answers_challenges: rule.token.claims_challenges,
        }
    }
}

fn has_authorization(request: &Request) -> bool {
    request.token.is_some() || request.headers.iter().any(|(name, _)| name == "authorization")
}
