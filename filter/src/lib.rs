//! The proxy-wasm filter: host calls in, effects out. Every decision is made in `policy`.
//!
//! [`root`] takes the configuration and ticks, [`stream`] gets each request; both only pass on to
//! [`plugin`], which asks the core and has [`apply`] do what it says. [`broker`] speaks to the
//! token broker, [`signature`] has the host verify, [`host`] is the host's functions.

mod apply;
mod broker;
mod host;
mod metrics;
mod plugin;
mod root;
mod signature;
mod stream;
#[cfg(feature = "trap")]
mod trap;

#[allow(unsafe_code, missing_docs, reason = "the SDK's macro exports the entry point")]
mod entry {
    proxy_wasm::main! {{
        proxy_wasm::set_root_context(|id| Box::new(crate::root::Root { id, plugin: None }));
    }}
}
