//! What the host calls (proxy-wasm ABI 0.2.1): finds the context that is meant, and passes on.
//!
//! Written on the bare ABI: an SDK exports every callback whether a filter uses it or not, keeps
//! an object of its own per stream, and panics on what it does not expect, which traps the VM.
//! Here what is unknown is refused. `filter/exports.txt` gives each export's reason.
#![allow(unsafe_code, reason = "exported names are unsafe attributes")]

use std::cell::RefCell;

use hashbrown::HashMap;

use crate::{host, root::Root, stream::Stream};

/// Answers of a header callback (`proxy_action_t`).
const CONTINUE: u32 = 0;
const PAUSE: u32 = 1;

/// Everything that the host has created in this VM and not yet deleted.
#[derive(Default)]
struct Contexts {
    roots: HashMap<u32, Root>,
    streams: HashMap<u32, Stream>,
}

thread_local! {
    // A callback borrows it to its end: the host enters the module again only for memory.
    static CONTEXTS: RefCell<Contexts> = RefCell::default();
}

fn root<T>(id: u32, act: impl FnOnce(&mut Root) -> T) -> Option<T> {
    CONTEXTS.with_borrow_mut(|contexts| contexts.roots.get_mut(&id).map(act))
}

/// Has a stream judge headers; one that nobody knows goes nowhere.
fn stream(id: u32, judge: impl FnOnce(&mut Stream) -> bool) -> u32 {
    let goes_on = CONTEXTS.with_borrow_mut(|contexts| contexts.streams.get_mut(&id).map(judge));
    if goes_on == Some(true) { CONTINUE } else { PAUSE }
}

/// The ABI version that the host looks for.
#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

/// Runs the constructors of wasi-libc, once, before all else.
#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    host::run_constructors();
}

/// Memory for what the host hands over; `host::received` takes it back.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    Box::into_raw(Box::<[u8]>::new_uninit_slice(size)).cast()
}

/// A root context (`parent` 0) or a stream of one begins.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_context_create(id: u32, parent: u32) {
    CONTEXTS.with_borrow_mut(|contexts| {
        if parent == 0 {
            contexts.roots.insert(id, Root { id, plugin: None });
        } else if let Some(root) = contexts.roots.get(&parent) {
            contexts.streams.insert(id, root.stream(id));
        }
    });
}

/// The VM starts.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_vm_start(_root: u32, _configuration_size: usize) -> bool {
    true
}

/// A plugin's configuration came; false refuses it.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_configure(id: u32, configuration_size: usize) -> bool {
    root(id, |root| root.on_configure(configuration_size)).unwrap_or(false)
}

/// The tick period is over.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_tick(id: u32) {
    root(id, |root| root.on_tick());
}

/// The answer to a call-out came, or the host gave it up: then all sizes are 0.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_http_call_response(
    id: u32,
    call: u32,
    _headers: usize,
    body_size: usize,
    _trailers: usize,
) {
    root(id, |root| root.on_answer(call, body_size));
}

/// A stream's request headers came.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_headers(id: u32, _headers: usize, _end_of_stream: u32) -> u32 {
    stream(id, Stream::on_request_headers)
}

/// A stream's request trailers came.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_trailers(id: u32, _trailers: usize) -> u32 {
    stream(id, Stream::on_request_trailers)
}

/// A stream's response headers came.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_headers(id: u32, _headers: usize, _end_of_stream: u32) -> u32 {
    stream(id, |stream| {
        stream.on_response_headers();
        true
    })
}

/// A context goes away.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_delete(id: u32) {
    // Dropped when nothing is borrowed any more.
    let _gone = CONTEXTS
        .with_borrow_mut(|contexts| (contexts.streams.remove(&id), contexts.roots.remove(&id)));
}
