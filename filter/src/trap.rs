//! Traps on request: only in the test build that shows what a trap does to everybody else.

use crate::host;

/// Executes `unreachable` where the request has the header `x-test-trap`.
pub(crate) fn if_asked() {
    if matches!(host::request_header("x-test-trap"), Ok(Some(_))) {
        core::arch::wasm32::unreachable();
    }
}
