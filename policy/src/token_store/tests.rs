//! When tokens are asked for, which answers are taken, and what a request is told meanwhile.

use super::*;

const T: UnixTime = UnixTime(1_800_000_000);
const LIFE: u64 = 3600;

fn request(destination: &str) -> TokenRequest {
    TokenRequest {
        identity: "default".to_owned(),
        scope: "https://graph.example/.default".to_owned(),
        destination: destination.to_owned(),
        ..TokenRequest::default()
    }
}

/// An answer to `request` at `now`, good for an hour and to be renewed after half of it.
fn issued(text: &str, now: UnixTime) -> IssuedToken {
    IssuedToken {
        access_token: Secret::new(text),
        token_type: "Bearer".to_owned(),
        expires_on: now.0 + LIFE,
        refresh_on: now.0 + LIFE / 2,
        scope: "https://graph.example/.default".to_owned(),
        identity: "default".to_owned(),
        correlation_id: "c".to_owned(),
        token_hash: None,
    }
}

/// The broker's refusal of a kind, with the seconds after which to ask again.
fn refused(kind: ErrorKind, retry_after: Option<u64>) -> TokenCallResult {
    let (error, claims, correlation_id, trace_id) = ("e".to_owned(), None, None, None);
    TokenCallResult::Refused(TypedError {
        error,
        kind,
        retry_after,
        claims,
        correlation_id,
        trace_id,
    })
}

fn store() -> TokenStore {
    TokenStore::new([request("graph")])
}

/// A store that has made its call and got this answer.
fn answered(result: TokenCallResult, now: UnixTime) -> TokenStore {
    let mut store = store();
    assert_eq!(store.next_call(now), Some(request("graph")));
    store.on_result(&request("graph"), result, now);
    store
}

fn holding(text: &str) -> TokenStore {
    answered(TokenCallResult::Issued(issued(text, T)), T)
}

fn check(store: &TokenStore, now: UnixTime, expected: &str) {
    let found = match store.ask(&request("graph"), now) {
        TokenAnswer::Authorization(header) => header.expose().to_owned(),
        TokenAnswer::Wait => "wait".to_owned(),
        TokenAnswer::Refused { reason, retry_after, .. } => {
            format!("{} {retry_after}", reason.code())
        }
    };
    assert_eq!(found, expected, "{now:?}");
}

#[test]
fn a_token_is_fetched_before_anybody_asks() {
    let mut store = store();
    check(&store, T, "wait");
    assert_eq!(store.next_call(T), Some(request("graph")));
    // One call is in flight, and everybody waits for it, however long it takes.
    assert_eq!(store.next_call(T.plus(60)), None);
    check(&store, T.plus(60), "wait");
    store.on_result(&request("graph"), TokenCallResult::Issued(issued("a", T)), T);
    check(&store, T, "Bearer a");
    assert_eq!(store.next_call(T), None);
}

#[test]
fn a_token_is_renewed_while_it_is_good_and_nobody_waits() {
    let mut store = holding("a");
    assert_eq!(store.next_call(T.plus(LIFE / 2 - 1)), None);
    let half = T.plus(LIFE / 2);
    assert_eq!(store.next_call(half), Some(request("graph")));
    check(&store, half, "Bearer a");
    store.on_result(&request("graph"), TokenCallResult::Issued(issued("b", half)), half);
    check(&store, half, "Bearer b");
    assert_eq!(store.next_call(half.plus(LIFE / 2 - 1)), None);
    assert_eq!(store.next_call(half.plus(LIFE / 2)), Some(request("graph")));
}

#[test]
fn o06_a_token_is_not_used_in_its_last_30_seconds() {
    let mut store = holding("a");
    check(&store, T.plus(LIFE - 31), "Bearer a");
    check(&store, T.plus(LIFE - 30), "wait");
    let late = T.plus(LIFE - 30);
    store.next_call(late);
    check(&store, late, "wait");
    store.on_result(&request("graph"), TokenCallResult::Failed, late);
    check(&store, late, "token_unavailable 1");
}

#[test]
fn a_failed_renewal_keeps_the_token() {
    let mut store = holding("a");
    let half = T.plus(LIFE / 2);
    store.next_call(half);
    store.on_result(&request("graph"), refused(ErrorKind::Credential, None), half);
    check(&store, half, "Bearer a");
    check(&store, T.plus(LIFE - 31), "Bearer a");
    check(&store, half.plus(1), "Bearer a");
    assert_eq!(store.next_call(half), None);
    assert_eq!(store.next_call(half.plus(1)), Some(request("graph")));
}

#[test]
fn b08_a_disabled_principals_token_is_no_longer_used() {
    let half = T.plus(LIFE / 2);
    let challenge = TokenRequest {
        claims: Some("{}".to_owned()),
        refused: Some("h".to_owned()),
        ..request("graph")
    };
    for call in [request("graph"), challenge] {
        let mut store = holding("a");
        for (after, text) in [(0, "token_denied 20"), (19, "token_denied 1"), (20, "wait")] {
            store.on_result(&call, refused(ErrorKind::Disabled, Some(20)), half);
            check(&store, half.plus(after), text);
            assert_eq!(store.next_call(half.plus(after)).is_some(), text == "wait");
        }
        // An attempt that Envoy makes again still carries it, however often that was said.
        assert!(store.is_ours(b"Bearer a"));
        let again = half.plus(20);
        store.on_result(&request("graph"), TokenCallResult::Issued(issued("b", again)), again);
        check(&store, again, "Bearer b");
    }
}

#[test]
fn b05_an_identity_that_the_pod_has_lost_is_no_longer_used() {
    let mut store = holding("a");
    let half = T.plus(LIFE / 2);
    store.next_call(half);
    store.on_result(&request("graph"), refused(ErrorKind::Denied, None), half);
    check(&store, half, "token_denied 1");
    assert_eq!(store.next_call(half.plus(1)), Some(request("graph")));
    store.on_result(&request("graph"), TokenCallResult::Issued(issued("b", half)), half.plus(1));
    check(&store, half.plus(1), "Bearer b");
}

#[test]
fn an_answer_that_ends_too_soon_leaves_the_token_that_is_held() {
    let half = T.plus(LIFE / 2);
    for (seconds, expected) in [(30, "Bearer a"), (31, "Bearer b")] {
        let mut store = holding("a");
        store.next_call(half);
        let short = IssuedToken { expires_on: half.0 + seconds, ..issued("b", half) };
        store.on_result(&request("graph"), TokenCallResult::Issued(short), half);
        check(&store, half, expected);
    }
}

#[test]
fn the_same_token_again_is_asked_for_no_more_than_every_five_seconds() {
    let mut store = holding("a");
    let half = T.plus(LIFE / 2);
    store.next_call(half);
    store.on_result(&request("graph"), TokenCallResult::Issued(issued("a", T)), half);
    check(&store, half, "Bearer a");
    assert_eq!(store.next_call(half.plus(4)), None);
    assert_eq!(store.next_call(half.plus(5)), Some(request("graph")));
    assert_eq!(store.age(half), Some(LIFE / 2));
    // The same one is no rotation: what was before it is still not ours.
    store.on_result(&request("graph"), TokenCallResult::Issued(issued("b", half)), half);
    assert_eq!(store.age(half), Some(0));
    assert!(store.is_ours(b"Bearer a"));
    store.next_call(half.plus(LIFE / 2));
    let again = TokenCallResult::Issued(issued("b", half));
    store.on_result(&request("graph"), again, half.plus(LIFE / 2));
    assert!(store.is_ours(b"Bearer a"));
}

#[test]
fn a_new_token_that_is_already_due_is_left_alone_for_a_second() {
    let due = IssuedToken { refresh_on: 0, ..issued("a", T) };
    let mut store = answered(TokenCallResult::Issued(due), T);
    assert_eq!(store.next_call(T), None);
    assert_eq!(store.next_call(T.plus(1)), Some(request("graph")));
}

#[test]
fn a_token_is_asked_for_when_the_last_is_no_longer_used_whatever_the_answer_says() {
    for refresh_on in [T.0 + LIFE - 29, T.0 + LIFE, u64::MAX] {
        let never = IssuedToken { refresh_on, ..issued("a", T) };
        let mut store = answered(TokenCallResult::Issued(never), T);
        check(&store, T.plus(LIFE - 31), "Bearer a");
        assert_eq!(store.next_call(T.plus(LIFE - 31)), None);
        check(&store, T.plus(LIFE - 30), "wait");
        assert_eq!(store.next_call(T.plus(LIFE - 30)), Some(request("graph")));
    }
}

#[test]
fn o06_o10_answers_that_are_not_to_the_question_are_refused() {
    let good = issued("a", T);
    let header = |text: &str| IssuedToken { access_token: Secret::new(text), ..good.clone() };
    for (answer, expected) in [
        (good.clone(), "Bearer a"),
        (IssuedToken { token_type: "bearer".to_owned(), ..good.clone() }, "Bearer a"),
        (IssuedToken { token_type: "PoP".to_owned(), ..good.clone() }, ""),
        (IssuedToken { token_type: String::new(), ..good.clone() }, ""),
        (IssuedToken { identity: "other".to_owned(), ..good.clone() }, ""),
        (IssuedToken { identity: "Default".to_owned(), ..good.clone() }, ""),
        (IssuedToken { scope: "https://vault.example/.default".to_owned(), ..good.clone() }, ""),
        (IssuedToken { scope: String::new(), ..good.clone() }, ""),
        (IssuedToken { expires_on: 0, ..good.clone() }, ""),
        (IssuedToken { expires_on: T.0 + 30, ..good.clone() }, ""),
        (IssuedToken { expires_on: T.0 + 31, ..good.clone() }, "Bearer a"),
        (IssuedToken { expires_on: u64::MAX, ..good.clone() }, "Bearer a"),
        (header("a.b-c_d~+/="), "Bearer a.b-c_d~+/="),
        (header(""), ""),
        (header("a\r\nx-evil: 1"), ""),
        (header("a\0"), ""),
        (header("a b"), ""),
        (header("a,b"), ""),
        (header("\u{e9}"), ""),
    ] {
        let shown = format!("{answer:?}");
        assert!(!shown.contains("evil"), "{shown}");
        let store = answered(TokenCallResult::Issued(answer), T);
        let expected = if expected.is_empty() { "token_unavailable 1" } else { expected };
        check(&store, T, expected);
    }
}

#[test]
fn an_answer_to_a_question_of_nobody_is_ignored() {
    let mut store = holding("a");
    let stranger = TokenRequest { destination: "vault".to_owned(), ..request("graph") };
    store.on_result(&stranger, TokenCallResult::Issued(issued("b", T)), T);
    check(&store, T, "Bearer a");
    let refused = TokenAnswer::Refused { reason: Reason::TokenDenied, retry_after: 1, error: None };
    assert_eq!(store.ask(&stranger, T), refused);
    assert!(!store.is_ours(b"Bearer b"));
}

#[test]
fn what_waiting_cannot_mend_is_denied_and_all_else_unavailable() {
    for (kind, expected) in [
        (ErrorKind::Transient, "token_unavailable 1"),
        (ErrorKind::Throttled, "token_unavailable 1"),
        (ErrorKind::Credential, "token_unavailable 1"),
        (ErrorKind::Config, "token_unavailable 1"),
        (ErrorKind::ClaimsChallenge, "token_denied 1"),
        (ErrorKind::Disabled, "token_denied 1"),
        (ErrorKind::Denied, "token_denied 1"),
    ] {
        check(&answered(refused(kind, None), T), T, expected);
    }
    check(&answered(TokenCallResult::Failed, T), T, "token_unavailable 1");
    // The next answer counts, not the last refusal.
    let mut store = answered(refused(ErrorKind::Denied, None), T);
    store.next_call(T.plus(1));
    store.on_result(&request("graph"), TokenCallResult::Failed, T.plus(1));
    check(&store, T.plus(1), "token_unavailable 2");
}

#[test]
fn failures_back_off_to_thirty_seconds_and_begin_anew_after_a_token() {
    let (mut store, mut now) = (store(), T);
    for pause in [1, 2, 4, 8, 16, 30, 30] {
        assert_eq!(store.next_call(now), Some(request("graph")));
        store.on_result(&request("graph"), TokenCallResult::Failed, now);
        check(&store, now, &format!("token_unavailable {pause}"));
        check(&store, now.plus(pause - 1), "token_unavailable 1");
        assert_eq!(store.next_call(now.plus(pause - 1)), None);
        now = now.plus(pause);
        check(&store, now, "wait");
    }
    for _ in 0..100 {
        assert_eq!(store.next_call(now), Some(request("graph")));
        store.on_result(&request("graph"), TokenCallResult::Failed, now);
        now = now.plus(30);
    }
    store.next_call(now);
    store.on_result(&request("graph"), TokenCallResult::Issued(issued("a", now)), now);
    let late = now.plus(LIFE);
    store.next_call(late);
    store.on_result(&request("graph"), TokenCallResult::Failed, late);
    check(&store, late, "token_unavailable 1");
}

#[test]
fn the_brokers_own_pause_is_kept_within_bounds() {
    for (asked, pause) in [(0, 1), (1, 1), (7, 7), (299, 299), (300, 300), (301, 300)] {
        let mut store = answered(refused(ErrorKind::Throttled, Some(asked)), T);
        check(&store, T, &format!("token_unavailable {pause}"));
        assert_eq!(store.next_call(T.plus(pause - 1)), None);
        assert_eq!(store.next_call(T.plus(pause)), Some(request("graph")));
    }
    let endless = refused(ErrorKind::Throttled, Some(u64::MAX));
    check(&answered(endless, T), T, "token_unavailable 300");
}

#[test]
fn ours_are_the_last_two_tokens_and_no_others() {
    let mut store = holding("a");
    let mut now = T;
    for text in ["b", "c"] {
        now = now.plus(LIFE / 2);
        store.next_call(now);
        store.on_result(&request("graph"), TokenCallResult::Issued(issued(text, now)), now);
    }
    for (authorization, expected) in [
        (&b"Bearer c"[..], true),
        (b"Bearer b", true),
        (b"Bearer a", false),
        (b"bearer c", false),
        (b"c", false),
        (b"Bearer c,Bearer c", false),
        (b"", false),
        (b"\xff", false),
    ] {
        assert_eq!(store.is_ours(authorization), expected);
    }
    assert!(!TokenStore::new([request("graph")]).is_ours(b""));
}

#[test]
fn every_destination_has_its_own_token() {
    let mut store = TokenStore::new([request("graph"), request("vault")]);
    let mut asked = vec![store.next_call(T).unwrap(), store.next_call(T).unwrap()];
    asked.sort_by(|a, b| a.destination.cmp(&b.destination));
    assert_eq!(asked, [request("graph"), request("vault")]);
    assert_eq!(store.next_call(T), None);
    store.on_result(&request("vault"), TokenCallResult::Issued(issued("v", T)), T);
    check(&store, T, "wait");
    // Ours it is wherever it turns up.
    assert!(store.is_ours(b"Bearer v"));
}

#[test]
fn c05_after_the_clock_was_set_back_the_broker_is_asked_as_soon_as_ever() {
    let back = UnixTime(T.0 - 3600);
    let mut store = answered(TokenCallResult::Failed, T);
    check(&store, back, "wait");
    assert_eq!(store.next_call(back), Some(request("graph")));
    // A longest pause is none of these.
    let longest = refused(ErrorKind::Throttled, Some(300));
    store.on_result(&request("graph"), longest, back);
    assert_eq!(store.next_call(back), None);
    // What is held stays in use; how old it is nobody knows, so the broker is asked, once.
    let mut store = holding("a");
    check(&store, back, "Bearer a");
    assert_eq!(store.next_call(back), Some(request("graph")));
    store.on_result(&request("graph"), TokenCallResult::Issued(issued("a", T)), back);
    assert_eq!(store.next_call(back), None);
}

#[test]
fn the_age_is_that_of_the_oldest_token() {
    let mut store = TokenStore::new([request("graph"), request("vault")]);
    assert_eq!(store.age(T), None);
    store.on_result(&request("graph"), TokenCallResult::Issued(issued("g", T)), T);
    assert_eq!(store.age(T.plus(7)), Some(7));
    let later = T.plus(5);
    store.on_result(&request("vault"), TokenCallResult::Issued(issued("v", later)), later);
    assert_eq!(store.age(T.plus(7)), Some(7));
    assert_eq!(store.age(T), Some(0));
}

#[test]
fn no_token_is_shown_by_debug() {
    let shown = format!("{:?}", holding("s3cret"));
    assert!(!shown.contains("s3cret"), "{shown}");
}
