//! What is held for users: for how long, how it is renewed, what a refusal of the broker means, and
//! how much it may be.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::*;

const CLAIMS: &str = r#"{"access_token":{"polids":{"essential":true,"values":["<g/+>"]}}}"#;

/// Tokens of many users: signing them takes a while, so all tests have the same.
static USERS: LazyLock<Vec<String>> =
    LazyLock::new(|| (0..140).map(|number| token_of(&format!("user-{number}"))).collect());

/// A call that waits, and the broker's answer to it.
fn answered(result: impl FnOnce(&TokenRequest) -> TokenCallResult) -> (Outbound, Attempt<'static>) {
    let mut outbound = ready_for_callers();
    let call = calling(&token_of("anna"));
    assert_eq!(told(&mut outbound, &call), "wait");
    let request = outbound.next_call(NOW).unwrap();
    let result = result(&request);
    outbound.on_result(&request, result, NOW);
    (outbound, call)
}

fn challenged(claims: Option<&str>) -> TokenCallResult {
    match refused(ErrorKind::ClaimsChallenge, Some(600)) {
        Refused(error) => Refused(TypedError { claims: claims.map(str::to_owned), ..error }),
        other => other,
    }
}

#[test]
fn a_token_is_renewed_while_it_is_used_and_not_after() {
    let (mut outbound, call) = answered(|request| exchanged(request, "first", NOW.0 + 3600));
    // Time alone asks for nothing.
    let due = NOW.plus(1800);
    let own = std::iter::from_fn(|| outbound.next_call(due)).collect::<Vec<_>>();
    assert!(own.iter().all(|request| request.assertion.is_none()), "{own:?}");
    // A call does, and has the token that is still good meanwhile.
    assert_eq!(told_at(&mut outbound, &call, due), "injected Bearer first");
    assert_eq!(told_at(&mut outbound, &call, due), "injected Bearer first");
    let renewal = outbound.next_call(due).unwrap();
    assert!(renewal.assertion.is_some());
    assert_eq!(outbound.next_call(due), None);
    // A renewal that fails takes nothing away.
    outbound.on_result(&renewal, Failed, due);
    assert_eq!(told_at(&mut outbound, &call, due), "injected Bearer first");
    assert_eq!(outbound.next_call(due), None);
    let later = due.plus(1);
    assert_eq!(told_at(&mut outbound, &call, later), "injected Bearer first");
    let renewal = outbound.next_call(later).unwrap();
    let answer = exchanged(&renewal, "second", NOW.0 + 7200);
    outbound.on_result(&renewal, answer, later);
    assert_eq!(told_at(&mut outbound, &call, later), "injected Bearer second");
}

#[test]
fn a_token_is_not_used_in_its_last_seconds() {
    let (mut outbound, call) = answered(|request| exchanged(request, "first", NOW.0 + 600));
    assert_eq!(told_at(&mut outbound, &call, NOW.plus(569)), "injected Bearer first");
    let late = NOW.plus(570);
    let request = outbound.next_call(late).unwrap();
    assert_eq!(told_at(&mut outbound, &call, late), "wait");
    outbound.on_result(&request, Failed, late);
    assert_eq!(told_at(&mut outbound, &call, late), "503 token_unavailable");
}

#[test]
fn o06_an_answer_to_another_question_is_refused() {
    for wrong in ["scope", "identity", "type", "expired", "text"] {
        let (mut outbound, call) = answered(|request| {
            let Issued(mut token) = exchanged(request, "first", NOW.0 + 3600) else { panic!() };
            match wrong {
                "scope" => token.scope = SCOPE.to_owned(),
                "identity" => token.identity = "other".to_owned(),
                "type" => token.token_type = "PoP".to_owned(),
                "expired" => token.expires_on = NOW.0 + 30,
                _ => token.access_token = Secret::new("a b"),
            }
            Issued(token)
        });
        assert_eq!(told(&mut outbound, &call), "503 token_unavailable", "{wrong}");
    }
}

#[test]
fn what_the_broker_refuses_is_told_by_its_kind_and_not_asked_again_at_once() {
    for (kind, retry_after, expected, pause) in [
        (ErrorKind::Transient, None, "503 token_unavailable", 1),
        (ErrorKind::Throttled, Some(40), "503 token_unavailable", 40),
        (ErrorKind::Credential, None, "503 token_unavailable", 1),
        (ErrorKind::Config, None, "503 token_unavailable", 1),
        (ErrorKind::Denied, Some(60), "403 token_denied", 60),
        (ErrorKind::Disabled, Some(60), "403 token_denied", 60),
        // Without claims there is nothing to answer but to sign in again.
        (ErrorKind::ClaimsChallenge, Some(60), "401 sign_in_required", 60),
    ] {
        let (mut outbound, call) = answered(|_| refused(kind, retry_after));
        assert_eq!(told(&mut outbound, &call), expected, "{kind:?}");
        if let Effect::Reply(reply, _) = ask_at(&mut outbound, &call, NOW)
            && reply.status == 503
        {
            assert!(reply.headers.contains(&("retry-after", pause.to_string())), "{kind:?}");
        }
        let before = NOW.plus(pause - 1);
        assert_eq!(told_at(&mut outbound, &call, before), expected, "{kind:?}");
        assert_eq!(outbound.next_call(before), None, "{kind:?}");
        // Another user is another question.
        assert_eq!(told(&mut outbound, &calling(&token_of("bert"))), "wait", "{kind:?}");
        assert!(outbound.next_call(NOW).is_some());
        assert_eq!(told_at(&mut outbound, &call, NOW.plus(pause)), "wait", "{kind:?}");
        assert!(outbound.next_call(NOW.plus(pause)).is_some(), "{kind:?}");
    }
}

#[test]
fn what_is_held_of_a_disabled_or_signed_out_user_goes_nowhere_any_more() {
    for (refusal, expected) in [
        (refused(ErrorKind::Disabled, None), "403 token_denied"),
        (challenged(None), "401 sign_in_required"),
        // A stronger sign-in is asked for the next token: this one is as good as it was.
        (challenged(Some(CLAIMS)), "injected Bearer first"),
    ] {
        let (mut outbound, call) = answered(|request| exchanged(request, "first", NOW.0 + 3600));
        let due = NOW.plus(1800);
        assert_eq!(told_at(&mut outbound, &call, due), "injected Bearer first");
        let mut renewals = std::iter::from_fn(|| outbound.next_call(due));
        let renewal = renewals.find(|request| request.assertion.is_some()).unwrap();
        outbound.on_result(&renewal, refusal, due);
        assert_eq!(told_at(&mut outbound, &call, due), expected);
    }
}

#[test]
fn a_claims_challenge_of_entra_goes_to_the_caller_unchanged() {
    let (mut outbound, call) = answered(|_| challenged(Some(CLAIMS)));
    let Effect::Reply(reply, decision) = ask_at(&mut outbound, &call, NOW) else { panic!() };
    assert_eq!((reply.status, decision.reason), (401, Reason::ClaimsRequired));
    let expected = format!(
        "Bearer authorization_uri=\"{}\", error=\"insufficient_claims\", claims=\"{}\"",
        Cloud::Public.authorization_uri(TENANT),
        STANDARD.encode(CLAIMS),
    );
    assert_eq!(reply.headers[0], ("www-authenticate", expected.clone()));
    // As a client reads it.
    let read = crate::www_authenticate::claims([expected.as_bytes()]);
    assert_eq!(read.as_deref(), Some(CLAIMS));
    let body: Value = serde_json::from_str(&reply.body).unwrap();
    assert_eq!(
        (&body["status"], &body["title"], &body["claims"], &body["kind"]),
        (&json!(401), &json!("Unauthorized"), &json!(CLAIMS), &json!("claims_challenge"))
    );
    // gRPC callers get the header with their own status.
    let grpc = || Protocol::Grpc;
    let effect = outbound.on_request(&call, true, NOW, grpc, &tokens::verify);
    let Effect::Reply(reply, _) = effect else { panic!() };
    assert_eq!((reply.status, reply.grpc_status), (401, Some(16)));
    // Who has stepped up comes with another token, and is not held to the old refusal.
    let stepped_up = KEY.token(&with(user("anna"), json!({"uti": "later", "acrs": ["c1"]})));
    assert_eq!(told(&mut outbound, &calling(&stepped_up)), "wait");
}

#[test]
fn claims_that_no_client_could_answer_are_no_challenge() {
    for claims in ["", "x", "[]", "{\"a\":1,\"a\":2}", "{\"a\":\"\u{e9}\"}", "{\"a\":\"\n\"}"] {
        let (mut outbound, call) = answered(|_| challenged(Some(claims)));
        assert_eq!(told(&mut outbound, &call), "401 sign_in_required", "{claims}");
        let Effect::Reply(reply, _) = ask_at(&mut outbound, &call, NOW) else { panic!() };
        let (_, value) = &reply.headers[0];
        assert!(value.ends_with("error=\"invalid_token\""), "{value}");
        assert!(reply.body.contains("sign in again") && !reply.body.contains("\"claims\""));
    }
}

#[test]
fn calls_to_the_broker_are_bounded_and_whoever_waits_is_served_in_turn() {
    let mut outbound = ready_for_callers();
    let callers: Vec<_> = USERS.iter().take(130).map(|token| calling(token)).collect();
    for call in &callers {
        assert_eq!(told(&mut outbound, call), "wait");
    }
    let mut made: Vec<_> = std::iter::from_fn(|| outbound.next_call(NOW)).collect();
    assert_eq!(made.len(), 128);
    for call in &callers {
        assert_eq!(told(&mut outbound, call), "wait");
    }
    assert_eq!(outbound.next_call(NOW), None);
    // Each answer, also a useless one, makes room for another call.
    for request in made.split_off(126) {
        outbound.on_result(&request, Failed, NOW);
    }
    for call in &callers[128..] {
        assert_eq!(told(&mut outbound, call), "wait");
    }
    let more: Vec<_> = std::iter::from_fn(|| outbound.next_call(NOW)).collect();
    assert_eq!(more.len(), 2);
}

#[test]
fn what_is_held_for_users_is_bounded_and_the_one_unused_longest_goes_first() {
    // Each user's token is exchanged for a large one: some 130 fit.
    let large = |number: usize| format!("{number}{}", "x".repeat(30 * 1024));
    let mut outbound = ready_for_callers();
    let held = |outbound: &mut Outbound, number: usize| {
        let holds = told(outbound, &calling(&USERS[number])) != "wait";
        while let Some(request) = outbound.next_call(NOW) {
            outbound.on_result(&request, Failed, NOW);
        }
        holds
    };
    for (number, token) in USERS.iter().enumerate() {
        exchange(&mut outbound, token, &large(number));
        // The first is used all the time.
        assert!(held(&mut outbound, 0));
    }
    assert!(held(&mut outbound, 139) && held(&mut outbound, 100));
    assert!(!held(&mut outbound, 1) && !held(&mut outbound, 2));
}

#[test]
fn nothing_that_is_being_asked_for_is_forgotten() {
    let large = |number: usize| format!("{number}{}", "x".repeat(30 * 1024));
    let mut outbound = ready_for_callers();
    let first = token_of("first");
    assert_eq!(told(&mut outbound, &calling(&first)), "wait");
    let request = outbound.next_call(NOW).unwrap();
    for (number, token) in USERS.iter().enumerate() {
        exchange(&mut outbound, token, &large(number));
    }
    let answer = exchanged(&request, "graph-for-first", NOW.0 + 3600);
    outbound.on_result(&request, answer, NOW);
    assert_eq!(told(&mut outbound, &calling(&first)), "injected Bearer graph-for-first");
}
