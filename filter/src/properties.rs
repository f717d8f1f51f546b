//! What Envoy tells of a stream beside its headers: where it goes, over what, who calls, and when.
//!
//! Each read is a host call of a microsecond or more. Nothing is decided here.

use policy::{config::Position, outbound::Outbound, time::UnixTime};

use crate::host;

/// Value of `xds.listener_direction` on an inbound listener.
const INBOUND_LISTENER: [u8; 8] = 1_i64.to_le_bytes();

/// What the cluster's own metadata calls itself; none where it says nothing.
pub(crate) fn destination() -> Option<String> {
    let path = "xds\0cluster_metadata\0filter_metadata\0entra_sidecar\0destination";
    String::from_utf8(filled(path)?).ok()
}

/// The destination that host and chosen cluster stand for; none where either is not known.
pub(crate) fn host_and_cluster(policy: &Outbound) -> Option<String> {
    let authority = host::request_header(":authority").ok()??;
    policy.destination(&authority, &cluster()?).map(str::to_owned)
}

/// Whether an earlier attempt of the request went out with a token of ours, as its `record` says.
pub(crate) fn was_injected(record: &str) -> bool {
    filled(record).is_some_and(|record| record.starts_with(b"reason=injected"))
}

/// The cluster that the route chose when it was last asked for.
pub(crate) fn cluster() -> Option<Vec<u8>> {
    filled("xds\0cluster_name")
}

/// Whether the listener says that it is an inbound one.
pub(crate) fn is_inbound_listener() -> bool {
    filled("xds\0listener_direction").is_some_and(|direction| direction == INBOUND_LISTENER)
}

/// Whether the connection to the upstream has TLS.
pub(crate) fn has_tls() -> bool {
    filled("upstream\0tls_version").is_some()
}

/// Whether there is a connection to the upstream at all.
pub(crate) fn has_connection() -> bool {
    filled("upstream\0local_address").is_some()
}

/// Whether the filter stands in a listener's chain with rules for a cluster's. Found out once: it
/// costs a host call, and a filter does not move.
#[derive(Default)]
pub(crate) struct Place(Option<bool>);

impl Place {
    pub(crate) fn is_wrong_for(&mut self, position: Position) -> bool {
        // The router counts an attempt before a cluster's filters see it. Who does not say is not
        // believed.
        let before_any_attempt =
            || filled("upstream\0request_attempt_count").is_none_or(|n| n == [0; 8]);
        let is_wrong = || position == Position::Upstream && before_any_attempt();
        *self.0.get_or_insert_with(is_wrong)
    }
}

/// The first URI name in the client certificate that Envoy has checked; none without mutual TLS.
pub(crate) fn caller_workload() -> Option<Vec<u8>> {
    filled("connection\0uri_san_peer_certificate")
}

/// The time.
pub(crate) fn now() -> UnixTime {
    // Without a clock everything has expired.
    UnixTime(host::nanoseconds().map_or(u64::MAX, |time| time / 1_000_000_000))
}

fn filled(path: &str) -> Option<Vec<u8>> {
    host::property(path).filter(|value| !value.is_empty())
}
