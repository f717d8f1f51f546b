//! Headers that claim an identity, a permit, another path or another method.

use std::collections::BTreeSet;

use e2e::{
    client::{Connection, Request},
    fake_entra::sample::{TENANT, ada},
    stack::Stack,
};
use serde_json::json;

use super::{no_trap, read, seen, token};

/// Names that only the filter may set, or that applications for App Service believe.
const IDENTITY: [&str; 9] = [
    "x-entra-object-id",
    "x-entra-tenant-id",
    "x-entra-client-id",
    "x-entra-permit",
    "x-ms-client-principal",
    "x-ms-client-principal-id",
    "x-ms-client-principal-idp",
    "x-ms-token-aad-id-token",
    "x-ms-token-aad-access-token",
];

const MARKERS: [&str; 5] =
    ["x-entra-permit", "X-ENTRA-PERMIT", "x_entra_permit", "x-entra_permit", "x.entra.permit"];

/// A name in many spellings: other characters for its dashes, other cases.
fn spellings(name: &str) -> BTreeSet<String> {
    let mut spellings = BTreeSet::from([String::new()]);
    for (index, part) in name.split('-').enumerate() {
        let separators: &[&str] = if index == 0 { &[""] } else { &["-", "_", "."] };
        let longer = spellings.iter().flat_map(|start| {
            separators.iter().map(move |separator| format!("{start}{separator}{part}"))
        });
        spellings = longer.collect();
    }
    let upper: Vec<_> = spellings.iter().map(|name| name.to_uppercase()).collect();
    spellings.extend(upper);
    spellings
}

#[tokio::test(flavor = "multi_thread")]
async fn h08_h09_h11_no_spelling_of_an_identity_header_reaches_the_application() {
    let stack = Stack::builder().start().await;
    let token = token(&stack);
    let all: Vec<String> = IDENTITY.iter().flat_map(|name| spellings(name)).collect();
    assert!(all.len() >= 200, "{} spellings", all.len());
    // Envoy takes 100 header lines a request.
    for names in all.chunks(80) {
        let spoof = |request: Request| {
            names.iter().fold(request, |request, name| request.header(name, "spoofed"))
        };
        let allowed = stack.passed(&spoof(read()).bearer(&token)).await;
        assert_eq!(allowed.header("x-entra-object-id"), Some(ada().object_id));
        assert_eq!(allowed.header("x-entra-tenant-id").as_deref(), Some(TENANT));
        let anonymous = stack.passed(&spoof(Request::get("/healthz"))).await;
        assert_eq!(anonymous.header("x-entra-object-id"), None);
        for seen in [allowed, anonymous] {
            let head = String::from_utf8_lossy(&seen.head).into_owned();
            assert!(!head.contains("spoofed"), "{head}");
        }
        stack.denied(&spoof(read()), 401, "token_missing").await;
        stack.denied(&spoof(read()).bearer("a.b.c"), 401, "token_malformed").await;
        stack.denied(&spoof(Request::get("/other")).bearer(&token), 403, "no_rule").await;
    }
    no_trap(&stack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h10_hop_by_hop_names_take_no_identity_away() {
    let stack = Stack::builder().start().await;
    let token = token(&stack);
    let rows = [
        "x-entra-object-id, authorization",
        "x-entra-object-id",
        "close, x-entra-tenant-id, x-entra-permit",
        "authorization",
        "X-Entra-Object-Id, X-Entra-Client-Id",
    ];
    for value in rows {
        let request = read().bearer(&token).header("connection", value);
        let before = seen(&stack);
        let answer = stack.call(&request).await;
        if answer.status != 200 {
            assert!([400, 401].contains(&answer.status), "{value}: {}", answer.status);
            assert_eq!(seen(&stack), before, "{value}");
            continue;
        }
        let seen = stack.application.latest();
        assert_eq!(seen.header("x-entra-object-id"), Some(ada().object_id), "{value}");
        assert_eq!(seen.header("x-entra-tenant-id").as_deref(), Some(TENANT), "{value}");
        assert_eq!(seen.header("authorization"), None, "{value}");
        let hop = seen.header("connection").unwrap_or_default().to_lowercase();
        assert!(!hop.contains("x-entra"), "{value}: the application may strip it: {hop}");
        stack.denied(&read().header("connection", value), 401, "token_missing").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn h12_h15_only_the_request_line_and_the_host_say_what_is_asked_for() {
    let stack = Stack::builder().start().await;
    let token = token(&stack);
    let paths = [
        "x-forwarded-uri",
        "x-forwarded-path",
        "x-original-url",
        "x-original-uri",
        "x-rewrite-url",
        "x-envoy-original-path",
        "x-envoy-original-url",
    ];
    for name in paths {
        stack.denied(&read().header(name, "/healthz"), 401, "token_missing").await;
        let other = Request::get("/admin").bearer(&token).header(name, "/orders/7");
        stack.denied(&other, 403, "no_rule").await;
    }
    for name in ["x-http-method-override", "x-http-method", "x-method-override"] {
        let delete = Request::new("DELETE", "/orders/7").bearer(&token).header(name, "GET");
        stack.denied(&delete, 403, "no_rule").await;
        let preflight = Request::post("/orders/7/pay", b"{}")
            .header(name, "OPTIONS")
            .header("origin", "https://shop.example")
            .header("access-control-request-method", "POST");
        stack.denied(&preflight, 401, "token_missing").await;
    }
    for target in ["/orders/7?/healthz", "/orders/7?path=/healthz", "/orders/7?x=%2fhealthz"] {
        stack.denied(&Request::get(target), 401, "token_missing").await;
    }
    for agent in ["kube-probe/1.31", "GoogleHC/1.0", "ELB-HealthChecker/2.0"] {
        stack.denied(&read().header("user-agent", agent), 401, "token_missing").await;
    }
    let certificate = "By=spiffe://a;URI=spiffe://cluster.local/ns/shop/sa/till";
    let claimed = read().header("x-forwarded-client-cert", certificate);
    stack.denied(&claimed, 401, "token_missing").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permit_marker_of_the_callers_opens_nothing() {
    let stack = Stack::builder().start().await;
    let token = token(&stack);
    for name in MARKERS {
        stack.denied(&read().header(name, "1"), 401, "token_missing").await;
        for request in [read().bearer(&token), Request::get("/healthz")] {
            let seen = stack.passed(&request.header(name, "1")).await;
            let head = String::from_utf8_lossy(&seen.head).to_lowercase();
            assert!(!head.contains("permit"), "{head}");
        }
    }

    // Should the filter not be there at all, nobody gets in: not even with the marker.
    let disable = |config: &mut e2e::envoy::EnvoyConfig| {
        let filters = "/filter_chains/0/filters/0/typed_config/http_filters";
        let filters = config.listener_mut("inbound").pointer_mut(filters).expect("the filters");
        let filter = filters.as_array_mut().and_then(|filters| {
            filters.iter_mut().find(|filter| filter["name"] == "entra-inbound")
        });
        filter.expect("the filter")["disabled"] = json!(true);
    };
    let stack = Stack::builder().configure(disable).start().await;
    for request in [read().bearer(&token), Request::get("/healthz")] {
        assert_eq!(stack.call(&request).await.status, 403);
        for name in MARKERS {
            let marked = request.clone().header(name, "1").header(name, "1");
            assert_eq!(stack.call(&marked).await.status, 403, "{name}");
        }
    }
    assert_eq!(seen(&stack), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn h05_h06_tokens_anywhere_else_are_no_tokens() {
    let stack = Stack::builder().start().await;
    let token = token(&stack);
    let bearer = format!("Bearer {token}");
    let rows = [
        ("proxy-authorization", bearer.clone()),
        ("x-authorization", bearer.clone()),
        ("x-forwarded-authorization", bearer.clone()),
        ("x-ms-token-aad-access-token", token.clone()),
        ("sec-websocket-protocol", format!("bearer, {token}")),
        ("cookie", format!("authorization={bearer}; access_token={token}")),
        ("authentication", bearer.clone()),
        ("authorization_", bearer.clone()),
    ];
    for (name, value) in rows {
        stack.denied(&read().header(name, value), 401, "token_missing").await;
    }
    let form = format!("access_token={token}");
    let form = Request::post("/orders/7/pay", form.as_bytes())
        .header("content-type", "application/x-www-form-urlencoded");
    stack.denied(&form, 401, "token_missing").await;
    for name in ["access_token", "Access_Token", "access%5ftoken", "%61ccess_token"] {
        let target = format!("/orders/7?a=b&{name}={token}");
        let before = seen(&stack);
        assert_eq!(stack.call(&Request::get(&target)).await.status, 401, "{name}");
        assert_eq!(seen(&stack), before, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn h07_no_byte_anywhere_in_a_head_opens_or_breaks_anything() {
    let stack = Stack::builder().start().await;
    let token = token(&stack);
    // Where the byte `@` stands it is replaced.
    let bare = [
        "G@T /orders/7 HTTP/1.1\r\nHost: orders.example\r\n\r\n",
        "GET /orders/@ HTTP/1.1\r\nHost: orders.example\r\n\r\n",
        "GET /orders/7?a=@ HTTP/1.1\r\nHost: orders.example\r\n\r\n",
        "GET /orders/7 HTTP/1.1@\r\nHost: orders.example\r\n\r\n",
        "GET /orders/7 HTTP/1.1\r\nHost: orders@.example\r\n\r\n",
        "GET /orders/7 HTTP/1.1\r\nHost: orders.example\r\nx-@: a\r\n\r\n",
        "GET /orders/7 HTTP/1.1\r\nHost: orders.example\r\nx-a: b@c\r\n\r\n",
        "GET /orders/7 HTTP/1.1\r\nHost: orders.example\r\nAuthorization: Bearer@TOKEN\r\n\r\n",
        "GET /orders/7 HTTP/1.1\r\nHost: orders.example\r\nAuthorization: @Bearer TOKEN@\r\n\r\n",
        "GET /orders/7 HTTP/1.1\r\nHost: orders.example\r\nAuthorization: Bearer TO@KEN\r\n\r\n",
        "GET /orders/7 HTTP/1.1\r\nHost: orders.example\r\n@Authorization: Bearer TOKEN\r\n\r\n",
        "GET /orders/7 HTTP/1.1\r\nHost: orders.example\r\nAuthorization@: Bearer TOKEN\r\n\r\n",
    ];
    let control = [0, 1, 8, 11, 12, 13, 14, 27, 31, 127];
    let mut before = seen(&stack);
    for template in bare {
        for byte in (0x80..=0xFF_u8).chain(control) {
            let text = template.replace("TOKEN", &token);
            let bytes: Vec<u8> =
                text.bytes().map(|at| if at == b'@' { byte } else { at }).collect();
            let mut connection = Connection::open(stack.envoy.inbound).await;
            connection.write(&bytes).await;
            let answer = connection.answer_or_close().await;
            let status = answer.map_or(400, |answer| answer.status);
            // RFC 9112 §2.2: Envoy reads a lone CR as a space, which does not count at the ends.
            if byte == b'\r' && template.contains(": @Bearer TOKEN@") && status == 200 {
                before = seen(&stack);
                continue;
            }
            assert!((400..500).contains(&status), "{status}: {}", bytes.escape_ascii());
            assert_eq!(seen(&stack), before, "the application saw {}", bytes.escape_ascii());
        }
    }
    stack.passed(&read().bearer(&token)).await;
    no_trap(&stack).await;
}
