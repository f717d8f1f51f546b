//! Assertions that a certificate's key signs, and certificates that are renewed.

use std::{
    fs::{Permissions, set_permissions, write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use contract::ErrorKind;
use ring::{
    digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest},
    signature::{
        RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey,
        VerificationAlgorithm,
    },
};
use serde_json::Value;
use token_broker::config::{Config, document};
use tokens::SigningKey;

use crate::support::{
    Broker, CLIENT, Endpoint, Entra, Reply, SCOPE, START, TENANT, environment, pass, request,
    seconds,
};

/// A certificate as a person has it made: a PEM of key and certificate, and the certificate's DER.
struct Made {
    key: SigningKey,
    pem: String,
    der: Vec<u8>,
}

fn certificate(seed: u64) -> Made {
    let key = SigningKey::new(seed, "", "");
    let signer =
        rcgen::KeyPair::from_pkcs8_pem_and_sign_algo(&key.private_pem(), &rcgen::PKCS_RSA_SHA256)
            .unwrap();
    let made = rcgen::CertificateParams::new(vec!["orders".to_owned()])
        .unwrap()
        .self_signed(&signer)
        .unwrap();
    let pem = format!("{}{}", key.private_pem(), made.pem());
    Made { key, pem, der: made.der().to_vec() }
}

fn file(directory: &Path, pem: &str) -> PathBuf {
    let path = directory.join("client.pem");
    write(&path, pem).unwrap();
    set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
    path
}

fn config(file: &Path, more: &str) -> Result<Config, Vec<String>> {
    let text = format!(
        "{{identities: {{default: {{client_certificate: {{tenant: {TENANT}, client_id: {CLIENT}, \
         file: {}{more}}}, scopes: [{SCOPE}]}}}}}}",
        file.display()
    );
    document::read(&text, &environment(&[]))
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

/// The assertion of a call: header and claims, once the signature is the key's.
fn verified(
    entra: &Entra,
    call: usize,
    key: &SigningKey,
    algorithm: &'static dyn VerificationAlgorithm,
) -> (Value, Value) {
    let form = &entra.calls(Endpoint::Token)[call].form;
    assert_eq!(
        form["client_assertion_type"],
        "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    );
    assert!(!form.contains_key("client_secret"));
    let (signed, signature) = form["client_assertion"].rsplit_once('.').unwrap();
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap();
    UnparsedPublicKey::new(algorithm, key.public_pkcs1_der())
        .verify(signed.as_bytes(), &decode(signature))
        .unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    let read = |part: &str| serde_json::from_slice(&decode(part)).unwrap();
    (read(header), read(claims))
}

#[tokio::test(start_paused = true)]
async fn the_assertion_is_what_entra_wants() {
    let made = certificate(41);
    let directory = tempfile::tempdir().unwrap();
    let path = file(directory.path(), &made.pem);
    let thumbprint = |algorithm| URL_SAFE_NO_PAD.encode(digest(algorithm, &made.der));
    let cases: [(&str, &'static dyn VerificationAlgorithm, &str, &str, String); 3] = [
        ("", &RSA_PSS_2048_8192_SHA256, "PS256", "x5t#S256", thumbprint(&SHA256)),
        (", algorithm: ps256", &RSA_PSS_2048_8192_SHA256, "PS256", "x5t#S256", thumbprint(&SHA256)),
        (
            ", algorithm: rs256",
            &RSA_PKCS1_2048_8192_SHA256,
            "RS256",
            "x5t",
            thumbprint(&SHA1_FOR_LEGACY_USE_ONLY),
        ),
    ];
    for (more, algorithm, name, member, thumbprint) in cases {
        let entra = Entra::new();
        let broker = Broker::with_config(&entra, &config(&path, more).unwrap());
        broker.text().await.unwrap();
        let (header, claims) = verified(&entra, 0, &made.key, algorithm);
        assert_eq!(header["alg"], name);
        assert_eq!(header["typ"], "JWT");
        assert_eq!(header[member], thumbprint.as_str());
        assert_eq!(header.as_object().unwrap().len(), 3);
        let endpoint = format!("https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/token");
        assert_eq!(claims["aud"], endpoint.as_str());
        assert_eq!((claims["iss"].as_str(), claims["sub"].as_str()), (Some(CLIENT), Some(CLIENT)));
        assert_eq!((claims["nbf"].as_u64(), claims["iat"].as_u64()), (Some(START), Some(START)));
        assert_eq!(claims["exp"].as_u64(), Some(START + 600));
        // Made anew for each request.
        pass(seconds(2_600)).await;
        let (_, next) = verified(&entra, 1, &made.key, algorithm);
        assert_ne!(claims["jti"], next["jti"]);
        assert!(next["iat"].as_u64() > claims["iat"].as_u64());
    }
}

#[tokio::test(start_paused = true)]
async fn b10_the_certificate_before_serves_until_the_new_one_works() {
    let (old, new) = (certificate(41), certificate(42));
    let directory = tempfile::tempdir().unwrap();
    let path = file(directory.path(), &old.pem);
    let entra = Entra::new();
    let broker = Broker::with_config(&entra, &config(&path, "").unwrap());
    broker.text().await.unwrap();
    let signs = |call| verified(&entra, call, &old.key, &RSA_PSS_2048_8192_SHA256);

    // Half-written: not sent, and the old one is used.
    let half: String = new.pem.chars().take(new.pem.len() / 2).collect();
    file(directory.path(), &half);
    pass(seconds(2_600)).await;
    assert_eq!(entra.count(Endpoint::Token), 2);
    signs(1);

    // Whole, but Entra does not know it yet: both are tried, the new one first.
    file(directory.path(), &new.pem);
    entra.script(Endpoint::Token, [Reply::error(401, "invalid_client", 700_027)]);
    pass(seconds(2_600)).await;
    assert_eq!(entra.count(Endpoint::Token), 4);
    verified(&entra, 2, &new.key, &RSA_PSS_2048_8192_SHA256);
    signs(3);

    // Entra knows it now: the old one is no longer used.
    pass(seconds(2_600)).await;
    assert!(entra.count(Endpoint::Token) >= 5);
    verified(&entra, 4, &new.key, &RSA_PSS_2048_8192_SHA256);
    entra.always(Endpoint::Token, Some(Reply::error(401, "invalid_client", 700_027)));
    pass(seconds(2_600)).await;
    for call in 5..entra.count(Endpoint::Token) {
        verified(&entra, call, &new.key, &RSA_PSS_2048_8192_SHA256);
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_no_reason_to_use_an_older_certificate() {
    let (old, new) = (certificate(41), certificate(42));
    let directory = tempfile::tempdir().unwrap();
    let path = file(directory.path(), &old.pem);
    let entra = Entra::new();
    let broker = Broker::with_config(&entra, &config(&path, "").unwrap());
    broker.text().await.unwrap();
    file(directory.path(), &new.pem);
    entra.script(Endpoint::Token, [Reply::json(503, &Value::Null)]);
    pass(seconds(2_600)).await;
    for call in 1..entra.count(Endpoint::Token) {
        verified(&entra, call, &new.key, &RSA_PSS_2048_8192_SHA256);
    }
}

#[tokio::test(start_paused = true)]
async fn b10_what_is_no_certificate_is_told_and_never_sent() {
    let (made, other) = (certificate(41), certificate(42));
    let small = SigningKey::with_bits(43, 1024, "", "");
    let ec = rcgen::generate_simple_self_signed(vec!["orders".to_owned()]).unwrap();
    let certificate_alone = made.pem.replace(&made.key.private_pem(), "");
    let cases = [
        (made.key.private_pem(), "no certificate in it"),
        (certificate_alone.clone(), "no private key in it"),
        (format!("{}{}", other.key.private_pem(), certificate_alone), "is not the private key's"),
        (format!("{}{}", ec.signing_key.serialize_pem(), ec.cert.pem()), "is not RSA"),
        (format!("{}{certificate_alone}", small.private_pem()), "is not RSA of 2048"),
        ("canary".to_owned(), "no certificate in it"),
        (String::new(), "empty"),
    ];
    for (pem, expected) in cases {
        let directory = tempfile::tempdir().unwrap();
        let path = file(directory.path(), &pem);
        let entra = Entra::new();
        let broker = Broker::with_config(&entra, &config(&path, "").unwrap());
        let refused = broker.issue(&request("default", SCOPE)).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Config, "{expected}");
        assert!(refused.error.contains(expected), "{expected}: {}", refused.error);
        assert!(!refused.error.contains("canary") && !refused.error.contains("PRIVATE"));
        assert_eq!(entra.count(Endpoint::Token), 0, "{expected}");
    }
    let directory = tempfile::tempdir().unwrap();
    let path = file(directory.path(), &made.pem);
    set_permissions(&path, Permissions::from_mode(0o444)).unwrap();
    let broker = Broker::with_config(&Entra::new(), &config(&path, "").unwrap());
    assert!(broker.text().await.unwrap_err().error.contains("everyone can read it"));
}

#[test]
fn a_certificates_members_are_checked() {
    let good = Path::new("/etc/entra/client.pem");
    config(good, "").unwrap();
    let start = "identities.default.client_certificate";
    let errors = config(good, ", algorithm: es256").unwrap_err();
    assert_eq!(errors, [format!("{start}.algorithm: expected `ps256` or `rs256`")]);
    let errors = config(Path::new("''"), ", cloud: mars").unwrap_err();
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors[0].starts_with(&format!("{start}.cloud: unknown cloud")), "{errors:?}");
    assert!(errors[1].starts_with(&format!("{start}.file: missing")), "{errors:?}");
}
