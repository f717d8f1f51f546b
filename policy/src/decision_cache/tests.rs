//! What the cache holds, and what it forgets.

use super::*;
use crate::keys::TrustedKey;

const T: UnixTime = UnixTime(1_800_000_000);

fn grounds(kid: &str) -> Grounds {
    let key = TrustedKey {
        kid: kid.to_owned(),
        issuer: "i".to_owned(),
        cloud_instance_name: None,
        spki: vec![1],
    };
    Grounds { authority: "a".into(), key: std::sync::Arc::new(key), until: T.plus(86_400) }
}

fn verified() -> Verified {
    Verified {
        kind: Kind::User,
        scopes: vec!["Orders.Read".to_owned()],
        roles: Vec::new(),
        groups: Groups::Listed(Vec::new()),
        client: None,
        client_credential: None,
        contexts: Vec::new(),
        answers_challenges: false,
        headers: Rc::new([]),
        identity: Rc::new(Identity::new("t", None, None)),
        grounds: grounds("k"),
        verified_at: T,
        expires: T.plus(3600),
    }
}

/// A token of some length whose end tells it from others.
fn token(index: usize, length: usize) -> Vec<u8> {
    format!("{index:0>length$}").into_bytes()
}

/// Counts what is still held of `count` tokens.
fn held(cache: &mut DecisionCache, count: usize, length: usize) -> usize {
    (0..count).filter(|index| cache.get(&token(*index, length), T).is_some()).count()
}

fn filled(count: usize, length: usize, verified: &Verified) -> DecisionCache {
    let mut cache = DecisionCache::default();
    let verified = Rc::new(verified.clone());
    for index in 0..count {
        cache.insert(&token(index, length), verified.clone());
    }
    cache
}

#[test]
fn an_entry_lasts_until_the_earliest_of_its_ends() {
    let until = |seconds: u64| Grounds { until: T.plus(seconds), ..grounds("k") };
    for (verified, last) in [
        (verified(), 300),
        (Verified { expires: T.plus(299), ..verified() }, 299),
        (Verified { expires: T.plus(301), ..verified() }, 300),
        (Verified { grounds: until(10), ..verified() }, 10),
        (Verified { grounds: until(0), ..verified() }, 0),
    ] {
        let mut cache = DecisionCache::default();
        cache.insert(b"t", Rc::new(verified));
        assert!(cache.get(b"t", T.plus(last)).is_some(), "{last}");
        assert!(cache.get(b"t", T.plus(last + 1)).is_none(), "{last}");
        // What was found too old is gone.
        assert!(cache.get(b"t", T).is_none());
        assert_eq!(cache.bytes, 0);
    }
}

#[test]
fn an_entry_from_the_future_is_not_believed() {
    let mut cache = filled(1, 4, &verified());
    assert!(cache.get(&token(0, 4), UnixTime(T.0 - 1)).is_none());
}

#[test]
fn d01_tokens_are_compared_in_full() {
    let mut cache = DecisionCache::default();
    let end = "s".repeat(16);
    cache.insert(format!("a.{end}").as_bytes(), Rc::new(verified()));
    // Entries are found by the end alone, so these fall together; the tokens do not.
    for other in [format!("b.{end}"), end.clone(), format!("aa.{end}"), format!("a.{end}s")] {
        assert!(cache.get(other.as_bytes(), T).is_none(), "{other}");
    }
    assert!(cache.get(b"", T).is_none());
    assert!(cache.get(format!("a.{end}").as_bytes(), T).is_some());
    // No two signatures share an end; if they did, the later token would take the place.
    cache.insert(format!("b.{end}").as_bytes(), Rc::new(verified()));
    assert!(cache.get(format!("a.{end}").as_bytes(), T).is_none());
    assert!(cache.get(format!("b.{end}").as_bytes(), T).is_some());
    assert_eq!((cache.entries.len(), cache.bytes), (1, verified().bytes(&[0; 18])));
}

#[test]
fn d01_every_byte_of_a_token_is_compared() {
    for length in [16, 17, 23, 24, 25, 100] {
        let token: Vec<u8> = (0..length).collect();
        assert!(same(&token, &token));
        assert!(!same(&token, &token[1..]));
        assert!(!same(&token, &token[..token.len() - 1]));
        for index in 0..token.len() {
            let mut other = token.clone();
            other[index] ^= 1;
            assert!(!same(&token, &other), "{length} {index}");
        }
    }
}

#[test]
fn the_hash_spreads_tokens_over_buckets_and_tags() {
    let hashes: Vec<u64> =
        (0..1_000).map(|index| EndHash.hash_one(end(&token(index, 100)))).collect();
    let distinct = |of: fn(u64) -> u64| {
        hashes.iter().map(|hash| of(*hash)).collect::<std::collections::HashSet<_>>().len()
    };
    // Buckets come from the low bits, tags from the seven highest.
    assert_eq!(distinct(|hash| hash), 1_000);
    assert!(distinct(|hash| hash & 0xffff) > 900);
    assert_eq!(distinct(|hash| hash >> 57), 128);
}

#[test]
fn an_entry_is_found_by_the_last_sixteen_bytes_in_their_order() {
    assert_eq!(end(b"x0123456789abcdef"), end(b"y0123456789abcdef"));
    for other in [&b"x1123456789abcdef"[..], b"x0123456789abcdeg", b"x1023456789abcdef", b""] {
        assert_ne!(end(b"x0123456789abcdef"), end(other));
        assert_ne!(EndHash.hash_one(end(b"x0123456789abcdef")), EndHash.hash_one(end(other)));
    }
}

#[test]
fn d05_a_flood_of_tokens_is_bounded_by_bytes() {
    let one = verified().bytes(&token(0, 1_000));
    assert!(one > 1_000);
    let fit = MAX_BYTES / one;
    let mut cache = filled(fit, 1_000, &verified());
    assert_eq!((cache.entries.len(), cache.bytes), (fit, fit * one));
    let mut cache_of_more = filled(fit + 500, 1_000, &verified());
    assert_eq!((cache_of_more.entries.len(), cache_of_more.bytes), (fit, fit * one));
    assert_eq!(held(&mut cache, fit, 1_000), fit);
    assert_eq!(held(&mut cache_of_more, fit + 500, 1_000), fit);
    // Those used longest ago went.
    assert!(cache_of_more.get(&token(499, 1_000), T).is_none());
    assert!(cache_of_more.get(&token(500, 1_000), T).is_some());
    assert_eq!(MAX_BYTES, 8 * 1024 * 1024);
}

#[test]
fn d05_the_last_byte_may_be_used() {
    // 4,096 bytes an entry: they fill the cache exactly.
    let length = 4_096 - verified().bytes(b"");
    let cache = filled(2_048, length, &verified());
    assert_eq!((cache.entries.len(), cache.bytes), (2_048, MAX_BYTES));
}

#[test]
fn d05_what_is_used_stays() {
    let one = verified().bytes(&token(0, 1_000));
    assert!(one > 1_000);
    let fit = MAX_BYTES / one;
    let mut cache = filled(fit, 1_000, &verified());
    assert!(cache.get(&token(0, 1_000), T).is_some());
    cache.insert(&token(fit, 1_000), Rc::new(verified()));
    assert!(cache.get(&token(0, 1_000), T).is_some());
    assert!(cache.get(&token(1, 1_000), T).is_none());
}

#[test]
fn a_token_that_comes_again_takes_the_place_of_its_entry() {
    let mut cache = filled(1, 10, &verified());
    let bytes = cache.bytes;
    let younger = Verified { verified_at: T.plus(200), ..verified() };
    cache.insert(&token(0, 10), Rc::new(younger));
    assert_eq!((cache.entries.len(), cache.bytes), (1, bytes));
    assert!(cache.get(&token(0, 10), T.plus(500)).is_some());
}

#[test]
fn everything_that_an_entry_holds_counts() {
    let text = |length: usize| vec!["x".repeat(length)];
    let header: (Rc<str>, Rc<str>) = ("x-name".into(), "x".repeat(100).into());
    let base = verified().bytes(b"t");
    assert!(base > 1_024);
    assert_eq!(verified().bytes(&[b't'; 101]), base + 100);
    for fuller in [
        Verified { scopes: [verified().scopes, text(100)].concat(), ..verified() },
        Verified { roles: text(100), ..verified() },
        Verified { contexts: text(100), ..verified() },
        Verified { groups: Groups::Listed(text(100)), ..verified() },
        Verified { headers: Rc::new([header]), ..verified() },
    ] {
        assert_eq!(fuller.bytes(b"t"), base + 100 + 48);
    }
    assert_eq!(Verified { groups: Groups::Overage, ..verified() }.bytes(b"t"), base);
}

#[test]
fn k10_tokens_of_keys_that_are_no_longer_trusted_go() {
    let mut cache = DecisionCache::default();
    for (token, kid) in
        [(b"token-with-end-1", "k"), (b"token-with-end-2", "l"), (b"token-with-end-3", "k")]
    {
        let verified = Verified { grounds: grounds(kid), ..verified() };
        cache.insert(token, Rc::new(verified));
    }
    let one = cache.bytes / 3;
    cache.retain_keys(|grounds| grounds.key.kid == "l");
    assert_eq!((cache.entries.len(), cache.bytes), (1, one));
    assert!(cache.get(b"token-with-end-2", T).is_some());
    cache.retain_keys(|_| false);
    assert_eq!((cache.entries.len(), cache.bytes), (0, 0));
}
