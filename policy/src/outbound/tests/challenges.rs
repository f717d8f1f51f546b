//! Challenges put to the outbound decision: which count, who asks the broker, who goes again.

use super::*;

const CLAIMS: &str = r#"{"access_token":{"nbf":{"essential":true,"value":"1604106651"}}}"#;

fn challenge_with(claims: &str) -> Vec<u8> {
    use base64::Engine;
    let claims = base64::engine::general_purpose::STANDARD.encode(claims);
    format!(r#"Bearer realm="", error="insufficient_claims", claims="{claims}""#).into_bytes()
}

/// A token that is known to the broker by its text.
pub(super) fn named(text: &str) -> TokenCallResult {
    match issued(text) {
        Issued(token) => Issued(IssuedToken { token_hash: Some(format!("hash-{text}")), ..token }),
        other => other,
    }
}

/// One destination that answers challenges, with the token `first`.
fn holding_first() -> Outbound {
    let mut outbound = outbound(json!([rule("graph", json!({"claims_challenges": true}))]));
    let request = outbound.next_call(NOW).unwrap();
    assert!(request.claims_challenges);
    outbound.on_result(&request, named("first"), NOW);
    outbound
}

pub(super) fn injected(destination: &str, token: &str) -> Injected {
    let token = Rc::new(Secret::new(format!("Bearer {token}")));
    Injected { destination: destination.to_owned(), token }
}

/// A response, and what is different about it.
pub(super) struct Response<'a> {
    pub(super) status: &'a str,
    pub(super) authenticate: Vec<u8>,
    pub(super) injected: Injected,
    pub(super) replayed: bool,
    pub(super) may_wait: bool,
    pub(super) now: UnixTime,
}

impl Default for Response<'_> {
    fn default() -> Self {
        Self {
            status: "401",
            authenticate: challenge_with(CLAIMS),
            injected: injected("graph", "first"),
            replayed: false,
            may_wait: true,
            now: NOW,
        }
    }
}

pub(super) fn respond(outbound: &mut Outbound, response: &Response<'_>) -> ResponseEffect {
    let lines = [
        (&b":status"[..], response.status.as_bytes()),
        (b"www-authenticate", &response.authenticate),
        (b"x-other", b"1"),
    ];
    let head = Challenged::read(lines.into_iter());
    let replayed = || response.replayed;
    outbound.on_challenge(&response.injected, &head, replayed, response.may_wait, response.now)
}

/// The attempt that Envoy makes after our asking: it still carries what the first one did.
fn replay(token: &str) -> Attempt<'static> {
    let authorization = Some(format!("Bearer {token}").into_bytes());
    Attempt { replayed: true, authorization, ..attempt("graph") }
}

fn check_replay(outbound: &mut Outbound, expected: &str, newer: Option<bool>) {
    let attempt = replay("first");
    check(outbound, &attempt, expected);
    let effect = outbound.on_request(&attempt, true, NOW, Protocol::default, &tokens::verify);
    assert_eq!(outbound.replayed_with_newer(&attempt, &effect), newer, "{expected}");
}

#[test]
fn o07_a_challenged_attempt_is_made_again_and_waits_for_the_new_token() {
    let mut outbound = holding_first();
    assert_eq!(respond(&mut outbound, &Response::default()), ResponseEffect::Replay);
    check_replay(&mut outbound, "wait", None);
    // One call, for all who are challenged meanwhile.
    let call = outbound.next_call(NOW).unwrap();
    assert_eq!(call.claims.as_deref(), Some(CLAIMS));
    assert_eq!(call.refused.as_deref(), Some("hash-first"));
    for _ in 0..1_000 {
        assert_eq!(respond(&mut outbound, &Response::default()), ResponseEffect::Replay);
    }
    assert_eq!(outbound.next_call(NOW), None);
    check_replay(&mut outbound, "wait", None);
    // Others are not held up: whether the token is refused there too is for the API to say.
    // Nor is an attempt that Envoy makes again for reasons of its own.
    for attempt in [attempt("graph"), bringing("graph", b"Bearer first")] {
        check(&mut outbound, &attempt, "injected authorization=Bearer first");
    }

    outbound.on_result(&call, named("second"), NOW);
    check_replay(&mut outbound, "injected authorization=Bearer second", Some(true));
    assert_eq!(outbound.next_call(NOW), None);
    // Who comes late with the old token needs no call, and no place among those who wait.
    let late = Response { may_wait: false, ..Response::default() };
    assert_eq!(respond(&mut outbound, &late), ResponseEffect::Replay);
    assert_eq!(outbound.next_call(NOW), None);
}

#[test]
fn o07_only_our_own_token_refused_for_its_claims_is_a_challenge_and_only_once() {
    let text = |header: &str| header.as_bytes().to_vec();
    for (what, response, expected) in [
        ("status", Response { status: "403", ..Response::default() }, ResponseEffect::Pass),
        ("status", Response { status: "200", ..Response::default() }, ResponseEffect::Pass),
        (
            "error",
            Response {
                authenticate: text(r#"Bearer error="invalid_token""#),
                ..Response::default()
            },
            ResponseEffect::Pass,
        ),
        (
            "claims",
            Response { authenticate: challenge_with(r#"{"id_token":{}}"#), ..Response::default() },
            ResponseEffect::Declined,
        ),
        (
            "claims' size",
            Response {
                authenticate: challenge_with(&format!("{}{CLAIMS}", " ".repeat(4_096))),
                ..Response::default()
            },
            ResponseEffect::Declined,
        ),
        ("again", Response { replayed: true, ..Response::default() }, ResponseEffect::Declined),
        ("waiting", Response { may_wait: false, ..Response::default() }, ResponseEffect::Declined),
        (
            "destination",
            Response { injected: injected("other", "first"), ..Response::default() },
            ResponseEffect::Pass,
        ),
    ] {
        let mut outbound = holding_first();
        assert_eq!(respond(&mut outbound, &response), expected, "{what}");
        assert_eq!(outbound.next_call(NOW), None, "{what}: the broker is asked");
    }
}

#[test]
fn o07_a_rule_that_does_not_say_so_answers_no_challenge() {
    let mut outbound = outbound(json!([rule("graph", json!({}))]));
    let request = outbound.next_call(NOW).unwrap();
    assert!(!request.claims_challenges);
    outbound.on_result(&request, named("first"), NOW);
    assert!(!outbound.answers_challenges("graph"));
    assert!(!outbound.answers_challenges("other"));
    assert_eq!(respond(&mut outbound, &Response::default()), ResponseEffect::Pass);
    assert_eq!(outbound.next_call(NOW), None);
    assert!(holding_first().answers_challenges("graph"));
}

#[test]
fn o07_a_destination_without_tls_is_answered_nothing() {
    let mut outbound = holding_first();
    outbound.on_response("graph", || false);
    assert_eq!(respond(&mut outbound, &Response::default()), ResponseEffect::Declined);
    assert_eq!(outbound.next_call(NOW), None);
}

#[test]
fn o07_a_broker_that_gives_tokens_no_name_is_asked_nothing() {
    let mut outbound = outbound(json!([rule("graph", json!({"claims_challenges": true}))]));
    let request = outbound.next_call(NOW).unwrap();
    outbound.on_result(&request, issued("first"), NOW);
    assert_eq!(respond(&mut outbound, &Response::default()), ResponseEffect::Declined);
    assert_eq!(outbound.next_call(NOW), None);
}

#[test]
fn o07_without_another_token_the_replay_gets_the_challenge_again_and_it_stays() {
    for result in [
        Failed,
        refused(ErrorKind::Transient, None),
        refused(ErrorKind::Throttled, Some(20)),
        refused(ErrorKind::Credential, None),
        refused(ErrorKind::Config, None),
        named("first"),
        issued("no\nheader"),
    ] {
        let shown = format!("{result:?}");
        let mut outbound = holding_first();
        respond(&mut outbound, &Response::default());
        let call = outbound.next_call(NOW).unwrap();
        outbound.on_result(&call, result, NOW);
        check_replay(&mut outbound, "injected authorization=Bearer first", Some(false));
        // The token is still good for whoever is not challenged.
        check(&mut outbound, &attempt("graph"), "injected authorization=Bearer first");
        let again = Response { replayed: true, ..Response::default() };
        assert_eq!(respond(&mut outbound, &again), ResponseEffect::Declined, "{shown}");
    }
}

/// A challenge to `first` that was answered so.
fn challenged_and(result: TokenCallResult) -> Outbound {
    let mut outbound = holding_first();
    respond(&mut outbound, &Response::default());
    let call = outbound.next_call(NOW).unwrap();
    outbound.on_result(&call, result, NOW);
    outbound
}

#[test]
fn b08_a_refusal_for_good_is_told_to_whoever_is_challenged_and_to_no_other() {
    for kind in [ErrorKind::ClaimsChallenge, ErrorKind::Denied] {
        let mut outbound = challenged_and(refused(kind, None));
        check_replay(&mut outbound, "token_denied", Some(false));
        // Also who is challenged later, without a call, and without a place among those who wait.
        let later = Response { may_wait: false, now: NOW.plus(29), ..Response::default() };
        assert_eq!(respond(&mut outbound, &later), ResponseEffect::Replay);
        assert_eq!(outbound.next_call(later.now), None);
        check_replay(&mut outbound, "token_denied", Some(false));
        // The token is still good where it is not challenged.
        for attempt in [attempt("graph"), bringing("graph", b"Bearer first")] {
            check(&mut outbound, &attempt, "injected authorization=Bearer first");
        }
        // Then the broker is asked again, and what it says now counts.
        let later = Response { now: NOW.plus(30), ..Response::default() };
        assert_eq!(respond(&mut outbound, &later), ResponseEffect::Replay);
        check_replay(&mut outbound, "wait", None);
        let effect =
            outbound.on_request(&replay("first"), false, NOW, Protocol::default, &tokens::verify);
        assert_eq!(effect.decision().map(|decision| decision.reason), Some(Reason::Injected));
        let call = outbound.next_call(later.now).unwrap();
        outbound.on_result(&call, Failed, later.now);
        check_replay(&mut outbound, "injected authorization=Bearer first", Some(false));
    }
}

#[test]
fn b08_a_refusal_says_nothing_of_a_token_that_came_meanwhile() {
    let mut outbound = holding_first();
    respond(&mut outbound, &Response::default());
    let challenge = outbound.next_call(NOW).unwrap();
    let renewal = outbound.config().rules[0].token.clone();
    outbound.on_result(&renewal, named("renewed"), NOW);
    outbound.on_result(&challenge, refused(ErrorKind::ClaimsChallenge, None), NOW);
    check_replay(&mut outbound, "injected authorization=Bearer renewed", Some(true));
    check(&mut outbound, &replay("renewed"), "injected authorization=Bearer renewed");
}

#[test]
fn b08_after_a_challenge_a_disabled_principals_token_goes_nowhere() {
    let mut outbound = challenged_and(refused(ErrorKind::Disabled, None));
    check_replay(&mut outbound, "token_denied", Some(false));
    for attempt in [attempt("graph"), bringing("graph", b"Bearer first")] {
        check(&mut outbound, &attempt, "token_denied");
    }
    // Who was under way with it is told so too, when the challenge comes.
    let late = Response { may_wait: false, ..Response::default() };
    assert_eq!(respond(&mut outbound, &late), ResponseEffect::Replay);
    assert!(outbound.next_call(NOW).is_none());
}

#[test]
fn o07_a_destination_that_challenges_everything_does_not_set_the_pace() {
    for (result, pause) in [
        (named("second"), 30),
        (named("first"), 30),
        (refused(ErrorKind::Config, None), 30),
        (refused(ErrorKind::Transient, Some(1)), 30),
        (refused(ErrorKind::Transient, Some(31)), 31),
        (refused(ErrorKind::Throttled, Some(20)), 20),
        (refused(ErrorKind::Throttled, Some(0)), 1),
        (refused(ErrorKind::Throttled, Some(u64::MAX)), 300),
        (Failed, 5),
    ] {
        let shown = format!("{result:?}");
        let token = if matches!(&result, Issued(token) if token.access_token.expose() == "second") {
            "second"
        } else {
            "first"
        };
        let mut outbound = holding_first();
        respond(&mut outbound, &Response::default());
        let call = outbound.next_call(NOW).unwrap();
        outbound.on_result(&call, result, NOW);
        for (after, expected) in
            [(pause - 1, ResponseEffect::Declined), (pause, ResponseEffect::Replay)]
        {
            let now = NOW.plus(after);
            let response =
                Response { injected: injected("graph", token), now, ..Response::default() };
            assert_eq!(respond(&mut outbound, &response), expected, "{shown} after {after} s");
            assert_eq!(outbound.next_call(now).is_some(), expected == ResponseEffect::Replay);
        }
        // A clock that was set back since then tells nothing.
        let mut outbound = holding_first();
        respond(&mut outbound, &Response::default());
        let call = outbound.next_call(NOW).unwrap();
        outbound.on_result(&call, Failed, NOW);
        let now = UnixTime(NOW.0 - 1);
        let back = Response { now, ..Response::default() };
        assert_eq!(respond(&mut outbound, &back), ResponseEffect::Replay);
    }
}

#[test]
fn o07_renewal_and_challenge_do_not_get_in_each_others_way() {
    let mut outbound = holding_first();
    let later = NOW.plus(1_800);
    let renewal = outbound.next_call(later).unwrap();
    assert_eq!(renewal.claims, None);
    let response = Response { now: later, ..Response::default() };
    assert_eq!(respond(&mut outbound, &response), ResponseEffect::Replay);
    let challenge = outbound.next_call(later).unwrap();
    assert!(challenge.claims.is_some());
    assert_eq!(outbound.next_call(later), None);
    // The renewal brings another token: that is enough.
    outbound.on_result(&renewal, named("renewed"), later);
    check_replay(&mut outbound, "injected authorization=Bearer renewed", Some(true));
    outbound.on_result(&challenge, refused(ErrorKind::Throttled, None), later);
    check_replay(&mut outbound, "injected authorization=Bearer renewed", Some(true));
    check(&mut outbound, &attempt("graph"), "injected authorization=Bearer renewed");
}

#[test]
fn o07_a_replay_carries_our_token_however_often_it_was_renewed_since() {
    let mut outbound = holding_first();
    let request = outbound.config().rules[0].token.clone();
    for text in ["second", "third"] {
        outbound.on_result(&request, named(text), NOW);
    }
    // Nobody knows `first` any more; that we asked for the attempt says whose it is.
    check_replay(&mut outbound, "injected authorization=Bearer third", Some(true));
    check(&mut outbound, &bringing("graph", b"Bearer first"), "authorization_refused");
}

#[test]
fn o07_where_too_many_wait_a_replay_goes_out_as_the_first_attempt_did() {
    let mut outbound = holding_first();
    respond(&mut outbound, &Response::default());
    let effect =
        outbound.on_request(&replay("first"), false, NOW, Protocol::default, &tokens::verify);
    assert_eq!(effect.decision().map(|decision| decision.reason), Some(Reason::Injected));
    assert_eq!(outbound.replayed_with_newer(&replay("first"), &effect), Some(false));
}

#[test]
fn o07_a_challenge_is_answered_only_while_the_token_is_good() {
    let mut outbound = holding_first();
    let now = NOW.plus(3_570);
    let late = Response { now, ..Response::default() };
    assert_eq!(respond(&mut outbound, &late), ResponseEffect::Declined);
    assert!(outbound.next_call(now).is_some_and(|call| call.claims.is_none()));
}

#[test]
fn o07_an_attempt_that_is_no_replay_is_counted_as_none() {
    let mut outbound = holding_first();
    for attempt in [attempt("graph"), bringing("graph", b"Bearer first")] {
        let effect = outbound.on_request(&attempt, true, NOW, Protocol::default, &tokens::verify);
        assert_eq!(outbound.replayed_with_newer(&attempt, &effect), None);
    }
}
