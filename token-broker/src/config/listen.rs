//! Validates where the broker listens: each listener has its own trust, and none is widened
//! unasked.

use std::{net::SocketAddr, path::PathBuf};

use super::{
    Api, DEFAULT_ADMIN, DEFAULT_SOCKET, Errors, ISTIO_PROXY_UID, Listen,
    raw::{RawApi, RawListen},
};

/// Longest path of a Unix socket on Linux (`sun_path`, unix(7)), without its closing zero.
const MAX_SOCKET_PATH: usize = 107;

/// The listeners of a configuration file.
pub(super) fn listen(raw: Option<RawListen>, errors: &mut Errors) -> Option<Listen> {
    let raw = raw.unwrap_or_default();
    let admin = match raw.admin {
        None => Some(DEFAULT_ADMIN),
        Some(text) => address(&text, "listen.admin", errors),
    };
    let api = match raw.api {
        None => Some(default_api()),
        Some(raw) => api(raw, errors),
    };
    if let (Some(Api::Tcp(tcp)), Some(admin)) = (&api, &admin)
        && tcp == admin
        && tcp.port() != 0
    {
        errors.push("listen.admin", "expected another address than that of `listen.api.tcp`");
    }
    Some(Listen { api: api?, admin: admin?, compat: None })
}

/// The socket, for the broker's own user and Istio's proxy.
pub(super) fn default_api() -> Api {
    Api::Unix { path: PathBuf::from(DEFAULT_SOCKET), allow_uids: default_uids() }
}

fn default_uids() -> Vec<u32> {
    vec![rustix::process::geteuid().as_raw(), ISTIO_PROXY_UID]
}

fn api(raw: RawApi, errors: &mut Errors) -> Option<Api> {
    const PATH: &str = "listen.api";
    match (raw.unix, raw.tcp) {
        (Some(path), None) => {
            if raw.trust_whole_pod.is_some() {
                errors.push(format!("{PATH}.trust_whole_pod"), "goes with `tcp`, not with `unix`");
            }
            let allow_uids = allow_uids(raw.allow_uids, errors);
            if !path.starts_with('/') || path.ends_with('/') || path.len() > MAX_SOCKET_PATH {
                errors.push(
                    format!("{PATH}.unix"),
                    "expected an absolute path of a file, at most 107 bytes",
                );
            }
            Some(Api::Unix { path: PathBuf::from(path), allow_uids })
        }
        (None, Some(text)) => {
            if raw.allow_uids.is_some() {
                errors.push(
                    format!("{PATH}.allow_uids"),
                    "goes with `unix`: over TCP the peer's user is not known",
                );
            }
            if raw.trust_whole_pod != Some(true) {
                errors.push(
                    format!("{PATH}.trust_whole_pod"),
                    "expected `true`: over TCP every process of the pod can have the tokens",
                );
            }
            let tcp = address(&text, &format!("{PATH}.tcp"), errors)?;
            if !tcp.ip().is_loopback() {
                errors.push(
                    format!("{PATH}.tcp"),
                    "expected a loopback address: tokens do not leave the pod",
                );
            }
            Some(Api::Tcp(tcp))
        }
        (Some(_), Some(_)) => {
            errors.push(PATH, "expected one of `unix` and `tcp`, found both");
            None
        }
        (None, None) => {
            errors.missing(PATH, "`unix`, or `tcp` with `trust_whole_pod`");
            None
        }
    }
}

fn allow_uids(raw: Option<Vec<Option<u32>>>, errors: &mut Errors) -> Vec<u32> {
    const PATH: &str = "listen.api.allow_uids";
    let Some(raw) = raw else { return default_uids() };
    if raw.is_empty() {
        errors.push(PATH, "empty: nobody could connect; expected user ids");
    }
    let mut uids = Vec::new();
    for (index, uid) in raw.into_iter().enumerate() {
        match uid {
            Some(uid) => uids.push(uid),
            None => errors.missing(&format!("{PATH}[{index}]"), "a user id"),
        }
    }
    uids
}

pub(super) fn address(text: &str, path: &str, errors: &mut Errors) -> Option<SocketAddr> {
    let parsed = text.parse().ok();
    if parsed.is_none() {
        errors.push(path, "expected an address and port, such as 127.0.0.1:7172");
    }
    parsed
}
