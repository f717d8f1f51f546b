//! What the filter changes about a request that goes on, one by one.

use policy::effect::Edits;

/// One change.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Headers of this name are taken away.
    Without(String),
    /// A header is added.
    With(String, String),
    /// Authorization is set to a token that the broker gave.
    Injected,
}

/// The changes in their order.
pub(crate) fn of(edits: &Edits) -> Vec<Change> {
    let names = edits.remove.iter().map(|name| String::from_utf8_lossy(name).into_owned());
    let authorization = edits.remove_authorization.then(|| "authorization".to_owned());
    let added = edits.add.iter().flat_map(|headers| headers.iter());
    let with =
        |(name, value): &policy::effect::Header| Change::With(name.to_string(), value.to_string());
    let injected = edits.authorization.as_ref().map(|_| Change::Injected);
    names.chain(authorization).map(Change::Without).chain(added.map(with)).chain(injected).collect()
}
