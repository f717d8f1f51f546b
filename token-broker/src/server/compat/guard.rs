//! Whose request it is, as far as its head tells: one from the pod, or one that a stranger has
//! sent here.
//!
//! A browser, a proxy, or a server that fetches what it is told to, can be led to a loopback port.
//! Azure's metadata service refuses what such a one writes and an application never does, and so
//! does this. Any one sign is enough.

use axum::http::{HeaderMap, StatusCode, Uri};

use super::{
    super::caller::{FOR_ANOTHER_HOST, OF_A_STRANGER, OF_OTHERS, host, is_loopback, names},
    refused::Refused,
};

/// Written by proxies and servers on the way, and by browsers (RFC 6265, RFC 9110 §10.1.3), beside
/// what the api listener refuses.
const OF_STRANGERS: [&str; 17] = [
    "x-forwarded",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-remote-ip",
    "x-remote-addr",
    "client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "fastly-client-ip",
    "fly-client-ip",
    "x-azure-clientip",
    "x-envoy-external-address",
    "cdn-loop",
    "x-rewrite-url",
    "referer",
    "cookie",
];
/// How such names begin: `X-Forwarded-For`, and `X-Original-URL` of those that write a path anew.
const OF_PROXIES: [&str; 2] = ["x-forwarded-", "x-original-"];
/// Fetch Metadata, client hints and the like; nothing but a browser may set them.
const OF_BROWSERS: &str = "sec-";
/// Node.js sends this one with `fetch`, which many applications call; a browser never sends it
/// without `sec-fetch-site`.
const OF_NODE: (&str, &str) = ("sec-fetch-mode", "cors");
/// The metadata service's own address, for clients that are redirected here.
const METADATA: [&str; 2] = ["169.254.169.254", "169.254.169.254:80"];

/// Why the request is not answered, on a listener on `port`.
pub(super) fn refusal(uri: &Uri, headers: &HeaderMap, port: u16) -> Option<Refused> {
    if names(headers).any(|name| is_strangers(name, headers)) {
        return Some(Refused::new(StatusCode::BAD_REQUEST, "foreign_caller", OF_A_STRANGER));
    }
    let ours = host(uri, headers).is_some_and(|host| {
        METADATA.contains(&host.as_str())
            || (is_loopback(&host) && host.port_u16().unwrap_or(80) == port)
    });
    let refused = || Refused::new(StatusCode::FORBIDDEN, "foreign_caller", FOR_ANOTHER_HOST);
    (!ours).then(refused)
}

fn is_strangers(name: &str, headers: &HeaderMap) -> bool {
    let (of_node, value) = OF_NODE;
    if name == of_node {
        return headers.get_all(name).iter().any(|found| found != value);
    }
    OF_OTHERS.contains(&name)
        || OF_STRANGERS.contains(&name)
        || OF_PROXIES.iter().any(|start| name.starts_with(start))
        || name.starts_with(OF_BROWSERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(uri: &str, fields: &[(&'static str, &'static str)], expected: Option<u16>) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        let found = refusal(&uri.parse().unwrap(), &headers, 7173);
        let status = found.map(|refused| refused.status.as_u16());
        assert_eq!(status, expected, "{uri} {fields:?}");
    }

    const OURS: (&str, &str) = ("host", "127.0.0.1:7173");

    #[test]
    fn b03_each_sign_of_a_stranger_is_enough() {
        for (name, value) in [
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-host", "localhost"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-prefix", "/"),
            ("x-real-ip", "127.0.0.1"),
            ("x-original-host", "localhost"),
            ("x-original-url", "/"),
            ("x-original-forwarded-for", "10.0.0.1"),
            ("x-forwarded", "for=127.0.0.1"),
            ("x-client-ip", "127.0.0.1"),
            ("x-cluster-client-ip", "127.0.0.1"),
            ("x-remote-ip", "127.0.0.1"),
            ("x-remote-addr", "127.0.0.1"),
            ("client-ip", "127.0.0.1"),
            ("true-client-ip", "127.0.0.1"),
            ("cf-connecting-ip", "127.0.0.1"),
            ("fastly-client-ip", "127.0.0.1"),
            ("fly-client-ip", "127.0.0.1"),
            ("x-azure-clientip", "127.0.0.1"),
            ("x-envoy-external-address", "127.0.0.1"),
            ("cdn-loop", "proxy"),
            ("x-rewrite-url", "/"),
            ("forwarded", "for=127.0.0.1"),
            ("via", "1.1 proxy"),
            ("origin", "http://127.0.0.1:7173"),
            ("origin", "null"),
            ("referer", "http://127.0.0.1:7173/"),
            ("cookie", "a=b"),
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-dest", "empty"),
            ("sec-fetch-user", "?1"),
            ("sec-fetch-mode", "no-cors"),
            ("sec-fetch-mode", "navigate"),
            ("sec-ch-ua", "\"Chromium\""),
            ("sec-purpose", "prefetch"),
        ] {
            check("/", &[OURS, (name, value)], Some(400));
        }
        check("/", &[OURS, ("sec-fetch-mode", "cors"), ("sec-fetch-mode", "no-cors")], Some(400));
    }

    #[test]
    fn what_applications_send_passes() {
        let of_python = [OURS, ("metadata", "true"), ("user-agent", "azsdk-python-identity")];
        check("/", &of_python, None);
        // `fetch` of Node.js 20.
        let of_node = [
            OURS,
            ("connection", "keep-alive"),
            ("accept", "*/*"),
            ("accept-language", "*"),
            ("sec-fetch-mode", "cors"),
            ("user-agent", "node"),
            ("accept-encoding", "gzip, deflate"),
        ];
        check("/", &of_node, None);
        check("/", &[OURS, ("traceparent", "00-0-0-00"), ("x-ms-client-request-id", "1")], None);
    }

    #[test]
    fn b03_only_our_own_host_passes() {
        for host in [
            "127.0.0.1:7173",
            "localhost:7173",
            "LOCALHOST:7173",
            "[::1]:7173",
            "169.254.169.254",
            "169.254.169.254:80",
        ] {
            check("/", &[("host", host)], None);
        }
        for host in [
            "",
            "evil.example",
            "evil.example:7173",
            "127.0.0.1",
            "localhost",
            "127.0.0.1:7172",
            "169.254.169.254:7173",
            "token-broker",
            "token-broker:7173",
            "10.0.0.1:7173",
            "0.0.0.0:7173",
            "localhost.evil.example:7173",
            "evil.example@localhost:7173",
            "2130706433:7173",
        ] {
            check("/", &[("host", host)], Some(403));
        }
        check("/", &[], Some(403));
        check("/", &[OURS, ("host", "evil.example")], Some(403));
        check("http://evil.example/", &[OURS], Some(403));
        check("http://127.0.0.1:7173/", &[OURS], Some(403));
    }
}
