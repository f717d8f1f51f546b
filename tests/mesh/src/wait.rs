//! Waiting for something to become true: by asking, with a deadline, never for a fixed time.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

/// Between two questions; each may start a program.
const PAUSE: Duration = Duration::from_millis(100);

/// Asks until there is an answer. At the deadline the error says what was waited for, and the
/// last reason why there was none.
///
/// # Errors
/// When the deadline passes.
pub fn until<T>(
    what: &str,
    deadline: Duration,
    mut ask: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now().checked_add(deadline).context("a deadline beyond time")?;
    loop {
        let reason = match ask() {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if Instant::now() >= end {
            let late = format!("{what}: not within {} s", deadline.as_secs());
            return match reason {
                Some(error) => Err(error).context(late),
                None => Err(anyhow::anyhow!(late)),
            };
        }
        thread::sleep(PAUSE);
    }
}

/// Asks until the answer is yes.
///
/// # Errors
/// When the deadline passes.
pub fn poll(what: &str, deadline: Duration, mut ask: impl FnMut() -> Result<bool>) -> Result<()> {
    until(what, deadline, || Ok(ask()?.then_some(())))
}
