//! Claims challenges: one acquisition for all who wait, past the token that is held, and no storm
//! at Entra whatever a resource does.

use contract::{ErrorKind, IssuedToken, TokenRequest, TypedError};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use token_broker::{config::Config, entra::claims::Capability};
use tokio::{task::JoinSet, time::Instant};

use crate::support::{
    Broker, Endpoint, Entra, OTHER_SCOPE, Reply, SCOPE, START, ask, config, get, issue, pass, post,
    request, seconds,
};

const NBF: &str = r#"{"access_token":{"nbf":{"essential":true,"value":"1800000000"}}}"#;
const LATER: &str = r#"{"access_token":{"nbf":{"essential":true,"value":"1800000099"}}}"#;
const CAPABLE: &str = r#"{"access_token":{"xms_cc":{"values":["cp1"]}}}"#;

/// The identity with `client_capabilities: [cp1]` and the first scope.
fn capable() -> Config {
    let mut config = config();
    let identity = config.identities.get_mut("default").unwrap();
    identity.capability = Capability::ClaimsChallenges;
    identity.scopes.truncate(1);
    config
}

fn broker(entra: &std::sync::Arc<Entra>) -> Broker {
    Broker::with_config(entra, &capable())
}

/// What a destination asks for that answers challenges.
fn answering(destination: &str) -> TokenRequest {
    TokenRequest {
        destination: destination.to_owned(),
        claims_challenges: true,
        ..request("default", SCOPE)
    }
}

fn challenged(destination: &str, refused: &IssuedToken, claims: &str) -> TokenRequest {
    TokenRequest {
        claims: Some(claims.to_owned()),
        refused: refused.token_hash.clone(),
        ..answering(destination)
    }
}

/// The `claims` of each request for a token, as JSON.
fn claims(entra: &Entra) -> Vec<Value> {
    let claims = |text: &String| serde_json::from_str(text).unwrap();
    let calls = entra.calls(Endpoint::Token);
    calls.iter().map(|call| call.form.get("claims").map_or(Value::Null, claims)).collect()
}

fn parsed(claims: &str) -> Value {
    serde_json::from_str(claims).unwrap()
}

async fn count(broker: &Broker, outcome: &str) -> u64 {
    let (_, _, text) = ask(&broker.admin(), get("/metrics")).await;
    let name = format!(
        "entra_broker_claims_challenges_total{{identity=\"default\",outcome=\"{outcome}\"}} "
    );
    let line = text.lines().find_map(|line| line.strip_prefix(&name));
    line.map_or(0, |count| count.parse().unwrap())
}

fn blocked() -> Reply {
    Reply::json(
        400,
        &json!({"error": "interaction_required", "error_codes": [53003],
            "claims": r#"{"access_token":{"capolids":{"essential":true,"values":["p"]}}}"#,
            "correlation_id": "aaaa-1", "trace_id": "bbbb-2"}),
    )
}

#[tokio::test(start_paused = true)]
async fn a_token_is_named_by_its_sha_256() {
    let entra = Entra::new();
    let broker = broker(&entra);
    for request in [request("default", SCOPE), answering("graph")] {
        let token = broker.issue(&request).await.unwrap();
        let digest = digest(&SHA256, token.access_token.expose().as_bytes());
        let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(token.token_hash, Some(hex));
    }
}

#[tokio::test(start_paused = true)]
async fn a_capable_token_goes_only_to_who_answers_challenges() {
    let entra = Entra::new();
    let broker = broker(&entra);
    pass(seconds(1)).await;
    // The capable one is there before anybody asks, the other is not.
    assert_eq!(claims(&entra), [parsed(CAPABLE)]);
    let (_, _, page) = ask(&broker.admin(), get("/")).await;
    assert!(page.contains("1 of 1 tokens held"), "{page}");
    let answering = broker.issue(&answering("graph")).await.unwrap();
    let plain = broker.issue(&request("default", SCOPE)).await.unwrap();
    assert_ne!(answering.access_token, plain.access_token);
    assert_eq!(claims(&entra), [parsed(CAPABLE), Value::Null]);
    let (_, _, page) = ask(&broker.admin(), get("/")).await;
    assert!(page.contains("2 of 2 tokens held"), "{page}");
}

#[tokio::test(start_paused = true)]
async fn an_identity_that_does_not_say_so_asks_for_no_capable_token() {
    let entra = Entra::new();
    let broker = Broker::start(&entra);
    let token = broker.issue(&answering("graph")).await.unwrap();
    assert!(claims(&entra).iter().all(Value::is_null));
    // A challenge is answered all the same, with nothing but what it asks for.
    let new = broker.issue(&challenged("graph", &token, NBF)).await.unwrap();
    assert_ne!(new.access_token, token.access_token);
    assert_eq!(claims(&entra).last(), Some(&parsed(NBF)));
}

#[tokio::test(start_paused = true)]
async fn o07_a_challenge_is_answered_past_the_held_token_and_replaces_it() {
    let entra = Entra::new();
    let broker = broker(&entra);
    let first = broker.issue(&answering("graph")).await.unwrap();
    let body = serde_json::to_string(&challenged("graph", &first, NBF)).unwrap();
    let (status, _, answer) = ask(&broker.api(), post("/v1/token", body)).await;
    assert_eq!(status, 200, "{answer}");
    let second: IssuedToken = serde_json::from_str(&answer).unwrap();
    assert_ne!(second.token_hash, first.token_hash);
    let merged = r#"{"access_token":{"nbf":{"essential":true,"value":"1800000000"},"xms_cc":{"values":["cp1"]}}}"#;
    assert_eq!(claims(&entra), [parsed(CAPABLE), parsed(merged)]);
    assert_eq!(broker.issue(&answering("mail")).await.unwrap(), second);
    assert_eq!(count(&broker, "answered").await, 1);
    // It is renewed in its time, without the challenge.
    pass(seconds(2_521)).await;
    assert_eq!(claims(&entra).len(), 3);
    assert_eq!(claims(&entra)[2], parsed(CAPABLE));
}

#[tokio::test(start_paused = true)]
async fn o07_b07_a_thousand_challenged_requests_make_one_acquisition() {
    let entra = Entra::new();
    let broker = broker(&entra);
    let first = broker.issue(&answering("graph")).await.unwrap();
    entra.delay(seconds(2));
    let mut asking = JoinSet::new();
    for number in 0..1_000 {
        let state = broker.state.clone();
        // Not all say the same, and they come from two destinations.
        let claims = if number % 3 == 0 { NBF } else { LATER };
        let destination = if number % 2 == 0 { "graph" } else { "mail" };
        let request = challenged(destination, &first, claims);
        asking.spawn(async move { issue(&state, &request).await.unwrap() });
    }
    let tokens = asking.join_all().await;
    assert_eq!(tokens.len(), 1_000);
    assert!(tokens.iter().all(|token| token == &tokens[0] && token != &first));
    assert_eq!(entra.count(Endpoint::Token), 2);
    assert_eq!(count(&broker, "answered").await, 1_000);
}

#[tokio::test(start_paused = true)]
async fn o07_who_was_refused_with_an_older_token_gets_the_held_one_without_a_call() {
    let entra = Entra::new();
    let broker = broker(&entra);
    let first = broker.issue(&answering("graph")).await.unwrap();
    let second = broker.issue(&challenged("graph", &first, NBF)).await.unwrap();
    for claims in [NBF, LATER] {
        let start = Instant::now();
        assert_eq!(broker.issue(&challenged("graph", &first, claims)).await.unwrap(), second);
        assert_eq!(start, Instant::now());
    }
    assert_eq!(entra.count(Endpoint::Token), 2);
    assert_eq!(count(&broker, "held").await, 2);
    // Nor while the held one is being replaced.
    entra.delay(seconds(5));
    let replacing = challenged("mail", &second, LATER);
    let state = broker.state.clone();
    let asking = tokio::spawn(async move { issue(&state, &replacing).await });
    pass(seconds(1)).await;
    assert_eq!(broker.issue(&challenged("graph", &first, NBF)).await.unwrap(), second);
    assert_ne!(asking.await.unwrap().unwrap(), second);
}

#[tokio::test(start_paused = true)]
async fn o07_a_destination_that_always_challenges_costs_one_acquisition_per_30_seconds() {
    let entra = Entra::new();
    let broker = broker(&entra);
    let mut token = broker.issue(&answering("graph")).await.unwrap();
    let mut declined = 0;
    for second in 0..300_u64 {
        // Other claims each time.
        let claims = NBF.replace("1800000000", &format!("{}", START + second));
        match broker.issue(&challenged("graph", &token, &claims)).await {
            Ok(new) => token = new,
            Err(refused) => {
                assert_eq!(refused.kind, ErrorKind::Throttled);
                assert!(refused.error.starts_with("challenge_throttled"), "{}", refused.error);
                assert_eq!(refused.retry_after, Some(30 - second % 30));
                declined += 1;
            }
        }
        pass(seconds(1)).await;
    }
    assert_eq!(entra.count(Endpoint::Token), 11);
    assert_eq!(
        (count(&broker, "answered").await, count(&broker, "declined").await),
        (10, declined)
    );
    // Who asks without a challenge is served all the time.
    assert_eq!(broker.issue(&answering("graph")).await.unwrap(), token);
}

#[tokio::test(start_paused = true)]
async fn o07_another_destination_of_the_same_token_has_its_own_limit() {
    let entra = Entra::new();
    let broker = broker(&entra);
    let first = broker.issue(&answering("graph")).await.unwrap();
    let second = broker.issue(&challenged("graph", &first, NBF)).await.unwrap();
    broker.issue(&challenged("graph", &second, LATER)).await.unwrap_err();
    let third = broker.issue(&challenged("mail", &second, LATER)).await.unwrap();
    assert_ne!(third.token_hash, second.token_hash);
    assert_eq!(entra.count(Endpoint::Token), 3);
}

#[tokio::test(start_paused = true)]
async fn o07_challenges_to_many_destinations_are_bounded_together() {
    let entra = Entra::new();
    let broker = broker(&entra);
    let mut token = broker.issue(&answering("graph")).await.unwrap();
    for number in 0..1_000 {
        let request = challenged(&format!("destination-{number}"), &token, NBF);
        if let Ok(new) = broker.issue(&request).await {
            token = new;
        }
    }
    assert_eq!(entra.count(Endpoint::Token), 1 + 16);
}

#[tokio::test(start_paused = true)]
async fn a_challenge_that_comes_during_a_renewal_is_still_asked_for() {
    let entra = Entra::new();
    let broker = broker(&entra);
    let first = broker.issue(&answering("graph")).await.unwrap();
    pass(seconds(1_799)).await;
    entra.delay(seconds(2));
    // Past the last moment of a planned renewal less its delay: it is under way.
    while entra.count(Endpoint::Token) == 1 {
        pass(seconds(1)).await;
    }
    let new = broker.issue(&challenged("graph", &first, NBF)).await.unwrap();
    assert_ne!(new.token_hash, first.token_hash);
    assert_eq!(entra.count(Endpoint::Token), 3);
    assert_eq!(claims(&entra)[2]["access_token"]["nbf"]["value"], "1800000000");
    assert_eq!(broker.issue(&answering("graph")).await.unwrap(), new);
}

#[tokio::test(start_paused = true)]
async fn who_comes_after_the_renewal_and_before_the_answer_waits_for_the_answer() {
    let entra = Entra::new();
    let broker = broker(&entra);
    let first = broker.issue(&answering("graph")).await.unwrap();
    pass(seconds(1_799)).await;
    entra.delay(seconds(3));
    while entra.count(Endpoint::Token) == 1 {
        pass(seconds(1)).await;
    }
    let (state, request) = (broker.state.clone(), challenged("graph", &first, NBF));
    let asking = tokio::spawn(async move { issue(&state, &request).await.unwrap() });
    while entra.count(Endpoint::Token) == 2 {
        pass(seconds(1)).await;
    }
    // What the renewal brought was asked for without the claims.
    let renewed = broker.issue(&answering("graph")).await.unwrap();
    assert_ne!(renewed.token_hash, first.token_hash);
    let second = broker.issue(&challenged("mail", &first, NBF)).await.unwrap();
    assert_eq!(second, asking.await.unwrap());
    assert_ne!(second.token_hash, renewed.token_hash);
    assert_eq!(entra.count(Endpoint::Token), 3);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_has_ended_on_its_way_answers_no_challenge() {
    let entra = Entra::new();
    let broker = broker(&entra);
    let first = broker.issue(&answering("graph")).await.unwrap();
    entra.life(json!(2), None);
    entra.delay(seconds(3));
    let ended = broker.issue(&challenged("graph", &first, NBF)).await.unwrap_err();
    assert_eq!(ended.kind, ErrorKind::Transient);
    assert!(ended.error.starts_with("token_ended"), "{}", ended.error);
}

/// Has the challenge of `graph` refused; the token that stays held, and what was answered.
async fn refused(broker: &Broker, reply: Reply) -> (IssuedToken, TypedError) {
    let token = broker.issue(&answering("graph")).await.unwrap();
    broker.entra.script(Endpoint::Token, [reply]);
    let refused = broker.issue(&challenged("graph", &token, NBF)).await.unwrap_err();
    (token, refused)
}

#[tokio::test(start_paused = true)]
async fn a_refused_challenge_is_told_as_it_is_and_takes_the_token_from_nobody() {
    let entra = Entra::new();
    let broker = broker(&entra);
    let (token, error) = refused(&broker, blocked()).await;
    assert_eq!(error.kind, ErrorKind::ClaimsChallenge);
    assert!(error.error.starts_with("interaction_required AADSTS53003: "), "{}", error.error);
    assert!(error.claims.as_deref().unwrap().contains("capolids"));
    assert_eq!(error.correlation_id.as_deref(), Some("aaaa-1"));
    assert_eq!(error.trace_id.as_deref(), Some("bbbb-2"));
    assert_eq!(broker.issue(&answering("mail")).await.unwrap(), token);
    assert_eq!(count(&broker, "failed").await, 1);
    // A person is told, and the pod stays in service.
    let (status, _, body) = ask(&broker.admin(), get("/readyz")).await;
    let body = parsed(&body);
    assert_eq!((status, &body["identities_refused"]), (200, &json!([])));
    assert_eq!(body["challenges_refused"][0]["kind"], "claims_challenge");
    let (_, _, page) = ask(&broker.admin(), get("/")).await;
    assert!(page.contains("last challenge refused: interaction_required AADSTS53003"), "{page}");
    assert!(page.contains("(correlation id aaaa-1) (trace id bbbb-2)"), "{page}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_challenge_is_not_repeated_until_it_is_another_one_or_ten_minutes_have_passed() {
    let entra = Entra::new();
    let broker = broker(&entra);
    let (token, first) = refused(&broker, blocked()).await;
    for _ in 0..19 {
        pass(seconds(30)).await;
        let again = broker.issue(&challenged("graph", &token, NBF)).await.unwrap_err();
        assert_eq!((again.kind, &again.error), (first.kind, &first.error));
        assert!(again.retry_after.unwrap() <= 30);
    }
    assert_eq!(entra.count(Endpoint::Token), 2);
    assert_eq!(count(&broker, "declined").await, 19);
    // Another challenge is something new.
    let new = broker.issue(&challenged("graph", &token, LATER)).await.unwrap();
    assert_ne!(new, token);
    // And so is the same one after the time of a probe.
    entra.script(Endpoint::Token, [blocked()]);
    pass(seconds(30)).await;
    broker.issue(&challenged("graph", &new, NBF)).await.unwrap_err();
    pass(seconds(661)).await;
    broker.issue(&challenged("graph", &new, NBF)).await.unwrap();
    assert_eq!(entra.count(Endpoint::Token), 5);
}

#[tokio::test(start_paused = true)]
async fn o07_a_resource_that_asks_for_too_much_has_no_other_challenge_refused() {
    let entra = Entra::new();
    let broker = broker(&entra);
    let token = broker.issue(&answering("graph")).await.unwrap();
    entra.delay(seconds(1));
    entra.script(Endpoint::Token, [blocked()]);
    let mut asking = JoinSet::new();
    for number in 0..100 {
        let (destination, claims) =
            if number % 2 == 0 { ("hostile", LATER) } else { ("graph", NBF) };
        let (state, request) = (broker.state.clone(), challenged(destination, &token, claims));
        asking.spawn(async move { (destination, issue(&state, &request).await) });
    }
    for (destination, outcome) in asking.join_all().await {
        assert_eq!(outcome.is_ok(), destination == "graph", "{destination}: {outcome:?}");
    }
    assert_eq!(entra.count(Endpoint::Token), 3);
}

#[tokio::test(start_paused = true)]
async fn a_challenge_that_entra_only_could_not_answer_may_be_asked_again_after_30_seconds() {
    let entra = Entra::new();
    let broker = broker(&entra);
    let failed = Reply::error(503, "temporarily_unavailable", 90033);
    let (token, error) = refused(&broker, failed).await;
    assert_eq!(error.kind, ErrorKind::Transient);
    pass(seconds(30)).await;
    broker.issue(&challenged("graph", &token, NBF)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn when_entra_wants_quiet_a_challenge_is_no_reason_to_break_it() {
    let entra = Entra::new();
    let broker = broker(&entra);
    let busy = Reply::error(429, "invalid_request", 90055).with_header("retry-after", "120");
    let (token, error) = refused(&broker, busy).await;
    assert_eq!((error.kind, error.retry_after), (ErrorKind::Throttled, Some(120)));
    pass(seconds(119)).await;
    for destination in ["graph", "mail"] {
        let challenge = challenged(destination, &token, LATER);
        assert_eq!(broker.issue(&challenge).await.unwrap_err().kind, ErrorKind::Throttled);
    }
    assert_eq!(entra.count(Endpoint::Token), 2);
    pass(seconds(1)).await;
    broker.issue(&challenged("mail", &token, LATER)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_a_throttled_challenge_was_told_holds_for_the_renewal_too() {
    let entra = Entra::new();
    entra.life(json!(3_600), Some(json!(1_000)));
    let broker = broker(&entra);
    let busy = Reply::error(429, "invalid_request", 90055).with_header("retry-after", "2000");
    let (token, _) = refused(&broker, busy).await;
    pass(seconds(1_999)).await;
    assert_eq!(entra.count(Endpoint::Token), 2);
    let held = broker.issue(&answering("graph")).await.unwrap();
    assert_eq!(held.access_token, token.access_token);
    pass(seconds(2)).await;
    assert_eq!(entra.count(Endpoint::Token), 3);
}

fn quiet(seconds: &str) -> Reply {
    Reply::error(429, "invalid_request", 90055).with_header("retry-after", seconds)
}

#[tokio::test(start_paused = true)]
async fn o07_what_a_throttled_renewal_was_told_holds_for_challenges_too() {
    let entra = Entra::new();
    entra.life(json!(100_800), Some(json!(1_000)));
    let broker = broker(&entra);
    let token = broker.issue(&answering("graph")).await.unwrap();
    entra.script(Endpoint::Token, [quiet("3600")]);
    pass(seconds(1_101)).await;
    assert_eq!(entra.count(Endpoint::Token), 2);
    for second in 0..80 {
        let claims = NBF.replace("1800000000", &format!("{}", START + second));
        for destination in ["graph", "mail"] {
            let challenge = challenged(destination, &token, &claims);
            let refused = broker.issue(&challenge).await.unwrap_err();
            assert_eq!(refused.kind, ErrorKind::Throttled);
            assert!(refused.error.starts_with("invalid_request AADSTS90055"), "{}", refused.error);
        }
        pass(seconds(30)).await;
    }
    assert_eq!(entra.count(Endpoint::Token), 2);
    assert_eq!(count(&broker, "declined").await, 160);
    pass(seconds(1_201)).await;
    assert_eq!(entra.count(Endpoint::Token), 3);
}

#[tokio::test(start_paused = true)]
async fn a_challenge_that_waits_for_a_renewal_keeps_the_quiet_that_the_renewal_was_told_to() {
    let entra = Entra::new();
    entra.life(json!(100_800), Some(json!(1_000)));
    let broker = broker(&entra);
    let token = broker.issue(&answering("graph")).await.unwrap();
    entra.script(Endpoint::Token, [quiet("3600")]);
    entra.delay(seconds(3));
    while entra.count(Endpoint::Token) == 1 {
        pass(seconds(1)).await;
    }
    let refused = broker.issue(&challenged("graph", &token, NBF)).await.unwrap_err();
    assert_eq!((refused.kind, refused.retry_after), (ErrorKind::Throttled, Some(3_600)));
    pass(seconds(3_599)).await;
    assert_eq!(entra.count(Endpoint::Token), 2);
}

#[tokio::test(start_paused = true)]
async fn o07_challenges_to_copies_of_a_disabled_principals_token_cost_no_sign_in() {
    let entra = Entra::new();
    let broker = broker(&entra);
    let disabled = Reply::error(400, "unauthorized_client", 7_000_112);
    let (token, _) = refused(&broker, disabled.clone()).await;
    entra.always(Endpoint::Token, Some(disabled));
    for second in 0..19 {
        pass(seconds(30)).await;
        let claims = NBF.replace("1800000000", &format!("{}", START + second));
        for destination in ["graph", "mail"] {
            let challenge = challenged(destination, &token, &claims);
            let refused = broker.issue(&challenge).await.unwrap_err();
            assert_eq!(refused.kind, ErrorKind::Disabled);
            assert!(refused.retry_after.unwrap() <= 30);
        }
    }
    assert_eq!(entra.count(Endpoint::Token), 2);
    // The probe goes on, and finds that somebody has mended it.
    entra.always(Endpoint::Token, None);
    pass(seconds(91)).await;
    broker.issue(&answering("graph")).await.unwrap();
    assert_eq!(entra.count(Endpoint::Token), 3);
}

#[tokio::test(start_paused = true)]
async fn who_needs_a_token_does_not_break_the_quiet_that_a_challenge_was_told_to_keep() {
    let entra = Entra::new();
    entra.script(Endpoint::Token, [blocked(), quiet("3600")]);
    let broker = broker(&entra);
    broker.issue(&answering("graph")).await.unwrap_err();
    let earlier = TokenRequest {
        claims: Some(NBF.to_owned()),
        refused: Some("0".repeat(64)),
        ..answering("graph")
    };
    assert_eq!(broker.issue(&earlier).await.unwrap_err().kind, ErrorKind::Throttled);
    // The verdict has passed, the quiet has not: told at once, without a call.
    pass(seconds(700)).await;
    let start = Instant::now();
    let refused = broker.issue(&answering("graph")).await.unwrap_err();
    assert_eq!((refused.kind, refused.retry_after), (ErrorKind::Throttled, Some(2_900)));
    assert_eq!(start, Instant::now());
    pass(seconds(2_899)).await;
    assert_eq!(entra.count(Endpoint::Token), 2);
    pass(seconds(2)).await;
    broker.issue(&answering("graph")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_disabled_neighbour_is_no_reason_to_break_the_quiet_either() {
    let entra = Entra::new();
    entra.life(json!(100_800), Some(json!(50_400)));
    let broker = broker(&entra);
    let (token, error) = refused(&broker, quiet("3600")).await;
    assert_eq!(error.kind, ErrorKind::Throttled);
    disable_neighbour(&broker, &token).await;
}

#[tokio::test(start_paused = true)]
async fn a_disabled_neighbour_does_not_break_the_quiet_of_a_renewal() {
    let entra = Entra::new();
    entra.life(json!(100_800), Some(json!(1_000)));
    let broker = broker(&entra);
    let token = broker.issue(&answering("graph")).await.unwrap();
    entra.script(Endpoint::Token, [quiet("3600")]);
    while entra.count(Endpoint::Token) == 1 {
        pass(seconds(1)).await;
    }
    disable_neighbour(&broker, &token).await;
}

/// One call has been answered with a token, a second with a wish for an hour of quiet.
async fn disable_neighbour(broker: &Broker, token: &IssuedToken) {
    let entra = &broker.entra;
    // The identity's other token of the scope, from its first request on.
    entra.always(Endpoint::Token, Some(Reply::error(400, "unauthorized_client", 7_000_112)));
    let refused = broker.issue(&request("default", SCOPE)).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Disabled);
    pass(seconds(500)).await;
    assert_eq!(entra.count(Endpoint::Token), 3);
    let held = broker.issue(&answering("graph")).await.unwrap();
    assert_eq!(held.access_token, token.access_token);
    // As soon as it may, it asks, hours before its renewal.
    pass(seconds(3_101)).await;
    let refused = broker.issue(&answering("graph")).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Disabled);
}

#[tokio::test(start_paused = true)]
async fn who_keeps_a_copy_asks_once_an_hour_and_learns_of_a_disabled_principal() {
    let entra = Entra::new();
    entra.life(json!(100_800), Some(json!(50_400)));
    let broker = broker(&entra);
    let first = broker.issue(&answering("graph")).await.unwrap();
    // As the filter does: it asks when it was told to.
    let (mut asked, mut copy) = (0, first.clone());
    while copy.refresh_on < START + 50_400 {
        let now = START + 3_600 * asked;
        assert!(copy.refresh_on > now);
        pass(seconds(copy.refresh_on - now)).await;
        copy = broker.issue(&answering("graph")).await.unwrap();
        assert_eq!(copy.access_token, first.access_token);
        asked += 1;
    }
    assert_eq!(asked, 13);
    // That costs Entra nothing.
    assert_eq!(entra.count(Endpoint::Token), 1);
    entra.script(Endpoint::Token, [Reply::error(400, "unauthorized_client", 7_000_112)]);
    let challenge = challenged("mail", &copy, NBF);
    assert_eq!(broker.issue(&challenge).await.unwrap_err().kind, ErrorKind::Disabled);
    pass(seconds(500)).await;
    assert_eq!(broker.issue(&answering("graph")).await.unwrap_err().kind, ErrorKind::Disabled);
}

#[tokio::test(start_paused = true)]
async fn while_a_renewal_waits_for_quiet_nobody_is_told_to_ask_before() {
    let entra = Entra::new();
    entra.life(json!(3_600), Some(json!(1_000)));
    let broker = broker(&entra);
    refused(&broker, quiet("2000")).await;
    pass(seconds(1_500)).await;
    assert_eq!(broker.issue(&answering("graph")).await.unwrap().refresh_on, START + 2_000);
}

#[tokio::test(start_paused = true)]
async fn a_challenge_to_a_token_of_an_earlier_broker_waits_for_the_first_one() {
    let entra = Entra::new();
    entra.delay(seconds(1));
    let broker = broker(&entra);
    let earlier = TokenRequest {
        claims: Some(NBF.to_owned()),
        refused: Some("0".repeat(64)),
        ..answering("graph")
    };
    while entra.count(Endpoint::Token) == 0 {
        tokio::task::yield_now().await;
    }
    let token = broker.issue(&earlier).await.unwrap();
    assert_eq!(broker.issue(&answering("graph")).await.unwrap(), token);
    assert_eq!(claims(&entra), [parsed(CAPABLE)]);
}

#[tokio::test(start_paused = true)]
async fn a_challenge_is_a_reason_to_ask_though_there_is_a_verdict_and_no_token() {
    let entra = Entra::new();
    entra.script(Endpoint::Token, [blocked()]);
    let broker = broker(&entra);
    broker.issue(&answering("graph")).await.unwrap_err();
    let request = TokenRequest {
        claims: Some(NBF.to_owned()),
        refused: Some("0".repeat(64)),
        ..answering("graph")
    };
    let token = broker.issue(&request).await.unwrap();
    assert_eq!(broker.issue(&answering("mail")).await.unwrap(), token);
    assert_eq!(entra.count(Endpoint::Token), 2);
}

#[tokio::test(start_paused = true)]
async fn a_challenge_that_finds_the_principal_disabled_takes_the_token_from_all() {
    let entra = Entra::new();
    let broker = broker(&entra);
    broker.issue(&request("default", SCOPE)).await.unwrap();
    let disabled = Reply::error(400, "unauthorized_client", 7_000_112);
    entra.always(Endpoint::Token, Some(disabled.clone()));
    let (_, error) = refused(&broker, disabled).await;
    assert_eq!(error.kind, ErrorKind::Disabled);
    pass(seconds(6)).await;
    for request in [answering("mail"), request("default", SCOPE)] {
        assert_eq!(broker.issue(&request).await.unwrap_err().kind, ErrorKind::Disabled);
    }
    assert_eq!(entra.count(Endpoint::Token), 4);
}

#[tokio::test(start_paused = true)]
async fn a_slow_answer_to_a_challenge_is_waited_for_within_bounds() {
    let entra = Entra::new();
    let broker = broker(&entra);
    let token = broker.issue(&answering("graph")).await.unwrap();
    entra.delay(seconds(20));
    let start = Instant::now();
    let late = broker.issue(&challenged("graph", &token, NBF)).await.unwrap_err();
    assert_eq!((late.kind, start.elapsed()), (ErrorKind::Transient, seconds(8)));
    assert_eq!(count(&broker, "failed").await, 1);
    // The call goes on, and what comes of it is there for who asks again.
    let second = broker.issue(&challenged("graph", &token, NBF)).await;
    assert_eq!(second.unwrap_err().kind, ErrorKind::Transient);
    let third = broker.issue(&challenged("graph", &token, NBF)).await.unwrap();
    assert_ne!(third, token);
    assert_eq!(entra.count(Endpoint::Token), 2);
}

#[tokio::test(start_paused = true)]
async fn a_token_of_28_hours_is_renewed_when_entra_says_and_served_to_its_end() {
    let entra = Entra::new();
    entra.life(json!(100_800), Some(json!(50_400)));
    let broker = broker(&entra);
    let first = broker.issue(&answering("graph")).await.unwrap();
    assert_eq!(first.expires_on, START + 100_800);
    // Who has a copy asks again sooner, to learn whether the principal has been disabled.
    assert_eq!(first.refresh_on, START + 3_600);
    entra.always(Endpoint::Token, Some(Reply::error(503, "temporarily_unavailable", 90033)));
    pass(seconds(50_399)).await;
    assert_eq!(entra.count(Endpoint::Token), 1);
    pass(seconds(50_370)).await;
    assert!(entra.count(Endpoint::Token) > 2);
    assert_eq!(broker.issue(&answering("graph")).await.unwrap().access_token, first.access_token);
    pass(seconds(1)).await;
    broker.issue(&answering("graph")).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn b05_a_challenge_opens_no_identity_or_scope() {
    let entra = Entra::new();
    let broker = broker(&entra);
    let token = broker.issue(&answering("graph")).await.unwrap();
    let asked = challenged("graph", &token, NBF);
    for request in [
        TokenRequest { scope: OTHER_SCOPE.to_owned(), ..asked.clone() },
        TokenRequest { identity: "other".to_owned(), ..asked.clone() },
    ] {
        assert_eq!(broker.issue(&request).await.unwrap_err().kind, ErrorKind::Denied);
    }
    assert_eq!(entra.count(Endpoint::Token), 1);
}

#[tokio::test(start_paused = true)]
async fn w12_malformed_challenges_are_counted_as_declined_under_known_names_only() {
    let broker = broker(&Entra::new());
    for identity in ["default", "other", "another"] {
        let body = json!({"identity": identity, "scope": SCOPE, "destination": "d", "claims": "x"});
        let (status, ..) = ask(&broker.api(), post("/v1/token", body.to_string())).await;
        assert_eq!(status, 400);
    }
    assert_eq!(count(&broker, "declined").await, 1);
    let (_, _, text) = ask(&broker.admin(), get("/metrics")).await;
    assert!(text.contains(
        "entra_broker_claims_challenges_total{identity=\"unknown\",outcome=\"declined\"} 2"
    ));
}
