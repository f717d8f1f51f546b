//! The environment keys of Microsoft's auth sidecar: each is taken by who honours it, and what is
//! left over is refused.
//!
//! .NET compares their names without case, takes `:` for `__`, and reads them also behind the prefixes
//! of its hosts: so nobody can hide one here by its spelling.

use std::collections::BTreeMap;

use super::super::{Errors, environment::Environment};

/// The section that is the application's own.
const OF_THE_APPLICATION: &str = "azuread__";
/// The sections that the original reads.
const SECTIONS: [&str; 5] = [
    OF_THE_APPLICATION,
    "downstreamapis__",
    "sidecar__",
    "tokendecryptioncredentialsdescription__",
    "kestrel__",
];
/// Where every server of ASP.NET Core listens
/// (learn.microsoft.com/aspnet/core/fundamentals/servers/kestrel/endpoints).
const ADDRESSES: [&str; 4] = ["urls", "http_ports", "https_ports", "https_port"];
/// The host's prefixes: what follows is a key like one without
/// (learn.microsoft.com/aspnet/core/fundamentals/configuration).
const HOSTS: [&str; 2] = ["aspnetcore_", "dotnet_"];

/// A name as they are compared here.
fn comparable(name: &str) -> String {
    name.to_ascii_lowercase().replace(':', "__")
}

fn without_host(name: &str) -> &str {
    HOSTS.iter().find_map(|host| name.strip_prefix(host)).unwrap_or(name)
}

/// Whether a variable is one that says whose tokens the original takes and asks for.
pub(super) fn is_of_the_application(name: &str) -> bool {
    without_host(&comparable(name)).starts_with(OF_THE_APPLICATION)
}

/// The keys that nobody has taken yet, by their names as they are compared.
pub(super) struct Keys(BTreeMap<String, (String, String)>);

impl Keys {
    pub(super) fn of(environment: &dyn Environment, errors: &mut Errors) -> Self {
        let mut keys = BTreeMap::new();
        for name in environment.names() {
            let compared = comparable(&name);
            let key = without_host(&compared);
            if !ADDRESSES.contains(&key) && !SECTIONS.iter().any(|it| key.starts_with(it)) {
                continue;
            }
            let Some(value) = environment.variable(&name) else { continue };
            if let Some((other, _)) = keys.insert(compared, (name.clone(), value)) {
                errors.push(name, format!("stands there also as {other}"));
            }
        }
        Self(keys)
    }

    /// The value of a key.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(&comparable(name)).map(|(_, value)| value)
    }

    /// Whether nobody has taken a key that is there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(&comparable(name))
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
        let compared = comparable(prefix);
        let mut names: Vec<String> = Vec::new();
        for (key, (spelt, _)) in &self.0 {
            let spelt = spelt.replace(':', "__");
            let rest = key.strip_prefix(&compared).and_then(|_| spelt.get(compared.len()..));
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
        let compared = comparable(prefix);
        self.0.retain(|key, _| !key.starts_with(&compared));
    }

    /// Refuses what nobody took.
    pub(super) fn refuse_the_rest(self, errors: &mut Errors) {
        for (name, _value) in self.0.into_values() {
            errors.push(name, "not honoured here, so it is not ignored either; remove it");
        }
    }
}
