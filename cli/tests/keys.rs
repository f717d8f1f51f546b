//! Test keys and test tokens.

use std::os::unix::fs::PermissionsExt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::program::{API, AT, Folder, TENANT, policy};

fn folder() -> Folder {
    let rules = "[{name: all, allow: [{scopes: [S]}]}]";
    Folder::with(&[("policy.yaml", &policy(rules))]).with_key()
}

fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[test]
fn a_key_says_what_it_is_for() {
    let folder = folder();
    assert!(folder.read("key.pem").starts_with("-----BEGIN ENTRA SIDECAR TEST KEY-----\n"));
    let keys: Value = serde_json::from_str(&folder.read("keys.json")).unwrap();
    let kid = keys["keys"][0]["kid"].as_str().unwrap();
    assert!(kid.starts_with("entra-sidecar-test-"), "{kid}");
    assert_eq!(part(&folder.token(r#"{"scp": "S"}"#), 0)["kid"], kid);
    assert!(!folder.read("keys.json").contains("\"d\""));
}

#[test]
fn a_key_is_its_owners_and_never_written_over() {
    let folder = Folder::with(&[]);
    let again = ["test-token", "--new-key", "--key", "key.pem", "--keys", "keys.json"];
    assert_eq!(folder.run(&again).code, 0);
    let mode = std::fs::metadata(folder.path().join("key.pem")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let before = folder.read("key.pem");
    assert_eq!(folder.run(&again).code, 2);
    assert_eq!(folder.read("key.pem"), before);
}

#[test]
fn no_other_key_signs() {
    let folder = folder();
    for label in ["PRIVATE KEY", "RSA PRIVATE KEY"] {
        folder.write("real.pem", &folder.read("key.pem").replace("ENTRA SIDECAR TEST KEY", label));
        let claims = ["--config", "policy.yaml", "--claims", "{}"];
        let done = folder.run(&[&["test-token", "--key", "real.pem"], &claims[..]].concat());
        assert_eq!((done.code, done.out.as_str()), (2, ""));
        assert!(done.err.contains("real.pem: no test key"), "{}", done.err);
    }
}

#[test]
fn claims_are_completed_and_never_changed() {
    let folder = folder();
    let at = 1_795_521_600;
    let user = part(&folder.token(r#"{"scp": "S", "oid": "o", "extra": [1]}"#), 1);
    assert_eq!(
        user,
        json!({
            "ver": "2.0", "tid": TENANT, "aud": API, "scp": "S", "oid": "o", "extra": [1],
            "iss": format!("https://login.microsoftonline.com/{TENANT}/v2.0"),
            "iat": at, "nbf": at, "exp": at + 3600, "sub": "entra-sidecar-test",
            "azp": "00000000-0000-4000-8000-00000000000b", "azpacr": "1",
            "uti": "entra-sidecar-test",
        })
    );
    let application = part(&folder.token(r#"{"ver": "1.0", "roles": ["R"], "uti": null}"#), 1);
    assert_eq!(application["idtyp"], "app");
    assert_eq!(application["sub"], application["oid"]);
    assert_eq!(application["iss"], format!("https://sts.windows.net/{TENANT}/"));
    assert_eq!(application["appidacr"], "1");
    assert_eq!((application.get("azp"), application.get("uti")), (None, None));
}

#[test]
fn tenant_and_audience_come_from_somewhere() {
    let folder = folder();
    let make = |claims: &str| {
        folder.run(&["test-token", "--key", "key.pem", "--at", AT, "--claims", claims])
    };
    assert!(make(r#"{"aud": "a"}"#).err.contains("name `tid`"));
    assert!(make(&format!(r#"{{"tid": "{TENANT}"}}"#)).err.contains("name `aud`"));
    assert_eq!(make(r#"{"aud": "a", "tid": null}"#).code, 0);
    assert_eq!(make("[]").code, 2);
    folder.write("claims.json", &format!(r#"{{"aud": "a", "tid": "{TENANT}"}}"#));
    let done = make("@claims.json");
    assert_eq!(part(&done.out, 1)["aud"], "a");
}
