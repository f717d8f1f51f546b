//! The api's answers to requests of every shape: strict in what it reads, typed in what it says.

use contract::{IssuedToken, KeySets, TypedError, route::MAX_REQUEST_BYTES};
use hyper::http::{Request, header};
use serde_json::json;

use crate::support::{Broker, Entra, SCOPE, START, TOKEN, ask, get, post};

const CLAIMS: &str = r#"{"access_token":{"nbf":{"essential":true,"value":"1800000000"}}}"#;

fn good() -> serde_json::Value {
    json!({"identity": "default", "scope": SCOPE, "destination": "graph"})
}

#[tokio::test(start_paused = true)]
async fn a_good_request_is_answered_with_the_token_and_its_ends() {
    let broker = Broker::start(&Entra::new());
    let (status, headers, body) = ask(&broker.api(), post("/v1/token", good().to_string())).await;
    assert_eq!(status, 200);
    assert_eq!(headers[header::CACHE_CONTROL], "no-store");
    assert_eq!(headers[header::CONTENT_TYPE], "application/json");
    let token: IssuedToken = serde_json::from_str(&body).unwrap();
    assert!(token.access_token.expose().starts_with(TOKEN));
    assert_eq!(token.token_type, "Bearer");
    assert_eq!(token.expires_on, START + 3_600);
    assert!((START + 1_800..=START + 2_520).contains(&token.refresh_on));
    assert_eq!((token.identity.as_str(), token.scope.as_str()), ("default", SCOPE));
}

#[tokio::test(start_paused = true)]
async fn w11_what_a_request_may_not_be_is_refused_in_words_without_its_values() {
    let broker = Broker::start(&Entra::new());
    let with = |member: &str, value: serde_json::Value| {
        let mut body = good();
        body[member] = value;
        body.to_string()
    };
    let challenge = |claims: &str, refused: &str| {
        let mut body = good();
        body["claims_challenges"] = json!(true);
        body["claims"] = json!(claims);
        body["refused"] = json!(refused);
        body.to_string()
    };
    let without = |member: &str| {
        let mut body = good();
        body.as_object_mut().unwrap().remove(member);
        body.to_string()
    };
    let padded = |length: usize| {
        let body = good().to_string();
        let spaces = " ".repeat(length - body.len());
        body + &spaces
    };
    let cases: Vec<(&str, String, u16, &str)> = vec![
        ("/v1/token", with("claims", json!("canary")), 400, "`claims` and `refused` come together"),
        (
            "/v1/token",
            with("refused", json!("canary")),
            400,
            "`claims` and `refused` come together",
        ),
        ("/v1/token", with("claims_challenges", json!("canary")), 400, "wrong type"),
        ("/v1/token", challenge("canary", &"a".repeat(64)), 400, "may ask for"),
        ("/v1/token", challenge(CLAIMS, "canary"), 400, "hash of a token"),
        ("/v1/token", challenge(CLAIMS, &"a".repeat(64)), 200, "access_token"),
        ("/v1/token", with("password", json!("canary")), 400, "unknown field `password`"),
        ("/v1/token", without("destination"), 400, "missing field `destination`"),
        ("/v1/token", without("scope"), 400, "missing field `scope`"),
        ("/v1/token", with("scope", json!(["canary"])), 400, "a member has the wrong type"),
        ("/v1/token", with("identity", json!({"canary": 1})), 400, "wrong type"),
        ("/v1/token", r#"{"identity":"canary","identity":"b"}"#.into(), 400, "duplicate field"),
        ("/v1/token", "[]".into(), 400, "malformed_request"),
        ("/v1/token", r#""canary""#.into(), 400, "wrong type"),
        ("/v1/token", "canary".into(), 400, "not JSON"),
        ("/v1/token", String::new(), 400, "not JSON"),
        ("/v1/token", good().to_string() + "canary", 400, "not JSON"),
        ("/v1/token", padded(MAX_REQUEST_BYTES), 200, "access_token"),
        ("/v1/token", padded(MAX_REQUEST_BYTES + 1), 413, "too large"),
        ("/v1/keys/refresh", r#"{"issuer":"canary"}"#.into(), 400, "missing field `kid`"),
        ("/v1/keys/refresh", r#"{"issuer":"i","kid":"k","url":"canary"}"#.into(), 400, "`url`"),
        ("/v1/revocations", String::new(), 404, "unknown_path"),
        ("/v1", String::new(), 404, "unknown_path"),
        ("/token", String::new(), 404, "unknown_path"),
        ("/version", String::new(), 404, "unknown_path"),
        ("/metrics", String::new(), 404, "unknown_path"),
        ("/readyz", String::new(), 404, "unknown_path"),
        ("/v2/token", String::new(), 503, "unsupported_version"),
        ("/v0/keys", String::new(), 503, "unsupported_version"),
        ("/v10", String::new(), 503, "unsupported_version"),
    ];
    for (path, body, status, text) in cases {
        let shown = format!("{path} {body:.80}");
        let (found, _, answer) = ask(&broker.api(), post(path, body)).await;
        assert_eq!(found, status, "{shown}: {answer}");
        assert!(answer.contains(text), "{shown}: {answer}");
        if status != 200 {
            assert!(!answer.contains("canary"), "{shown}: {answer}");
            serde_json::from_str::<TypedError>(&answer).unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn b03_a_body_of_another_type_is_refused() {
    let broker = Broker::start(&Entra::new());
    for path in ["/v1/token", "/v1/keys/refresh"] {
        for content_type in [
            None,
            Some("text/plain"),
            Some("application/x-www-form-urlencoded"),
            Some("application/jsonp"),
            Some("text/plain, application/json"),
        ] {
            let mut request = Request::post(path);
            if let Some(content_type) = content_type {
                request = request.header(header::CONTENT_TYPE, content_type);
            }
            let request = request.body(good().to_string().into()).unwrap();
            let (status, _, answer) = ask(&broker.api(), request).await;
            assert_eq!(status, 415, "{path} {content_type:?}: {answer}");
            serde_json::from_str::<TypedError>(&answer).unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_path_has_its_method() {
    let broker = Broker::start(&Entra::new());
    for request in [
        get("/v1/token"),
        get("/v1/keys/refresh"),
        post("/v1/keys", "{}"),
        Request::delete("/v1/keys").body("".into()).unwrap(),
    ] {
        let (status, _, answer) = ask(&broker.api(), request).await;
        assert_eq!(status, 405);
        serde_json::from_str::<TypedError>(&answer).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn keys_have_a_tag_and_are_not_sent_twice() {
    let broker = Broker::start(&Entra::new());
    broker.text().await.unwrap();
    let (status, headers, body) = ask(&broker.api(), get("/v1/keys")).await;
    assert_eq!(status, 200);
    let sets: KeySets = serde_json::from_str(&body).unwrap();
    assert_eq!(sets.key_sets.len(), 1);
    let tag = headers[header::ETAG].clone();
    let again = |tag: &hyper::http::HeaderValue| {
        Request::get("/v1/keys").header(header::IF_NONE_MATCH, tag).body("".into()).unwrap()
    };
    let (status, headers, body) = ask(&broker.api(), again(&tag)).await;
    assert_eq!((status, body.as_str()), (304, ""));
    assert_eq!(headers[header::ETAG], tag);
    let (status, ..) = ask(&broker.api(), again(&"\"other\"".parse().unwrap())).await;
    assert_eq!(status, 200);
    // A day later they are no keys any more, and the tag is another.
    broker.entra.always(
        crate::support::Endpoint::Metadata,
        Some(crate::support::Reply::Answer(500, Vec::new(), Vec::new())),
    );
    crate::support::pass(crate::support::seconds(90_000)).await;
    let (status, ..) = ask(&broker.api(), again(&tag)).await;
    assert_eq!(status, 200);
}
