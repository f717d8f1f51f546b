//! Which key is found for which tenant, and for how long.

use contract::{Jwk, KeySet, KeySetState};
use tokens::SigningKey;

use super::*;

const T: UnixTime = UnixTime(1_800_000_000);
const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
const OTHER: &str = "5a1d3a0e-8c0b-4c4f-9a37-0b1f3f7c5d11";

fn jwk(kid: &str, tenant: &str) -> Jwk {
    SigningKey::new(1, kid, &Cloud::Public.v2_issuer(tenant)).jwk()
}

fn set(authority: &str, fetched_at: UnixTime, keys: Vec<Jwk>) -> KeySet {
    let issuer = Cloud::Public.authority_issuer(authority);
    KeySet { issuer, fetched_at: fetched_at.0, state: KeySetState::Stale, keys }
}

fn store(sets: Vec<KeySet>) -> KeyStore {
    let mut store = KeyStore::default();
    store.replace(&KeySets { key_sets: sets });
    store
}

fn one(keys: Vec<Jwk>) -> KeyStore {
    store(vec![set(TENANT, T, keys)])
}

fn find(store: &KeyStore, key_id: &str, now: UnixTime) -> Lookup {
    store.find(Cloud::Public, TENANT, key_id, now)
}

fn grounds(store: &KeyStore, key_id: &str) -> Grounds {
    match find(store, key_id, T) {
        Lookup::Trusted(grounds) => grounds,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_key_is_trusted_for_the_tenants_of_its_issuer() {
    let keys = vec![jwk("own", TENANT), jwk("all", "{tenantid}"), jwk("theirs", OTHER)];
    let store = one(keys);
    let authority: Arc<str> = Cloud::Public.authority_issuer(TENANT).into();
    for kid in ["own", "all"] {
        let found = grounds(&store, kid);
        assert_eq!((found.key.kid.as_str(), &found.authority), (kid, &authority));
        assert_eq!(found.until, T.plus(86_400));
    }
    assert_eq!(find(&store, "theirs", T), Lookup::SignsForOthers);
    for unknown in ["none", "OWN", "", "own "] {
        assert_eq!(
            find(&store, unknown, T),
            Lookup::UnknownKey { authority: authority.clone() },
            "{unknown}"
        );
    }
    assert_eq!(store.find(Cloud::Public, OTHER, "theirs", T), Lookup::NoKeys);
    assert_eq!(store.find(Cloud::China, TENANT, "own", T), Lookup::NoKeys);
}

#[test]
fn k07_keys_are_trusted_for_24_hours() {
    let store = one(vec![jwk("k", TENANT)]);
    assert!(matches!(find(&store, "k", T.plus(86_400)), Lookup::Trusted(_)));
    assert_eq!(find(&store, "k", T.plus(86_401)), Lookup::NoKeys);
    assert!(store.complete(T.plus(86_400)));
    assert!(!store.complete(T.plus(86_401)));
}

#[test]
fn k06_a_set_without_usable_keys_is_none() {
    let symmetric = Jwk { kty: Some("oct".to_owned()), ..jwk("k", TENANT) };
    for keys in [vec![], vec![symmetric]] {
        let store = one(keys);
        assert_eq!(find(&store, "k", T), Lookup::NoKeys);
        assert!(!store.complete(T));
        assert_eq!(store.age(T), None);
    }
    assert!(!KeyStore::default().complete(T));
    assert_eq!(find(&KeyStore::default(), "k", T), Lookup::NoKeys);
}

#[test]
fn it_is_complete_when_every_authority_has_keys() {
    let good = || set(TENANT, T, vec![jwk("k", TENANT)]);
    let old = UnixTime(T.0 - 86_401);
    assert!(store(vec![good(), set(OTHER, T, vec![jwk("k", OTHER)])]).complete(T));
    assert!(!store(vec![good(), set(OTHER, T, vec![])]).complete(T));
    assert!(!store(vec![good(), set(OTHER, old, vec![jwk("k", OTHER)])]).complete(T));
}

#[test]
fn the_age_is_that_of_the_oldest_set_with_keys() {
    let sets = vec![
        set(TENANT, T, vec![jwk("k", TENANT)]),
        set(OTHER, UnixTime(T.0 - 50), vec![jwk("k", OTHER)]),
        set("organizations", UnixTime(0), vec![]),
    ];
    assert_eq!(store(sets).age(T.plus(5)), Some(55));
}

#[test]
fn j10_two_keys_of_one_id_are_none_and_the_same_one_twice_is_one() {
    let other = Jwk { n: SigningKey::new(2, "k", "i").jwk().n, ..jwk("k", TENANT) };
    let elsewhere = jwk("k", OTHER);
    assert!(matches!(
        find(&one(vec![jwk("k", TENANT), jwk("k", TENANT)]), "k", T),
        Lookup::Trusted(_)
    ));
    for second in [other, elsewhere] {
        for keys in [
            vec![jwk("k", TENANT), second.clone(), jwk("l", TENANT)],
            vec![jwk("k", TENANT), second.clone(), jwk("k", TENANT), jwk("l", TENANT)],
            vec![second.clone(), second.clone(), jwk("k", TENANT), jwk("l", TENANT)],
        ] {
            let store = one(keys);
            assert!(matches!(find(&store, "k", T), Lookup::UnknownKey { .. }));
            assert!(matches!(find(&store, "l", T), Lookup::Trusted(_)));
        }
    }
}

#[test]
fn k12_the_store_holds_exactly_the_key_that_was_trusted() {
    let before = one(vec![jwk("k", TENANT)]);
    let trusted = grounds(&before, "k");
    assert!(before.holds(&trusted));
    let other = Jwk { n: SigningKey::new(2, "k", "i").jwk().n, ..jwk("k", TENANT) };
    assert!(store(vec![set(TENANT, T.plus(9), vec![jwk("k", TENANT)])]).holds(&trusted));
    for after in [
        one(vec![other]),
        one(vec![jwk("k", "{tenantid}")]),
        one(vec![jwk("l", TENANT)]),
        one(vec![]),
        store(vec![set("organizations", T, vec![jwk("k", TENANT)])]),
        KeyStore::default(),
    ] {
        assert!(!after.holds(&trusted));
    }
}

#[test]
fn new_sets_replace_all_that_was_held() {
    let mut store = one(vec![jwk("k", TENANT)]);
    store.replace(&KeySets { key_sets: vec![set(OTHER, T, vec![jwk("k", OTHER)])] });
    assert_eq!(find(&store, "k", T), Lookup::NoKeys);
}

#[test]
fn k13_a_broker_that_has_just_started_takes_no_keys_away() {
    let mut held = one(vec![jwk("k1", TENANT)]);
    let empty = || set(TENANT, UnixTime(0), Vec::new());
    held.replace(&KeySets { key_sets: vec![empty()] });
    assert!(matches!(find(&held, "k1", T), Lookup::Trusted(_)));
    assert_eq!(held.missing(T), 0);
    // They get no younger by it.
    let late = T.plus(KEY_LIFETIME_SECONDS + 1);
    assert_eq!(find(&held, "k1", late), Lookup::NoKeys);
    assert_eq!(held.missing(late), 1);
    // An authority that is no longer listed is gone.
    held.replace(&KeySets::default());
    assert_eq!(find(&held, "k1", T), Lookup::NoKeys);
    assert_eq!(held.missing(T), 1);
    // And without anything held there is nothing to keep.
    assert_eq!(find(&store(vec![empty()]), "k1", T), Lookup::NoKeys);
}
