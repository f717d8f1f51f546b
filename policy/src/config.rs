//! What a user writes, turned into what the filter decides by: all errors at once.
//!
//! [`raw`] is the document as written; [`InboundConfig`] and [`OutboundConfig`] are valid by
//! construction. An error anywhere refuses the whole document.

mod accepted;
mod alternative;
mod inbound;
mod outbound;
pub mod raw;

use serde_json::Value;

pub use accepted::Accepted;
pub use alternative::Alternative;
pub use inbound::{Allow, InboundConfig, Match, Mode, Rule};
pub use outbound::{ExistingAuthorization, HostAndCluster, OutboundConfig, OutboundRule, Position};

use crate::{
    document::{self, ConfigError},
    json,
};

/// A configuration of the filter, in one of its directions.
#[derive(Debug)]
pub enum Config {
    /// Validates what comes in.
    Inbound(Box<InboundConfig>),
    /// Injects tokens into what goes out.
    Outbound(OutboundConfig),
}

impl Config {
    /// Reads a JSON document, or lists everything that is wrong with it.
    pub fn read(text: &[u8]) -> Result<Self, Vec<ConfigError>> {
        // The strict reader first: a member that stands twice would silently lose one of its
        // values, and with it perhaps a restriction.
        if json::object(text).is_none() {
            let message = "expected a JSON object in which no member stands twice";
            return Err(vec![ConfigError::new("", message)]);
        }
        let document: Value = serde_json::from_slice(text)
            .map_err(|error| vec![ConfigError::new("", error.to_string())])?;
        match document.get("direction").and_then(Value::as_str) {
            Some("inbound") => read(document, inbound::validate).map(Box::new).map(Self::Inbound),
            Some("outbound") => read(document, outbound::validate).map(Self::Outbound),
            _ => Err(vec![ConfigError::new("direction", "expected `inbound` or `outbound`")]),
        }
    }
}

impl Config {
    /// Whether tokens of callers are verified by it.
    pub fn verifies(&self) -> bool {
        match self {
            Self::Inbound(_) => true,
            Self::Outbound(config) => config.accepted.is_some(),
        }
    }
}

fn read<R: serde::de::DeserializeOwned, T>(
    document: Value,
    validate: impl FnOnce(R, &mut Errors) -> Option<T>,
) -> Result<T, Vec<ConfigError>> {
    let (raw, found) = document::read::<R>(document);
    let mut errors = Errors(found);
    let config = raw.and_then(|raw| validate(raw, &mut errors));
    match config {
        Some(config) if errors.0.is_empty() => Ok(config),
        _ => Err(errors.0),
    }
}

/// Collects what validation finds. A path that already has an error is not reported again: the
/// value was taken out, and would only look as if it were missing.
struct Errors(Vec<ConfigError>);

impl Errors {
    fn add(&mut self, path: &str, message: impl Into<String>) {
        if !self.0.iter().any(|error| error.path == path) {
            self.0.push(ConfigError::new(path, message));
        }
    }

    fn required<T>(&mut self, path: &str, value: Option<T>, expected: &str) -> Option<T> {
        if value.is_none() {
            self.add(path, format!("required: {expected}"));
        }
        value
    }

    /// A list that must hold something, each element told what it must be.
    fn list<T>(
        &mut self,
        path: &str,
        elements: Option<Vec<Option<String>>>,
        expected: &str,
        read: &dyn Fn(&str) -> Option<T>,
    ) -> Vec<T> {
        let Some(elements) = elements else { return Vec::new() };
        if elements.is_empty() {
            self.add(path, format!("must not be empty: {expected}"));
        }
        let mut values = Vec::new();
        for (index, element) in elements.iter().enumerate() {
            match element.as_deref().and_then(read) {
                Some(value) => values.push(value),
                None => self.add(&format!("{path}[{index}]"), format!("expected {expected}")),
            }
        }
        values
    }

    /// A name that goes into records and metrics.
    fn name(&mut self, path: &str, name: Option<String>) -> Option<String> {
        let name = self.required(path, name, "a name")?;
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if name.is_empty() || name.len() > 64 || !plain {
            self.add(path, "expected 1 to 64 letters, digits, `-`, `_` or `.`");
            return None;
        }
        Some(name)
    }

    fn broker(&mut self, broker: Option<raw::RawBroker>) -> Option<String> {
        let broker =
            self.required("broker", broker, "the broker's cluster, as in {cluster: token_broker}")?;
        let cluster =
            self.required("broker.cluster", broker.cluster, "the name of the broker's cluster")?;
        if cluster.is_empty() {
            self.add("broker.cluster", "must not be empty");
        }
        Some(cluster)
    }
}

#[cfg(test)]
mod tests;
