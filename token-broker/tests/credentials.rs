//! Credentials in files are read anew for each acquisition, and one that was renewed meanwhile is
//! tried once.

use std::{
    fs::{Permissions, set_permissions, write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use contract::ErrorKind;
use token_broker::config::{Config, Credential, SecretLocation, Source};

use crate::support::{Broker, Endpoint, Entra, Reply, config, pass, seconds};

fn file(directory: &Path, content: &str, mode: u32) -> PathBuf {
    let path = directory.join("credential");
    write(&path, content).unwrap();
    set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    path
}

/// One scope, so that one task reads the file.
fn with(credential: Credential) -> Config {
    let mut config = config();
    let identity = config.identities.get_mut("default").unwrap();
    let Source::Application { credentials, .. } = &mut identity.source else { unreachable!() };
    *credentials = vec![credential];
    identity.scopes.truncate(1);
    config
}

fn with_secret(path: &Path) -> Config {
    with(Credential::Secret(SecretLocation::File(path.to_owned())))
}

fn with_token(path: &Path) -> Config {
    with(Credential::ServiceAccount(path.to_owned()))
}

#[tokio::test(start_paused = true)]
async fn b10_the_secret_is_read_at_each_acquisition() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(directory.path(), "first+&\n", 0o400);
    let entra = Entra::new();
    let broker = Broker::with_config(&entra, &with_secret(&path));
    broker.text().await.unwrap();
    write(&path, "second").unwrap();
    pass(seconds(2_600)).await;
    broker.text().await.unwrap();
    let sent: Vec<String> = entra
        .calls(Endpoint::Token)
        .iter()
        .map(|call| call.form["client_secret"].clone())
        .collect();
    assert_eq!(sent, ["first+&", "second"]);
}

#[tokio::test(start_paused = true)]
async fn the_federated_token_goes_as_an_assertion() {
    let directory = tempfile::tempdir().unwrap();
    // As the kubelet writes it for a pod without a user of its own.
    let path = file(directory.path(), "h.p.s", 0o644);
    let entra = Entra::new();
    let broker = Broker::with_config(&entra, &with_token(&path));
    broker.text().await.unwrap();
    let call = entra.calls(Endpoint::Token).remove(0);
    assert_eq!(call.form["client_assertion"], "h.p.s");
    assert_eq!(
        call.form["client_assertion_type"],
        "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    );
    assert!(!call.form.contains_key("client_secret"));
}

#[tokio::test(start_paused = true)]
async fn b10_a_credential_that_was_renewed_meanwhile_is_tried_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(directory.path(), "old", 0o400);
    let entra = Entra::new();
    entra.always(Endpoint::Token, Some(Reply::error(401, "invalid_client", 700_024)));
    entra.delay(seconds(1));
    let broker = Broker::with_config(&entra, &with_token(&path));
    let asking = tokio::spawn({
        let state = broker.state.clone();
        let request = crate::support::request("default", crate::support::SCOPE);
        async move { crate::support::issue(&state, &request).await }
    });
    while entra.count(Endpoint::Token) == 0 {
        tokio::task::yield_now().await;
    }
    write(&path, "new").unwrap();
    let refused = asking.await.unwrap().unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Credential);
    let sent: Vec<String> = entra
        .calls(Endpoint::Token)
        .iter()
        .map(|call| call.form["client_assertion"].clone())
        .collect();
    assert_eq!(sent, ["old", "new"]);
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_stayed_the_same_is_not_tried_again_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(directory.path(), "same", 0o400);
    let entra = Entra::new();
    entra.always(Endpoint::Token, Some(Reply::error(401, "invalid_client", 7_000_215)));
    let broker = Broker::with_config(&entra, &with_secret(&path));
    assert_eq!(broker.text().await.unwrap_err().kind, ErrorKind::Credential);
    assert_eq!(entra.count(Endpoint::Token), 1);
}

#[tokio::test(start_paused = true)]
async fn b10_an_unusable_file_is_told_and_never_sent() {
    let directory = tempfile::tempdir().unwrap();
    let entra = Entra::new();
    for (content, mode, expected) in [
        ("canary", 0o444, "everyone can read it"),
        ("", 0o400, "empty"),
        ("canary\0", 0o400, "not one line of text"),
    ] {
        let path = directory.path().join("credential");
        let _gone = std::fs::remove_file(&path);
        let path = file(directory.path(), content, mode);
        let refused = Broker::with_config(&entra, &with_secret(&path)).text().await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Config);
        assert!(refused.error.contains(expected), "{}", refused.error);
        assert!(!refused.error.contains("canary"));
    }
    let missing = directory.path().join("missing");
    let broker = Broker::with_config(&entra, &with_token(&missing));
    assert!(broker.text().await.unwrap_err().error.contains("not found"));
    assert_eq!(entra.count(Endpoint::Token), 0);
    // Once it is there, the broker goes on by itself.
    write(&missing, "h.p.s").unwrap();
    pass(seconds(2)).await;
    broker.text().await.unwrap();
}
