//! A challenged call is made again with another token, and the application sees one answer.

use e2e::upstream::Reply;
use serde_json::{Value, json};

use super::stage::{asked, in_clear, stage};

/// Calls a destination whose server refuses the token that it got before; gives the answer that
/// the application saw. Each has another time in its claims, by which its exchange is found.
fn challenged(name: &str, since: u64, words: &[&str], good: Reply) -> Value {
    let stage = stage();
    let server = stage.server(name);
    stage.until_answered(words, 200);
    let first = server.latest().bearer().expect("a token");
    let claims = json!({"access_token": {"nbf": {"essential": true, "value": since.to_string()}}});
    let (refused, claims) = (first.clone(), claims.to_string());
    server.respond_with(move |seen| match seen.bearer() {
        Some(token) if token != refused => good.clone(),
        _ => Reply::challenge(&claims),
    });
    let before = server.count();
    let answer = stage.call(words);
    assert_eq!(answer["status"], 200, "{}", answer["headers"]);
    let lines = answer["headers"].to_string();
    assert!(!lines.contains("www-authenticate") && !lines.contains("x-entra"), "{lines}");
    let attempts = &server.requests()[before..];
    assert_eq!(attempts.len(), 2, "attempts at {name}");
    assert_eq!(attempts[0].bearer(), Some(first));
    assert_ne!(attempts[0].bearer(), attempts[1].bearer());
    let without_token = |attempt: &e2e::upstream::Recorded| {
        (attempt.method.clone(), attempt.target.clone(), attempt.body.clone())
    };
    assert_eq!(without_token(&attempts[0]), without_token(&attempts[1]));
    // From then on nobody sees the challenge, and Entra has been asked once, with what was wanted:
    // Envoy's other thread learns of the new token by a challenge of its own.
    for _ in 0..3 {
        assert_eq!(stage.call(words)["status"], 200);
    }
    let calls = asked(stage.open.world, "outbound");
    let with_claims = calls.iter().filter(|call| {
        call.form_member("claims").is_some_and(|claims| claims.contains(&since.to_string()))
    });
    assert_eq!(with_claims.count(), 1);
    assert!(!in_clear(server));
    answer
}

fn done() -> Reply {
    Reply::json(&json!({"done": true}))
}

#[test]
fn a_challenged_get_is_made_again() {
    challenged("get", 1_604_106_651, &["GET", "http://get.contoso.example/v1.0/me"], done());
}

#[test]
fn a_challenged_post_is_made_again_with_its_body() {
    let words = ["POST", "http://post.contoso.example/v1.0/send", "--data", "{\"to\":\"ada\"}"];
    challenged("post", 1_604_106_652, &words, done());
    let latest = stage().server("post").latest();
    assert_eq!(
        (latest.method.as_str(), latest.body.as_slice()),
        ("POST", &b"{\"to\":\"ada\"}"[..])
    );
}

#[test]
fn a_challenged_call_over_http_2_is_made_again() {
    let url = "http://http2.contoso.example/v1.0/send";
    let words = ["POST", url, "--http2", "--data", "{\"to\":\"ada\"}"];
    let answer = challenged("http2", 1_604_106_653, &words, done());
    assert_eq!(answer["version"], "2");
    let connected = stage().server("http2").connected();
    assert!(connected.iter().all(|known| known.alpn.as_deref() == Some("h2")));
}

#[test]
fn a_challenged_grpc_call_is_made_again_and_ends_with_its_trailers() {
    let url = "http://grpc.contoso.example/ledger.Ledger/Book";
    // Nobody on the way reads the message; a command line can carry no frame of gRPC's.
    let headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"];
    let words = [&["POST", url, "--http2", "--data", "message"][..], &headers].concat();
    let answer = challenged("grpc", 1_604_106_654, &words, Reply::grpc(0, b"booked"));
    assert_eq!(answer["trailers"], json!([["grpc-status", "0"]]));
    assert_eq!(answer["body"], "\0\0\0\0\u{6}booked");
}
