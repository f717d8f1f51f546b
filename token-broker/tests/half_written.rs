//! Credential files that are half-written or gone for a while: the token that is held serves on, and
//! the broker recovers by itself.

use std::{
    fs::{Permissions, set_permissions, write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde_json::json;
use token_broker::config::{AssertionAlgorithm, Config, Credential, SecretLocation, Source};
use tokens::SigningKey;

use crate::support::{Broker, Endpoint, Entra, Reply, SCOPE, config, pass, request, seconds};

type OfFile = fn(PathBuf) -> Credential;

fn with(credential: Credential) -> Config {
    let mut config = config();
    config.authorities.clear();
    let identity = config.identities.get_mut("default").unwrap();
    identity.scopes.truncate(1);
    let Source::Application { credentials, .. } = &mut identity.source else { unreachable!() };
    *credentials = vec![credential];
    config
}

fn pem() -> String {
    let key = SigningKey::new(41, "", "");
    let signer =
        rcgen::KeyPair::from_pkcs8_pem_and_sign_algo(&key.private_pem(), &rcgen::PKCS_RSA_SHA256)
            .unwrap();
    let made = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&signer).unwrap();
    format!("{}{}", key.private_pem(), made.pem())
}

fn put(path: &Path, text: &str) {
    write(path, text).unwrap();
    set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

/// What a file holds while somebody writes it anew, each for some minutes.
fn states(whole: &str) -> Vec<Option<String>> {
    let half = whole.chars().take(whole.len() / 2).collect();
    vec![Some(String::new()), Some(half), Some("\0\0\0\0".to_owned()), None]
}

#[tokio::test(start_paused = true)]
async fn b10_a_half_written_credential_keeps_the_held_token_and_heals_by_itself() {
    let whole = pem();
    let kinds: [(&str, OfFile); 3] = [
        ("canary-secret-whole", |path| Credential::Secret(SecretLocation::File(path))),
        ("canary.token.whole", Credential::ServiceAccount),
        (&whole, |file| Credential::Certificate { file, algorithm: AssertionAlgorithm::Ps256 }),
    ];
    for (whole, credential) in kinds {
        for written in states(whole) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("credential");
            put(&path, whole);
            let entra = Entra::new();
            entra.life(json!(3_600), Some(json!(600)));
            let broker = Broker::with_config(&entra, &with(credential(path.clone())));
            let first = broker.text().await.unwrap();
            match &written {
                Some(text) => put(&path, text),
                None => std::fs::remove_file(&path).unwrap(),
            }
            // What half of it is sent, Entra refuses.
            let wrong = Reply::error(401, "invalid_client", 7_000_215);
            entra.always(Endpoint::Token, Some(wrong));
            for _ in 0..20 {
                pass(seconds(100)).await;
                assert_eq!(broker.text().await.unwrap(), first, "{written:?}");
            }
            assert!(entra.count(Endpoint::Token) <= 14, "{}", entra.count(Endpoint::Token));
            put(&path, whole);
            entra.always(Endpoint::Token, None);
            pass(seconds(61)).await;
            assert_ne!(broker.text().await.unwrap(), first, "{written:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn b10_a_broker_that_starts_beside_a_half_written_file_waits_for_it() {
    for written in states("canary-secret-whole") {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("credential");
        if let Some(text) = &written {
            put(&path, text);
        }
        let entra = Entra::new();
        entra.always(Endpoint::Token, Some(Reply::error(401, "invalid_client", 7_000_215)));
        let source = Credential::Secret(SecretLocation::File(path.clone()));
        let broker = Broker::with_config(&entra, &with(source));
        let refused = broker.issue(&request("default", SCOPE)).await.unwrap_err();
        assert!(!refused.error.contains("canary"), "{}", refused.error);
        put(&path, "canary-secret-whole");
        entra.always(Endpoint::Token, None);
        pass(seconds(31)).await;
        broker.text().await.unwrap();
    }
}
