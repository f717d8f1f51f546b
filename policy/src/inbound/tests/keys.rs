//! Which key may vouch for a token, and what happens while there is none.

use contract::KeysRefresh;

use super::*;

fn authority(tenant: &str) -> String {
    Cloud::Public.authority_issuer(tenant)
}

fn token_of(tenant: &str, key: &SigningKey) -> String {
    let claims = json!({"tid": tenant, "iss": Cloud::Public.v2_issuer(tenant)});
    key.token(&with(user(), claims))
}

fn any_tenant() -> Value {
    with(config(), json!({"tenants": ["organizations"]}))
}

fn two_tenants() -> Value {
    with(config(), json!({"tenants": [TENANT, OTHER_TENANT]}))
}

fn refresh(issuer: &str, kid: &str) -> KeyCall {
    KeyCall::Refresh(KeysRefresh { issuer: issuer.to_owned(), kid: kid.to_owned() })
}

#[test]
fn j09_k01_another_tenants_key_is_no_key_for_this_one() {
    // Each tenant has its own set, with the same key id in both.
    let other = SigningKey::new(2, "k1", &Cloud::Public.v2_issuer(OTHER_TENANT));
    let sets = vec![
        key_set(&authority(TENANT), NOW, vec![KEY.jwk()]),
        key_set(&authority(OTHER_TENANT), NOW, vec![other.jwk()]),
    ];
    let mut inbound = holding(&two_tenants(), &key_sets(sets));
    check_token(&mut inbound, &token_of(TENANT, &KEY), Reason::Allowed);
    check_token(&mut inbound, &token_of(OTHER_TENANT, &other), Reason::Allowed);
    check_token(&mut inbound, &token_of(TENANT, &other), Reason::SignatureInvalid);
    check_token(&mut inbound, &token_of(OTHER_TENANT, &KEY), Reason::SignatureInvalid);
    // A tenant that is not on the list stays out with its own good key.
    let sets = vec![
        key_set(&authority(TENANT), NOW, vec![KEY.jwk()]),
        key_set(&authority(OTHER_TENANT), NOW, vec![other.jwk()]),
    ];
    let mut inbound = holding(&config(), &key_sets(sets));
    check_token(&mut inbound, &token_of(OTHER_TENANT, &other), Reason::TenantRefused);
}

#[test]
fn k01_k02_a_key_of_one_tenant_does_not_sign_for_another_in_a_common_set() {
    let issuer = Cloud::Public.v2_issuer(OTHER_TENANT);
    let theirs = SigningKey::new(2, "theirs", &issuer);
    let common = SigningKey::new(1, "common", &Cloud::Public.v2_issuer("{tenantid}"));
    let keys = vec![common.jwk(), theirs.jwk()];
    let sets = key_sets(vec![key_set(&authority("organizations"), NOW, keys)]);
    let mut inbound = holding(&any_tenant(), &sets);
    check_token(&mut inbound, &token_of(TENANT, &common), Reason::Allowed);
    check_token(&mut inbound, &token_of(OTHER_TENANT, &common), Reason::Allowed);
    check_token(&mut inbound, &token_of(OTHER_TENANT, &theirs), Reason::Allowed);
    check_token(&mut inbound, &token_of(TENANT, &theirs), Reason::KeyIssuerMismatch);
}

#[test]
fn k03_the_consumers_key_of_a_common_set_signs_for_consumers_alone() {
    let issuer = Cloud::Public.v2_issuer(crate::claims::CONSUMERS_TENANT);
    let consumers = SigningKey::new(2, "consumers", &issuer);
    let sets = key_sets(vec![key_set(&authority("organizations"), NOW, vec![consumers.jwk()])]);
    for config in [any_tenant(), config()] {
        let mut inbound = holding(&config, &sets);
        check_token(&mut inbound, &token_of(TENANT, &consumers), Reason::KeyIssuerMismatch);
    }
}

#[test]
fn j09_a_key_of_another_cloud_does_not_sign_here() {
    let foreign = |instance: &str| {
        let mut key = KEY.jwk();
        key.cloud_instance_name = Some(instance.to_owned());
        let sets = key_sets(vec![key_set(&authority(TENANT), NOW, vec![key])]);
        holding(&config(), &sets)
    };
    let token = KEY.token(&user());
    check_token(&mut foreign("microsoftonline.us"), &token, Reason::KeyIssuerMismatch);
    check_token(&mut foreign("partner.microsoftonline.cn"), &token, Reason::KeyIssuerMismatch);
    check_token(&mut foreign("microsoftonline.com"), &token, Reason::Allowed);
    // The set of another cloud's authority is no set for this tenant.
    let sets = vec![key_set(&Cloud::China.authority_issuer(TENANT), NOW, vec![KEY.jwk()])];
    check_token(&mut holding(&config(), &key_sets(sets)), &token, Reason::KeysUnavailable);
}

#[test]
fn a_tenants_own_keys_come_before_those_of_organizations() {
    let common = SigningKey::new(2, "k1", &Cloud::Public.v2_issuer("{tenantid}"));
    let both = vec![
        key_set(&authority("organizations"), NOW, vec![common.jwk()]),
        key_set(&authority(TENANT), NOW, vec![KEY.jwk()]),
    ];
    let mut inbound = holding(&two_tenants(), &key_sets(both));
    check_token(&mut inbound, &token_of(TENANT, &KEY), Reason::Allowed);
    check_token(&mut inbound, &token_of(TENANT, &common), Reason::SignatureInvalid);
    check_token(&mut inbound, &token_of(OTHER_TENANT, &common), Reason::Allowed);
    // A set of its own without keys is not made up for by the common one.
    let empty = vec![
        key_set(&authority("organizations"), NOW, vec![common.jwk()]),
        key_set(&authority(TENANT), NOW, vec![]),
    ];
    let mut inbound = holding(&two_tenants(), &key_sets(empty));
    check_token(&mut inbound, &token_of(TENANT, &common), Reason::KeysUnavailable);
}

#[test]
fn j05_j10_j11_odd_keys_of_a_set_are_left_out() {
    let set = |keys: Vec<Jwk>| {
        let sets = key_sets(vec![key_set(&authority(TENANT), NOW, keys)]);
        holding(&config(), &sets)
    };
    let symmetric = Jwk { kty: Some("oct".to_owned()), ..KEY.jwk() };
    let encrypting = Jwk { usage: Some("enc".to_owned()), ..KEY.jwk() };
    let short = SigningKey::with_bits(3, 1024, "k1", &Cloud::Public.v2_issuer(TENANT));
    let elsewhere = Jwk { alg: Some("PS256".to_owned()), ..KEY.jwk() };
    let good = KEY.token(&user());
    for odd in [symmetric, encrypting, short.jwk(), elsewhere, Jwk::default()] {
        check_token(&mut set(vec![odd.clone(), KEY.jwk()]), &good, Reason::Allowed);
        check_token(&mut set(vec![KEY.jwk(), odd.clone()]), &good, Reason::Allowed);
        // With nothing else in it the set is none.
        check_token(&mut set(vec![odd]), &good, Reason::KeysUnavailable);
    }
    check_token(&mut set(vec![short.jwk()]), &short.token(&user()), Reason::KeysUnavailable);
    // The same key twice is one key; two keys of one id are none.
    let other = SigningKey::new(2, "k2", &Cloud::Public.v2_issuer(TENANT)).jwk();
    check_token(&mut set(vec![KEY.jwk(), KEY.jwk()]), &good, Reason::Allowed);
    for twice in [
        vec![KEY.jwk(), FOREIGN_KEY.jwk(), other.clone()],
        vec![KEY.jwk(), FOREIGN_KEY.jwk(), KEY.jwk(), other],
    ] {
        let mut inbound = set(twice);
        for token in [&good, &FOREIGN_KEY.token(&user())] {
            assert!(matches!(ask(&mut inbound, &read(token)), Effect::Wait));
        }
    }
}

#[test]
fn k06_without_keys_nobody_passes() {
    let mut inbound = inbound(&config());
    let request = read(&KEY.token(&user()));
    assert!(matches!(ask(&mut inbound, &request), Effect::Wait));
    assert_eq!(inbound.callers().next_call(NOW), Some(KeyCall::Poll));
    assert!(matches!(ask(&mut inbound, &request), Effect::Wait));
    inbound.callers().on_failure(NOW);
    let effect = ask(&mut inbound, &request);
    assert_eq!(reason(&effect), Some(Reason::KeysUnavailable));
    // What needs no token passes all the while.
    let health = ask(&mut inbound, &super::request("GET", "/healthz"));
    assert_eq!(reason(&health), Some(Reason::AllowedAnyone));
    // What needs no key to be refused is refused without waiting.
    check_token(&mut inbound, "bad", Reason::TokenMalformed);
    assert_eq!(inbound.callers().keys_missing(NOW), 1);
    // An answer without any set is no keys.
    assert_eq!(inbound.callers().next_call(NOW.plus(1)), Some(KeyCall::Poll));
    inbound.callers().on_keys(&KeySets::default(), NOW.plus(1));
    let effect = ask_at(&mut inbound, &request, NOW.plus(1));
    assert_eq!(reason(&effect), Some(Reason::KeysUnavailable));
    assert_eq!(inbound.callers().key_age(NOW), None);
}

#[test]
fn k07_k13_the_last_good_keys_serve_for_24_hours() {
    let mut inbound = ready(&config());
    let valid_at = |now: UnixTime| {
        let times = json!({"iat": now.0, "nbf": now.0, "exp": now.0 + 3600});
        read(&KEY.token(&with(user(), times)))
    };
    let last = NOW.plus(86_400);
    for now in [NOW.plus(30), NOW.plus(3600), last] {
        inbound.callers().next_call(now);
        inbound.callers().on_failure(now);
        let found = reason(&ask_at(&mut inbound, &valid_at(now), now));
        assert_eq!(found, Some(Reason::Allowed), "{now:?}");
    }
    assert_eq!(
        (inbound.callers().key_age(last), inbound.callers().keys_missing(last)),
        (Some(86_400), 0)
    );
    let late = last.plus(1);
    assert_eq!(inbound.callers().keys_missing(late), 1);
    let found = reason(&ask_at(&mut inbound, &valid_at(late), late));
    assert_eq!(found, Some(Reason::KeysUnavailable));
}

#[test]
fn an_unknown_key_waits_for_newer_ones_and_then_the_answer_is_final() {
    let next = SigningKey::new(2, "k2", &Cloud::Public.v2_issuer(TENANT));
    let request = read(&next.token(&user()));
    // The newer keys have it.
    let mut inbound = ready(&config());
    assert!(matches!(ask(&mut inbound, &request), Effect::Wait));
    assert_eq!(inbound.callers().next_call(NOW), Some(refresh(&authority(TENANT), "k2")));
    inbound.callers().on_keys(&published(&[&KEY, &next]), NOW);
    assert_eq!(reason(&ask(&mut inbound, &request)), Some(Reason::Allowed));
    check_token(&mut inbound, &KEY.token(&user()), Reason::Allowed);
    // They have not.
    let mut inbound = ready(&config());
    ask(&mut inbound, &request);
    inbound.callers().next_call(NOW);
    inbound.callers().on_keys(&published(&[&KEY]), NOW);
    assert_eq!(reason(&ask(&mut inbound, &request)), Some(Reason::KeyUnknown));
    // The broker is down: that is no proof.
    let mut inbound = ready(&config());
    ask(&mut inbound, &request);
    inbound.callers().next_call(NOW);
    inbound.callers().on_failure(NOW);
    assert_eq!(reason(&ask(&mut inbound, &request)), Some(Reason::KeysUnavailable));
    check_token(&mut inbound, &KEY.token(&user()), Reason::Allowed);
    // The broker limits: another worker may have fetched, so its keys are looked at first.
    let mut inbound = ready(&config());
    ask(&mut inbound, &request);
    inbound.callers().next_call(NOW);
    inbound.callers().on_limit(100, NOW);
    assert!(matches!(ask(&mut inbound, &request), Effect::Wait));
    assert_eq!(inbound.callers().next_call(NOW), Some(KeyCall::Poll));
    inbound.callers().on_unchanged_keys(NOW);
    assert_eq!(reason(&ask(&mut inbound, &request)), Some(Reason::KeyUnknown));
}

#[test]
fn k04_k05_floods_of_unknown_keys_and_tenants_are_one_call() {
    let mut inbound = ready(&config());
    for index in 0..50 {
        let header = json!({"typ": "JWT", "alg": "RS256", "kid": format!("x{index}")});
        let text = with(user(), json!({"uti": index.to_string()})).to_string();
        let token = KEY.sign_text(header.to_string().as_bytes(), text.as_bytes());
        assert!(matches!(ask(&mut inbound, &read(&token)), Effect::Wait));
    }
    assert_eq!(inbound.callers().next_call(NOW), Some(refresh(&authority(TENANT), "x0")));
    assert_eq!(inbound.callers().next_call(NOW), None);
    inbound.callers().on_keys(&published(&[&KEY]), NOW);
    assert_eq!(inbound.callers().next_call(NOW), None);
    // The authority that is asked is ours, whatever tenant the tokens name.
    let keys = vec![SigningKey::new(1, "k1", &Cloud::Public.v2_issuer("{tenantid}")).jwk()];
    let sets = key_sets(vec![key_set(&authority("organizations"), NOW, keys)]);
    let mut inbound = holding(&any_tenant(), &sets);
    for index in 0..20 {
        let tenant = format!("{index:0>8}{}", &OTHER_TENANT[8..]);
        let key = SigningKey::new(2, &format!("x{index}"), "unused");
        assert!(matches!(ask(&mut inbound, &read(&token_of(&tenant, &key))), Effect::Wait));
    }
    assert_eq!(inbound.callers().next_call(NOW), Some(refresh(&authority("organizations"), "x0")));
    assert_eq!(inbound.callers().next_call(NOW), None);
    // A tenant that is not on the list makes nobody ask for anything.
    let mut inbound = ready(&config());
    let key = SigningKey::new(2, "x", "unused");
    check_token(&mut inbound, &token_of(OTHER_TENANT, &key), Reason::TenantRefused);
    assert_eq!(inbound.callers().next_call(NOW), None);
}

#[test]
fn where_too_many_wait_the_next_is_refused() {
    let mut inbound = inbound(&config());
    let request = read(&KEY.token(&user()));
    let effect = ask_with(&mut inbound, &request, false, NOW, &tokens::verify);
    assert_eq!(reason(&effect), Some(Reason::TooManyWaiting));
    inbound.callers().next_call(NOW);
    inbound.callers().on_keys(&published(&[&KEY]), NOW);
    let effect = ask_with(&mut inbound, &request, false, NOW, &tokens::verify);
    assert_eq!(reason(&effect), Some(Reason::Allowed));
}

#[test]
fn k11_old_and_new_keys_are_good_while_both_are_published() {
    let next = SigningKey::new(2, "k2", &Cloud::Public.v2_issuer(TENANT));
    let mut inbound = holding(&config(), &published(&[&KEY, &next]));
    check_token(&mut inbound, &KEY.token(&user()), Reason::Allowed);
    check_token(&mut inbound, &next.token(&user()), Reason::Allowed);
}

#[test]
fn c05_after_the_clock_was_set_back_keys_are_asked_for_as_soon_as_ever() {
    let mut inbound = ready(&config());
    let hour_ago = UnixTime(NOW.0 - 3600);
    assert_eq!(inbound.callers().next_call(hour_ago), Some(KeyCall::Poll));
    inbound.callers().on_unchanged_keys(hour_ago);
    assert_eq!(inbound.callers().next_call(hour_ago.plus(29)), None);
    assert_eq!(inbound.callers().next_call(hour_ago.plus(30)), Some(KeyCall::Poll));
}
