//! What is to be done about a request: data that the filter applies.

use std::rc::Rc;

use contract::Secret;

use crate::{decision::Decision, reply::Reply};

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

/// Changes to the request's headers: removals first.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Edits {
    /// Names to remove, as they were sent.
    pub remove: Vec<Vec<u8>>,
    /// Headers to set, in place of whatever has the name.
    pub set: Vec<(Rc<str>, HeaderValue)>,
}

impl Edits {
    /// The token that is set, by which a response tells whether it is still the one that is held.
    pub fn token(&self) -> Option<&Rc<Secret>> {
        self.set.iter().find_map(|(_, value)| match value {
            HeaderValue::Secret(token) => Some(token),
            HeaderValue::Plain(_) => None,
        })
    }
}

/// A value to set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderValue {
    /// A claim, or the marker.
    Plain(Rc<str>),
    /// Authorization with a token.
    Secret(Rc<Secret>),
}

impl HeaderValue {
    /// The value as it goes onto the wire.
    pub fn expose(&self) -> &str {
        match self {
            Self::Plain(value) => value,
            Self::Secret(value) => value.expose(),
        }
    }
}
