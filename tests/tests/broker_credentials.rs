//! The broker with a client certificate, against an Entra that checks it: it works, it is renewed
//! while the broker runs, and one that Entra does not know is told of.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::arithmetic_side_effects,
    reason = "a test: what goes wrong fails it"
)]

use std::{
    collections::HashSet,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use e2e::{
    broker::{Broker, BrokerIdentity, BrokerSettings, ask, own_directory},
    fake_entra::{
        Call, ClientCertificate, Endpoint, FakeEntra, Lifetime,
        sample::{LEDGER, TENANT, ledger_certificate},
    },
};
use serde_json::{Value, json};

const SCOPE: &str = "api://orders/.default";
const PATIENCE: Duration = Duration::from_secs(30);

/// Puts key and certificate where the broker looks, whole or not at all.
fn install(file: &Path, certificate: &ClientCertificate) {
    let partial = file.with_extension("partial");
    std::fs::write(&partial, certificate.pem()).expect("a file");
    let own = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&partial, own).expect("the mode");
    std::fs::rename(&partial, file).expect("in its place");
}

/// Registers a certificate in place of those that were there, or beside them.
fn register(entra: &FakeEntra, certificate: &ClientCertificate, alone: bool) {
    entra.directory(|directory| {
        let ledger = directory.application_mut(TENANT, LEDGER).expect("the ledger");
        if alone {
            ledger.certificates.clear();
        }
        ledger.certificates.push(certificate.certificate.clone());
    });
}

/// A JSON part of the assertion that a call brought.
fn part(call: &Call, number: usize) -> Value {
    let assertion = call.credential.as_ref().expect("an assertion").expose();
    let part = assertion.split('.').nth(number).expect("three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64url")).expect("JSON")
}

/// Whether a call brought an assertion of this certificate, in this algorithm, and got a token.
fn worked(call: &Call, certificate: &ClientCertificate, algorithm: &str) -> bool {
    let header = call.credential.as_ref().map(|_| part(call, 0)).unwrap_or_default();
    let (member, thumbprint) = match algorithm {
        "PS256" => ("x5t#S256", certificate.certificate.sha256()),
        _ => ("x5t", certificate.certificate.sha1()),
    };
    call.issued.is_some() && header["alg"] == algorithm && header[member] == *thumbprint
}

/// Settings for two identities that share the file, one for each algorithm.
fn settings(directory: &Path, file: &PathBuf, entra: &FakeEntra) -> BrokerSettings {
    let of = |algorithm: &str| {
        let certificate =
            json!({"tenant": TENANT, "client_id": LEDGER, "file": file, "algorithm": algorithm});
        json!({"client_certificate": certificate, "scopes": [SCOPE]})
    };
    let unused = BrokerIdentity {
        tenant: TENANT.to_owned(),
        client_id: LEDGER.to_owned(),
        token_file: PathBuf::new(),
        scope: SCOPE.to_owned(),
    };
    let mut settings = BrokerSettings::new(directory, &unused, entra);
    settings.config_mut()["identities"] = json!({"default": of("ps256"), "older": of("rs256")});
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn b10_a_certificate_is_renewed_while_the_broker_runs_and_an_unknown_one_is_told_of() {
    let (entra, _) = FakeEntra::sample();
    let directory = own_directory();
    let file = directory.path().join("client.pem");
    let now = entra.now();
    let (old, new) =
        (ledger_certificate(), ClientCertificate::new(99, "new", now - 60, now + 7200));
    // Entra lets tokens be renewed at once, so that the broker signs every few seconds.
    entra.set_lifetime(Lifetime { expires_in: 3599, refresh_in: Some(1) });

    // The one that Entra does not know yet: nothing is ready, and it says why.
    install(&file, &new);
    let settings = settings(directory.path(), &file, &entra);
    let broker = Broker::start(&settings).await;
    let request = json!({"identity": "default", "scope": SCOPE, "destination": "orders"});
    let (status, refused) = ask(&settings.socket, &request).await;
    assert_eq!((status, &refused["kind"]), (503, &json!("credential")), "{refused}");
    let readiness = broker.admin("/readyz").await;
    assert_eq!(readiness.status, 503);
    let refused = &readiness.json()["identities_refused"][0];
    let error = refused["error"].as_str().expect("a text");
    assert!(error.contains("AADSTS700027"), "{error}");
    assert_eq!((&refused["kind"], &refused["never_held"]), (&json!("credential"), &json!(true)));

    // The one that it knows. A running broker would look at the file again within half a minute.
    drop(broker);
    install(&file, &old);
    let broker = Broker::start(&settings).await;
    broker.ready().await;
    let (status, issued) = ask(&settings.socket, &request).await;
    assert_eq!(status, 200, "{issued}");
    for algorithm in ["PS256", "RS256"] {
        assert!(entra.wait_for_call(PATIENCE, |call| worked(call, &old, algorithm)), "{algorithm}");
    }

    // Renewed: first in Entra, then in the file; the old one is withdrawn when the new one works.
    register(&entra, &new, false);
    install(&file, &new);
    for algorithm in ["PS256", "RS256"] {
        assert!(entra.wait_for_call(PATIENCE, |call| worked(call, &new, algorithm)), "{algorithm}");
    }
    register(&entra, &new, true);

    // Back by mistake: the one that worked last serves on.
    entra.forget_calls();
    install(&file, &old);
    assert!(entra.wait_for_call(PATIENCE, |call| call.refused == Some(700_027)));
    assert!(entra.wait_for_call(PATIENCE, |call| worked(call, &new, "PS256")));
    assert_eq!(ask(&settings.socket, &request).await.0, 200);
    assert_eq!(broker.admin("/readyz").await.status, 200);
    assert!(broker.log().contains("new certificate does not work"));

    // Each request had an assertion of its own, for ten minutes, and no log has any.
    let calls = entra.calls_of(Endpoint::Token);
    let ids: HashSet<_> = calls.iter().map(|call| part(call, 1)["jti"].to_string()).collect();
    assert_eq!(ids.len(), calls.len());
    let log = broker.log();
    for call in &calls {
        let claims = part(call, 1);
        let life = claims["exp"].as_u64().zip(claims["nbf"].as_u64());
        assert_eq!(life.map(|(exp, nbf)| exp - nbf), Some(600));
        let assertion = call.credential.as_ref().expect("an assertion").expose();
        assert!(!log.contains(assertion));
    }
}
