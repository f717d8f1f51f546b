//! By what each metric is told apart.

use contract::ErrorKind;
use prometheus_client::encoding::EncodeLabelSet;

/// Tokens asked of Entra: which identity, how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByIdentity {
    pub(super) identity: String,
    pub(super) outcome: &'static str,
}

/// One of an identity's credentials, by its place in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByCredential {
    pub(super) identity: String,
    pub(super) position: u32,
    pub(super) outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfIdentity {
    pub(super) identity: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByAuthority {
    pub(super) authority: String,
    pub(super) outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfAuthority {
    pub(super) authority: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByOutcome {
    pub(super) outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByRoute {
    pub(super) listener: &'static str,
    pub(super) route: &'static str,
    pub(super) status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfListener {
    pub(super) listener: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Build {
    pub(super) version: &'static str,
}

/// The word for a kind in labels: as on the wire.
pub fn kind_label(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Transient => "transient",
        ErrorKind::Throttled => "throttled",
        ErrorKind::ClaimsChallenge => "claims_challenge",
        ErrorKind::Credential => "credential",
        ErrorKind::Config => "config",
        ErrorKind::Disabled => "disabled",
        ErrorKind::Denied => "denied",
    }
}
