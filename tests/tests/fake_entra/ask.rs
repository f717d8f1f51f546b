//! Asking the fake for tokens, and reading what it says.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use e2e::fake_entra::{
    FakeEntra,
    client::{Client, Reply},
    sample::{TILL, TILL_SECRET, WORKLOAD},
};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use serde_json::{Value, json};

pub(crate) const HOST: &str = "login.microsoftonline.com";
pub(crate) const AUDIENCE: &str = "api://AzureADTokenExchange";
pub(crate) const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
pub(crate) const ORDERS_SCOPE: &str = "api://orders/.default";
pub(crate) const CALLER_ID: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";

pub(crate) fn token_path(tenant: &str) -> String {
    format!("/{tenant}/oauth2/v2.0/token")
}

/// The form of a good request with a secret, with members replaced, added or (by "") removed.
pub(crate) fn with_secret(changes: &[(&str, &str)]) -> Vec<(String, String)> {
    changed(
        &[
            ("grant_type", "client_credentials"),
            ("client_id", TILL),
            ("client_secret", TILL_SECRET),
            ("scope", ORDERS_SCOPE),
        ],
        changes,
    )
}

/// The form of a good request with an assertion, changed likewise.
pub(crate) fn with_assertion(assertion: &str, changes: &[(&str, &str)]) -> Vec<(String, String)> {
    changed(
        &[
            ("grant_type", "client_credentials"),
            ("client_id", WORKLOAD),
            ("client_assertion_type", ASSERTION_TYPE),
            ("client_assertion", assertion),
            ("scope", "https://graph.microsoft.com/.default"),
        ],
        changes,
    )
}

/// A form with members replaced, added or (by "") removed.
pub(crate) fn changed(form: &[(&str, &str)], changes: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut form: Vec<(String, String)> =
        form.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    for (name, value) in changes {
        form.retain(|(known, _)| known != name);
        if !value.is_empty() {
            form.push(((*name).into(), (*value).into()));
        }
    }
    form
}

pub(crate) fn encoded(form: &[(String, String)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish()
}

pub(crate) fn post(entra: &FakeEntra, tenant: &str, form: &[(String, String)]) -> Reply {
    let form: Vec<_> = form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    Client::of(entra).post_form(HOST, &token_path(tenant), &form).expect("an answer")
}

/// Asserts the whole shape of a refusal, and that nothing was issued.
pub(crate) fn assert_refused(
    entra: &FakeEntra,
    case: &str,
    reply: &Reply,
    status: u16,
    code: u64,
    error: &str,
) {
    let body = reply.json();
    let found = (reply.status, &body["error_codes"], body["error"].as_str());
    assert_eq!(found, (status, &json!([code]), Some(error)), "{case}: {body}");
    let mut members: Vec<_> = body.as_object().expect("an object").keys().cloned().collect();
    members.sort();
    let expected = [
        "correlation_id",
        "error",
        "error_codes",
        "error_description",
        "error_uri",
        "timestamp",
        "trace_id",
    ];
    assert_eq!(members, expected, "{case}");
    let description = body["error_description"].as_str().expect("a text");
    for part in [
        format!("AADSTS{code}: "),
        format!(" Trace ID: {}", body["trace_id"].as_str().expect("a text")),
        format!(" Correlation ID: {}", body["correlation_id"].as_str().expect("a text")),
        format!(" Timestamp: {}", body["timestamp"].as_str().expect("a text")),
    ] {
        assert!(description.contains(&part), "{case}: {part} is not in {description}");
    }
    assert_eq!(body["error_uri"], json!(format!("https://{HOST}/error?code={code}")), "{case}");
    assert_eq!(reply.header("cache-control"), Some("no-store, no-cache"), "{case}");
    assert_eq!(entra.issued(), 0, "{case}: something was issued");
}

/// The claims of a token, unverified.
pub(crate) fn claims(token: &str) -> Value {
    part(token, 1)
}

/// A JSON part of a token.
pub(crate) fn part(token: &str, number: usize) -> Value {
    let part = token.split('.').nth(number).expect("three parts");
    serde_json::from_slice(&decoded(part)).expect("JSON")
}

/// Whether a key of the set, found by the token's key id, verifies it: RS256 by ring, which has
/// no part in making the token.
pub(crate) fn verifies(key_set: &Value, token: &str) -> bool {
    let kid = &part(token, 0)["kid"];
    let keys = key_set["keys"].as_array().expect("keys");
    let Some(key) = keys.iter().find(|key| key["kid"] == *kid) else { return false };
    let text = |member: &str| decoded(key[member].as_str().expect("a text"));
    let (signed, signature) = token.rsplit_once('.').expect("a token");
    RsaPublicKeyComponents { n: text("n"), e: text("e") }
        .verify(&RSA_PKCS1_2048_8192_SHA256, signed.as_bytes(), &decoded(signature))
        .is_ok()
}

fn decoded(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).expect("base64url")
}
