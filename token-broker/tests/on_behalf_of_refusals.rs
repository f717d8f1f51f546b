//! What Entra refuses for one user, and what that is for the others.

use std::{fs::Permissions, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use contract::{ErrorKind, IssuedToken, TokenRequest, TypedError};
use serde_json::json;
use token_broker::config::{Config, Credential, SecretLocation, Source};
use tokio::task::JoinHandle;

use crate::{
    on_behalf_of::{
        HOUR, ORDERS, USER_READ, assertion, config, delegated, exchanged, exchanges, started, user,
    },
    support::{Broker, Endpoint, Entra, Reply, SCOPE, START, ask, get, issue, pass, seconds},
};

#[tokio::test(start_paused = true)]
async fn b08_an_exchange_that_was_under_way_does_not_end_the_quiet_that_entra_asked_for() {
    let broker = started().await;
    // Alice's exchange takes 5 s; Bob's, begun later, 1 s and is throttled.
    broker.entra.delay(seconds(5));
    let slow = asking(&broker, "alice");
    pass(seconds(1)).await;
    broker.entra.delay(seconds(1));
    let busy = Reply::error(429, "x", 90_055).with_header("retry-after", "120");
    broker.entra.script(Endpoint::Token, [busy]);
    let refused = exchanged(&broker, &user("bob")).await.unwrap_err();
    assert_eq!((refused.kind, refused.retry_after), (ErrorKind::Throttled, Some(120)));
    slow.await.unwrap().unwrap();
    let before = exchanges(&broker.entra);
    let refused = exchanged(&broker, &user("carol")).await.unwrap_err();
    assert_eq!((refused.kind, refused.retry_after), (ErrorKind::Throttled, Some(117)));
    assert_eq!(exchanges(&broker.entra), before, "Entra was asked within Retry-After");
}

/// A user's exchange, asked for beside others.
fn asking(broker: &Broker, name: &str) -> JoinHandle<Result<IssuedToken, TypedError>> {
    let (state, user) = (Arc::clone(&broker.state), user(name));
    tokio::spawn(async move { issue(&state, &delegated(USER_READ, &user)).await })
}

/// As many users at once, whose names begin so; says how many got a token.
async fn wave(broker: &Broker, name: &str, users: u32) -> usize {
    let asked: Vec<_> =
        (0..users).map(|number| asking(broker, &format!("{name}{number}"))).collect();
    let mut issued = 0;
    for asking in asked {
        issued += usize::from(asking.await.unwrap().is_ok());
    }
    issued
}

#[tokio::test(start_paused = true)]
async fn b08_few_users_present_a_refused_credential_and_then_one_at_a_time() {
    for (reply, pauses) in [
        (Reply::error(401, "invalid_client", 7_000_222), [31, 61]),
        (Reply::error(429, "x", 90_055).with_header("retry-after", "100"), [101, 101]),
    ] {
        let broker = started().await;
        broker.entra.delay(seconds(1));
        broker.entra.always(Endpoint::Token, Some(reply));
        wave(&broker, "a", 200).await;
        assert_eq!(exchanges(&broker.entra), 8);
        // The burst was one failure: the pauses are those of the first and of the second.
        for (name, pause) in ["b", "c"].into_iter().zip(pauses) {
            let before = exchanges(&broker.entra);
            pass(seconds(pause)).await;
            wave(&broker, name, 200).await;
            assert_eq!(exchanges(&broker.entra) - before, 1);
        }
        // When Entra gives a token again, whoever waited gets theirs.
        pass(seconds(121)).await;
        broker.entra.always(Endpoint::Token, None);
        broker.entra.delay(seconds(2));
        assert_eq!(wave(&broker, "d", 16).await, 16);
    }
}

#[tokio::test(start_paused = true)]
async fn b07_one_identitys_users_do_not_keep_anothers_waiting() {
    let mut config = config();
    let other = config.identities["default"].clone();
    config.identities.insert("other".to_owned(), other);
    let broker = Broker::with_config(&Entra::new(), &config);
    broker.token(SCOPE).await.unwrap();
    broker.entra.delay(seconds(1));
    let flood: Vec<_> = (0..600).map(|number| asking(&broker, &format!("user-{number}"))).collect();
    pass(Duration::from_millis(10)).await;
    let alice = delegated(USER_READ, &user("alice"));
    let crowded = broker.issue(&alice).await.unwrap_err();
    assert!(crowded.error.starts_with("too_many_exchanges"), "{}", crowded.error);
    broker.issue(&TokenRequest { identity: "other".to_owned(), ..alice }).await.unwrap();
    drop(flood);
}

#[tokio::test(start_paused = true)]
async fn b08_one_users_loop_does_not_keep_others_from_their_tokens() {
    let broker = started().await;
    broker.entra.script(Endpoint::Token, [Reply::error(400, "invalid_grant", 50_196)]);
    for rest in [300, 200] {
        let looping = exchanged(&broker, &user("mallory")).await.unwrap_err();
        assert_eq!((looping.kind, looping.retry_after), (ErrorKind::Throttled, Some(rest)));
        exchanged(&broker, &user("bob")).await.unwrap();
        pass(seconds(100)).await;
    }
    assert_eq!(exchanges(&broker.entra), 2);
}

#[tokio::test(start_paused = true)]
async fn b08_when_entra_wants_fewer_calls_nobody_asks_for_as_long_as_it_said() {
    for (said, pause) in [(None, 60), (Some("7"), 7), (Some("90000"), 3_600)] {
        let broker = started().await;
        let busy = Reply::error(429, "x", 90_055);
        let busy = said.map_or(busy.clone(), |said| busy.with_header("retry-after", said));
        broker.entra.script(Endpoint::Token, [busy]);
        for name in ["alice", "bob"] {
            let refused = exchanged(&broker, &user(name)).await.unwrap_err();
            assert_eq!((refused.kind, refused.retry_after), (ErrorKind::Throttled, Some(pause)));
        }
        pass(seconds(pause)).await;
        exchanged(&broker, &assertion("carol", START + 2 * HOUR)).await.unwrap();
    }
}

/// The identity with these credentials, tried in order.
fn with_credentials(directory: &Path, names: &[&str]) -> Config {
    let file = |name: &str| {
        let path = directory.join(name);
        std::fs::write(&path, name).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path
    };
    let mut config = config();
    let identity = config.identities.get_mut("default").unwrap();
    let Source::Application { credentials, .. } = &mut identity.source else { unreachable!() };
    *credentials = names
        .iter()
        .map(|name| match *name {
            "secret" => Credential::Secret(SecretLocation::File(file(name))),
            _ => Credential::ServiceAccount(file(name)),
        })
        .collect();
    config
}

#[tokio::test(start_paused = true)]
async fn b08_a_refused_assertion_may_be_the_applications_own_where_it_has_one() {
    let refused = || Reply::error(400, "invalid_grant", 50_013);
    let expired = || Reply::error(401, "invalid_client", 7_000_222);
    let cases = [
        (vec!["secret"], vec![refused()], ErrorKind::ClaimsChallenge),
        (vec!["token"], vec![refused()], ErrorKind::Credential),
        // With a proof that is no assertion it is the user's after all.
        (vec!["token", "secret"], vec![refused(), refused()], ErrorKind::ClaimsChallenge),
        (vec!["secret", "token"], vec![expired(), refused()], ErrorKind::Credential),
    ];
    for (credentials, replies, kind) in cases {
        let directory = tempfile::tempdir().unwrap();
        let config = with_credentials(directory.path(), &credentials);
        let broker = Broker::with_config(&Entra::new(), &config);
        broker.token(SCOPE).await.unwrap();
        let calls = replies.len();
        broker.entra.script(Endpoint::Token, replies);
        let refused = exchanged(&broker, &user("alice")).await.unwrap_err();
        assert_eq!(refused.kind, kind, "{credentials:?}");
        assert_eq!(exchanges(&broker.entra), calls);
        // It could still be that user's alone.
        exchanged(&broker, &user("bob")).await.unwrap();
    }
    // The next credential may do.
    let directory = tempfile::tempdir().unwrap();
    let config = with_credentials(directory.path(), &["token", "secret"]);
    let broker = Broker::with_config(&Entra::new(), &config);
    broker.token(SCOPE).await.unwrap();
    broker.entra.script(Endpoint::Token, [refused()]);
    exchanged(&broker, &user("alice")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn b08_what_is_wrong_with_the_application_or_the_resource_is_so_for_every_user() {
    // Whether it is so for another scope.
    for (code, all) in
        [(7_000_112, true), (700_016, true), (90_002, true), (500_011, false), (70_011, false)]
    {
        let broker = started().await;
        broker.entra.script(Endpoint::Token, [Reply::error(400, "unauthorized_client", code)]);
        for number in 0..50 {
            exchanged(&broker, &user(&format!("u{number}"))).await.unwrap_err();
        }
        assert_eq!(exchanges(&broker.entra), 1, "{code}");
        let other = broker.issue(&delegated(ORDERS, &user("alice"))).await;
        assert_eq!(other.is_err(), all, "{code}");
        let (_, _, page) = ask(&broker.admin(), get("/")).await;
        assert!(page.contains(&format!("AADSTS{code}")), "{page}");
        // And is asked again, when it is time.
        pass(seconds(661)).await;
        exchanged(&broker, &user("bob")).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn b08_when_the_application_is_disabled_its_users_tokens_are_no_longer_used() {
    let broker = started().await;
    broker.entra.life(json!(HOUR), Some(json!(600)));
    for name in ["alice", "bob"] {
        exchanged(&broker, &user(name)).await.unwrap();
    }
    broker.entra.script(Endpoint::Token, [Reply::error(401, "invalid_client", 7_000_112)]);
    exchanged(&broker, &user("carol")).await.unwrap_err();
    for name in ["alice", "bob"] {
        let refused = exchanged(&broker, &user(name)).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Disabled);
    }
}

#[tokio::test(start_paused = true)]
async fn b08_a_verdict_on_the_one_who_tries_shows_that_the_application_is_accepted() {
    let broker = started().await;
    broker.entra.delay(seconds(2));
    let busy = Reply::error(429, "x", 90_055).with_header("retry-after", "10");
    let blocked = [(); 3].map(|()| Reply::error(400, "invalid_grant", 53_003));
    broker.entra.script(Endpoint::Token, [busy].into_iter().chain(blocked));
    exchanged(&broker, &user("alice")).await.unwrap_err();
    pass(seconds(11)).await;
    // One after the other they would wait too long.
    let asked: Vec<_> = (0..8).map(|number| asking(&broker, &format!("u{number}"))).collect();
    let mut blocked = 0;
    for asking in asked {
        if let Err(refused) = asking.await.unwrap() {
            assert_eq!(refused.kind, ErrorKind::ClaimsChallenge, "{}", refused.error);
            blocked += 1;
        }
    }
    assert_eq!(blocked, 3);
}
