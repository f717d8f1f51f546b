//! Users' tokens exchanged for others of the same users.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use contract::{ErrorKind, Secret, TokenRequest, TypedError};
use serde_json::{Value, json};
use token_broker::{
    config::{Config, document},
    https::TransportFailure,
};

use crate::support::{
    Broker, CLIENT, Endpoint, Entra, OTHER_SCOPE, Reply, SCOPE, START, TENANT, TOKEN, ask,
    environment, get, issue, pass, post, request, seconds,
};

pub(crate) const USER_READ: &str = "https://graph.microsoft.com/User.Read";
pub(crate) const ORDERS: &str = "api://orders/.default";
pub(crate) const HOUR: u64 = 3_600;

/// A user's token as a filter has let it pass; only the payload is looked at.
pub(crate) fn assertion(user: &str, end: u64) -> Secret {
    of(&json!({"ver": "2.0", "tid": TENANT, "aud": CLIENT, "iat": START, "nbf": START,
        "iss": format!("https://login.microsoftonline.com/{TENANT}/v2.0"), "exp": end,
        "oid": user, "sub": user, "scp": "access"}))
}

fn of(claims: &Value) -> Secret {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = json!({"alg": "RS256", "typ": "JWT", "kid": "k1"});
    Secret::new(format!("{}.{}.c2lnbmF0dXJl", part(&header), part(claims)))
}

pub(crate) fn user(name: &str) -> Secret {
    assertion(name, START + HOUR)
}

fn read(delegated: &str) -> Result<Config, Vec<String>> {
    let text = format!(
        "{{identities: {{default: {{client_secret: {{tenant: {TENANT}, client_id: {CLIENT}, \
         file: /nowhere}}, scopes: [], delegated_scopes: {delegated}}}}}}}"
    );
    document::read(&text, &environment(&[]))
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

/// The identity of the environment, with one scope of its own and two on behalf of users.
pub(crate) fn config() -> Config {
    let mut config = crate::support::config();
    config.authorities.clear();
    let identity = config.identities.get_mut("default").unwrap();
    identity.scopes.truncate(1);
    identity.delegated_scopes = vec![USER_READ.to_owned(), ORDERS.to_owned()];
    config
}

pub(crate) fn delegated(scope: &str, assertion: &Secret) -> TokenRequest {
    TokenRequest { assertion: Some(assertion.clone()), ..request("default", scope) }
}

pub(crate) async fn exchanged(broker: &Broker, assertion: &Secret) -> Result<String, TypedError> {
    let token = broker.issue(&delegated(USER_READ, assertion)).await?;
    Ok(token.access_token.expose().to_owned())
}

/// The exchanges that Entra was asked for.
pub(crate) fn exchanges(entra: &Entra) -> usize {
    entra.calls(Endpoint::Token).iter().filter(|call| call.form.contains_key("assertion")).count()
}

/// A broker that has its own token, so that what Entra is asked for from now on is for users.
pub(crate) async fn started() -> Broker {
    let broker = Broker::with_config(&Entra::new(), &config());
    broker.token(SCOPE).await.unwrap();
    broker
}

#[tokio::test(start_paused = true)]
async fn the_exchange_is_asked_as_entra_wants_it() {
    let broker = started().await;
    let alice = user("alice");
    let token = broker.issue(&delegated(USER_READ, &alice)).await.unwrap();
    assert!(token.access_token.expose().starts_with(TOKEN));
    assert_eq!((token.scope.as_str(), token.identity.as_str()), (USER_READ, "default"));
    assert_eq!(token.expires_on, START + HOUR);
    let form = &broker.entra.calls(Endpoint::Token)[1].form;
    let fields: Vec<(&str, &str)> = form.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let expected = [
        ("assertion", alice.expose()),
        ("client_id", CLIENT),
        ("client_secret", crate::support::SECRET),
        ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
        ("requested_token_use", "on_behalf_of"),
        ("scope", USER_READ),
    ];
    assert_eq!(fields, expected);
}

#[tokio::test(start_paused = true)]
async fn one_exchange_serves_a_thousand_who_bring_the_same_assertion() {
    let broker = started().await;
    broker.entra.delay(seconds(1));
    let asked: Vec<_> = (0..1_000)
        .map(|_| {
            let (state, alice) = (Arc::clone(&broker.state), user("alice"));
            tokio::spawn(async move { issue(&state, &delegated(USER_READ, &alice)).await })
        })
        .collect();
    let mut tokens = Vec::new();
    for asking in asked {
        tokens.push(asking.await.unwrap().unwrap());
    }
    tokens.dedup();
    assert_eq!((tokens.len(), exchanges(&broker.entra)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn one_that_went_away_does_not_leave_the_others_waiting() {
    let broker = started().await;
    broker.entra.delay(seconds(2));
    let alice = user("alice");
    let gone = tokio::time::timeout(Duration::from_millis(500), exchanged(&broker, &alice)).await;
    gone.unwrap_err();
    exchanged(&broker, &alice).await.unwrap();
    assert_eq!(exchanges(&broker.entra), 1);
}

#[tokio::test(start_paused = true)]
async fn b05_no_token_is_anothers() {
    let broker = started().await;
    let own = broker.token(SCOPE).await.unwrap().access_token;
    let mut seen = vec![own.expose().to_owned()];
    // Another user, another scope, another token of the same user.
    for request in [
        delegated(USER_READ, &user("alice")),
        delegated(USER_READ, &user("bob")),
        delegated(ORDERS, &user("alice")),
        delegated(USER_READ, &assertion("alice", START + HOUR + 1)),
    ] {
        for _ in 0..2 {
            let token = broker.issue(&request).await.unwrap();
            assert_eq!(token.scope, request.scope);
            seen.push(token.access_token.expose().to_owned());
        }
    }
    seen.dedup();
    assert_eq!((seen.len(), exchanges(&broker.entra)), (5, 4));
    assert_eq!(broker.token(SCOPE).await.unwrap().access_token, own);
}

#[tokio::test(start_paused = true)]
async fn b05_b06_only_what_is_listed_is_exchanged() {
    let broker = started().await;
    let alice = user("alice");
    let denied = [
        // The application's own scope, another one, one more, other spellings.
        delegated(SCOPE, &alice),
        delegated(OTHER_SCOPE, &alice),
        delegated(
            "https://graph.microsoft.com/User.Read https://graph.microsoft.com/Mail.Read",
            &alice,
        ),
        delegated("https://graph.microsoft.com/user.read", &alice),
        delegated("", &alice),
        TokenRequest { identity: "other".to_owned(), ..delegated(USER_READ, &alice) },
        // A user's scope without the user.
        request("default", USER_READ),
    ];
    for request in denied {
        let refused = broker.issue(&request).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Denied, "{request:?}");
        assert!(refused.error.starts_with("not_allowed"), "{}", refused.error);
    }
    assert_eq!(exchanges(&broker.entra), 0);
}

#[tokio::test(start_paused = true)]
async fn an_assertion_that_cannot_be_or_is_over_asks_nobody() {
    let broker = started().await;
    let claims = |changed: Value| {
        let mut claims = json!({"ver": "2.0", "tid": TENANT, "aud": CLIENT, "iat": START,
            "iss": "x", "exp": START + HOUR, "oid": "u", "sub": "u", "scp": "a"});
        for (name, value) in changed.as_object().unwrap() {
            claims[name] = value.clone();
        }
        of(&claims)
    };
    broker.issue(&delegated(USER_READ, &claims(json!({})))).await.unwrap();
    let cases = [
        (Secret::new(""), ErrorKind::Denied),
        (Secret::new("a.b.c"), ErrorKind::Denied),
        (Secret::new("canary"), ErrorKind::Denied),
        (Secret::new("x".repeat(17 * 1_024)), ErrorKind::Denied),
        (claims(json!({"exp": null})), ErrorKind::Denied),
        (claims(json!({"exp": "soon"})), ErrorKind::Denied),
        (claims(json!({"exp": -1})), ErrorKind::Denied),
        // A user of another tenant.
        (claims(json!({"tid": "11111111-86f1-41af-91ab-2d7cd011db47"})), ErrorKind::Denied),
        (claims(json!({"exp": START})), ErrorKind::ClaimsChallenge),
        (claims(json!({"exp": START - 1})), ErrorKind::ClaimsChallenge),
        (claims(json!({"exp": 1})), ErrorKind::ClaimsChallenge),
    ];
    for (assertion, kind) in cases {
        let refused = broker.issue(&delegated(USER_READ, &assertion)).await.unwrap_err();
        assert_eq!(refused.kind, kind, "{}", refused.error);
        assert!(refused.error.starts_with("assertion_"), "{}", refused.error);
        assert_eq!((refused.claims, refused.retry_after), (None, None));
    }
    assert_eq!(exchanges(&broker.entra), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_ends_with_the_assertion_or_by_itself_whichever_comes_first() {
    for (expires_in, assertion_life, life) in
        [(HOUR, 2 * HOUR, HOUR), (2 * HOUR, HOUR, HOUR), (HOUR, 100, 100)]
    {
        let broker = started().await;
        broker.entra.life(json!(expires_in), None);
        let alice = assertion("alice", START + assertion_life);
        let token = broker.issue(&delegated(USER_READ, &alice)).await.unwrap();
        assert_eq!(token.expires_on, START + life, "{expires_in} {assertion_life}");
        assert!(token.refresh_on <= token.expires_on);
        let margin = if life == 100 { 10 } else { 30 };
        broker.entra.always(Endpoint::Token, Some(Reply::Fail(TransportFailure::Timeout)));
        pass(seconds(life - margin - 1)).await;
        exchanged(&broker, &alice).await.unwrap();
        pass(seconds(1)).await;
        exchanged(&broker, &alice).await.unwrap_err();
    }
}

#[tokio::test(start_paused = true)]
async fn b09_a_clock_that_jumps_stretches_no_users_token() {
    for jump in [-86_400, 86_400] {
        let broker = started().await;
        let alice = assertion("alice", START + 2 * HOUR);
        exchanged(&broker, &alice).await.unwrap();
        broker.entra.always(Endpoint::Token, Some(Reply::Fail(TransportFailure::Timeout)));
        broker.clock.jump(jump);
        pass(seconds(HOUR - 30)).await;
        exchanged(&broker, &alice).await.unwrap_err();
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_due_is_exchanged_when_somebody_asks_and_nobody_waits_for_it() {
    let broker = started().await;
    broker.entra.life(json!(HOUR), Some(json!(1_800)));
    let alice = assertion("alice", START + 3 * HOUR);
    let first = exchanged(&broker, &alice).await.unwrap();
    // Nobody asks: nothing is renewed in the background.
    pass(seconds(1_799)).await;
    exchanged(&broker, &alice).await.unwrap();
    assert_eq!(exchanges(&broker.entra), 1);
    pass(seconds(300)).await;
    assert_eq!(exchanges(&broker.entra), 1);
    broker.entra.delay(seconds(3));
    for _ in 0..5 {
        assert_eq!(exchanged(&broker, &alice).await.unwrap(), first);
    }
    pass(seconds(4)).await;
    assert_ne!(exchanged(&broker, &alice).await.unwrap(), first);
    assert_eq!(exchanges(&broker.entra), 2);
}

#[tokio::test(start_paused = true)]
async fn b08_a_failed_exchange_keeps_the_held_token_and_backs_off() {
    let broker = started().await;
    broker.entra.life(json!(HOUR), Some(json!(600)));
    let alice = assertion("alice", START + 3 * HOUR);
    let first = exchanged(&broker, &alice).await.unwrap();
    pass(seconds(700)).await;
    let busy =
        Reply::error(503, "temporarily_unavailable", 90_033).with_header("retry-after", "120");
    broker.entra.always(Endpoint::Token, Some(busy));
    for _ in 0..100 {
        assert_eq!(exchanged(&broker, &alice).await.unwrap(), first);
        pass(seconds(1)).await;
    }
    assert_eq!(exchanges(&broker.entra), 2);
}

#[tokio::test(start_paused = true)]
async fn a_claims_challenge_is_handed_on_unchanged_and_is_that_users_alone() {
    let claims = r#"{"access_token":{"polids":{"essential":true,"values":["9ab03e19"]}}}"#;
    let challenged = Reply::json(
        400,
        &json!({"error": "interaction_required", "error_codes": [50076], "claims": claims,
            "correlation_id": "aaaa-1", "trace_id": "bbbb-2"}),
    );
    let broker = started().await;
    broker.entra.script(Endpoint::Token, [challenged]);
    for _ in 0..10 {
        let refused = exchanged(&broker, &user("alice")).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::ClaimsChallenge);
        assert_eq!(refused.claims.as_deref(), Some(claims));
        assert_eq!(refused.correlation_id.as_deref(), Some("aaaa-1"));
        assert!(refused.retry_after.unwrap() <= 30);
        pass(seconds(20)).await;
    }
    assert_eq!(exchanges(&broker.entra), 1);
    // Who has stepped up brings another token.
    exchanged(&broker, &assertion("alice", START + HOUR + 5)).await.unwrap();
    exchanged(&broker, &user("bob")).await.unwrap();
    // And the verdict is looked at again, seldom.
    pass(seconds(461)).await;
    exchanged(&broker, &user("alice")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn b08_each_refusal_is_asked_again_as_the_table_says() {
    // The reply, the kind, Entra's share of calls from one user and from another in 25 s of asking.
    let cases = [
        (Reply::error(400, "invalid_grant", 53_003), ErrorKind::ClaimsChallenge, 2),
        (Reply::error(400, "invalid_grant", 500_133), ErrorKind::ClaimsChallenge, 2),
        (Reply::error(400, "invalid_grant", 50_013), ErrorKind::ClaimsChallenge, 2),
        (Reply::error(400, "invalid_grant", 65_001), ErrorKind::ClaimsChallenge, 2),
        (Reply::error(400, "invalid_grant", 50_057), ErrorKind::Disabled, 2),
        (Reply::error(400, "invalid_grant", 50_196), ErrorKind::Throttled, 2),
        // Not about the user: asked for no other one either.
        (Reply::error(401, "invalid_client", 7_000_222), ErrorKind::Credential, 1),
        (Reply::error(401, "invalid_client", 700_213), ErrorKind::Config, 1),
        (Reply::error(400, "unauthorized_client", 700_016), ErrorKind::Config, 1),
        (Reply::error(401, "invalid_client", 7_000_112), ErrorKind::Disabled, 1),
        (Reply::error(400, "invalid_resource", 500_011), ErrorKind::Config, 1),
        (Reply::error(429, "x", 90_055).with_header("retry-after", "100"), ErrorKind::Throttled, 1),
    ];
    for (reply, kind, calls) in cases {
        let broker = started().await;
        broker.entra.always(Endpoint::Token, Some(reply));
        for _ in 0..25 {
            for name in ["alice", "bob"] {
                let refused = exchanged(&broker, &user(name)).await.unwrap_err();
                assert_eq!(refused.kind, kind);
                assert!(refused.retry_after.is_some());
            }
            pass(seconds(1)).await;
        }
        assert_eq!(exchanges(&broker.entra), calls, "{kind:?}");
    }
    // What may pass by itself: 1, 2, 4, 8 s later.
    let broker = started().await;
    broker
        .entra
        .always(Endpoint::Token, Some(Reply::error(503, "temporarily_unavailable", 90_033)));
    for _ in 0..100 {
        exchanged(&broker, &user("alice")).await.unwrap_err();
        pass(Duration::from_millis(140)).await;
    }
    assert!((4..=5).contains(&exchanges(&broker.entra)), "{}", exchanges(&broker.entra));
    broker.entra.always(Endpoint::Token, None);
    pass(seconds(17)).await;
    exchanged(&broker, &user("alice")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn b08_a_user_who_is_disabled_loses_the_held_token() {
    let broker = started().await;
    broker.entra.life(json!(HOUR), Some(json!(600)));
    let alice = assertion("alice", START + 3 * HOUR);
    exchanged(&broker, &alice).await.unwrap();
    broker.entra.always(Endpoint::Token, Some(Reply::error(400, "invalid_grant", 50_057)));
    pass(seconds(700)).await;
    exchanged(&broker, &alice).await.unwrap();
    pass(seconds(1)).await;
    assert_eq!(exchanged(&broker, &alice).await.unwrap_err().kind, ErrorKind::Disabled);
}

#[tokio::test(start_paused = true)]
async fn a_changed_credential_is_tried_for_users_within_30_seconds() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    std::fs::write(&path, "old").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut config = config();
    let identity = config.identities.get_mut("default").unwrap();
    identity.scopes.clear();
    let token_broker::config::Source::Application { credentials, .. } = &mut identity.source else {
        unreachable!()
    };
    *credentials = vec![token_broker::config::Credential::Secret(
        token_broker::config::SecretLocation::File(path.clone()),
    )];
    let entra = Entra::new();
    entra.always(Endpoint::Token, Some(Reply::error(401, "invalid_client", 7_000_222)));
    let broker = Broker::with_config(&entra, &config);
    let asking = async |times: u64| {
        for _ in 0..times {
            let _refused = exchanged(&broker, &user("alice")).await;
            pass(seconds(1)).await;
        }
    };
    // 30, 60, 120 s, as for the application's own tokens.
    asking(200).await;
    let before = exchanges(&entra);
    assert!((3..=4).contains(&before), "{before}");
    entra.always(Endpoint::Token, None);
    std::fs::write(&path, "new").unwrap();
    asking(31).await;
    assert_eq!(exchanges(&entra), before + 1);
    exchanged(&broker, &user("alice")).await.unwrap();
    assert_eq!(entra.calls(Endpoint::Token).last().unwrap().form["client_secret"], "new");
}

#[tokio::test(start_paused = true)]
async fn the_asker_of_challenges_gets_a_token_of_its_own() {
    let mut config = config();
    config.identities.get_mut("default").unwrap().capability =
        token_broker::entra::claims::Capability::ClaimsChallenges;
    let entra = Entra::new();
    let broker = Broker::with_config(&entra, &config);
    let alice = user("alice");
    let plain = delegated(USER_READ, &alice);
    let capable = TokenRequest { claims_challenges: true, ..plain.clone() };
    let first = broker.issue(&plain).await.unwrap();
    assert_ne!(broker.issue(&capable).await.unwrap().access_token, first.access_token);
    let sent: Vec<Option<String>> = entra
        .calls(Endpoint::Token)
        .iter()
        .filter(|call| call.form.contains_key("assertion"))
        .map(|call| call.form.get("claims").cloned())
        .collect();
    let cp1 = r#"{"access_token":{"xms_cc":{"values":["cp1"]}}}"#.to_owned();
    assert_eq!(sent, [None, Some(cp1)]);
}

#[tokio::test(start_paused = true)]
async fn a_challenge_beside_an_assertion_is_malformed() {
    let broker = started().await;
    let claims = r#"{"access_token":{"nbf":{"essential":true,"value":"1604106651"}}}"#;
    for more in [
        json!({"claims": claims, "refused": "a".repeat(64)}),
        json!({"refused": "a".repeat(64)}),
        json!({"claims": claims}),
    ] {
        let mut body = json!({"identity": "default", "scope": USER_READ, "destination": "graph",
            "claims_challenges": true, "assertion": user("alice").expose()});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (status, _, answer) = ask(&broker.api(), post("/v1/token", body.to_string())).await;
        assert_eq!(status, 400, "{answer}");
        assert!(answer.contains("malformed_request"), "{answer}");
    }
    assert_eq!(exchanges(&broker.entra), 0);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_are_remembered_and_those_used_longest_ago_are_forgotten() {
    let broker = started().await;
    let name = |number: u32| user(&format!("user-{number}"));
    for number in 0..10_000 {
        exchanged(&broker, &name(number)).await.unwrap();
    }
    exchanged(&broker, &name(0)).await.unwrap();
    assert_eq!(exchanges(&broker.entra), 10_000);
    exchanged(&broker, &name(10_000)).await.unwrap();
    exchanged(&broker, &name(0)).await.unwrap();
    assert_eq!(exchanges(&broker.entra), 10_001);
    let (_, _, page) = ask(&broker.admin(), get("/")).await;
    assert!(page.contains("on behalf of users: 10000 tokens held, 0 refusals"), "{page}");
    let (_, _, metrics) = ask(&broker.admin(), get("/metrics")).await;
    for line in [
        "entra_broker_on_behalf_of_tokens{identity=\"default\"} 10000\n",
        "entra_broker_on_behalf_of_evictions_total 1\n",
        "entra_broker_on_behalf_of_exchanges_total{identity=\"default\",outcome=\"issued\"} 10001\n",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
    // The one that went is exchanged anew.
    exchanged(&broker, &name(1)).await.unwrap();
    assert_eq!(exchanges(&broker.entra), 10_002);
}

#[tokio::test(start_paused = true)]
async fn b07_large_tokens_are_bounded_by_their_bytes() {
    let broker = started().await;
    let large = "x".repeat(16 * 1_024);
    let reply = json!({"token_type": "Bearer", "access_token": large, "expires_in": HOUR});
    broker.entra.always(Endpoint::Token, Some(Reply::json(200, &reply)));
    for number in 0..1_000 {
        exchanged(&broker, &user(&format!("user-{number}"))).await.unwrap();
    }
    let (_, _, page) = ask(&broker.admin(), get("/")).await;
    assert!(page.contains("on behalf of users: 639 tokens held"), "{page}");
}

#[tokio::test(start_paused = true)]
async fn b07_a_flood_of_users_is_bounded() {
    let broker = started().await;
    broker.entra.delay(Duration::from_millis(100));
    let asked: Vec<_> = (0..600)
        .map(|number| {
            let (state, user) = (Arc::clone(&broker.state), user(&format!("user-{number}")));
            tokio::spawn(async move { issue(&state, &delegated(USER_READ, &user)).await })
        })
        .collect();
    let mut refused = 0;
    for asking in asked {
        if let Err(error) = asking.await.unwrap() {
            assert_eq!((error.kind, error.retry_after), (ErrorKind::Transient, Some(1)));
            refused += 1;
        }
    }
    assert_eq!((refused, exchanges(&broker.entra)), (88, 512));
}

#[tokio::test(start_paused = true)]
async fn w07_delegated_scopes_are_checked() {
    let scopes = "[https://graph.microsoft.com/User.Read, api://orders/.default, \
                  https://management.azure.com//.default, 3f1b5b1e-0d2c-4a39-9a63-3f6c2c7a9d10/Read]";
    read(scopes).unwrap();
    assert!(read("[]").unwrap().identities["default"].delegated_scopes.is_empty());
    for (written, expected) in [
        ("[User.Read]", "delegated_scopes[0]: expected one scope"),
        ("['https://graph.microsoft.com/A https://graph.microsoft.com/B']", "[0]: expected one"),
        ("[https://orders]", "[0]: expected one"),
        ("['api://orders/']", "[0]: expected one"),
        ("[offline_access]", "[0]: expected one"),
        ("['']", "[0]: expected one"),
        ("[null]", "[0]: missing"),
        ("[api://o/a, api://o/a]", "[1]: this scope stands there twice"),
    ] {
        let errors = read(written).unwrap_err();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].contains(expected), "{errors:?}");
    }
    let text = format!(
        "{{identities: {{batch: {{managed_identity: {{client_id: {CLIENT}}}, scopes: [], \
         delegated_scopes: [{USER_READ}]}}}}}}"
    );
    let errors = document::read(&text, &environment(&[])).unwrap_err();
    assert!(errors[0].to_string().starts_with("identities.batch.delegated_scopes: not with"));
}
