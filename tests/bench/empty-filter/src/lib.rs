//! A proxy-wasm filter that does nothing: the least that any wasm filter costs.
//!
//! It exports the context life cycle and request headers, and no other callback, so Envoy enters
//! the module only where every filter must be entered. It is written on the bare ABI (proxy-wasm
//! 0.2.1), because an SDK exports every callback whether a filter uses it or not.
#![allow(unsafe_code, reason = "exported names are unsafe attributes; no block here is unsafe")]

/// The ABI version that the host looks for.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_abi_version_0_2_1() {}

/// Memory for what the host hands over. It is never called by the callbacks below.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    Box::leak(vec![0; size].into_boxed_slice()).as_mut_ptr()
}

/// A stream, or the root, begins.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_context_create(_context: u32, _parent: u32) {}

/// Request headers: 0 is `Continue`.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_request_headers(_context: u32, _headers: u32, _end: u32) -> u32 {
    0
}

/// The stream ends: 1 is "nothing pending".
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_done(_context: u32) -> u32 {
    1
}

/// The context goes away.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_delete(_context: u32) {}
