//! The downstream position: which rule is for this host and the cluster that the route has chosen.
//!
//! An application writes its Host header, so the host alone says nothing of where a call goes; the
//! cluster alone says nothing of who is asked there, where it leads to more than one host. Together
//! they name a destination, as far as Envoy's routes are to be trusted
//! (`docs/decisions/0020-the-downstream-position.md`).

use super::Outbound;
use crate::{config::Position, host::host};

impl Outbound {
    /// Where the filter stands.
    pub fn position(&self) -> Position {
        self.config.position
    }

    /// The destination that `:authority` and the route's cluster stand for.
    ///
    /// None where no rule is for exactly these two, and for a host that can be read in two ways.
    pub fn destination(&self, authority: &[u8], cluster: &[u8]) -> Option<&str> {
        let host = host(authority)?;
        let rule = self.config.rules.iter().find(|rule| {
            let route = rule.route.as_ref();
            route.is_some_and(|route| route.host == host && route.cluster.as_bytes() == cluster)
        });
        rule.map(|rule| rule.token.destination.as_str())
    }

    /// A response came on a call that a token was injected into, from the cluster that the call went
    /// to; none where it went nowhere. Says whether injection was stopped by this.
    ///
    /// A header that is set has Envoy choose the route anew, and nothing shows the choice before the
    /// call has gone.
    pub fn on_cluster(&mut self, destination: &str, cluster: Option<&[u8]>) -> bool {
        let Some(cluster) = cluster else { return false };
        let route = self.rule(destination).and_then(|rule| rule.route.as_ref());
        let elsewhere = route.is_some_and(|route| route.cluster.as_bytes() != cluster);
        elsewhere && self.stop(destination)
    }
}
