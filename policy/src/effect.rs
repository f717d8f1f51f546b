//! What is to be done about a request: data that the filter applies.

use std::rc::Rc;

use contract::Secret;

use crate::{decision::Decision, identity_headers::Header, reply::Reply};

/// What is to be done next.
#[derive(Debug)]
pub enum Effect {
    /// Edit the request's headers, then let it go on.
    Continue(Edits, Decision),
    /// Answer it here; it goes nowhere.
    Reply(Reply, Decision),
    /// Keep it until the broker has answered, then ask again.
    Wait,
}

impl Effect {
    /// The decision, once there is one.
    pub fn decision(&self) -> Option<&Decision> {
        match self {
            Self::Continue(_, decision) | Self::Reply(_, decision) => Some(decision),
            Self::Wait => None,
        }
    }
}

/// Changes to the request's headers, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Edits {
    /// Names to remove, as they were sent.
    pub remove: Vec<Vec<u8>>,
    /// Whether Authorization is to be removed.
    pub remove_authorization: bool,
    /// Headers to add. Whatever had such a name, in any spelling, is among those removed, so there
    /// is nothing to replace: looking for it would cost a host as much as all the rest.
    pub add: Option<Rc<[Header]>>,
    /// Authorization, in place of whatever is there.
    pub authorization: Option<Rc<Secret>>,
}

impl Edits {
    /// Every name that is removed.
    pub fn removed(&self) -> impl Iterator<Item = &[u8]> {
        let authorization = self.remove_authorization.then_some(b"authorization".as_slice());
        self.remove.iter().map(Vec::as_slice).chain(authorization)
    }

    /// Every header that is added.
    pub fn added(&self) -> impl Iterator<Item = &Header> {
        self.add.iter().flat_map(|headers| headers.iter())
    }
}
