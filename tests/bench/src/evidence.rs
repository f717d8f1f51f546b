//! Proof that the rows measure what their names say.
//!
//! Each answer's status is checked where it is read. That is not enough: a filter that lets
//! everybody pass would look fast, and so would "first-seen" tokens that a cache knows.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    envoy::Envoy,
    load::{Connections, RequestTexts},
    rows::{Filter, Requests, Row},
};

/// Our filter counts in its VM and hands over each second.
const FLUSH: Duration = Duration::from_secs(3);

/// Each guarded row must answer 401 to a request without a token.
pub(crate) fn strangers_are_refused(directory: &Path, path: &str, rows: &[Row]) -> Result<()> {
    for row in rows.iter().filter(|row| row.is_guarded()) {
        let mut stranger = RequestTexts::new(path, &[]);
        let socket = directory.join(format!("{}.sock", row.name));
        let status = Connections::status_of(&socket, &mut stranger).with_context(|| row.name)?;
        if !status.starts_with("HTTP/1.1 401 ") {
            bail!("{} does not refuse a request without a token: {status}", row.name);
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

/// The sum of the counters whose names end so.
fn count(stats: &str, name: &str) -> usize {
    stats
        .lines()
        .filter_map(|line| line.split_once(": "))
        .filter(|(own, _)| own.ends_with(name))
        .filter_map(|(_, value)| value.trim().parse::<usize>().ok())
        .sum()
}
