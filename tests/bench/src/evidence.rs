//! Proof that the rows measure what their names say.
//!
//! Each answer's status is checked where it is read. That is not enough: a filter that lets
//! everybody pass would look fast, and so would "first-seen" tokens that a cache knows.

use std::{
    net::{SocketAddr, TcpStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    envoy::{Envoy, page},
    load::{Connections, Place, RequestTexts},
    rows::{Filter, Requests, Row, Sidecar},
};

/// Our filter counts in its VM and hands over each second.
const FLUSH: Duration = Duration::from_secs(3);

/// Each guarded row must answer 401 to a request without a token.
pub(crate) fn strangers_are_refused(directory: &Path, path: &str, rows: &[Row]) -> Result<()> {
    for row in rows.iter().filter(|row| row.is_guarded()) {
        let mut stranger = RequestTexts::new(path, &[]);
        let place = Place::File(directory.join(format!("{}.sock", row.name)));
        let status = Connections::status_of(&place, &mut stranger).with_context(|| row.name)?;
        if !status.starts_with("HTTP/1.1 401 ") {
            bail!("{} does not refuse a request without a token: {status}", row.name);
        }
    }
    Ok(())
}

/// A pod must let the token pass, and refuse none and one whose signature is another's: unless it
/// is the pod without any policy.
pub(crate) fn sidecar_works(row: &Row, place: &Place, path: &str, token: &str) -> Result<()> {
    let (without, forged) = match row.sidecar().context("no row of a mesh")? {
        Sidecar::IstioAlone => (200, 200),
        // An AuthorizationPolicy is what refuses there.
        Sidecar::RequestAuthentication => (403, 401),
        Sidecar::Ours | Sidecar::OursClosedOff => (401, 401),
    };
    let (signed, _) = token.rsplit_once('.').context("no token")?;
    // As long as a signature is.
    let forgery = format!("{signed}.{}", "A".repeat(342));
    let tokens = |token: &str| vec![token.to_owned()];
    for (what, tokens, status) in [
        ("its token", tokens(token), row.status),
        ("no token", Vec::new(), without),
        ("a forged token", tokens(&forgery), forged),
    ] {
        let said = Connections::status_of(place, &mut RequestTexts::new(path, &tokens))?;
        if !said.starts_with(&format!("HTTP/1.1 {status} ")) {
            bail!("{} answers a request with {what} by {said}, not {status}", row.name);
        }
    }
    Ok(())
}

/// The caches' own counters must agree with what was sent: `sent` has each row's requests.
pub(crate) fn caches_were_used_as_named(envoy: &Envoy, sent: &[(Row, usize)]) -> Result<()> {
    let sum = |wanted: &dyn Fn(&Row) -> bool| {
        sent.iter().filter(|(row, _)| wanted(row)).map(|(_, count)| count).sum::<usize>()
    };
    let ours = |row: &Row| row.is_guarded() && is_ours(row.filter);
    let first = sum(&|row| ours(row) && row.requests == Requests::FreshTokens);
    let known = sum(&|row| ours(row) && row.requests == Requests::OneToken);
    let peer = sum(&|row| row.filter == Filter::JwtAuthnCached);
    let began = Instant::now();
    loop {
        let stats = envoy.admin("/stats?usedonly")?;
        let count = |name| count(&stats, name);
        let misses = count("entra_sidecar.inbound.cache.miss");
        let hits = count("entra_sidecar.inbound.cache.hit");
        let peer_hits = count("jwt_authn.jwt_cache_hit");
        if misses >= first && hits >= most(known) && peer_hits >= most(peer) {
            return Ok(());
        }
        if began.elapsed() > FLUSH {
            bail!(
                "ours had {hits} cache hits and {misses} misses for {known} known and {first} \
                 first-seen tokens, jwt_authn_cached had {peer_hits} hits for {peer}"
            );
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// On a pod of ours nearly all of what was sent must have been known to the filter.
pub(crate) fn sidecar_used_its_cache(row: &Row, statistics: SocketAddr, sent: usize) -> Result<()> {
    if !matches!(row.sidecar(), Some(Sidecar::Ours | Sidecar::OursClosedOff)) {
        return Ok(());
    }
    let began = Instant::now();
    loop {
        let connection = TcpStream::connect(statistics).context("no counters")?;
        let stats = page(connection, "/stats/prometheus?usedonly&filter=inbound.cache")?;
        let hits = prometheus(&stats, "entra_sidecar_inbound_cache_hit");
        let misses = prometheus(&stats, "entra_sidecar_inbound_cache_miss");
        if hits >= most(sent) && misses <= sent.saturating_sub(most(sent)) {
            return Ok(());
        }
        if began.elapsed() > FLUSH {
            bail!("{}: {hits} cache hits and {misses} misses for {sent} requests", row.name);
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn is_ours(filter: Filter) -> bool {
    matches!(
        filter,
        Filter::Ours
            | Filter::OursWithEveryRequirement
            | Filter::OursWithRules(_)
            | Filter::OursWithTenants(_)
    )
}

/// All but one in a hundred: what is cached is checked anew every few minutes.
fn most(count: usize) -> usize {
    count.saturating_sub(count.div_ceil(100))
}

/// A counter without labels, as Prometheus reads it.
fn prometheus(stats: &str, name: &str) -> usize {
    stats
        .lines()
        .filter_map(|line| {
            line.strip_prefix(name)?.strip_prefix("{} ")?.trim().parse::<usize>().ok()
        })
        .sum()
}

/// The sum of the counters whose names end so.
fn count(stats: &str, name: &str) -> usize {
    stats
        .lines()
        .filter_map(|line| line.split_once(": "))
        .filter(|(own, _)| own.ends_with(name))
        .filter_map(|(_, value)| value.trim().parse::<usize>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_read_from_either_page() {
        let text = "HTTP/1.1 200 OK\r\n\r\n# TYPE a_hit counter\na_hit{} 7\na_hit_b{} 5\n";
        assert_eq!(prometheus(text, "a_hit"), 7);
        assert_eq!(count("wasmcustom.x.a.hit: 7\nwasmcustom.y.a.hit: 2\nb: 1\n", "a.hit"), 9);
    }

    #[test]
    fn one_request_in_a_hundred_may_be_unknown() {
        assert_eq!((most(0), most(1), most(1000)), (0, 0, 990));
    }
}
