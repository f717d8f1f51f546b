//! One HTTP stream: passes the host's callbacks on to the plugin.

use std::{cell::RefCell, rc::Rc};

use policy::outbound::Injected;

use crate::{
    apply::{self, Outcome},
    plugin::Plugin,
};

/// A stream of a configured plugin; without one it answers 503.
pub(crate) struct Stream {
    pub(crate) id: u32,
    pub(crate) plugin: Option<Rc<RefCell<Plugin>>>,
    /// The token that went with the request.
    pub(crate) injected: Option<Injected>,
}

impl Stream {
    /// Judges the request; false holds it back.
    pub(crate) fn on_request_headers(&mut self) -> bool {
        #[cfg(feature = "trap")]
        crate::trap::if_asked();
        let (outcome, injected) = match &self.plugin {
            Some(plugin) => plugin.borrow_mut().on_request(self.id),
            None => (apply::refuse(), None),
        };
        self.injected = injected;
        outcome == Outcome::GoesOn
    }

    /// Takes identity out of the trailers; false holds them back.
    pub(crate) fn on_request_trailers(&mut self) -> bool {
        let outcome = self.plugin.as_ref().map(|plugin| plugin.borrow_mut().on_trailers());
        outcome == Some(Outcome::GoesOn)
    }

    /// Looks at the connection that the response came by, and whether it is a challenge. It is never
    /// held: up to 1.36 Envoy crashes when it retries after a held response.
    pub(crate) fn on_response_headers(&mut self) {
        if let Some(plugin) = &self.plugin {
            plugin.borrow_mut().on_response(self.id, self.injected.take());
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Whoever goes away must not be woken: the host may give its id to another stream.
        if let Some(plugin) = &self.plugin {
            plugin.borrow_mut().forget(self.id);
        }
    }
}
