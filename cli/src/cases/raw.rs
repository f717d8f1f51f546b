//! A table of cases as a person wrote it: every member optional, nothing checked.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The table. Files are named from where it is.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table of cases")]
pub(crate) struct RawCases {
    /// File with the filter's configuration, as for `check`.
    pub(crate) config: Option<String>,
    /// Name of the filter or resource, where that has several of a direction.
    pub(crate) filter: Option<String>,
    /// Keys to trust. Without it a key is made for the run, which signs all `claims`.
    pub(crate) keys: Option<String>,
    /// The test key that signs `claims`, where `keys` are given.
    pub(crate) key: Option<String>,
    /// When the requests come.
    pub(crate) at: Option<String>,
    /// The cases.
    pub(crate) cases: Option<Vec<Option<RawCase>>>,
}

/// A request and what is expected.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a case")]
pub(crate) struct RawCase {
    /// What it shows.
    pub(crate) name: Option<String>,
    /// When the request comes.
    pub(crate) at: Option<String>,
    /// The request.
    pub(crate) request: Option<RawRequest>,
    /// The caller's token.
    pub(crate) token: Option<RawToken>,
    /// What is expected.
    pub(crate) expect: Option<RawExpected>,
}

/// A request.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a request")]
pub(crate) struct RawRequest {
    /// Of a call that goes out: what the cluster's metadata name.
    pub(crate) destination: Option<String>,
    /// Without it `GET`.
    pub(crate) method: Option<String>,
    /// With its query.
    pub(crate) path: Option<String>,
    /// Without it `localhost`.
    pub(crate) host: Option<String>,
    /// Further headers.
    pub(crate) headers: Option<BTreeMap<String, Option<String>>>,
}

/// A token. `claims` are read beside this: their nulls mean something.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "`claims` or `file`")]
pub(crate) struct RawToken {
    /// A file with a token.
    pub(crate) file: Option<String>,
}

/// What is expected.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "what is expected")]
pub(crate) struct RawExpected {
    /// Whether the request goes on.
    pub(crate) passes: Option<bool>,
    /// The status of the filter's answer.
    pub(crate) status: Option<u16>,
    /// The reason code.
    pub(crate) reason: Option<String>,
    /// The rule that decided.
    pub(crate) rule: Option<String>,
    /// All identity headers that the application gets.
    pub(crate) headers: Option<BTreeMap<String, Option<String>>>,
    /// `WWW-Authenticate` of the answer.
    pub(crate) challenge: Option<String>,
    /// The injected token.
    pub(crate) injects: Option<RawInjected>,
}

/// Whose token is injected.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "`identity` and `scope`")]
pub(crate) struct RawInjected {
    /// The broker's name of the identity.
    pub(crate) identity: Option<String>,
    /// The scope.
    pub(crate) scope: Option<String>,
}
