//! An identity of the machine that the pod runs on, or of the pod where an agent of the node answers
//! in the machine's place (learn.microsoft.com/entra/identity/managed-identities-azure-resources).

use std::sync::Arc;

use contract::TypedError;

use super::{Fingerprint, TokenSource};
use crate::{
    config::ManagedIdentity,
    entra::{
        instance_metadata,
        token_endpoint::{Acquired, Wanted},
    },
    https::{Boxed, Transport},
};

/// There is no credential: the machine is known by the wire that it asks on.
pub(super) struct OfMachine {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) identity: ManagedIdentity,
}

impl TokenSource for OfMachine {
    fn acquire<'a>(&'a self, wanted: Wanted<'a>) -> Boxed<'a, Result<Acquired, TypedError>> {
        Box::pin(instance_metadata::token(self.transport.as_ref(), &self.identity, wanted))
    }

    fn credential(&self) -> Boxed<'_, Option<Fingerprint>> {
        Box::pin(std::future::ready(None))
    }
}
