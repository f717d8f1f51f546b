//! What time it is: unix seconds, injected so that tests own the clock.
//!
//! Waiting is tokio's (monotonic, pausable); only what is written on tokens and key sets is wall
//! clock. Both are checked where a token or a key set is used, so a clock that jumps cannot
//! stretch a life.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Tells unix seconds.
pub trait Clock: Send + Sync + 'static {
    /// Seconds since 1970 (UTC).
    fn unix_now(&self) -> u64;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn unix_now(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
    }
}

/// `instant` later by `delay`; the same instant where the sum cannot be told.
pub fn later(instant: Instant, delay: Duration) -> Instant {
    instant.checked_add(delay).unwrap_or(instant)
}
