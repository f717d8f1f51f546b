//! What is remembered of a token, and for how long.

use std::cell::Cell;

use super::*;

/// Counts how often a signature is checked.
#[derive(Default)]
struct Counter(Cell<usize>);

impl Counter {
    fn ask(&self, inbound: &mut Inbound, request: &Request, now: UnixTime) -> Option<Reason> {
        let verify = |spki: &[u8], text: &[u8], signature: &[u8]| {
            self.0.set(self.0.get() + 1);
            tokens::verify(spki, text, signature)
        };
        reason(&ask_with(inbound, request, true, now, &verify))
    }

    /// Asks, and says whether a signature was checked for it.
    fn check(&self, inbound: &mut Inbound, request: &Request, now: UnixTime, verified: bool) {
        let before = self.0.get();
        assert_eq!(self.ask(inbound, request, now), Some(Reason::Allowed), "{now:?}");
        assert_eq!(self.0.get() - before, usize::from(verified), "{now:?}");
    }
}

#[test]
fn a_token_is_verified_once_in_five_minutes() {
    let (counter, mut inbound) = (Counter::default(), ready(&config()));
    let request = read(&KEY.token(&user()));
    counter.check(&mut inbound, &request, NOW, true);
    counter.check(&mut inbound, &request, NOW, false);
    counter.check(&mut inbound, &request, NOW.plus(300), false);
    counter.check(&mut inbound, &request, NOW.plus(301), true);
    // A use does not make it younger, verifying again does.
    counter.check(&mut inbound, &request, NOW.plus(601), false);
    counter.check(&mut inbound, &request, NOW.plus(602), true);
    assert_eq!(inbound.callers().take_cache_counts(), (3, 3));
    assert_eq!(inbound.callers().take_cache_counts(), (0, 0));
}

#[test]
fn d03_a_cached_token_ends_with_its_own_time() {
    let (counter, mut inbound) = (Counter::default(), ready(&config()));
    let request = read(&KEY.token(&with(user(), json!({"exp": NOW.0 + 100}))));
    counter.check(&mut inbound, &request, NOW, true);
    counter.check(&mut inbound, &request, NOW.plus(160), false);
    let late = counter.ask(&mut inbound, &request, NOW.plus(161));
    assert_eq!(late, Some(Reason::TokenExpired));
}

#[test]
fn c05_after_the_clock_was_set_back_a_token_is_verified_again() {
    let (counter, mut inbound) = (Counter::default(), ready(&config()));
    let request = read(&KEY.token(&user()));
    counter.check(&mut inbound, &request, NOW, true);
    counter.check(&mut inbound, &request, UnixTime(NOW.0 - 1), true);
    counter.check(&mut inbound, &request, UnixTime(NOW.0 - 1), false);
}

#[test]
fn d03_a_cached_token_ends_with_the_keys_it_rests_on() {
    let (counter, mut inbound) = (Counter::default(), inbound(&config()));
    let mut keys = published(&[&KEY]);
    keys.key_sets[0].fetched_at = NOW.0 - 86_400 + 10;
    inbound.callers().next_call(NOW);
    inbound.callers().on_keys(&keys, NOW);
    let request = read(&KEY.token(&user()));
    counter.check(&mut inbound, &request, NOW, true);
    counter.check(&mut inbound, &request, NOW.plus(10), false);
    // The 24 hours of the keys are over.
    assert_ne!(counter.ask(&mut inbound, &request, NOW.plus(11)), Some(Reason::Allowed));
}

#[test]
fn k10_a_removed_key_takes_its_tokens_with_it() {
    let other = SigningKey::new(2, "k2", &Cloud::Public.v2_issuer(TENANT));
    let (counter, mut inbound) =
        (Counter::default(), holding(&config(), &published(&[&KEY, &other])));
    let (removed, stays) = (read(&KEY.token(&user())), read(&other.token(&user())));
    counter.check(&mut inbound, &removed, NOW, true);
    counter.check(&mut inbound, &stays, NOW, true);
    inbound.callers().on_keys(&published(&[&other]), NOW);
    counter.check(&mut inbound, &stays, NOW, false);
    // Newer keys are asked for; that there are none is final.
    assert_eq!(counter.ask(&mut inbound, &removed, NOW), None);
    inbound.callers().next_call(NOW);
    inbound.callers().on_keys(&published(&[&other]), NOW);
    assert_eq!(counter.ask(&mut inbound, &removed, NOW), Some(Reason::KeyUnknown));
    // An authority that is gone takes all of them.
    inbound.callers().on_keys(&KeySets::default(), NOW);
    assert_ne!(counter.ask(&mut inbound, &stays, NOW), Some(Reason::Allowed));
}

#[test]
fn k12_new_material_under_the_same_id_takes_the_old_tokens_with_it() {
    let (counter, mut inbound) = (Counter::default(), ready(&config()));
    let (old, new) = (read(&KEY.token(&user())), read(&FOREIGN_KEY.token(&user())));
    counter.check(&mut inbound, &old, NOW, true);
    assert_eq!(counter.ask(&mut inbound, &new, NOW), Some(Reason::SignatureInvalid));
    inbound.callers().on_keys(&published(&[&FOREIGN_KEY]), NOW);
    assert_eq!(counter.ask(&mut inbound, &old, NOW), Some(Reason::SignatureInvalid));
    counter.check(&mut inbound, &new, NOW, true);
}

#[test]
fn keys_that_stay_the_same_leave_the_cache_alone() {
    let (counter, mut inbound) = (Counter::default(), ready(&config()));
    let request = read(&KEY.token(&user()));
    counter.check(&mut inbound, &request, NOW, true);
    let mut again = published(&[&KEY]);
    again.key_sets[0].fetched_at += 30;
    inbound.callers().on_keys(&again, NOW.plus(30));
    inbound.callers().on_unchanged_keys(NOW.plus(60));
    inbound.callers().on_failure(NOW.plus(90));
    counter.check(&mut inbound, &request, NOW.plus(90), false);
}

#[test]
fn d01_d02_what_is_remembered_is_the_token_and_never_the_verdict() {
    let (counter, mut inbound) = (Counter::default(), ready(&config()));
    let token = KEY.token(&user());
    counter.check(&mut inbound, &read(&token), NOW, true);
    // The same token under a stricter rule is judged by that rule.
    let pay = and(request("POST", "/orders/7/pay"), "authorization", format!("Bearer {token}"));
    assert_eq!(counter.ask(&mut inbound, &pay, NOW), Some(Reason::ScopeMissing));
    counter.check(&mut inbound, &read(&token), NOW, false);
    // And one that only the stricter rule saw is remembered too.
    let scopeless = KEY.token(&with(user(), json!({"scp": "x"})));
    assert_eq!(counter.ask(&mut inbound, &read(&scopeless), NOW), Some(Reason::ScopeMissing));
    assert_eq!(counter.ask(&mut inbound, &read(&scopeless), NOW), Some(Reason::ScopeMissing));
    assert_eq!(counter.0.get(), 2);
    // A token that shares all but its first bytes with a remembered one is another.
    let other = token.replacen("ey", "eX", 1);
    assert_ne!(counter.ask(&mut inbound, &read(&other), NOW), Some(Reason::Allowed));
}

#[test]
fn d04_d05_refused_tokens_are_never_remembered() {
    let (counter, mut inbound) = (Counter::default(), ready(&config()));
    let forged = read(&FOREIGN_KEY.token(&user()));
    for _ in 0..3 {
        assert_eq!(counter.ask(&mut inbound, &forged, NOW), Some(Reason::SignatureInvalid));
    }
    assert_eq!(counter.0.get(), 3);
    // A good token that met missing keys is good as soon as they are there.
    let mut late = super::inbound(&config());
    let good = read(&KEY.token(&user()));
    late.callers().next_call(NOW);
    late.callers().on_failure(NOW);
    assert_eq!(counter.ask(&mut late, &good, NOW), Some(Reason::KeysUnavailable));
    late.callers().next_call(NOW.plus(1));
    late.callers().on_keys(&published(&[&KEY]), NOW.plus(1));
    assert_eq!(counter.ask(&mut late, &good, NOW.plus(1)), Some(Reason::Allowed));
}

#[test]
fn two_filters_share_nothing() {
    let (counter, request) = (Counter::default(), read(&KEY.token(&user())));
    let (mut first, mut second) = (ready(&config()), inbound(&config()));
    counter.check(&mut first, &request, NOW, true);
    assert_eq!(counter.ask(&mut second, &request, NOW), None);
    let elsewhere = with(config(), json!({"audiences": ["api://other"]}));
    let found = counter.ask(&mut ready(&elsewhere), &request, NOW);
    assert_eq!(found, Some(Reason::AudienceMismatch));
}
