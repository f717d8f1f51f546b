//! Whose request it is, as far as its head tells: over TCP there is no peer to ask for.
//!
//! Any process of the pod can connect there, so also one that a stranger has call for him: a
//! browser, a proxy, a server that fetches what it is told to. What such a one sends and Envoy
//! never does is refused. Whoever writes his own requests is not kept out: for that there is the
//! socket.

use std::net::IpAddr;

use axum::{
    extract::Request,
    http::{HeaderMap, Uri, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};
use contract::ErrorKind;

use super::answer::Refusal;
use crate::failure::failure;

/// What the filter calls the broker.
const NAME: &str = "token-broker";
/// Written by browsers (Fetch §3.2, Fetch Metadata) and by proxies (RFC 7239, RFC 9110 §7.6.3).
/// Envoy sends a filter's calls without them and adds `x-envoy-*` alone (seen with 1.40).
pub(super) const OF_OTHERS: [&str; 5] =
    ["origin", "forwarded", "x-forwarded-for", "x-forwarded-host", "via"];
/// How the names of the Fetch Metadata fields begin.
const OF_BROWSERS: &str = "sec-fetch-";
/// Why such a request is refused.
pub(super) const OF_A_STRANGER: &str = "the request came by way of a browser or a proxy";
/// Why one for another `Host` is.
pub(super) const FOR_ANOTHER_HOST: &str = "the request is for another host";

/// Lets through what may come from Envoy.
pub(super) async fn judge(request: Request, next: Next) -> Response {
    match refusal(request.uri(), request.headers()) {
        None => next.run(request).await,
        Some(why) => Refusal::Typed(failure(ErrorKind::Denied, format!("foreign_caller: {why}")))
            .into_response(),
    }
}

fn refusal(uri: &Uri, headers: &HeaderMap) -> Option<&'static str> {
    let of_browser = |name: &str| name.starts_with(OF_BROWSERS);
    if names(headers).any(|name| OF_OTHERS.contains(&name) || of_browser(name)) {
        return Some(OF_A_STRANGER);
    }
    let ours = host(uri, headers).is_some_and(|host| host.host() == NAME || is_loopback(&host));
    (!ours).then_some(FOR_ANOTHER_HOST)
}

/// The names of the fields, in lower case.
pub(super) fn names(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers.keys().map(header::HeaderName::as_str)
}

/// The one host that the request is for; none where it says more than one, or who with.
pub(super) fn host(uri: &Uri, headers: &HeaderMap) -> Option<Authority> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    let only = uri.authority().is_none() && hosts.next().is_none();
    host.filter(|host| only && !host.contains('@')).and_then(|host| host.parse().ok())
}

/// A name that leads elsewhere for others is how a browser is brought here (DNS rebinding).
pub(super) fn is_loopback(authority: &Authority) -> bool {
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(uri: &str, fields: &[(&'static str, &'static str)], passes: bool) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        let found = refusal(&uri.parse().unwrap(), &headers);
        assert_eq!(found.is_none(), passes, "{uri} {fields:?}: {found:?}");
    }

    #[test]
    fn b03_only_what_envoy_may_have_sent_passes() {
        for host in ["token-broker", "localhost", "LocalHost:7171", "127.0.0.1:7171", "[::1]:7171"]
        {
            check("/v1/token", &[("host", host)], true);
        }
        for host in [
            "",
            "evil.example",
            "169.254.169.254",
            "10.0.0.1:7171",
            "token-broker.evil.example",
            "localhost.evil.example",
            "evil.example@localhost",
            "localhost/",
            "a b",
            "[::2]",
            "2130706433",
        ] {
            check("/v1/token", &[("host", host)], false);
        }
        check("/v1/token", &[], false);
        check("/v1/token", &[("host", "localhost"), ("host", "evil.example")], false);
        check("http://localhost/v1/token", &[("host", "localhost")], false);
        check("http://evil.example/v1/token", &[("host", "localhost")], false);
        // What Envoy adds to a call of the filter's.
        let of_envoy = [
            ("host", "token-broker"),
            ("x-envoy-internal", "true"),
            ("x-envoy-expected-rq-timeout-ms", "10000"),
            ("content-type", "application/json"),
        ];
        check("/v1/token", &of_envoy, true);
        for foreign in [
            ("origin", "http://localhost"),
            ("origin", "null"),
            ("forwarded", "for=10.0.0.1"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-host", "localhost"),
            ("via", "1.1 proxy"),
            ("sec-fetch-mode", "no-cors"),
            ("sec-fetch-site", "same-origin"),
        ] {
            check("/v1/token", &[("host", "localhost"), foreign], false);
        }
    }
}
