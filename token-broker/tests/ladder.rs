//! Several credentials of one application: which is used when, and that the broker is never somebody
//! else.

use std::{
    fs::{Permissions, set_permissions, write},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use contract::ErrorKind;
use token_broker::config::{Config, document};
use tokio::time::Instant;

use crate::support::{
    Broker, CLIENT, Call, Endpoint, Entra, Reply, SCOPE, TENANT, ask, environment, get, pass,
    seconds,
};

const OTHER: &str = "aaaaaaaa-0d2c-4a39-9a63-3f6c2c7a9d10";

fn config(credentials: &str) -> Result<Config, Vec<String>> {
    let text =
        format!("{{identities: {{default: {{credentials: {credentials}, scopes: [{SCOPE}]}}}}}}");
    document::read(&text, &environment(&[]))
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

/// A federated token, then a secret: files `token` and `secret`.
fn two(directory: &Path) -> Config {
    for name in ["token", "secret"] {
        let path = directory.join(name);
        write(&path, name).unwrap();
        set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    }
    let file = |name| directory.join(name).display().to_string();
    config(&format!(
        "[{{workload_identity: {{token_file: {}}}}}, \
          {{client_secret: {{tenant: {TENANT}, client_id: {CLIENT}, file: {}}}}}]",
        file("token"),
        file("secret")
    ))
    .unwrap()
}

/// What each call proved itself with.
fn proofs(entra: &Entra) -> Vec<&'static str> {
    let proof = |call: &Call| match call.form.get("client_assertion") {
        Some(_) => "token",
        None => "secret",
    };
    entra.calls(Endpoint::Token).iter().map(proof).collect()
}

fn refused(code: u64) -> Reply {
    Reply::error(401, "invalid_client", code)
}

#[tokio::test(start_paused = true)]
async fn the_first_credential_is_used_while_it_works() {
    let directory = tempfile::tempdir().unwrap();
    let entra = Entra::new();
    let broker = Broker::with_config(&entra, &two(directory.path()));
    broker.text().await.unwrap();
    pass(seconds(2_600)).await;
    broker.text().await.unwrap();
    assert_eq!(proofs(&entra), ["token", "token"]);
}

#[tokio::test(start_paused = true)]
async fn the_next_one_is_tried_only_where_the_credential_is_at_fault() {
    let of_credential = [
        700_024, 700_027, 1_000_502, 7_000_214, 7_000_215, 7_000_222, 7_000_274, 7_000_277, 50_013,
        70_021, 700_211, 700_212, 700_213,
    ];
    for code in of_credential {
        let directory = tempfile::tempdir().unwrap();
        let entra = Entra::new();
        entra.script(Endpoint::Token, [refused(code)]);
        let broker = Broker::with_config(&entra, &two(directory.path()));
        broker.text().await.unwrap();
        assert_eq!(proofs(&entra), ["token", "secret"], "{code}");
    }
    let of_anything_else = [
        refused(700_016),
        refused(90_002),
        Reply::error(400, "invalid_scope", 70_011),
        Reply::error(400, "invalid_grant", 53_003),
        Reply::error(400, "unauthorized_client", 7_000_112),
        Reply::error(429, "temporarily_unavailable", 90_055),
        Reply::error(503, "temporarily_unavailable", 90_033),
        Reply::Fail(token_broker::https::TransportFailure::Timeout),
        Reply::Answer(200, Vec::new(), b"<html>".to_vec()),
    ];
    for reply in of_anything_else {
        let directory = tempfile::tempdir().unwrap();
        let entra = Entra::new();
        entra.script(Endpoint::Token, [reply]);
        let broker = Broker::with_config(&entra, &two(directory.path()));
        broker.text().await.unwrap_err();
        assert_eq!(proofs(&entra), ["token"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_cannot_be_read_leads_to_the_next_and_is_never_sent() {
    let directory = tempfile::tempdir().unwrap();
    let config = two(directory.path());
    write(directory.path().join("token"), "").unwrap();
    let entra = Entra::new();
    let broker = Broker::with_config(&entra, &config);
    broker.text().await.unwrap();
    assert_eq!(proofs(&entra), ["secret"]);
}

#[tokio::test(start_paused = true)]
async fn one_that_was_renewed_meanwhile_is_tried_before_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let entra = Entra::new();
    entra.script(Endpoint::Token, [refused(700_024)]);
    entra.delay(seconds(1));
    let broker = Broker::with_config(&entra, &two(directory.path()));
    while entra.count(Endpoint::Token) == 0 {
        tokio::task::yield_now().await;
    }
    write(directory.path().join("token"), "renewed").unwrap();
    broker.text().await.unwrap();
    assert_eq!(proofs(&entra), ["token", "token"]);
    assert_eq!(entra.calls(Endpoint::Token)[1].form["client_assertion"], "renewed");
}

#[tokio::test(start_paused = true)]
async fn a_lower_one_that_worked_is_used_for_an_hour_and_then_the_first_again() {
    let directory = tempfile::tempdir().unwrap();
    let entra = Entra::new();
    entra.life(serde_json::json!(600), Some(serde_json::json!(500)));
    entra.script(Endpoint::Token, [refused(7_000_215)]);
    let start = Instant::now();
    let broker = Broker::with_config(&entra, &two(directory.path()));
    broker.text().await.unwrap();
    pass(seconds(3_590)).await;
    let used = proofs(&entra);
    assert_eq!(used[0], "token");
    assert!(used.len() >= 7 && used[1..].iter().all(|proof| *proof == "secret"), "{used:?}");
    let (_, _, metrics) = ask(&broker.admin(), get("/metrics")).await;
    for (position, outcome, count) in [(1, "credential", 1), (2, "issued", used.len() - 1)] {
        let line = format!(
            "credential_uses_total{{identity=\"default\",position=\"{position}\",outcome=\"{outcome}\"}} {count}\n"
        );
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
    // The first was repaired meanwhile.
    pass(seconds(1_000)).await;
    assert!(start.elapsed() > seconds(3_600));
    assert_eq!(proofs(&entra).last(), Some(&"token"));
}

#[tokio::test(start_paused = true)]
async fn when_the_lower_one_fails_the_ladder_is_tried_from_the_top() {
    let directory = tempfile::tempdir().unwrap();
    let entra = Entra::new();
    entra.script(Endpoint::Token, [refused(7_000_215)]);
    let broker = Broker::with_config(&entra, &two(directory.path()));
    broker.text().await.unwrap();
    entra.script(Endpoint::Token, [refused(7_000_222)]);
    pass(seconds(2_600)).await;
    assert_eq!(proofs(&entra), ["token", "secret", "secret", "token"]);
}

#[tokio::test(start_paused = true)]
async fn when_none_works_the_first_ones_refusal_is_told_and_seldom_asked_again() {
    let directory = tempfile::tempdir().unwrap();
    let entra = Entra::new();
    entra.script(Endpoint::Token, [refused(7_000_215)]);
    entra.always(Endpoint::Token, Some(refused(7_000_222)));
    let broker = Broker::with_config(&entra, &two(directory.path()));
    let told = broker.text().await.unwrap_err();
    assert_eq!(told.kind, ErrorKind::Credential);
    assert!(told.error.contains("AADSTS7000215"), "{}", told.error);
    pass(seconds(20)).await;
    assert_eq!(proofs(&entra), ["token", "secret"]);
    pass(seconds(11)).await;
    assert_eq!(proofs(&entra), ["token", "secret", "token", "secret"]);
}

#[tokio::test(start_paused = true)]
async fn a_changed_file_of_any_rung_is_tried_within_30_seconds() {
    let directory = tempfile::tempdir().unwrap();
    let entra = Entra::new();
    entra.always(Endpoint::Token, Some(refused(7_000_222)));
    let broker = Broker::with_config(&entra, &two(directory.path()));
    broker.text().await.unwrap_err();
    pass(seconds(200)).await;
    let before = entra.count(Endpoint::Token);
    write(directory.path().join("secret"), "new").unwrap();
    entra.always(Endpoint::Token, None);
    entra.script(Endpoint::Token, [refused(7_000_222)]);
    pass(seconds(31)).await;
    assert_eq!(entra.count(Endpoint::Token), before + 2);
    assert_eq!(entra.calls(Endpoint::Token).last().unwrap().form["client_secret"], "new");
}

#[test]
fn w07_a_ladder_is_of_one_application_and_has_no_rung_twice() {
    let secret = |client: &str, file: &str| {
        format!("{{client_secret: {{tenant: {TENANT}, client_id: {client}, file: {file}}}}}")
    };
    config(&format!("[{}]", secret(CLIENT, "/a"))).unwrap();
    let nine: Vec<String> = (0..9).map(|number| secret(CLIENT, &format!("/{number}"))).collect();
    let cases = [
        ("[]".to_owned(), "credentials: expected one to 8 credentials"),
        (format!("[{}]", nine.join(", ")), "credentials: expected one to 8 credentials"),
        (
            format!("[{}, {}]", secret(CLIENT, "/a"), secret(OTHER, "/b")),
            "credentials[1]: of another application than the first",
        ),
        (
            format!(
                "[{}, {{workload_identity: {{cloud: china, token_file: /t}}}}]",
                secret(CLIENT, "/a")
            ),
            "credentials[1]: of another application than the first",
        ),
        (
            format!("[{0}, {0}]", secret(CLIENT, "/a")),
            "credentials[1]: this credential stands there twice",
        ),
        (format!("[{}, null]", secret(CLIENT, "/a")), "credentials[1]: missing"),
        (format!("[{}, {{}}]", secret(CLIENT, "/a")), "credentials[1]: no credential"),
        (
            format!("[{}, {{managed_identity: {{client_id: {CLIENT}}}}}]", secret(CLIENT, "/a")),
            "credentials[1].managed_identity: unknown field",
        ),
    ];
    for (written, expected) in cases {
        let errors = config(&written).unwrap_err();
        assert_eq!(errors.len(), 1, "{written}: {errors:?}");
        assert!(errors[0].contains(expected), "{written}: {errors:?}");
    }
}
