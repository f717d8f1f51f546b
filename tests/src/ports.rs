//! Ports for programs that cannot choose and report their own.
//!
//! Below the range from which systems take ports of outgoing connections (32768 and up on Linux),
//! so that no connection of a busy test machine gets there first.

use std::{
    fs::File,
    net::TcpListener,
    sync::atomic::{AtomicU16, Ordering},
};

const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A loopback port that was free a moment ago, and that this process gets once.
pub(crate) fn free() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Processes begin at different places; the multiplier spreads ids that follow one another.
    let start = std::process::id().wrapping_mul(7_919);
    let start = u16::try_from(start % u32::from(COUNT)).unwrap_or(0);
    let tried = (0..COUNT).map(|_| {
        let offset = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        FIRST + offset
    });
    let mut free = tried.filter(|port| is_free(*port));
    free.next().expect("a free loopback port")
}

/// Whether nobody listens there.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// Only one stack at a time takes the shipped ports: between looking whether a port is free and
/// Envoy's taking it, another one could take it too. The claim lasts as long as the file is held.
pub(crate) fn claim_shipped() -> Option<File> {
    let path = std::env::temp_dir().join("entra-sidecar-ports.lock");
    let file = File::options().create(true).append(true).open(path).ok()?;
    file.try_lock().is_ok().then_some(file)
}
