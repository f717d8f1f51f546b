//! `token-broker explain-access`: which entry of `identity_access` gives a pod which identity, or why
//! each does not, in words. It decides nothing: the words come from what `access` compared.

use std::fmt::Write;

use crate::{
    access::{Evidence, decide},
    config::{Config, IdentityAccess},
};

/// The explanation, lines for a person.
pub fn text(config: &Config, evidence: &Evidence) -> String {
    let Some(IdentityAccess { entries, .. }) = &config.access else { return OPEN.to_owned() };
    // Writing to a String does not fail.
    let mut text = format!("pod: {evidence}\n");
    for identity in config.identities.keys() {
        if let Some(entry) = decide(entries, identity, evidence) {
            let _written =
                writeln!(text, "identity {identity}: allowed by identity_access[{entry}]");
            continue;
        }
        let _written = writeln!(text, "identity {identity}: denied");
        if entries.is_empty() {
            text.push_str("  identity_access is empty\n");
        }
        for (index, entry) in entries.iter().enumerate() {
            let why: Vec<String> =
                entry.mismatches(identity, evidence).iter().map(ToString::to_string).collect();
            let _written = writeln!(text, "  identity_access[{index}]: {}", why.join("; "));
        }
    }
    text
}

/// What is said where nothing is restricted.
pub const OPEN: &str =
    "identity_access: none, every pod with this configuration may use every identity\n";

/// What `check` says of it: each entry, and the identities that none of them names.
pub fn summary(config: &Config) -> Vec<String> {
    let Some(IdentityAccess { entries, pod }) = &config.access else { return Vec::new() };
    let mut lines = vec![format!("pod: token of {}", pod.expected.issuer)];
    for entry in entries {
        let mut pods: Vec<String> = Vec::new();
        pods.extend(entry.namespace.as_ref().map(|name| format!("namespace {name}")));
        pods.extend(entry.service_account.as_ref().map(|name| format!("service account {name}")));
        pods.extend(entry.labels.iter().map(|(name, value)| format!("label {name}={value}")));
        lines.push(format!("access: {} may use {}", pods.join(", "), entry.identities.join(" ")));
    }
    for identity in config.identities.keys() {
        if !entries.iter().any(|entry| entry.identities.contains(identity)) {
            lines.push(format!("access: no pod may use {identity}"));
        }
    }
    lines
}
