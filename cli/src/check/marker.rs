//! AuthorizationPolicies that deny what the filter did not mark: which ports they leave out.

use std::rc::Rc;

use policy::config::Config;

use super::{Finding, Severity, Sound};
use crate::{
    find::Configuration,
    tree::{Node, Tree},
};

/// The marker's name, unless a policy of the filter gives it another.
const MARKER: &str = "x-entra-permit";

/// A policy on the marker.
pub(super) struct Policy {
    /// Where its rules begin.
    pub(super) line: usize,
    /// For a person.
    pub(super) meaning: String,
    pub(super) findings: Vec<Finding>,
}

/// Those of a file, with the filter's policies of that file.
pub(super) fn policies(documents: &[Rc<Node>], sound: &[(Configuration, Sound)]) -> Vec<Policy> {
    let mut markers = vec![MARKER];
    for (_, sound) in sound {
        if let Sound::Filter(Config::Inbound(config)) = sound {
            markers.push(&config.permit_marker);
        }
    }
    documents.iter().filter_map(|document| policy(document, &markers)).collect()
}

fn policy(document: &Node, markers: &[&str]) -> Option<Policy> {
    let text = |node: &Node, name: &str| node.get(name)?.text().map(str::to_owned);
    let spec = document.get("spec")?;
    if text(document, "kind")? != "AuthorizationPolicy" {
        return None;
    }
    let name = document.get("metadata").and_then(|metadata| text(metadata, "name"));
    let name = name.unwrap_or_else(|| "without a name".to_owned());
    let action = text(spec, "action").unwrap_or_else(|| "ALLOW".to_owned());
    let mut found = None;
    let mut findings = Vec::new();
    for (index, rule) in elements(spec.get("rules")).iter().enumerate() {
        let on_marker = |condition: &&Rc<Node>| {
            condition
                .get("key")
                .and_then(|key| key.text())
                .is_some_and(|key| is_marker(key, markers))
        };
        let Some(condition) = elements(rule.get("when")).iter().find(on_marker) else { continue };
        found = found.or(Some(document.line));
        // ALLOW policies are ORed with whatever others a namespace has.
        if action != "DENY" || condition.get("notValues").is_none() {
            findings.push(Finding {
                line: condition.line,
                severity: Severity::Warning,
                path: format!("spec.rules[{index}].when"),
                message: "stops nothing where another policy allows: only `action: DENY` with \
                          `notValues` holds"
                    .to_owned(),
            });
            continue;
        }
        for (to, operation) in elements(rule.get("to")).iter().enumerate() {
            let ports = operation.get("operation").and_then(|operation| operation.get("notPorts"));
            for port in elements(ports) {
                let Some(number) = port.text() else { continue };
                findings.push(Finding {
                    line: port.line,
                    severity: Severity::Warning,
                    path: format!("spec.rules[{index}].to[{to}].operation.notPorts"),
                    message: format!("port {number} carries traffic that the filter never sees"),
                });
            }
        }
    }
    let line = found?;
    let meaning = match action.as_str() {
        "DENY" => "denies what the filter did not permit",
        _ => "is about what the filter permitted",
    };
    Some(Policy { line, meaning: format!("AuthorizationPolicy {name}: {meaning}"), findings })
}

fn is_marker(key: &str, markers: &[&str]) -> bool {
    let name = key.strip_prefix("request.headers[").and_then(|rest| rest.strip_suffix(']'));
    name.is_some_and(|name| markers.iter().any(|marker| name.eq_ignore_ascii_case(marker)))
}

fn elements(node: Option<&Rc<Node>>) -> &[Rc<Node>] {
    match node.map(|node| &node.value) {
        Some(Tree::List(elements)) => elements,
        _ => &[],
    }
}
