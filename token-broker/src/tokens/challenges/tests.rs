//! Which challenges there can be, and the bounds on what they cost.

use std::time::Duration;

use super::*;
use crate::failure::failure;

const CLAIMS: &str = r#"{"access_token":{"nbf":{"essential":true,"value":"1800000000"}}}"#;

fn request() -> TokenRequest {
    TokenRequest {
        identity: "default".to_owned(),
        scope: "https://graph.microsoft.com/.default".to_owned(),
        destination: "graph".to_owned(),
        claims_challenges: true,
        claims: Some(CLAIMS.to_owned()),
        refused: Some("a".repeat(64)),
        ..TokenRequest::default()
    }
}

fn to(destination: &str) -> Challenge {
    let request = TokenRequest { destination: destination.to_owned(), ..request() };
    Challenge::of(&request).unwrap().unwrap()
}

fn with(claims: &str) -> Challenge {
    Challenge { claims: claims.to_owned(), ..to("graph") }
}

fn seconds(value: u64) -> Duration {
    Duration::from_secs(value)
}

#[test]
fn o07_only_a_whole_challenge_of_a_destination_that_answers_is_one() {
    let plain = TokenRequest { claims: None, refused: None, ..request() };
    assert_eq!(Challenge::of(&plain), Ok(None));
    assert!(Challenge::of(&request()).unwrap().is_some());
    let hash = |text: &str| TokenRequest { refused: Some(text.to_owned()), ..request() };
    let named = |length| TokenRequest { destination: "d".repeat(length), ..request() };
    let claims = |text: &str| TokenRequest { claims: Some(text.to_owned()), ..request() };
    assert!(Challenge::of(&named(256)).is_ok());
    for (request, words) in [
        (TokenRequest { claims: None, ..request() }, "come together"),
        (TokenRequest { refused: None, ..request() }, "come together"),
        (TokenRequest { claims_challenges: false, ..request() }, "without `claims_challenges`"),
        (hash(""), "hash"),
        (hash(&"a".repeat(63)), "hash"),
        (hash(&"a".repeat(65)), "hash"),
        (hash(&"A".repeat(64)), "hash"),
        (hash(&"g".repeat(64)), "hash"),
        (named(257), "too long"),
        (claims("{}"), "may ask for"),
        (claims(r#"{"id_token":{"nbf":{"value":"1"}}}"#), "may ask for"),
        (claims(r#"{"access_token":{"xms_cc":{"values":["cp1"]}}}"#), "may ask for"),
    ] {
        let refused = Challenge::of(&request).unwrap_err();
        assert!(refused.contains(words), "{refused}: {words}");
    }
}

/// Admits, acquires and closes.
fn run(
    challenges: &mut Challenges,
    challenge: &Challenge,
    refused: Option<&TypedError>,
    now: Instant,
) -> Result<Ticket, TypedError> {
    let ticket = challenges.admit(challenge, now)?;
    assert_eq!(challenges.outcome(ticket, challenge), Outcome::Open);
    assert_eq!(challenges.take().as_deref(), Some(challenge.claims.as_str()));
    assert_eq!(challenges.take(), None, "one acquisition for each ticket");
    challenges.close(refused, later(now, seconds(600)));
    Ok(ticket)
}

#[test]
fn o07_a_destination_has_one_acquisition_per_30_seconds_and_others_have_their_own() {
    let (mut challenges, now) = (Challenges::default(), Instant::now());
    run(&mut challenges, &to("a"), None, now).unwrap();
    let declined = run(&mut challenges, &to("a"), None, now + seconds(29)).unwrap_err();
    assert_eq!((declined.kind, declined.retry_after), (ErrorKind::Throttled, Some(1)));
    run(&mut challenges, &to("b"), None, now + seconds(29)).unwrap();
    run(&mut challenges, &to("a"), None, now + seconds(30)).unwrap();
}

#[test]
fn o07_no_more_than_16_destinations_are_remembered_or_asked_for() {
    let (mut challenges, now) = (Challenges::default(), Instant::now());
    for number in 0..16 {
        run(&mut challenges, &to(&number.to_string()), None, now + seconds(number)).unwrap();
    }
    let declined = run(&mut challenges, &to("16"), None, now + seconds(29)).unwrap_err();
    assert_eq!((declined.kind, declined.retry_after), (ErrorKind::Throttled, Some(1)));
    assert_eq!(challenges.destinations.len(), 16);
    // The first one's interval has passed: it makes room.
    run(&mut challenges, &to("17"), None, now + seconds(30)).unwrap();
    assert_eq!(challenges.destinations.len(), 16);
    assert!(challenges.destinations.iter().all(|known| known.name != "0"));
    run(&mut challenges, &to("18"), None, now + seconds(30)).unwrap_err();
}

#[test]
fn a_verdict_stands_for_its_claims_until_it_is_probed_or_something_changes() {
    let (mut challenges, now) = (Challenges::default(), Instant::now());
    let blocked = failure(ErrorKind::ClaimsChallenge, "interaction_required");
    let ticket = run(&mut challenges, &with(CLAIMS), Some(&blocked), now).unwrap();
    assert_eq!(challenges.outcome(ticket, &with(CLAIMS)), Outcome::Refused(blocked.clone()));
    // Only for these claims.
    assert_eq!(challenges.outcome(ticket, &with("{}")), Outcome::Forgotten);
    let later = now + seconds(599);
    let declined = run(&mut challenges, &with(CLAIMS), None, later).unwrap_err();
    assert_eq!((declined.kind, declined.retry_after), (ErrorKind::ClaimsChallenge, Some(1)));
    assert!(challenges.has_verdict(later) && !challenges.has_verdict(now + seconds(600)));
    // Other claims are a change. They end what was known, so that one verdict is all that is kept.
    let other = r#"{"access_token":{"acrs":{"value":"c1"}}}"#;
    run(&mut challenges, &with(other), Some(&blocked), now + seconds(30)).unwrap();
    run(&mut challenges, &with(other), None, now + seconds(60)).unwrap_err();
    challenges.forget_verdicts();
    run(&mut challenges, &with(other), None, now + seconds(60)).unwrap();
    assert_eq!(challenges.last_refusal(), None);
}

#[test]
fn a_failure_that_may_pass_is_no_verdict() {
    let (mut challenges, now) = (Challenges::default(), Instant::now());
    let failed = failure(ErrorKind::Transient, "server_error");
    run(&mut challenges, &with(CLAIMS), Some(&failed), now).unwrap();
    assert!(!challenges.has_verdict(now));
    run(&mut challenges, &with(CLAIMS), None, now + seconds(29)).unwrap_err();
    run(&mut challenges, &with(CLAIMS), None, now + seconds(30)).unwrap();
}

#[test]
fn while_entra_wants_quiet_no_destination_is_asked_for() {
    let (mut challenges, now) = (Challenges::default(), Instant::now());
    let busy = failure(ErrorKind::Throttled, "invalid_request");
    run(&mut challenges, &to("a"), Some(&busy), now).unwrap();
    let declined = run(&mut challenges, &to("b"), None, now + seconds(599)).unwrap_err();
    assert_eq!((declined.kind, declined.retry_after), (ErrorKind::Throttled, Some(1)));
    run(&mut challenges, &to("b"), None, now + seconds(600)).unwrap();
}

#[test]
fn who_comes_while_one_is_under_way_joins_it() {
    let (mut challenges, now) = (Challenges::default(), Instant::now());
    let first = challenges.admit(&to("a"), now).unwrap();
    assert_eq!(challenges.admit(&to("b"), now), Ok(first));
    assert_eq!(challenges.replacing(&"a".repeat(64)), Some(first));
    assert_eq!(challenges.replacing(&"b".repeat(64)), None);
    challenges.close(None, now);
    assert_eq!(challenges.outcome(first, &to("a")), Outcome::Answered);
    // It cost the second destination nothing.
    let second = run(&mut challenges, &to("b"), None, now).unwrap();
    assert_eq!(challenges.outcome(first, &to("a")), Outcome::Forgotten);
    assert_eq!(challenges.outcome(second, &to("b")), Outcome::Answered);
}
