//! Attempts that Envoy makes again carry what we set: never an assertion, and never let go elsewhere.

use super::*;

const HELD: &str = "injected Bearer graph-for-anna";

/// The attempt that Envoy makes after one that went out with this token.
fn retried(destination: &str, token: &str) -> Attempt<'static> {
    let destination: &'static str = Box::leak(destination.to_owned().into_boxed_str());
    let authorization = Some(format!("Bearer {token}").into_bytes());
    Attempt { injected: true, authorization, ..attempt(destination) }
}

fn held_for_anna() -> Outbound {
    let mut outbound = ready_for_callers();
    exchange(&mut outbound, &token_of("anna"), "graph-for-anna");
    outbound
}

#[test]
fn o17_a_retried_attempt_gets_the_token_that_is_good_now() {
    let mut outbound = held_for_anna();
    assert_eq!(told(&mut outbound, &retried("graph", "graph-for-anna")), HELD);
    // Renewed since the first attempt.
    let due = NOW.plus(1800);
    let user = calling(&token_of("anna"));
    assert_eq!(told_at(&mut outbound, &user, due), HELD);
    let renewal = std::iter::from_fn(|| outbound.next_call(due));
    let renewal = renewal.into_iter().find(|request| request.assertion.is_some()).unwrap();
    let answer = exchanged(&renewal, "renewed", NOW.0 + 7200);
    outbound.on_result(&renewal, answer, due);
    for carried in ["graph-for-anna", "renewed"] {
        let told = told_at(&mut outbound, &retried("graph", carried), due);
        assert_eq!(told, "injected Bearer renewed");
        // Who has got hold of either is not Anna.
        let shown = Attempt { injected: false, ..retried("graph", carried) };
        assert_eq!(told_at(&mut outbound, &shown, due), "401 token_malformed");
    }
}

#[test]
fn o17_a_retry_ends_with_the_assertion_of_the_first_attempt() {
    let mut outbound = held_for_anna();
    let late = NOW.plus(3600);
    let told = told_at(&mut outbound, &retried("graph", "graph-for-anna"), late);
    assert_eq!(told, "401 token_expired");
}

#[test]
fn o17_what_we_injected_is_never_an_assertion() {
    // A token that would pass as one: a user's, for this very application, and well signed.
    let injected = KEY.token(&with(user("anna"), json!({"uti": "exchanged"})));
    let vault = json!({"identity": "default", "scope": USER_READ, "on_behalf_of": "caller"});
    let mut config = config();
    config["rules"].as_array_mut().unwrap().push(rule("vault", json!({"token": vault})));
    let mut outbound = equipped(&config);
    exchange(&mut outbound, &token_of("anna"), &injected);
    // The record of the attempt before alone makes it the retry that it looks like, and that only
    // at its own destination.
    let again = format!("injected Bearer {injected}");
    assert_eq!(told(&mut outbound, &retried("graph", &injected)), again);
    assert_eq!(told(&mut outbound, &retried("vault", &injected)), "401 assertion_refused");
    // Shown by anybody else it opens nothing.
    for destination in ["graph", "vault"] {
        let shown = Attempt { injected: false, ..retried(destination, &injected) };
        assert_eq!(told(&mut outbound, &shown), "401 assertion_refused");
    }
    assert_eq!(outbound.next_call(NOW), None, "it was taken for an assertion");
    // Nor is the application's own token, though it were a user's.
    let mut outbound = filter_of(&config);
    outbound.callers().unwrap().next_call(NOW);
    outbound.callers().unwrap().on_keys(&keys(&[&KEY]), NOW);
    let own = outbound.next_call(NOW).unwrap();
    outbound.on_result(&own, issued(&injected), NOW);
    assert_eq!(told(&mut outbound, &calling(&injected)), "401 assertion_refused");
    assert_eq!(outbound.next_call(NOW), None);
}

#[test]
fn o17_a_forgotten_token_is_no_assertion_either_and_the_caller_is_not_blamed() {
    let forgotten = KEY.token(&with(user("anna"), json!({"uti": "exchanged"})));
    let mut outbound = ready_for_callers();
    assert_eq!(told(&mut outbound, &retried("graph", &forgotten)), "503 token_unavailable");
    assert_eq!(outbound.next_call(NOW), None, "it was taken for an assertion");
    // Not even where it is one that was exchanged before.
    exchange(&mut outbound, &forgotten, "graph-for-anna");
    assert_eq!(told(&mut outbound, &retried("graph", &forgotten)), "503 token_unavailable");
}

#[test]
fn o17_o11_a_users_token_never_goes_to_another_destination() {
    for (existing, forgotten) in
        [("refuse", false), ("keep", false), ("replace", false), ("keep", true)]
    {
        let mut config = config();
        config["rules"][1]["existing_authorization"] = json!(existing);
        let mut outbound = equipped(&config);
        exchange(&mut outbound, &token_of("anna"), "graph-for-anna");
        // The record of the attempt before tells, though the token be forgotten.
        let carried = if forgotten { "forgotten" } else { "graph-for-anna" };
        let told_own = told(&mut outbound, &retried("own", carried));
        assert_eq!(told_own, "injected Bearer the-applications-own", "{existing}");
        let elsewhere = retried("elsewhere", carried);
        assert_eq!(told(&mut outbound, &elsewhere), "no_destination removed");
        let nowhere = Attempt { destination: None, ..retried("x", carried) };
        assert_eq!(told(&mut outbound, &nowhere), "no_destination removed");
    }
}
