//! The environment keys of Microsoft's auth sidecar: each is taken by who honours it, and what is
//! left over is refused.
//!
//! .NET compares their names without case, so nobody can hide one here by its case.

use std::collections::BTreeMap;

use super::super::{Errors, environment::Environment};

/// How the keys begin that the original reads.
const PREFIXES: [&str; 7] = [
    "azuread__",
    "downstreamapis__",
    "sidecar__",
    "tokendecryptioncredentialsdescription__",
    "kestrel__",
    "aspnetcore_urls",
    "aspnetcore_http",
];

/// The keys that nobody has taken yet, by their names in lower case.
pub(super) struct Keys(BTreeMap<String, (String, String)>);

impl Keys {
    pub(super) fn of(environment: &dyn Environment, errors: &mut Errors) -> Self {
        let mut keys = BTreeMap::new();
        for name in environment.names() {
            let lower = name.to_ascii_lowercase();
            if !PREFIXES.iter().any(|prefix| lower.starts_with(prefix)) {
                continue;
            }
            let Some(value) = environment.variable(&name) else { continue };
            if let Some((other, _)) = keys.insert(lower, (name.clone(), value)) {
                errors.push(name, format!("stands there also as {other}"));
            }
        }
        Self(keys)
    }

    /// The value of a key.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(&name.to_ascii_lowercase()).map(|(_, value)| value)
    }

    /// The value of a key that must be there; `expected` says what it is.
    pub(super) fn required(
        &mut self,
        name: &str,
        expected: &str,
        errors: &mut Errors,
    ) -> Option<String> {
        let value = self.take(name);
        if value.is_none() {
            errors.missing(name, expected);
        }
        value
    }

    /// The names between `prefix` and the next `__`, as they are spelt, each once.
    pub(super) fn names_after(&self, prefix: &str) -> Vec<String> {
        let lower = prefix.to_ascii_lowercase();
        let mut names: Vec<String> = Vec::new();
        for (key, (spelt, _)) in &self.0 {
            let rest = key.strip_prefix(&lower).and_then(|_| spelt.get(lower.len()..));
            if let Some((name, _)) = rest.and_then(|rest| rest.split_once("__"))
                && !names.iter().any(|known| known.eq_ignore_ascii_case(name))
            {
                names.push(name.to_owned());
            }
        }
        // Entries of a list are numbered.
        names.sort_by_key(|name| name.parse::<u32>().unwrap_or(u32::MAX));
        names
    }

    /// Forgets the keys under a prefix that has its own error.
    pub(super) fn forget(&mut self, prefix: &str) {
        let lower = prefix.to_ascii_lowercase();
        self.0.retain(|key, _| !key.starts_with(&lower));
    }

    /// Refuses what nobody took.
    pub(super) fn refuse_the_rest(self, errors: &mut Errors) {
        for (name, _value) in self.0.into_values() {
            errors.push(name, "not honoured here, so it is not ignored either; remove it");
        }
    }
}
