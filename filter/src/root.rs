//! The root context: takes a configuration, ticks, and receives the broker's answers.

use std::{cell::RefCell, rc::Rc};

use policy::config::Config;

use crate::{
    host::{self, Level},
    plugin::Plugin,
    signature,
    stream::Stream,
};

/// The root context of one plugin in one VM.
pub(crate) struct Root {
    pub(crate) id: u32,
    pub(crate) plugin: Option<Rc<RefCell<Plugin>>>,
}

impl Root {
    /// Refuses whatever is wrong: then Envoy keeps the configuration that it has.
    ///
    /// No call is made here: from an upstream filter of a static cluster that ends Envoy.
    pub(crate) fn on_configure(&mut self, size: usize) -> bool {
        let Some(document) = host::plugin_configuration(size) else {
            host::log(Level::Error, "entra-sidecar: the host gives no configuration");
            return false;
        };
        let config = match Config::read(&document) {
            Ok(config) => config,
            Err(errors) => {
                for error in &errors {
                    host::log(Level::Error, &format!("entra-sidecar: configuration: {error}"));
                }
                return false;
            }
        };
        // Where nothing is verified the host may withhold the function.
        if config.verifies() && !signature::host_verifies() {
            let message = "entra-sidecar: this host has no working `verify_signature` function, \
                           which Envoy offers since 1.31 and capabilities may withhold \
                           (`proxy_call_foreign_function`): nothing could be verified";
            host::log(Level::Error, message);
            return false;
        }
        self.plugin = Some(Rc::new(RefCell::new(Plugin::new(self.id, config))));
        host::set_tick_period(1).is_some()
    }

    /// Has due calls made and counts handed over.
    pub(crate) fn on_tick(&mut self) {
        if let Some(plugin) = &self.plugin {
            plugin.borrow_mut().on_tick();
        }
    }

    /// Takes the broker's answer to a call; a body of 0 bytes is none.
    pub(crate) fn on_answer(&mut self, call: u32, body_size: usize) {
        if let Some(plugin) = &self.plugin {
            plugin.borrow_mut().on_answer(call, body_size);
        }
    }

    /// A stream that is judged by this configuration.
    pub(crate) fn stream(&self, id: u32) -> Stream {
        Stream { id, plugin: self.plugin.clone(), injected: None }
    }
}
