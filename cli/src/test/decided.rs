//! What was decided of a case, in the words of a table, and how it differs from what is expected.

use std::collections::{BTreeMap, BTreeSet};

use policy::{decision::Decision, effect::Effect, reply::Reply};

use crate::{
    cases::Expected,
    changes::{self, Change},
    request::Judged,
};

/// A decision in the words of a table.
#[derive(Debug, Default)]
pub(super) struct Decided {
    passes: bool,
    status: Option<u16>,
    reason: String,
    rule: Option<String>,
    headers: BTreeMap<String, String>,
    challenge: Option<String>,
    injects: Option<(String, String)>,
}

/// One thing that is not as expected.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Difference {
    what: String,
    expected: String,
    decided: String,
}

impl Difference {
    /// As in a diff.
    pub(super) fn lines(&self) -> [String; 2] {
        [
            format!("- {}: {}", self.what, self.expected),
            format!("+ {}: {}", self.what, self.decided),
        ]
    }
}

impl Decided {
    /// Of a request that came in.
    pub(super) fn inbound(judged: &Judged) -> Self {
        let mut decided = Self::of(&judged.effect);
        if let Effect::Continue(edits, _) = &judged.effect {
            let headers = changes::of(edits).into_iter().filter_map(|change| match change {
                Change::With(name, value) => Some((name, value)),
                Change::Without(_) | Change::Injected => None,
            });
            let marker = &*judged.config.permit_marker;
            decided.headers = headers.filter(|(name, _)| name != marker).collect();
        }
        decided
    }

    /// Of a call that goes out; `tokens` are identity and scope by rule.
    pub(super) fn outbound(effect: &Effect, tokens: &[(String, (String, String))]) -> Self {
        let mut decided = Self::of(effect);
        if let Effect::Continue(edits, _) = effect
            && changes::of(edits).contains(&Change::Injected)
        {
            let token = tokens.iter().find(|(rule, _)| Some(rule) == decided.rule.as_ref());
            decided.injects = token.map(|(_, token)| token.clone());
        }
        decided
    }

    fn of(effect: &Effect) -> Self {
        match effect {
            Effect::Continue(_, decision) => Self { passes: true, ..Self::because(decision) },
            Effect::Reply(reply, decision) => {
                let challenge = challenge(reply);
                Self { status: Some(reply.status), challenge, ..Self::because(decision) }
            }
            Effect::Wait => Self::default(),
        }
    }

    fn because(decision: &Decision) -> Self {
        let rule = decision.rule.as_ref().map(ToString::to_string);
        Self { reason: decision.reason.code().to_owned(), rule, ..Self::default() }
    }

    /// Everything that is expected and not so.
    pub(super) fn differences(&self, expected: &Expected) -> Vec<Difference> {
        let none = || "none".to_owned();
        let token = |token: &(String, String)| format!("{} for {}", token.0, token.1);
        let passes = |passes: bool| passes.to_string();
        let status = self.status.map_or_else(none, |status| status.to_string());
        let mut differences: Vec<_> = [
            ("passes", expected.passes.map(passes), passes(self.passes)),
            ("status", expected.status.map(|status| status.to_string()), status),
            ("reason", expected.reason.clone(), self.reason.clone()),
            ("rule", expected.rule.clone(), self.rule.clone().unwrap_or_else(none)),
            ("challenge", expected.challenge.clone(), self.challenge.clone().unwrap_or_else(none)),
            (
                "injects",
                expected.injects.as_ref().map(token),
                self.injects.as_ref().map_or_else(none, token),
            ),
        ]
        .into_iter()
        .filter_map(|(what, expected, decided)| {
            let expected = expected.filter(|expected| *expected != decided)?;
            Some(Difference { what: what.to_owned(), expected, decided })
        })
        .collect();
        if let Some(headers) = &expected.headers {
            differences.extend(self.other_headers(headers));
        }
        differences
    }

    /// Headers that are missing, are there unexpectedly, or have another value.
    fn other_headers(&self, expected: &BTreeMap<String, String>) -> Vec<Difference> {
        let names: BTreeSet<&String> = expected.keys().chain(self.headers.keys()).collect();
        let shown = |value: Option<&String>| value.map_or_else(|| "none".to_owned(), String::clone);
        names
            .into_iter()
            .map(|name| (name, expected.get(name), self.headers.get(name)))
            .filter(|(_, expected, decided)| expected != decided)
            .map(|(name, expected, decided)| Difference {
                what: format!("header {name}"),
                expected: shown(expected),
                decided: shown(decided),
            })
            .collect()
    }
}

fn challenge(reply: &Reply) -> Option<String> {
    let header = reply.headers.iter().find(|(name, _)| *name == "www-authenticate");
    header.map(|(_, value)| value.clone())
}
