//! Times as a person writes and reads them.

use std::time::{Duration, SystemTime};

use policy::time::UnixTime;

/// Reads `2026-11-24T12:00:00Z` (RFC 3339) or seconds since 1970.
pub(crate) fn read(text: &str) -> Result<UnixTime, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(UnixTime(seconds));
    }
    let time = humantime::parse_rfc3339(text).ok();
    let since = time.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    let expected = "expected a time such as 2026-11-24T12:00:00Z, or seconds since 1970";
    since.map(|since| UnixTime(since.as_secs())).ok_or_else(|| expected.to_owned())
}

/// The clock's time.
pub(crate) fn now() -> UnixTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UnixTime(since.as_secs())
}

/// Shows a time as RFC 3339; beyond the year 9999 as seconds.
pub(crate) fn shown(time: UnixTime) -> String {
    const LAST: u64 = 253_402_300_799;
    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(time.0));
    match at.filter(|_| time.0 <= LAST) {
        Some(at) => humantime::format_rfc3339_seconds(at).to_string(),
        None => format!("{} s", time.0),
    }
}
