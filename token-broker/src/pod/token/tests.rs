//! Every claim and every byte of the pod's token.

use serde_json::{Value, json};
use tokens::SigningKey;

use super::*;
use crate::pod::keys;

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const NOW: u64 = 1_800_000_000;

fn key() -> SigningKey {
    SigningKey::new(1, "k1", "")
}

fn cluster_keys() -> Vec<ClusterKey> {
    let shown = key().jwk();
    let jwk = json!({"kty": "RSA", "kid": "k1", "alg": "RS256", "n": shown.n, "e": shown.e});
    keys::read(json!({"keys": [jwk]}).to_string().as_bytes()).unwrap()
}

fn expected() -> Expected {
    in_pod(&[])
}

/// In a pod of which the environment says this.
fn in_pod(environment: &[(&'static str, &'static str)]) -> Expected {
    let environment: BTreeMap<&str, &str> = environment.iter().copied().collect();
    let this_pod = ThisPod::from_environment(&environment);
    Expected { issuer: ISSUER.to_owned(), audience: "entra-sidecar".to_owned(), this_pod }
}

/// As an API server of 1.34 writes them.
fn claims() -> Value {
    json!({
        "aud": ["entra-sidecar"], "exp": NOW + 3_600, "iat": NOW, "nbf": NOW, "iss": ISSUER,
        "jti": "8b3e4a0e-2f52-4c39-9a1b-1f2d3c4b5a69",
        "kubernetes.io": {
            "namespace": "tenant-a",
            "node": {"name": "node", "uid": "5f0e"},
            "pod": {"name": "orders-1", "uid": "71c2"},
            "serviceaccount": {"name": "orders", "uid": "0b1d"},
            "warnafter": NOW + 3_607,
        },
        "sub": "system:serviceaccount:tenant-a:orders",
    })
}

fn with(pointer: &str, value: Value) -> Value {
    let mut claims = claims();
    *claims.pointer_mut(pointer).unwrap() = value;
    claims
}

fn without(object: &str, name: &str) -> Value {
    let mut claims = claims();
    claims.pointer_mut(object).unwrap().as_object_mut().unwrap().remove(name).unwrap();
    claims
}

fn verified(token: &str) -> Result<Claims, NotProven> {
    verify(token, &expected(), &cluster_keys(), NOW)
}

fn header() -> Value {
    json!({"alg": "RS256", "kid": "k1"})
}

fn check(claims: &Value, wrong: Option<NotProven>) {
    let found = verified(&key().token_with(&header(), claims));
    assert_eq!(found.err(), wrong, "{claims}");
}

#[test]
fn a_projected_token_says_whose_it_is() {
    let found = verified(&key().token_with(&header(), &claims())).unwrap();
    let expected = Claims {
        namespace: "tenant-a".to_owned(),
        service_account: "orders".to_owned(),
        pod: "orders-1".to_owned(),
        uid: "71c2".to_owned(),
    };
    assert_eq!(found, expected);
    // A signer outside of the API server names the type, too.
    let typed = json!({"alg": "RS256", "kid": "k1", "typ": "JWT"});
    assert!(verified(&key().token_with(&typed, &claims())).is_ok());
    check(&with("/aud", json!("entra-sidecar")), None);
}

#[test]
fn b05_another_issuer_audience_or_subject_is_refused() {
    use NotProven::{Audience, Issuer, NotOfAPod, Subject};

    for issuer in [json!("https://other.example"), json!(format!("{ISSUER}/")), json!([ISSUER])] {
        check(&with("/iss", issuer), Some(Issuer));
    }
    check(&without("", "iss"), Some(Issuer));
    for audience in [
        json!(["api://AzureADTokenExchange"]),
        json!(["entra-sidecar", "other"]),
        json!(["Entra-Sidecar"]),
        json!([]),
        json!([["entra-sidecar"]]),
        json!("entra-sidecar2"),
        json!(""),
        json!(7),
    ] {
        check(&with("/aud", audience), Some(Audience));
    }
    check(&without("", "aud"), Some(Audience));
    for subject in [
        "system:serviceaccount:tenant-b:orders",
        "system:serviceaccount:tenant-a:billing",
        "system:serviceaccount:tenant-a:orders:x",
        "system:serviceaccount:tenant-a:Orders",
        "system:node:orders",
        "",
    ] {
        check(&with("/sub", json!(subject)), Some(Subject));
    }
    check(&with("/kubernetes.io/namespace", json!("tenant-b")), Some(Subject));
    check(&with("/kubernetes.io/serviceaccount/name", json!("billing")), Some(Subject));
    check(&with("/kubernetes.io", json!("tenant-a")), Some(Subject));
    for (object, name) in [
        ("", "sub"),
        ("", "kubernetes.io"),
        ("/kubernetes.io", "namespace"),
        ("/kubernetes.io", "serviceaccount"),
        ("/kubernetes.io/serviceaccount", "name"),
    ] {
        check(&without(object, name), Some(Subject));
    }
    // The place of the colon is not the token's to choose.
    let mut shifted = with("/sub", json!("system:serviceaccount:tenant-a:b:orders"));
    *shifted.pointer_mut("/kubernetes.io/namespace").unwrap() = json!("tenant-a:b");
    check(&shifted, Some(Subject));
    // `kubectl create token` gives one to whoever may create it: it is no pod's.
    check(&without("/kubernetes.io", "pod"), Some(NotOfAPod));
    check(&without("/kubernetes.io/pod", "uid"), Some(NotOfAPod));
}

#[test]
fn b05_another_pods_token_is_refused_by_each_thing_that_is_said_of_this_one() {
    let ours = [
        ("POD_UID", "71c2"),
        ("POD_NAME", "orders-1"),
        ("POD_NAMESPACE", "tenant-a"),
        ("SERVICE_ACCOUNT", "orders"),
    ];
    let token = key().token_with(&header(), &claims());
    let found = |environment: &[(&'static str, &'static str)]| {
        verify(&token, &in_pod(environment), &cluster_keys(), NOW).err()
    };
    assert_eq!(found(&ours), None);
    assert_eq!(found(&ours[..1]), None);
    for (index, (variable, said)) in ours.into_iter().enumerate() {
        let mut other = ours;
        other[index].1 = "other";
        assert_eq!(found(&other), Some(NotProven::NotThisPod(variable)), "{said}");
    }
    assert_eq!(found(&[("POD_UID", "71C2")]), Some(NotProven::NotThisPod("POD_UID")));
    // Without its unique id it is not said which pod this is.
    assert_eq!(found(&[("POD_UID", ""), ("POD_NAME", "other")]), None);
    assert!(NotProven::NotThisPod("POD_UID").is_refusal());
}

#[test]
fn times_are_kept_to_the_second() {
    use NotProven::{Expired, Malformed, NotYetValid};

    check(&with("/exp", json!(NOW + 1)), None);
    check(&with("/exp", json!(NOW)), Some(Expired));
    check(&with("/exp", json!(0)), Some(Expired));
    check(&with("/nbf", json!(NOW + 60)), None);
    check(&with("/nbf", json!(NOW + 61)), Some(NotYetValid));
    for (claim, value) in [
        ("exp", json!((NOW + 9).to_string())),
        ("exp", json!(-1)),
        ("exp", json!(1e300)),
        ("nbf", json!(null)),
    ] {
        check(&with(&format!("/{claim}"), value), Some(Malformed));
    }
    check(&without("", "exp"), Some(Malformed));
    check(&without("", "nbf"), Some(Malformed));
}

#[test]
fn b05_only_the_clusters_key_by_its_own_algorithm_signs() {
    let check = |header: Value, expected: NotProven| {
        let found = verified(&key().token_with(&header, &claims()));
        assert_eq!(found, Err(expected), "{header}");
    };
    for algorithm in ["none", "HS256", "RS512", "PS256", "rs256", ""] {
        check(json!({"alg": algorithm, "kid": "k1"}), NotProven::Algorithm);
    }
    check(json!({"kid": "k1"}), NotProven::Algorithm);
    check(json!({"alg": ["RS256"], "kid": "k1"}), NotProven::Algorithm);
    check(json!({"alg": "ES256", "kid": "k1"}), NotProven::Signature);
    check(json!({"alg": "RS256", "kid": "k2"}), NotProven::UnknownKey);
    for header in [
        json!({"alg": "RS256"}),
        json!({"alg": "RS256", "kid": ""}),
        json!({"alg": "RS256", "kid": "k1", "typ": "at+jwt"}),
        json!({"alg": "RS256", "kid": "k1", "crit": ["exp"]}),
        json!({"alg": "RS256", "kid": "k1", "jku": "https://evil.example/keys"}),
        json!({"alg": "RS256", "kid": "k1", "jwk": {}}),
    ] {
        check(header, NotProven::Malformed);
    }
    let other = SigningKey::new(2, "k1", "").token_with(&header(), &claims());
    assert_eq!(verified(&other), Err(NotProven::Signature));
    // Another payload under a good signature, and nothing at all for one.
    let good = key().token_with(&header(), &claims());
    let forged = key().token_with(&header(), &with("/kubernetes.io/namespace", json!("b")));
    let (_, signature) = good.rsplit_once('.').unwrap();
    let (signed, _) = forged.rsplit_once('.').unwrap();
    assert_eq!(verified(&format!("{signed}.{signature}")), Err(NotProven::Signature));
    assert_eq!(verified(&format!("{signed}.")), Err(NotProven::Malformed));
    assert_eq!(verify(&good, &expected(), &[], NOW), Err(NotProven::UnknownKey));
}

#[test]
fn what_can_be_read_in_two_ways_is_no_token() {
    let good = key().token_with(&header(), &claims());
    for bad in [
        String::new(),
        "a.b".to_owned(),
        format!("{good}\n"),
        format!(" {good}"),
        format!("{good}."),
        format!("{good}.x"),
        good.replacen('.', "..", 1),
        "A".repeat(MAX_TOKEN_BYTES + 1),
    ] {
        assert!(
            matches!(verified(&bad), Err(NotProven::Malformed | NotProven::Signature)),
            "{:?}",
            bad.get(..20)
        );
    }
    let signed = |payload: &str| {
        let token = key().sign_text(header().to_string().as_bytes(), payload.as_bytes());
        verified(&token)
    };
    let text = claims().to_string();
    assert!(signed(&text).is_ok());
    let twice = |member: &str| format!("{{{member},{}", text.trim_start_matches('{'));
    for payload in [
        twice(r#""sub":"system:serviceaccount:tenant-b:orders""#),
        twice(r#""Sub":"system:serviceaccount:tenant-b:orders""#),
        twice(r#""kubernetes.io":{}"#),
        text.replacen(r#"{"namespace""#, r#"{"namespace":"tenant-b","namespace""#, 1),
        format!("{text} x"),
        format!("[{text}]"),
        String::from("null"),
    ] {
        assert_eq!(signed(&payload), Err(NotProven::Malformed), "{payload}");
    }
    let header = br#"{"alg":"RS256","kid":"k1","kid":"k2"}"#;
    let token = key().sign_text(header, text.as_bytes());
    assert_eq!(verified(&token), Err(NotProven::Malformed));
}

#[test]
fn what_comes_by_itself_is_waited_for_and_what_is_wrong_is_refused() {
    use NotProven::{
        Algorithm, Audience, Expired, Issuer, Malformed, NoKeys, NotOfAPod, NotYet, NotYetValid,
        Signature, Subject, UnknownKey, Unreadable,
    };

    let text = String::new;
    for waits in [NotYet, Unreadable(text()), NoKeys(text()), UnknownKey, Expired, NotYetValid] {
        assert!(!waits.is_refusal(), "{waits}");
    }
    for refused in [Malformed, Algorithm, Signature, Issuer, Audience, Subject, NotOfAPod] {
        assert!(refused.is_refusal(), "{refused}");
    }
}
