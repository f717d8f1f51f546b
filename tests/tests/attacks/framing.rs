//! Requests that are odd as messages: targets, hosts, methods, tunnels, versions, trailers.

use bytes::Bytes;
use e2e::{
    client::{Answer, Connection, Request},
    fake_entra::sample::ada,
    stack::{Stack, world::payer},
};
use http_body_util::{BodyExt, Full};
use hyper::HeaderMap;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::{no_trap, read, seen, token};

/// Sends bytes on a connection of their own.
async fn send(stack: &Stack, bytes: &[u8]) -> Option<Answer> {
    let mut connection = Connection::open(stack.envoy.inbound).await;
    connection.write(bytes).await;
    connection.answer_or_close().await
}

/// Sends bytes that must be refused without the application seeing any.
async fn refused(stack: &Stack, text: &str) {
    let before = seen(stack);
    let status = send(stack, text.as_bytes()).await.map_or(400, |answer| answer.status);
    assert!((400..500).contains(&status), "{status}: {text:?}");
    assert_eq!(seen(stack), before, "the application saw something of {text:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn h14_h16_targets_and_hosts_are_read_in_one_way_or_not_at_all() {
    let stack = Stack::builder().start().await;
    let bearer = format!("Authorization: Bearer {}\r\n", token(&stack));
    let rows = [
        "GET http://orders.example/orders/7 HTTP/1.1\r\nHost: orders.example\r\n\r\n".to_owned(),
        "GET http://orders.example/orders/7 HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_owned(),
        format!("GET http:///orders/7 HTTP/1.1\r\nHost: a\r\n{bearer}\r\n"),
        format!("GET /orders/7 HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n{bearer}\r\n"),
        format!("GET /orders/7 HTTP/1.1\r\nHost: a.example, b.example\r\n{bearer}\r\n"),
        format!("GET /orders/7 HTTP/1.1\r\n{bearer}\r\n"),
        format!("GET /orders/7 HTTP/1.1\r\nHost: \r\n{bearer}\r\n"),
        format!("GET /orders/7 HTTP/1.1\r\nHost: a b\r\n{bearer}\r\n"),
        format!("GET /orders/7 HTTP/1.1\r\nHost: user@a.example\r\n{bearer}\r\n"),
        format!("GET /orders/7 HTTP/1.1\r\nHost: a.example:port\r\n{bearer}\r\n"),
        format!("GET /orders/7 HTTP/1.1\r\nHost: a.example/x\r\n{bearer}\r\n"),
        format!("GET orders/7 HTTP/1.1\r\nHost: a.example\r\n{bearer}\r\n"),
        format!("GET * HTTP/1.1\r\nHost: a.example\r\n{bearer}\r\n"),
        format!("GET /orders/7#x HTTP/1.1\r\nHost: a.example\r\n{bearer}\r\n"),
        format!("GET /healthz#/orders/7 HTTP/1.1\r\nHost: a.example\r\n{bearer}\r\n"),
        format!("GET /orders/..%2fhealthz HTTP/1.1\r\nHost: a.example\r\n{bearer}\r\n"),
        format!("GET /healthz/../orders/7 HTTP/1.1\r\nHost: a.example\r\n{bearer}\r\n"),
    ];
    for text in rows {
        refused(&stack, &text).await;
    }
    // The absolute form is legal (RFC 9112 §3.2.2): judged by its own host and path.
    let absolute =
        format!("GET http://orders.example/orders/7 HTTP/1.1\r\nHost: b\r\n{bearer}\r\n");
    // Envoy drops user information before anybody sees it.
    for text in [absolute.clone(), absolute.replace("orders.example", "user@orders.example")] {
        let answer = send(&stack, text.as_bytes()).await.expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let seen = stack.application.latest();
        assert_eq!(seen.target, "/orders/7");
        assert_eq!(seen.header("host").as_deref(), Some("orders.example"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn h17_odd_methods_get_nothing() {
    let stack = Stack::builder().start().await;
    let token = token(&stack);
    for method in ["TRACE", "get", "Get", "DELETE", "PATCH", "PROPFIND", "OPTIONS", "X"] {
        refused(&stack, &format!("{method} /orders/7 HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let bearer = format!("Authorization: Bearer {token}\r\n");
        refused(&stack, &format!("{method} /orders/7 HTTP/1.1\r\nHost: a\r\n{bearer}\r\n")).await;
    }
    // A preflight is one only with both of its headers.
    let half = [("origin", "https://a.example"), ("access-control-request-method", "GET")];
    for (name, value) in half {
        let request = Request::new("OPTIONS", "/orders/7").header(name, value);
        stack.denied(&request, 403, "no_rule").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn h18_no_byte_goes_through_a_tunnel_that_was_not_allowed() {
    let stack = Stack::builder().start().await;
    let token = token(&stack);
    let websocket = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let h2c = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n";
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let early = "\r\nearly bytes, before any answer";
    let rows = [
        format!("GET /orders/7 HTTP/1.1\r\nHost: a\r\n{websocket}{early}"),
        format!("GET /orders/7 HTTP/1.1\r\nHost: a\r\n{h2c}{early}"),
        format!(
            "GET /orders/7 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: other\r\n{early}"
        ),
        format!("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n{early}"),
        format!("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n{bearer}{early}"),
        format!("CONNECT /orders/7 HTTP/1.1\r\nHost: a\r\n{bearer}{early}"),
    ];
    for text in rows {
        refused(&stack, &text).await;
    }
    // An upgrade that Envoy does not offer is never made, token or not.
    let before = stack.application.count();
    let text = format!("GET /orders/7 HTTP/1.1\r\nHost: a\r\n{h2c}{bearer}\r\n");
    let answer = send(&stack, text.as_bytes()).await.expect("an answer");
    assert_ne!(answer.status, 101);
    if stack.application.count() > before {
        assert_eq!(stack.application.latest().header("upgrade"), None);
    }
    no_trap(&stack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h22_each_request_of_a_connection_is_judged_alone() {
    let stack = Stack::builder().start().await;
    let token = token(&stack);
    let good = read().bearer(&token).to_bytes();
    let none = read().to_bytes();
    let bad = read().bearer("a.b.c").to_bytes();
    let open = Request::get("/healthz").to_bytes();
    // Envoy closes a connection with more than two pipelined answers of its own under way
    // (`http1.response_flood`), so the rows are short.
    let rows: [(Vec<&[u8]>, Vec<u16>); 6] = [
        (vec![&good, &none], vec![200, 401]),
        (vec![&good, &good, &bad], vec![200, 200, 401]),
        (vec![&none, &good], vec![401, 200]),
        (vec![&bad, &good, &none], vec![401, 200, 401]),
        (vec![&open, &none], vec![200, 401]),
        (vec![&good, &open, &none], vec![200, 200, 401]),
    ];
    for (requests, expected) in rows {
        let before = stack.application.count();
        let mut connection = Connection::open(stack.envoy.inbound).await;
        connection.write(&requests.concat()).await;
        let mut statuses = Vec::new();
        for _ in &requests {
            statuses.push(connection.answer_or_close().await.map_or(0, |answer| answer.status));
        }
        assert_eq!(statuses, expected);
        let passed = expected.iter().filter(|status| **status == 200).count();
        assert_eq!(stack.application.count(), before + passed);
    }
    for text in [
        "GET /orders/7 HTTP/1.0\r\n\r\n",
        "GET /orders/7 HTTP/1.0\r\nHost: a\r\n\r\n",
        "GET /orders/7\r\n\r\n",
        "GET /orders/7 HTTP/0.9\r\n\r\n",
        "GET /orders/7 HTTP/1.1\r\n\r\n",
    ] {
        refused(&stack, text).await;
    }
}

/// Sends a POST over HTTP/2 with these trailers.
async fn post_with_trailers(stack: &Stack, token: &str, trailers: HeaderMap) -> u16 {
    let stream = tokio::net::TcpStream::connect(stack.envoy.inbound).await.expect("a connection");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("HTTP/2");
    let task = tokio::spawn(connection);
    let body =
        Full::new(Bytes::from_static(b"{}")).with_trailers(std::future::ready(Some(Ok(trailers))));
    let request = hyper::Request::post("http://orders.example/orders/7/pay")
        .header("authorization", format!("Bearer {token}"))
        .body(body)
        .expect("a request");
    let answer = sender.send_request(request).await.expect("an answer");
    task.abort();
    answer.status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn h19_no_identity_arrives_in_trailers() {
    let stack = Stack::builder().start().await;
    let token = payer(&stack.entra).sign();
    let names = [
        "x-entra-object-id",
        "x_entra_tenant_id",
        "x-entra-permit",
        "x-ms-client-principal",
        "x-ms-token-aad-id-token",
        "authorization",
    ];
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", "harmless".parse().expect("a value"));
    for name in names {
        trailers.insert(name, "spoofed".parse().expect("a value"));
    }
    assert_eq!(post_with_trailers(&stack, &token, trailers).await, 200);
    let seen = stack.application.latest();
    let arrived: Vec<_> = seen.trailers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(arrived, ["x-checksum"], "only the harmless one");
    assert_eq!(seen.header("x-entra-object-id"), Some(ada().object_id));

    let lines: String = names.iter().map(|name| format!("{name}: spoofed\r\n")).collect();
    let chunked = format!(
        "POST /orders/7/pay HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\
         Transfer-Encoding: chunked\r\nTrailer: x-entra-object-id\r\n\r\n\
         2\r\n{{}}\r\n0\r\n{lines}\r\n"
    );
    let answer = send(&stack, chunked.as_bytes()).await.expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = stack.application.latest();
    let spoofed = seen.trailers.iter().any(|(_, value)| value == b"spoofed");
    assert!(!spoofed, "{:?}", seen.trailers);
    // A token in a trailer is none.
    let late = format!(
        "POST /orders/7/pay HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\
         Trailer: authorization\r\n\r\n2\r\n{{}}\r\n0\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    let before = stack.application.count();
    assert_eq!(send(&stack, late.as_bytes()).await.expect("an answer").status, 401);
    assert_eq!(stack.application.count(), before);
    no_trap(&stack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_web_gets_its_status_in_the_headers() {
    let stack = Stack::builder().start().await;
    let kinds = ["application/grpc-web", "application/grpc-web+proto", "application/grpc-web-text"];
    for kind in kinds {
        for (token, path, status) in
            [(None, "/orders/7/pay", "16"), (Some(token(&stack)), "/orders/7/pay", "7")]
        {
            let mut request = Request::post(path, &[0; 5]).header("content-type", kind);
            if let Some(token) = &token {
                request = request.bearer(token);
            }
            let before = seen(&stack);
            let answer = stack.call(&request).await;
            assert_eq!(
                (answer.status, answer.header("grpc-status").as_deref()),
                (200, Some(status))
            );
            assert!(answer.body.is_empty(), "{kind}");
            assert_eq!(seen(&stack), before, "{kind}");
        }
    }
}
