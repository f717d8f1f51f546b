//! Tokens are renewed before their end, nobody waits for it, and failures cost nothing while the
//! held token is good. Nothing is handed out past its end.

use contract::ErrorKind;
use serde_json::json;
use tokio::time::Instant;

use crate::support::{Broker, Endpoint, Entra, OTHER_SCOPE, Reply, SCOPE, START, pass, seconds};

/// Calls for the first scope.
fn calls(entra: &Entra) -> usize {
    entra.calls(Endpoint::Token).iter().filter(|call| call.form["scope"] == SCOPE).count()
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_ahead_and_no_request_waits() {
    let entra = Entra::new();
    entra.life(json!("3600"), Some(json!("1000")));
    let broker = Broker::start(&entra);
    let first = broker.token(SCOPE).await.unwrap();
    assert_eq!(first.expires_on, START + 3_600);
    assert!((START + 1_000..=START + 1_100).contains(&first.refresh_on));
    entra.delay(seconds(5));
    pass(seconds(999)).await;
    assert_eq!(calls(&entra), 1);
    // From the planned renewal to its end: always answered at once.
    for _ in 0..120 {
        pass(seconds(1)).await;
        let before = Instant::now();
        broker.text().await.unwrap();
        assert_eq!(before, Instant::now());
    }
    assert_eq!(calls(&entra), 2);
    assert_ne!(broker.token(SCOPE).await.unwrap().access_token, first.access_token);
}

#[tokio::test(start_paused = true)]
async fn b08_a_failed_renewal_keeps_the_valid_token_until_its_margin() {
    let entra = Entra::new();
    let broker = Broker::start(&entra);
    let first = broker.text().await.unwrap();
    entra.always(Endpoint::Token, Some(Reply::error(503, "temporarily_unavailable", 90033)));
    // Each attempt fails from 1,800 s on; the token lives to 3,600 s, its margin is 30 s.
    pass(seconds(3_569)).await;
    assert!(calls(&entra) > 10, "it goes on trying");
    assert_eq!(broker.text().await.unwrap(), first);
    pass(seconds(1)).await;
    let refused = broker.text().await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Transient);
    assert!((1..=60).contains(&refused.retry_after.unwrap()));
    // Entra is well again: so is the broker, by itself.
    entra.always(Endpoint::Token, None);
    pass(seconds(60)).await;
    assert_ne!(broker.text().await.unwrap(), first);
}

#[tokio::test(start_paused = true)]
async fn b08_during_the_pause_after_a_failure_entra_is_left_alone() {
    let entra = Entra::new();
    let throttled = Reply::error(429, "invalid_request", 90055).with_header("retry-after", "120");
    entra.always(Endpoint::Token, Some(throttled));
    let broker = Broker::start(&entra);
    let refused = broker.text().await.unwrap_err();
    assert_eq!((refused.kind, refused.retry_after), (ErrorKind::Throttled, Some(120)));
    assert_eq!(refused.correlation_id.as_deref(), Some("aaaa-1"));
    assert_eq!(refused.trace_id.as_deref(), Some("bbbb-2"));
    for _ in 0..100 {
        broker.text().await.unwrap_err();
    }
    pass(seconds(60)).await;
    assert_eq!(broker.text().await.unwrap_err().retry_after, Some(60));
    assert_eq!(calls(&entra), 1);
    pass(seconds(61)).await;
    assert_eq!(calls(&entra), 2);
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_beyond_reason_is_capped_at_an_hour() {
    let entra = Entra::new();
    let throttled =
        Reply::error(429, "invalid_request", 90055).with_header("retry-after", "999999");
    entra.script(Endpoint::Token, [throttled.clone(), throttled]);
    let broker = Broker::start(&entra);
    assert_eq!(broker.text().await.unwrap_err().retry_after, Some(3_600));
    pass(seconds(3_601)).await;
    broker.text().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failed_renewal_puts_off_when_to_ask_again() {
    let entra = Entra::new();
    let broker = Broker::start(&entra);
    broker.text().await.unwrap();
    let throttled = Reply::error(429, "invalid_request", 90055).with_header("retry-after", "600");
    entra.always(Endpoint::Token, Some(throttled));
    pass(seconds(2_521)).await;
    let token = broker.token(SCOPE).await.unwrap();
    assert!(token.refresh_on > START + 2_521, "{}", token.refresh_on);
    assert!(token.refresh_on <= token.expires_on);
}

#[tokio::test(start_paused = true)]
async fn b08_unsound_answers_are_no_tokens() {
    let entra = Entra::new();
    let good = json!({"access_token": "a", "token_type": "Bearer", "expires_in": 3600});
    let with = |member: &str, value: serde_json::Value| {
        let mut body = good.clone();
        body[member] = value;
        Reply::json(200, &body)
    };
    let replies = [
        Reply::Answer(200, Vec::new(), b"<html>".to_vec()),
        Reply::Answer(200, Vec::new(), vec![b' '; 1024 * 1024 + 1]),
        with("token_type", json!("pop")),
        with("expires_in", json!(0)),
        with("expires_in", json!("1000000000000")),
        with("access_token", json!("a\nb")),
        Reply::Answer(302, vec![("location", "https://evil.example/".to_owned())], Vec::new()),
        Reply::Fail(token_broker::https::TransportFailure::Timeout),
    ];
    for reply in replies {
        let entra = Entra::new();
        entra.always(Endpoint::Token, Some(reply));
        let broker = Broker::start(&entra);
        assert_eq!(broker.text().await.unwrap_err().kind, ErrorKind::Transient);
    }
    entra.always(Endpoint::Token, Some(Reply::json(200, &good)));
    assert_eq!(Broker::start(&entra).text().await.unwrap(), "a");
}

#[tokio::test(start_paused = true)]
async fn b09_a_clock_that_jumps_stretches_no_life() {
    let entra = Entra::new();
    let broker = Broker::start(&entra);
    let first = broker.text().await.unwrap();
    // Back by a day: the timer still ends the token, and renews it in time.
    broker.clock.jump(-86_400);
    entra.always(Endpoint::Token, Some(Reply::error(500, "server_error", 90033)));
    pass(seconds(3_569)).await;
    assert_eq!(broker.text().await.unwrap(), first);
    pass(seconds(1)).await;
    broker.text().await.unwrap_err();
    // Forward past the end (a machine that slept): a new one is got at once.
    entra.always(Endpoint::Token, None);
    pass(seconds(61)).await;
    let second = broker.text().await.unwrap();
    let before = calls(&entra);
    broker.clock.jump(7_200);
    assert_ne!(broker.text().await.unwrap(), second);
    assert_eq!(calls(&entra), before + 1);
}

#[tokio::test(start_paused = true)]
async fn b09_a_life_of_a_second_does_not_make_the_broker_ask_each_second() {
    let entra = Entra::new();
    entra.life(json!(1), Some(json!(1)));
    let broker = Broker::start(&entra);
    for _ in 0..20 {
        broker.text().await.unwrap();
        pass(seconds(1)).await;
    }
    let calls = entra.calls(Endpoint::Token);
    let at: Vec<u64> = calls
        .iter()
        .filter(|call| call.form["scope"] == SCOPE)
        .map(|call| call.at.as_secs())
        .collect();
    assert!(at.len() > 10 && at.windows(2).all(|pair| pair[1] - pair[0] == 5), "{at:?}");
}

#[tokio::test(start_paused = true)]
async fn one_scope_that_fails_does_not_disturb_another() {
    let entra = Entra::new();
    entra.script(Endpoint::Token, [Reply::error(400, "invalid_scope", 70011)]);
    let broker = Broker::start(&entra);
    let outcomes = [broker.token(SCOPE).await, broker.token(OTHER_SCOPE).await];
    let (good, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!((good.len(), refused.len()), (1, 1));
    assert_eq!(refused[0].as_ref().unwrap_err().kind, ErrorKind::Config);
}

#[tokio::test(start_paused = true)]
async fn the_request_carries_what_entra_asks_of_clients() {
    let entra = Entra::new();
    let broker = Broker::start(&entra);
    let token = broker.token(SCOPE).await.unwrap();
    let call = entra.calls(Endpoint::Token).remove(0);
    let tenant = crate::support::TENANT;
    assert_eq!(call.uri, format!("https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token"));
    assert_eq!(call.form["grant_type"], "client_credentials");
    assert_eq!(call.form["client_id"], crate::support::CLIENT);
    assert_eq!(call.form["client_secret"], crate::support::SECRET);
    let id = call.headers["client-request-id"].to_str().unwrap();
    assert_eq!(id.len(), 36);
    // Named in the answer, so that a call can be found in the sign-in log.
    let ids: Vec<String> = entra
        .calls(Endpoint::Token)
        .iter()
        .map(|call| call.headers["client-request-id"].to_str().unwrap().to_owned())
        .collect();
    assert!(ids.contains(&token.correlation_id));
    assert_ne!(ids[0], ids[1]);
}
