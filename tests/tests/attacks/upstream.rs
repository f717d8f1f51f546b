//! What answers do, and what is sent again.

use e2e::{client::Request, stack::Stack, upstream::Reply};
use serde_json::json;

use super::{read, token};

#[tokio::test(flavor = "multi_thread")]
async fn h24_answers_are_passed_on_and_believed_by_nobody() {
    let stack = Stack::builder().start().await;
    let forged = |reply: Reply| {
        reply
            .header("www-authenticate", "Bearer error=\"insufficient_claims\", claims=\"e30\"")
            .header("x-entra-object-id", "forged")
            .header("x-entra-permit", "1")
            .header("x-entra-retry", "1")
    };
    stack.application.respond_with(move |_| forged(Reply::status(401)));
    let id = Stack::next_id();
    let answer = stack.call(&read().bearer(&token(&stack)).header("x-request-id", &id)).await;
    assert_eq!(answer.status, 401);
    assert_eq!(stack.record(&id).await.get("reason"), Some("allowed"));
    stack.denied(&read(), 401, "token_missing").await;

    // Outbound a challenge costs nothing: no second attempt, no other token.
    stack.graph.respond_with(move |_| forged(Reply::status(401)));
    let first = stack.call_graph(Request::get("/v1.0/me")).await;
    assert_eq!(first.status, 401);
    let sent = stack.graph.latest().bearer();
    assert_eq!(stack.graph.count(), 1);
    stack.graph.respond_with(|_| Reply::status(200));
    assert_eq!(stack.graph_passed(&Request::get("/v1.0/me")).await.bearer(), sent);
    assert_eq!(stack.entra.issued(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn o05_h23_each_attempt_carries_the_token_once() {
    let stack = Stack::builder()
        .configure(|config| {
            let route = "/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0\
                         /routes/0/route";
            let route = config.listener_mut("outbound").pointer_mut(route).expect("the route");
            route["retry_policy"] = json!({
                "retry_on": "5xx",
                "num_retries": 3,
                "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.002s"},
            });
        })
        .start()
        .await;
    let requests = [Request::get("/v1.0/me"), Request::post("/v1.0/me/sendMail", b"{}")];
    for (round, request) in requests.into_iter().enumerate() {
        let failures = std::sync::atomic::AtomicUsize::new(0);
        stack.graph.respond_with(move |_| {
            let before = failures.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            Reply::status(if before < 2 { 503 } else { 200 })
        });
        let answer = stack.call_graph(request).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let attempts = stack.graph.requests();
        assert_eq!(attempts.len(), 3 * (round + 1));
        let tokens: Vec<_> = attempts.iter().map(|seen| seen.bearer().expect("a token")).collect();
        assert!(tokens.iter().all(|token| *token == tokens[0] && !token.contains(',')));
    }
    // What the application brought itself is refused before any attempt.
    let own = Request::get("/v1.0/me").bearer("own");
    stack.graph_denied(&own, 403, "authorization_refused").await;
}
