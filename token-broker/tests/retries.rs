//! When Entra, and the machine's metadata service, are asked again: each row of the table in
//! `docs/identities.md`.

use std::time::Duration;

use contract::{ErrorKind, TokenRequest};
use serde_json::json;
use token_broker::{
    config::{Config, document},
    https::TransportFailure,
};

use crate::support::{
    Broker, CLIENT, Endpoint, Entra, Reply, SCOPE, config, environment, pass, request, seconds,
};

/// One scope by a secret in memory: one task asks the token endpoint.
fn of_application() -> Config {
    let mut config = config();
    config.authorities.clear();
    config.identities.get_mut("default").unwrap().scopes.truncate(1);
    config
}

fn of_machine() -> Config {
    let text = format!(
        "{{identities: {{default: {{managed_identity: {{client_id: {CLIENT}}}, scopes: [{SCOPE}]}}}}}}"
    );
    document::read(&text, &environment(&[])).unwrap()
}

fn asked() -> TokenRequest {
    request("default", SCOPE)
}

/// Seconds between the calls that were made within so many, while every one was answered so.
async fn pauses(config: &Config, endpoint: Endpoint, reply: Reply, within: u64) -> Vec<f64> {
    let entra = Entra::new();
    entra.always(endpoint, Some(reply));
    let _broker = Broker::with_config(&entra, config);
    pass(seconds(within)).await;
    let at: Vec<Duration> = entra.calls(endpoint).iter().map(|call| call.at).collect();
    at.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect()
}

/// Whether the pauses are these, each up to so much of it less or more.
fn check(found: &[f64], expected: &[f64], less: f64, more: f64, row: &str) {
    assert_eq!(found.len(), expected.len(), "{row}: {found:?}");
    for (found, expected) in found.iter().zip(expected) {
        // The scripted clock has whole milliseconds.
        let (least, most) = (expected * (1.0 - less) - 0.01, expected * (1.0 + more) + 0.01);
        assert!((least..=most).contains(found), "{row}: {found} is not {expected}");
    }
}

fn after(reply: Reply, value: &str) -> Reply {
    reply.with_header("retry-after", value)
}

fn busy() -> Reply {
    Reply::error(503, "temporarily_unavailable", 90_033)
}

#[tokio::test(start_paused = true)]
async fn b08_what_passes_by_itself_is_asked_again_ever_later() {
    for (row, reply) in [
        ("408", Reply::json(408, &json!({}))),
        ("500", Reply::json(500, &json!({}))),
        ("503", busy()),
        ("a code alone", Reply::error(400, "invalid_request", 90_024)),
        ("a word alone", Reply::json(400, &json!({"error": "temporarily_unavailable"}))),
        ("time-out", Reply::Fail(TransportFailure::Timeout)),
        ("broken", Reply::Fail(TransportFailure::Broken)),
        ("no token in it", Reply::json(200, &json!({}))),
    ] {
        let found = pauses(&of_application(), Endpoint::Token, reply, 14).await;
        check(&found[..3], &[1.0, 2.0, 4.0], 0.25, 0.0, row);
    }
}

#[tokio::test(start_paused = true)]
async fn b08_retry_after_is_honoured_in_either_form_for_whatever_it_comes_with_up_to_an_hour() {
    let throttled = || Reply::error(429, "x", 90_055);
    let dated = |reply: Reply| {
        after(reply, "Sun, 06 Nov 1994 08:51:37 GMT")
            .with_header("date", "Sun, 06 Nov 1994 08:49:37 GMT")
    };
    for (row, reply, expected) in [
        ("429, seconds", after(throttled(), "120"), 120.0),
        ("429, a date", dated(throttled()), 120.0),
        ("503, seconds", after(busy(), "120"), 120.0),
        ("503, a date", dated(busy()), 120.0),
        ("credential", after(Reply::error(401, "invalid_client", 7_000_215), "120"), 120.0),
        ("too long", after(throttled(), "999999"), 3_600.0),
        ("longer than any number", after(throttled(), "99999999999999999999"), 60.0),
        ("gone by", after(busy(), "Sun, 06 Nov 1994 08:49:37 GMT"), 1.0),
        ("not a time", after(throttled(), "soon"), 60.0),
        ("429 without", throttled(), 60.0),
        ("too often the same", Reply::error(400, "invalid_grant", 50_196), 300.0),
    ] {
        let within = if expected > 300.0 { 7_300 } else { 700 };
        let found = pauses(&of_application(), Endpoint::Token, reply, within).await;
        check(&found[..1], &[expected], 0.0, 0.0, row);
    }
}

#[tokio::test(start_paused = true)]
async fn b08_what_a_person_must_mend_is_not_asked_again_quickly() {
    for code in [
        7_000_215, 7_000_222, 700_016, 70_021, 700_211, 700_212, 700_022, 70_011, 500_011, 50_001,
        90_002, 9_001_023, 7_000_218, 700_229, 700_027, 700_024,
    ] {
        let reply = Reply::error(400, "invalid_request", code);
        let found = pauses(&of_application(), Endpoint::Token, reply, 1_200).await;
        let expected = [30.0, 60.0, 120.0, 240.0, 300.0];
        check(&found[..4], &expected[..4], 0.25, 0.0, &code.to_string());
    }
    for code in [53_003, 50_076, 65_001, 7_000_112, 50_105] {
        let reply = Reply::error(400, "invalid_grant", code);
        let found = pauses(&of_application(), Endpoint::Token, reply, 1_300).await;
        check(&found[..1], &[600.0], 0.0, 0.1, &code.to_string());
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_federated_credential_is_waited_for_some_minutes() {
    let entra = Entra::new();
    entra.always(Endpoint::Token, Some(Reply::error(401, "invalid_client", 70_021)));
    let broker = Broker::with_config(&entra, &of_application());
    pass(seconds(150)).await;
    assert_eq!(broker.text().await.unwrap_err().kind, ErrorKind::Config);
    entra.always(Endpoint::Token, None);
    pass(seconds(240)).await;
    broker.text().await.unwrap();
    assert!(entra.count(Endpoint::Token) <= 6);
}

#[tokio::test(start_paused = true)]
async fn b08_the_metadata_service_is_asked_again_as_microsoft_says() {
    let reply = |status| Reply::json(status, &json!({"error": "x"}));
    for status in [404, 408, 429, 500, 503] {
        let found = pauses(&of_machine(), Endpoint::Machine, reply(status), 120).await;
        let expected = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0];
        assert!(found.len() >= 6, "{status}: {found:?}");
        check(&found[..6], &expected, 0.25, 0.0, &status.to_string());
    }
    let found = pauses(&of_machine(), Endpoint::Machine, after(reply(429), "45"), 100).await;
    check(&found[..1], &[45.0], 0.0, 0.0, "429 with Retry-After");
    let found = pauses(&of_machine(), Endpoint::Machine, reply(410), 71).await;
    check(&found, &[10.0; 7], 0.0, 0.0, "410");
    for status in [400, 401, 403, 405, 418, 302] {
        let found = pauses(&of_machine(), Endpoint::Machine, reply(status), 95).await;
        check(&found[..1], &[30.0], 0.25, 0.0, &status.to_string());
    }
}

#[tokio::test(start_paused = true)]
async fn b08_an_update_of_the_metadata_service_is_outlasted() {
    let entra = Entra::new();
    entra.always(Endpoint::Machine, Some(Reply::json(410, &json!({"error": "gone"}))));
    let broker = Broker::with_config(&entra, &of_machine());
    pass(seconds(69)).await;
    entra.always(Endpoint::Machine, None);
    pass(seconds(2)).await;
    broker.issue(&asked()).await.unwrap();
}
