//! The host's functions (proxy-wasm ABI 0.2.1).
//!
//! A panic is a trap that takes the worker's filter down, so every failure is an answer here, and
//! header bytes need not be UTF-8. Header maps are read in place. What the host calls in turn is in
//! `callbacks`.
#![allow(unsafe_code, reason = "the proxy-wasm ABI is C")]

use std::{ptr::null_mut, time::Duration};

use crate::header_map::{HeaderMap, serialized};

/// Result of a host call; 0 is success (proxy-wasm ABI 0.2.1, `proxy_status_t`).
type Status = u32;
const OK: Status = 0;
const NOT_FOUND: Status = 1;

/// The host did not do what every host does.
#[derive(Debug)]
pub(crate) struct HostFailed;

const REQUEST_HEADERS: u32 = 0;
const REQUEST_TRAILERS: u32 = 1;
const RESPONSE_HEADERS: u32 = 2;
const CALL_RESPONSE_HEADERS: u32 = 6;
const CALL_RESPONSE_BODY: u32 = 4;
const PLUGIN_CONFIGURATION: u32 = 7;
const HTTP_REQUEST: u32 = 0;

/// Kind of a metric (`proxy_metric_type_t`).
#[derive(Debug, Clone, Copy)]
pub(crate) enum MetricKind {
    Counter = 0,
    Gauge = 1,
}

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_log(level: u32, message: *const u8, size: usize) -> Status;
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> Status;
    fn proxy_set_tick_period_milliseconds(period: u32) -> Status;
    fn proxy_get_buffer_bytes(
        kind: u32,
        start: usize,
        most: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> Status;
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> Status;
    fn proxy_get_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> Status;
    fn proxy_add_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> Status;
    fn proxy_replace_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> Status;
    fn proxy_remove_header_map_value(map: u32, name: *const u8, name_size: usize) -> Status;
    fn proxy_get_property(
        path: *const u8,
        path_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> Status;
    fn proxy_set_property(
        path: *const u8,
        path_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> Status;
    fn proxy_http_call(
        cluster: *const u8,
        cluster_size: usize,
        headers: *const u8,
        headers_size: usize,
        body: *const u8,
        body_size: usize,
        trailers: *const u8,
        trailers_size: usize,
        timeout: u32,
        call: *mut u32,
    ) -> Status;
    fn proxy_continue_stream(stream: u32) -> Status;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> Status;
    fn proxy_set_effective_context(context: u32) -> Status;
    fn proxy_call_foreign_function(
        name: *const u8,
        name_size: usize,
        arguments: *const u8,
        arguments_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> Status;
    fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, id: *mut u32) -> Status;
    fn proxy_record_metric(id: u32, value: u64) -> Status;
    fn proxy_increment_metric(id: u32, offset: i64) -> Status;
}

unsafe extern "C" {
    fn __wasm_call_ctors();
}

/// Runs the constructors of wasi-libc; to be called once, before all else.
pub(crate) fn run_constructors() {
    // SAFETY: the linker makes it, and `_initialize` is its only caller.
    unsafe { __wasm_call_ctors() }
}

/// Takes over a buffer that the host allocated in our memory.
fn received(call: impl FnOnce(*mut *mut u8, *mut usize) -> Status) -> Option<Vec<u8>> {
    let (mut data, mut size) = (null_mut(), 0);
    if call(&mut data, &mut size) != OK {
        return None;
    }
    if data.is_null() {
        return Some(Vec::new());
    }
    // SAFETY: the host had `size` bytes allocated by `proxy_on_memory_allocate`, which makes a
    // boxed slice of exactly that length, wrote all of them and handed them to us alone.
    Some(unsafe { Vec::from_raw_parts(data, size, size) })
}

fn done(status: Status) -> Option<()> {
    (status == OK).then_some(())
}

fn headers(map: u32) -> Option<HeaderMap> {
    // SAFETY: both pointers are to locals of the caller, valid for the call.
    received(|data, size| unsafe { proxy_get_header_map_pairs(map, data, size) })
        .and_then(HeaderMap::new)
}

/// All request headers; none where the request is gone.
pub(crate) fn request_headers() -> Option<HeaderMap> {
    headers(REQUEST_HEADERS).filter(|headers| headers.lines().next().is_some())
}

/// All request trailers.
pub(crate) fn request_trailers() -> Option<HeaderMap> {
    headers(REQUEST_TRAILERS)
}

/// All response headers.
pub(crate) fn response_headers() -> Option<HeaderMap> {
    headers(RESPONSE_HEADERS)
}

/// All headers of a call-out's answer.
pub(crate) fn call_response_headers() -> Option<HeaderMap> {
    headers(CALL_RESPONSE_HEADERS)
}

/// One request header, its lines joined by the host where it joins them; `Ok(None)` where there is
/// none, and an error where the host cannot tell.
pub(crate) fn request_header(name: &str) -> Result<Option<Vec<u8>>, HostFailed> {
    header(REQUEST_HEADERS, name)
}

/// Whether a response header is there; no where the host cannot tell.
pub(crate) fn has_response_header(name: &str) -> bool {
    matches!(header(RESPONSE_HEADERS, name), Ok(Some(_)))
}

fn header(map: u32, name: &str) -> Result<Option<Vec<u8>>, HostFailed> {
    let mut status = OK;
    // SAFETY: `name` outlives the call; the other two are locals of the caller.
    let value = received(|data, size| unsafe {
        status = proxy_get_header_map_value(map, name.as_ptr(), name.len(), data, size);
        status
    });
    if value.is_none() && status != NOT_FOUND { Err(HostFailed) } else { Ok(value) }
}

/// Adds a line to the request headers, beside any that has the name.
pub(crate) fn add_request_header(name: &str, value: &str) -> Option<()> {
    // SAFETY: both strings outlive the call.
    done(unsafe {
        proxy_add_header_map_value(
            REQUEST_HEADERS,
            name.as_ptr(),
            name.len(),
            value.as_ptr(),
            value.len(),
        )
    })
}

/// Sets a request header in place of whatever has the name.
pub(crate) fn set_request_header(name: &str, value: &str) -> Option<()> {
    set(REQUEST_HEADERS, name, value)
}

/// Sets a response header in place of whatever has the name.
pub(crate) fn set_response_header(name: &str, value: &str) -> Option<()> {
    set(RESPONSE_HEADERS, name, value)
}

fn set(map: u32, name: &str, value: &str) -> Option<()> {
    // SAFETY: both strings outlive the call.
    done(unsafe {
        proxy_replace_header_map_value(map, name.as_ptr(), name.len(), value.as_ptr(), value.len())
    })
}

fn remove(map: u32, name: &[u8]) -> Option<()> {
    // SAFETY: `name` outlives the call.
    done(unsafe { proxy_remove_header_map_value(map, name.as_ptr(), name.len()) })
}

/// Removes all lines of a request header.
pub(crate) fn remove_request_header(name: &[u8]) -> Option<()> {
    remove(REQUEST_HEADERS, name)
}

/// Removes all lines of a response header.
pub(crate) fn remove_response_header(name: &str) -> Option<()> {
    remove(RESPONSE_HEADERS, name.as_bytes())
}

/// Removes all lines of a request trailer.
pub(crate) fn remove_request_trailer(name: &[u8]) -> Option<()> {
    remove(REQUEST_TRAILERS, name)
}

fn buffer(kind: u32, most: usize) -> Option<Vec<u8>> {
    // SAFETY: both pointers are to locals of the caller.
    received(|data, size| unsafe { proxy_get_buffer_bytes(kind, 0, most, data, size) })
}

/// The plugin's configuration; only there while it is being configured.
pub(crate) fn plugin_configuration(size: usize) -> Option<Vec<u8>> {
    if size == 0 { Some(Vec::new()) } else { buffer(PLUGIN_CONFIGURATION, size) }
}

/// The body of a call-out's answer.
pub(crate) fn call_response_body(size: usize) -> Option<Vec<u8>> {
    if size == 0 { Some(Vec::new()) } else { buffer(CALL_RESPONSE_BODY, size) }
}

/// A property; `path` holds its parts separated by NUL. None where there is no such property.
pub(crate) fn property(path: &str) -> Option<Vec<u8>> {
    // SAFETY: `path` outlives the call; the other two are locals of the caller.
    received(|data, size| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, size) })
}

/// Writes filter state: other filters and the access log read it as `wasm.<path>`.
pub(crate) fn set_property(path: &str, value: &str) -> Option<()> {
    // SAFETY: both strings outlive the call.
    done(unsafe { proxy_set_property(path.as_ptr(), path.len(), value.as_ptr(), value.len()) })
}

/// Calls out to a cluster; gives the id that the answer will come under. None where the host does
/// not make the call.
pub(crate) fn dispatch(
    cluster: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    timeout: Duration,
) -> Option<u32> {
    let (headers, trailers) = (serialized(headers), serialized(&[]));
    let timeout = u32::try_from(timeout.as_millis()).ok()?;
    let mut call = 0;
    // SAFETY: all buffers outlive the call, the last pointer is to a local.
    done(unsafe {
        proxy_http_call(
            cluster.as_ptr(),
            cluster.len(),
            headers.as_ptr(),
            headers.len(),
            body.as_ptr(),
            body.len(),
            trailers.as_ptr(),
            trailers.len(),
            timeout,
            &mut call,
        )
    })?;
    Some(call)
}

/// Lets the request of the effective context go on.
pub(crate) fn resume_request() -> Option<()> {
    // SAFETY: no pointers.
    done(unsafe { proxy_continue_stream(HTTP_REQUEST) })
}

/// Answers the request of the effective context.
pub(crate) fn send_reply(
    status: u16,
    details: &str,
    headers: &[(&str, &str)],
    body: &str,
    grpc_status: Option<u32>,
) -> Option<()> {
    let headers = serialized(headers);
    let grpc_status = grpc_status.and_then(|status| i32::try_from(status).ok()).unwrap_or(-1);
    // SAFETY: all buffers outlive the call.
    done(unsafe {
        proxy_send_local_response(
            u32::from(status),
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            grpc_status,
        )
    })
}

/// Makes the following calls act for another context. None where that context is gone.
pub(crate) fn act_for(context: u32) -> Option<()> {
    // SAFETY: no pointers.
    done(unsafe { proxy_set_effective_context(context) })
}

/// Sets the tick period of the effective root context, in milliseconds.
pub(crate) fn set_tick_period(milliseconds: u32) -> Option<()> {
    // SAFETY: no pointers.
    done(unsafe { proxy_set_tick_period_milliseconds(milliseconds) })
}

/// Nanoseconds since 1970; none where the host has no clock.
pub(crate) fn nanoseconds() -> Option<u64> {
    let mut time = 0;
    // SAFETY: the pointer is to a local.
    done(unsafe { proxy_get_current_time_nanoseconds(&mut time) })?;
    Some(time)
}

/// Calls a function that the host offers by name.
pub(crate) fn foreign_function(name: &str, arguments: &[u8]) -> Option<Vec<u8>> {
    // SAFETY: name and arguments outlive the call; the other two are locals of the caller.
    received(|data, size| unsafe {
        proxy_call_foreign_function(
            name.as_ptr(),
            name.len(),
            arguments.as_ptr(),
            arguments.len(),
            data,
            size,
        )
    })
}

/// Defines a metric, or finds the one that has the name.
pub(crate) fn define_metric(kind: MetricKind, name: &str) -> Option<u32> {
    let mut id = 0;
    // SAFETY: the name outlives the call, the pointer is to a local.
    done(unsafe { proxy_define_metric(kind as u32, name.as_ptr(), name.len(), &mut id) })?;
    Some(id)
}

/// Adds to a counter.
pub(crate) fn increment_metric(id: u32, by: u64) -> Option<()> {
    // SAFETY: no pointers.
    done(unsafe { proxy_increment_metric(id, i64::try_from(by).unwrap_or(i64::MAX)) })
}

/// Sets a gauge.
pub(crate) fn record_metric(id: u32, value: u64) -> Option<()> {
    // SAFETY: no pointers.
    done(unsafe { proxy_record_metric(id, value) })
}

/// Severity of a log line (`proxy_log_level_t`).
#[derive(Debug, Clone, Copy)]
pub(crate) enum Level {
    Warn = 3,
    Error = 4,
}

/// Writes to Envoy's log.
pub(crate) fn log(level: Level, message: &str) {
    // SAFETY: the message outlives the call. A line that cannot be written cannot be reported.
    let _unwritten = unsafe { proxy_log(level as u32, message.as_ptr(), message.len()) };
}
