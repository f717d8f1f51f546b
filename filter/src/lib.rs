//! The proxy-wasm filter: host calls in, effects out. Every decision is made in `policy`.
//!
//! The host calls [`callbacks`]. [`root`] takes the configuration and ticks, [`stream`] gets each
//! request; both only pass on to [`plugin`], which asks the core and has [`apply`] do what it says.
//! [`broker`] speaks to the token broker, [`signature`] has the host verify, [`host`] is the host's
//! functions.

mod apply;
mod broker;
mod callbacks;
mod header_map;
mod host;
mod metrics;
mod plugin;
mod properties;
mod root;
mod signature;
mod stream;
#[cfg(feature = "trap")]
mod trap;

/// Of Rust's own allocator for wasm, a request costs half a microsecond more.
#[cfg(target_family = "wasm")]
#[global_allocator]
static ALLOCATOR: talc::wasm::WasmDynamicTalc = talc::wasm::new_wasm_dynamic_allocator();
