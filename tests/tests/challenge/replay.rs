//! A challenged call is made again with another token, and the application sees nothing of it.

use e2e::upstream::Upstream;

use super::*;

/// HTTP/1.1 towards Graph, whatever it offers.
fn http1_upstream(builder: Builder) -> Builder {
    builder.configure(|config| config.http1_only("graph"))
}

/// Two attempts, alike but for the token.
fn check_attempts(graph: &Upstream, since: usize, body: &[u8]) {
    let attempts = &graph.requests()[since..];
    let tokens: Vec<_> = attempts.iter().map(Recorded::bearer).collect();
    assert_eq!(tokens, [Some("first".to_owned()), Some("second".to_owned())]);
    for attempt in attempts {
        assert_eq!(attempt.body, body);
        assert_eq!((&attempt.method, &attempt.target), (&attempts[0].method, &attempts[0].target));
    }
}

/// Calls until Graph has seen this token.
async fn until_bearer(stack: &Stack, token: &str) {
    let call = async {
        while stack.graph.latest().bearer().as_deref() != Some(token) {
            me().send(stack.envoy.outbound).await;
        }
    };
    tokio::time::timeout(e2e::client::DEADLINE, call).await.expect("the token in time");
}

/// A call that is challenged once.
async fn check(builder: Builder, request: Request, http2: bool, body: &[u8]) {
    let (stack, broker) = challenged(builder).await;
    let before = stack.graph.count();
    let answer = match http2 {
        true => request.send_http2(stack.envoy.outbound).await,
        false => request.send(stack.envoy.outbound).await,
    };
    assert_eq!((answer.status, answer.json()), (200, you()));
    assert_eq!(answer.header("x-entra-retry"), None);
    assert_eq!(answer.header("www-authenticate"), None);
    check_attempts(&stack.graph, before, body);
    let asked = challenges(&broker);
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].body["claims"], REVOKED);
    assert_eq!(asked[0].body["refused"], stand_in::hash_of("first"));
    assert_eq!(asked[0].body["claims_challenges"], true);
    // From now on everybody has the new token.
    for _ in 0..5 {
        assert_eq!(me().send(stack.envoy.outbound).await.status, 200);
    }
    assert!(bearers(&stack, before + 2).iter().all(|token| token == "second"));
    counted(&stack, "answered", 1).await;
    no_trap(&stack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o07_a_challenged_get_is_replayed_with_a_new_token() {
    check(Stack::builder(), me(), false, b"").await;
    check(Stack::builder(), me(), true, b"").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o07_a_challenged_post_is_replayed_with_its_body() {
    check(Stack::builder(), post(), false, b"{\"message\":{}}").await;
    check(Stack::builder(), post(), true, b"{\"message\":{}}").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o07_a_challenged_call_is_replayed_over_http_1_too() {
    check(http1_upstream(Stack::builder()), post(), false, b"{\"message\":{}}").await;
    check(http1_upstream(Stack::builder()), post(), true, b"{\"message\":{}}").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o07_a_challenged_call_is_replayed_on_the_oldest_envoy() {
    check(Stack::builder().oldest_envoy(), me(), false, b"").await;
    check(Stack::builder().oldest_envoy(), post(), true, b"{\"message\":{}}").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o07_a_challenged_grpc_call_is_replayed_with_trailers_on_both_ways() {
    let (stack, _broker) = challenged(Stack::builder()).await;
    stack.graph.respond_with(|seen| {
        if seen.bearer().as_deref() == Some("first") {
            return Reply::challenge(REVOKED);
        }
        let trailers = vec![("grpc-status", "0".to_owned()), ("x-after", "1".to_owned())];
        let reply = Reply::status(200).header("content-type", "application/grpc");
        Reply { body: vec![0, 0, 0, 0, 0], trailers, ..reply }
    });
    let before = stack.graph.count();
    let call = Request::post("/graph.Users/Me", &[0, 0, 0, 0, 2, 8, 1])
        .host("graph.microsoft.com")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .trailer("x-before", "1");
    let answer = call.send_http2(stack.envoy.outbound).await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, &[0, 0, 0, 0, 0][..]));
    assert_eq!(answer.trailer("grpc-status").as_deref(), Some("0"));
    assert_eq!(answer.trailer("x-after").as_deref(), Some("1"));
    check_attempts(&stack.graph, before, &[0, 0, 0, 0, 2, 8, 1]);
    for attempt in &stack.graph.requests()[before..] {
        assert_eq!(attempt.trailers, [("x-before".to_owned(), b"1".to_vec())]);
    }
    no_trap(&stack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o07_a_body_beyond_the_buffer_goes_through_and_the_challenge_is_seen() {
    const BUFFER: usize = 1024 * 1024;
    for (size, replayed) in [(BUFFER / 2, true), (2 * BUFFER, false)] {
        for http2 in [false, true] {
            let (stack, broker) = challenged(Stack::builder()).await;
            let before = stack.graph.count();
            let body = vec![b'x'; size];
            let request = Request::post("/v1.0/me/upload", &body).host("graph.microsoft.com");
            let answer = match http2 {
                true => request.send_http2(stack.envoy.outbound).await,
                false => request.send(stack.envoy.outbound).await,
            };
            if replayed {
                assert_eq!(answer.status, 200, "{size} {http2}");
                check_attempts(&stack.graph, before, &body);
                continue;
            }
            visible(&answer);
            assert_eq!(bearers(&stack, before), ["first"], "{size} {http2}");
            assert_eq!(stack.graph.latest().body.len(), size);
            // The new token is on its way all the same, for whoever calls next.
            until_bearer(&stack, "second").await;
            assert_eq!(challenges(&broker).len(), 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn o07_an_upstream_that_hangs_up_after_its_challenge_makes_no_difference() {
    let (stack, _broker) = challenged(http1_upstream(Stack::builder())).await;
    stack.graph.respond_with(|seen| refuse_first(seen).header("connection", "close"));
    let before = stack.graph.count();
    let answer = post().send(stack.envoy.outbound).await;
    assert_eq!((answer.status, answer.json()), (200, you()));
    check_attempts(&stack.graph, before, b"{\"message\":{}}");
}
