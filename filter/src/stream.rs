//! One HTTP stream: passes the host's callbacks on to the plugin.

use std::{cell::RefCell, rc::Rc};

use policy::outbound::Injected;
use proxy_wasm::{
    traits::{Context, HttpContext},
    types::Action,
};

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

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        #[cfg(feature = "trap")]
        crate::trap::if_asked();
        let (outcome, injected) = match &self.plugin {
            Some(plugin) => plugin.borrow_mut().on_request(self.id),
            None => (apply::refuse(), None),
        };
        self.injected = injected;
        match outcome {
            Outcome::GoesOn => Action::Continue,
            Outcome::Held | Outcome::Answered => Action::Pause,
        }
    }

    fn on_http_request_trailers(&mut self, _count: usize) -> Action {
        match self.plugin.as_ref().map(|plugin| plugin.borrow_mut().on_trailers()) {
            Some(Outcome::GoesOn) => Action::Continue,
            Some(Outcome::Held | Outcome::Answered) | None => Action::Pause,
        }
    }

    fn on_http_response_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        if let Some(plugin) = &self.plugin {
            plugin.borrow_mut().on_response(self.id, self.injected.take());
        }
        // Never held: up to 1.36 Envoy crashes when it retries after a held response.
        Action::Continue
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
