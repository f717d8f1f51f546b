//! Every message of the contract as a file, which must be read and written byte for byte.
//!
//! The files are what the two programs of the last version say to each other. A change that makes
//! one of these tests fail breaks a filter or a broker that is already running: add a file for
//! what is new, and keep the old ones readable.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test says by a panic that it fails")]

use std::path::PathBuf;

use contract::{
    ErrorKind, IssuedToken, Jwk, KeySet, KeySetState, KeySets, KeysRefresh, Secret, TokenRequest,
    TypedError,
};
use serde::{Serialize, de::DeserializeOwned};

/// A modulus and exponent of the right form; the numbers mean nothing.
const MODULUS: &str = "4f5wg5l2hKsTeNem_V41fGnJm6gOdrj8ym3rFkEU_wT8RDtn";

/// SHA-256 of the golden token.
const HASH: &str = "5be3c419204641f8d60102b74dd93e7725d05e6e878b743529728db079fabcf3";

fn golden(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn check<T>(name: &str, value: &T)
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let text = golden(name);
    let written = format!("{}\n", serde_json::to_string_pretty(value).unwrap());
    assert_eq!(written, text, "{name} is written otherwise");
    assert_eq!(&serde_json::from_str::<T>(&text).unwrap(), value, "{name} is read otherwise");
}

#[test]
fn a_token_request() {
    check(
        "token_request.json",
        &TokenRequest {
            identity: "default".to_owned(),
            scope: "https://graph.microsoft.com/.default".to_owned(),
            destination: "graph".to_owned(),
            ..TokenRequest::default()
        },
    );
}

#[test]
fn a_token_request_after_a_claims_challenge() {
    check(
        "token_request_challenged.json",
        &TokenRequest {
            identity: "default".to_owned(),
            scope: "https://graph.microsoft.com/.default".to_owned(),
            destination: "graph".to_owned(),
            claims_challenges: true,
            claims: Some(
                r#"{"access_token":{"nbf":{"essential":true,"value":"1800000000"}}}"#.to_owned(),
            ),
            refused: Some(HASH.to_owned()),
            ..TokenRequest::default()
        },
    );
}

#[test]
fn a_token_request_on_behalf_of_a_user() {
    check(
        "token_request_on_behalf_of.json",
        &TokenRequest {
            identity: "default".to_owned(),
            scope: "https://graph.microsoft.com/User.Read".to_owned(),
            destination: "graph".to_owned(),
            assertion: Some(Secret::new("eyJ0eXAi.eyJhdWQi.c2ln")),
            ..TokenRequest::default()
        },
    );
}

#[test]
fn an_issued_token() {
    let with_hash = IssuedToken {
        access_token: Secret::new("eyJ0eXAi.eyJhdWQi.c2ln"),
        token_type: "Bearer".to_owned(),
        expires_on: 1_800_003_600,
        refresh_on: 1_800_002_000,
        scope: "https://graph.microsoft.com/.default".to_owned(),
        identity: "default".to_owned(),
        correlation_id: "6f1d0c8e-4f53-4d6a-8a0e-2b6c0d0c9a11".to_owned(),
        token_hash: Some(HASH.to_owned()),
    };
    check("issued_token_with_hash.json", &with_hash);
    // As a broker without hashes writes it.
    check("issued_token.json", &IssuedToken { token_hash: None, ..with_hash });
}

#[test]
fn key_sets_of_every_state() {
    let issuer = "https://login.microsoftonline.com/72f988bf-86f1-41af-91ab-2d7cd011db47/v2.0";
    let template = "https://login.microsoftonline.com/{tenantid}/v2.0";
    let full = Jwk {
        kid: Some("k1".to_owned()),
        kty: Some("RSA".to_owned()),
        usage: Some("sig".to_owned()),
        alg: Some("RS256".to_owned()),
        n: Some(MODULUS.to_owned()),
        e: Some("AQAB".to_owned()),
        issuer: Some(template.to_owned()),
        cloud_instance_name: Some("microsoftonline.com".to_owned()),
    };
    let bare = Jwk { kid: Some("k2".to_owned()), ..Jwk::default() };
    let set = |issuer: &str, fetched_at, state, keys| KeySet {
        issuer: issuer.to_owned(),
        fetched_at,
        state,
        keys,
    };
    check(
        "key_sets.json",
        &KeySets {
            key_sets: vec![
                set(issuer, 1_800_000_000, KeySetState::Fresh, vec![full.clone(), bare]),
                set(template, 1_799_990_000, KeySetState::Stale, vec![full]),
                set("https://login.microsoftonline.us/x/v2.0", 0, KeySetState::None, Vec::new()),
            ],
        },
    );
    check("key_sets_empty.json", &KeySets::default());
}

#[test]
fn a_keys_refresh() {
    check(
        "keys_refresh.json",
        &KeysRefresh {
            issuer: "https://login.microsoftonline.com/{tenantid}/v2.0".to_owned(),
            kid: "k3".to_owned(),
        },
    );
}

#[test]
fn an_error_of_every_kind() {
    let kinds = [
        (ErrorKind::Transient, "transient", 503),
        (ErrorKind::Throttled, "throttled", 429),
        (ErrorKind::ClaimsChallenge, "claims_challenge", 403),
        (ErrorKind::Credential, "credential", 503),
        (ErrorKind::Config, "config", 503),
        (ErrorKind::Disabled, "disabled", 403),
        (ErrorKind::Denied, "denied", 403),
    ];
    for (kind, name, status) in kinds {
        check(
            &format!("error_{name}.json"),
            &TypedError {
                error: format!("an error of kind {name}"),
                kind,
                retry_after: None,
                claims: None,
                correlation_id: None,
                trace_id: None,
            },
        );
        assert_eq!(kind.status(), status);
    }
    check(
        "error_full.json",
        &TypedError {
            error: "interaction_required AADSTS53003: Conditional Access does not allow it"
                .to_owned(),
            kind: ErrorKind::ClaimsChallenge,
            retry_after: Some(60),
            claims: Some(
                r#"{"access_token":{"polids":{"essential":true,"values":["p"]}}}"#.to_owned(),
            ),
            correlation_id: Some("6f1d0c8e-4f53-4d6a-8a0e-2b6c0d0c9a11".to_owned()),
            trace_id: Some("b1a2c3d4-0000-4000-8000-000000000001".to_owned()),
        },
    );
}

#[test]
fn w11_requests_with_unknown_members_are_refused() {
    let mut request: serde_json::Value =
        serde_json::from_str(&golden("token_request.json")).unwrap();
    request["assertion_type"] = "jwt".into();
    serde_json::from_value::<TokenRequest>(request).unwrap_err();
    let mut refresh: serde_json::Value =
        serde_json::from_str(&golden("keys_refresh.json")).unwrap();
    refresh["url"] = "https://evil.example".into();
    serde_json::from_value::<KeysRefresh>(refresh).unwrap_err();
}

#[test]
fn w11_answers_with_unknown_members_are_read() {
    let with_more = |name: &str| {
        let mut answer: serde_json::Value = serde_json::from_str(&golden(name)).unwrap();
        answer["of_a_later_version"] = true.into();
        answer
    };
    let token: IssuedToken = serde_json::from_value(with_more("issued_token.json")).unwrap();
    assert_eq!(token.identity, "default");
    let error: TypedError = serde_json::from_value(with_more("error_full.json")).unwrap();
    assert_eq!(error.retry_after, Some(60));
    let mut sets = with_more("key_sets.json");
    sets["key_sets"][0]["of_a_later_version"] = 1.into();
    sets["key_sets"][0]["keys"][0]["x5c"] = serde_json::json!(["MII"]);
    let sets: KeySets = serde_json::from_value(sets).unwrap();
    assert_eq!(sets.key_sets.len(), 3);
}
