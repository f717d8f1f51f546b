//! What the filter changes about a request that goes on, one by one.

use policy::effect::{Edits, HeaderValue};

/// One change.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Headers of this name are taken away.
    Without(String),
    /// A header is set.
    With(String, String),
    /// Authorization is set to a token that the broker gave.
    Injected,
}

/// The changes in their order.
pub(crate) fn of(edits: &Edits) -> Vec<Change> {
    let removed =
        edits.remove.iter().map(|name| Change::Without(String::from_utf8_lossy(name).into_owned()));
    let set = edits.set.iter().map(|(name, value)| match value {
        HeaderValue::Plain(value) => Change::With(name.to_string(), value.to_string()),
        HeaderValue::Secret(_) => Change::Injected,
    });
    removed.chain(set).collect()
}
