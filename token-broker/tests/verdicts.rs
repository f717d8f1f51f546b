//! Entra's verdicts on a principal: told as they are, not asked for again until something changes,
//! and what they mean for the token that is held.

use std::{fs::write, os::unix::fs::PermissionsExt, path::PathBuf};

use contract::ErrorKind;
use serde_json::json;
use token_broker::config::{Config, Credential, SecretLocation, Source};

use crate::support::{
    Broker, Endpoint, Entra, OTHER_SCOPE, Reply, SCOPE, START, ask, config, get, pass, post,
    seconds,
};

fn disabled() -> Reply {
    Reply::error(400, "unauthorized_client", 7_000_112)
}

fn blocked() -> Reply {
    Reply::json(
        400,
        &json!({"error": "invalid_grant", "error_codes": [53003], "suberror": "message_only",
            "claims": r#"{"access_token":{"capolids":{"essential":true,"values":["p"]}}}"#,
            "correlation_id": "aaaa-1", "trace_id": "bbbb-2"}),
    )
}

fn calls(entra: &Entra) -> usize {
    entra.calls(Endpoint::Token).iter().filter(|call| call.form["scope"] == SCOPE).count()
}

/// One scope, with the secret in a file.
fn with_file(path: PathBuf) -> Config {
    let mut config = config();
    let identity = config.identities.get_mut("default").unwrap();
    let Source::Application { credentials, .. } = &mut identity.source else { unreachable!() };
    *credentials = vec![Credential::Secret(SecretLocation::File(path))];
    identity.scopes.truncate(1);
    config
}

fn token(text: &str, refresh_in: u64) -> Reply {
    Reply::json(
        200,
        &json!({"token_type": "Bearer", "access_token": text, "expires_in": 100_800,
            "refresh_in": refresh_in}),
    )
}

#[tokio::test(start_paused = true)]
async fn a_verdict_reaches_the_asker_whole_and_is_probed_every_ten_minutes_only() {
    let cases = [
        (blocked(), ErrorKind::ClaimsChallenge, "invalid_grant AADSTS53003: "),
        (
            Reply::error(400, "interaction_required", 50_079),
            ErrorKind::ClaimsChallenge,
            "interaction_required AADSTS50079: ",
        ),
        (disabled(), ErrorKind::Disabled, "unauthorized_client AADSTS7000112: "),
    ];
    for (reply, kind, text) in cases {
        let entra = Entra::new();
        entra.always(Endpoint::Token, Some(reply));
        let broker = Broker::start(&entra);
        let body = json!({"identity": "default", "scope": SCOPE, "destination": "graph"});
        for _ in 0..20 {
            let (status, headers, answer) =
                ask(&broker.api(), post("/v1/token", body.to_string())).await;
            let refused: contract::TypedError = serde_json::from_str(&answer).unwrap();
            assert_eq!((status, refused.kind), (403, kind));
            assert!(refused.error.starts_with(text), "{}", refused.error);
            assert_eq!(refused.correlation_id.as_deref(), Some("aaaa-1"));
            assert_eq!(refused.trace_id.as_deref(), Some("bbbb-2"));
            // Soon enough to learn of a change.
            assert_eq!(headers["retry-after"], refused.retry_after.unwrap().to_string().as_str());
            assert!(refused.retry_after.unwrap() <= 30);
            pass(seconds(29)).await;
        }
        assert_eq!(calls(&entra), 1, "{text}");
        // A person has mended it in Entra, which tells nobody.
        entra.always(Endpoint::Token, None);
        pass(seconds(81)).await;
        broker.text().await.unwrap();
        assert_eq!(calls(&entra), 2, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_changed_credential_is_tried_within_30_seconds() {
    for (reply, kind) in [
        (disabled(), ErrorKind::Disabled),
        (blocked(), ErrorKind::ClaimsChallenge),
        (Reply::error(401, "invalid_client", 7_000_222), ErrorKind::Credential),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        write(&path, "old").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let entra = Entra::new();
        // Well past the first retries of those that are tried again by themselves.
        entra.always(Endpoint::Token, Some(reply));
        let broker = Broker::with_config(&entra, &with_file(path.clone()));
        assert_eq!(broker.text().await.unwrap_err().kind, kind);
        pass(seconds(200)).await;
        let before = calls(&entra);
        entra.always(Endpoint::Token, None);
        write(&path, "new").unwrap();
        pass(seconds(31)).await;
        assert_eq!(calls(&entra), before + 1, "{kind:?}");
        assert_eq!(entra.calls(Endpoint::Token).last().unwrap().form["client_secret"], "new");
        broker.text().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_challenge_is_asked_again_with_a_changed_credential() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    write(&path, "old").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let entra = Entra::new();
    let broker = Broker::with_config(&entra, &with_file(path.clone()));
    let token = broker.token(SCOPE).await.unwrap();
    let claims = r#"{"access_token":{"nbf":{"essential":true,"value":"1800000000"}}}"#;
    let challenged = contract::TokenRequest {
        claims_challenges: true,
        claims: Some(claims.to_owned()),
        refused: token.token_hash.clone(),
        ..crate::support::request("default", SCOPE)
    };
    entra.script(Endpoint::Token, [blocked()]);
    broker.issue(&challenged).await.unwrap_err();
    pass(seconds(90)).await;
    broker.issue(&challenged).await.unwrap_err();
    assert_eq!(calls(&entra), 2);
    write(&path, "new").unwrap();
    pass(seconds(31)).await;
    // Nothing else was asked for meanwhile: the held token is good.
    assert_eq!(calls(&entra), 2);
    assert_ne!(broker.issue(&challenged).await.unwrap(), token);
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_stayed_the_same_is_no_change() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    write(&path, "same").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let entra = Entra::new();
    entra.always(Endpoint::Token, Some(disabled()));
    let broker = Broker::with_config(&entra, &with_file(path.clone()));
    broker.text().await.unwrap_err();
    pass(seconds(300)).await;
    // Written anew with the same content, as a projected volume does.
    write(&path, "same").unwrap();
    pass(seconds(299)).await;
    assert_eq!(calls(&entra), 1);
}

#[tokio::test(start_paused = true)]
async fn a_conditional_access_block_leaves_the_valid_token_until_its_end() {
    let entra = Entra::new();
    let broker = Broker::start(&entra);
    let first = broker.text().await.unwrap();
    entra.always(Endpoint::Token, Some(blocked()));
    pass(seconds(3_569)).await;
    assert_eq!(broker.text().await.unwrap(), first);
    pass(seconds(1)).await;
    assert_eq!(broker.text().await.unwrap_err().kind, ErrorKind::ClaimsChallenge);
}

#[tokio::test(start_paused = true)]
async fn a_disabled_principals_token_is_no_longer_handed_out_for_any_scope() {
    let entra = Entra::new();
    entra.script(Endpoint::Token, [token("a", 1_000), token("b", 50_400)]);
    let broker = Broker::start(&entra);
    let held = [broker.token(SCOPE).await.unwrap(), broker.token(OTHER_SCOPE).await.unwrap()];
    // One is renewed, the other is not due for hours; who has a copy asks again within one.
    let mut refresh_on = held.map(|token| token.refresh_on - START);
    refresh_on.sort_unstable();
    assert!((1_000..=1_100).contains(&refresh_on[0]), "{refresh_on:?}");
    assert_eq!(refresh_on[1], 3_600);
    entra.always(Endpoint::Token, Some(disabled()));
    pass(seconds(1_101)).await;
    for scope in [SCOPE, OTHER_SCOPE] {
        assert_eq!(broker.token(scope).await.unwrap_err().kind, ErrorKind::Disabled, "{scope}");
    }
    // Each scope learns of it once, and none keeps the others asking.
    assert_eq!(entra.count(Endpoint::Token), 4);
    let (status, _, body) = ask(&broker.admin(), get("/readyz")).await;
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["identities_refused"][0]["kind"]), (200, &json!("disabled")));
    entra.always(Endpoint::Token, None);
    pass(seconds(661)).await;
    for scope in [SCOPE, OTHER_SCOPE] {
        broker.token(scope).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_scope_without_a_verdict_of_its_own_is_asked_for_once_and_not_with_each_probe() {
    let entra = Entra::new();
    // Not assigned to one resource; the other is served.
    let unassigned = || Reply::error(400, "invalid_grant", 50_105);
    let replies = [token("a", 1_000), token("b", 50_400), unassigned(), token("c", 50_400)];
    entra.script(Endpoint::Token, replies);
    let broker = Broker::start(&entra);
    pass(seconds(1_110)).await;
    assert_eq!(entra.count(Endpoint::Token), 4);
    entra.always(Endpoint::Token, Some(unassigned()));
    pass(seconds(670)).await;
    assert_eq!(entra.count(Endpoint::Token), 5);
    let outcomes = [broker.token(SCOPE).await, broker.token(OTHER_SCOPE).await];
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
}
