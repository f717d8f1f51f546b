//! An application's own assertion counts only when a registered certificate signed it, for this
//! endpoint, in time.

use e2e::fake_entra::{
    Application, Certificate, ClientCertificate, Endpoint, FakeEntra,
    sample::{LEDGER, TENANT, TILL, TILL_SECRET, ledger_certificate},
};
use serde_json::{Value, json};

use crate::ask::{
    ASSERTION_TYPE, HOST, ORDERS_SCOPE, assert_refused, changed, claims, post, token_path,
};

fn form(assertion: &str, changes: &[(&str, &str)]) -> Vec<(String, String)> {
    let good = [
        ("grant_type", "client_credentials"),
        ("client_id", LEDGER),
        ("client_assertion_type", ASSERTION_TYPE),
        ("client_assertion", assertion),
        ("scope", ORDERS_SCOPE),
    ];
    changed(&good, changes)
}

fn ps256(certificate: &Certificate) -> Value {
    json!({"alg": "PS256", "typ": "JWT", "x5t#S256": certificate.sha256()})
}

fn rs256(certificate: &Certificate) -> Value {
    json!({"alg": "RS256", "typ": "JWT", "x5t": certificate.sha1()})
}

/// The claims of a good assertion, with members replaced or (by null) removed.
fn payload(now: u64, changes: &[(&str, Value)]) -> Value {
    let mut claims = json!({
        "aud": format!("https://{HOST}{}", token_path(TENANT)), "iss": LEDGER, "sub": LEDGER,
        "jti": "6f9619ff-8b86-d011-b42d-00c04fc964ff", "nbf": now, "iat": now, "exp": now + 600,
    });
    let members = claims.as_object_mut().expect("an object");
    for (name, value) in changes {
        members.insert((*name).to_owned(), value.clone());
        members.retain(|_, value| !value.is_null());
    }
    claims
}

#[test]
fn both_algorithms_and_every_name_of_the_endpoint_are_accepted() {
    let (entra, _) = FakeEntra::sample();
    let ledger = ledger_certificate();
    let now = entra.now();
    let by_domain = format!("https://{HOST}{}", token_path("contoso.onmicrosoft.com"));
    let aud = |value: &str| payload(now, &[("aud", json!(value))]);
    let shouted = LEDGER.to_uppercase();
    for (case, header, claims_of_it) in [
        ("PS256", ps256(&ledger.certificate), payload(now, &[])),
        ("RS256", rs256(&ledger.certificate), payload(now, &[])),
        ("tenant by domain", ps256(&ledger.certificate), aud(&by_domain)),
        ("id in other case", ps256(&ledger.certificate), payload(now, &[("iss", json!(shouted))])),
        (
            "thumbprint with padding",
            json!({"alg": "PS256", "x5t#S256": ledger.certificate.sha256() + "="}),
            payload(now, &[]),
        ),
        ("no begin", ps256(&ledger.certificate), payload(now, &[("nbf", Value::Null)])),
        ("parts of a second", ps256(&ledger.certificate), {
            payload(now, &[("exp", json!(f64::from(u32::try_from(now).expect("32 bits")) + 599.5))])
        }),
        ("about to begin", ps256(&ledger.certificate), payload(now + 240, &[])),
        ("just ended", ps256(&ledger.certificate), payload(now - 840, &[])),
    ] {
        let reply = post(&entra, TENANT, &form(&ledger.sign(&header, &claims_of_it), &[]));
        assert_eq!(reply.status, 200, "{case}: {}", reply.json());
        let token = claims(reply.json()["access_token"].as_str().expect("a token"));
        assert_eq!((token["azp"].as_str(), token["azpacr"].as_str()), (Some(LEDGER), Some("2")));
        assert_eq!(token["roles"], json!(["Orders.Read.All"]));
    }
    // The same assertion again, as msal for Python sends it; that it is the same can be seen.
    let calls = entra.calls_of(Endpoint::Token);
    let id = |call: usize| calls[call].presented.as_ref().and_then(|said| said.id_hash.clone());
    assert!(id(0).is_some());
    assert_eq!(id(0), id(1));
}

#[test]
fn assertions_of_another_key_certificate_endpoint_or_time_are_refused() {
    let (entra, _) = FakeEntra::sample();
    let ledger = ledger_certificate();
    let now = entra.now();
    let expired = ClientCertificate::new(99, "expired", now - 7200, now);
    let not_yet = ClientCertificate::new(99, "early", now + 60, now + 7200);
    let stranger = ClientCertificate::new(99, "stranger", now - 60, now + 7200);
    entra.directory(|directory| {
        let known = directory.application_mut(TENANT, LEDGER).expect("the ledger");
        *known = known.clone().certificate(&expired.certificate).certificate(&not_yet.certificate);
    });
    let header = ps256(&ledger.certificate);
    let with = |name: &str, value: Value| ledger.sign(&header, &payload(now, &[(name, value)]));
    let good = payload(now, &[]);
    let token = ledger.sign(&header, &good);
    let (signed, _) = token.rsplit_once('.').expect("a token");
    let endpoint = |tenant: &str| json!(format!("https://{HOST}{}", token_path(tenant)));
    let version_1 = json!(format!("https://{HOST}/{TENANT}/oauth2/token"));
    let crossed = json!({"alg": "PS256", "typ": "JWT", "x5t": ledger.certificate.sha1()});
    let client = "invalid_client";
    for (case, assertion, code, error) in [
        (
            "unknown certificate",
            stranger.sign(&ps256(&stranger.certificate), &good),
            700_027,
            client,
        ),
        ("unknown, RS256", stranger.sign(&rs256(&stranger.certificate), &good), 700_027, client),
        ("another's signature", stranger.sign(&header, &good), 700_027, client),
        ("no signature", format!("{signed}."), 700_027, client),
        ("expired", expired.sign(&ps256(&expired.certificate), &good), 700_027, client),
        ("not yet good", not_yet.sign(&ps256(&not_yet.certificate), &good), 700_027, client),
        ("no thumbprint", ledger.sign(&json!({"alg": "PS256"}), &good), 5_002_723, client),
        ("the other one's thumbprint", ledger.sign(&crossed, &good), 5_002_723, client),
        ("HS256", ledger.sign(&json!({"alg": "HS256"}), &good), 5_002_738, client),
        ("none", ledger.sign(&json!({"alg": "none"}), &good), 5_002_738, client),
        ("other issuer", with("iss", json!(TILL)), 700_021, client),
        ("other subject", with("sub", json!(TILL)), 700_021, client),
        ("common endpoint", with("aud", endpoint("common")), 700_023, client),
        ("endpoint of version 1.0", with("aud", version_1), 700_023, client),
        (
            "issuer as audience",
            with("aud", json!(format!("https://{HOST}/{TENANT}/v2.0"))),
            700_023,
            client,
        ),
        ("ended", ledger.sign(&header, &payload(now - 960, &[])), 700_024, client),
        ("not begun", ledger.sign(&header, &payload(now + 360, &[])), 700_024, client),
        ("made in the future", with("iat", json!(now + 360)), 700_024, client),
        ("for an hour", with("exp", json!(now + 3600)), 700_024, client),
        ("no id", with("jti", Value::Null), 50027, "invalid_request"),
        ("a begin that is no date", with("nbf", json!("now")), 50027, "invalid_request"),
        ("no time of issue", with("iat", Value::Null), 50027, "invalid_request"),
        ("no end", with("exp", Value::Null), 50027, "invalid_request"),
        ("no subject", with("sub", Value::Null), 50027, "invalid_request"),
        ("two audiences", with("aud", json!([endpoint(TENANT)])), 50027, "invalid_request"),
    ] {
        let status = if error == client { 401 } else { 400 };
        let reply = post(&entra, TENANT, &form(&assertion, &[]));
        assert_refused(&entra, case, &reply, status, code, error);
        let text = reply.json()["error_description"].to_string();
        let thumbprint = ledger.certificate.sha256();
        assert!(case != "another's signature" || text.contains(&thumbprint), "{text}");
        assert!(!matches!(case, "expired" | "not yet good") || text.contains("expired"), "{text}");
    }
    // One that is good, but not this application's.
    for (case, client) in
        [("no certificate", TILL), ("another's", "aaaaaaaa-0000-4000-8000-000000000001")]
    {
        entra.directory(|directory| {
            let other = Application::new(TENANT, "aaaaaaaa-0000-4000-8000-000000000001", "Other");
            directory.applications.push(other.certificate(&stranger.certificate));
        });
        let own = payload(now, &[("iss", json!(client)), ("sub", json!(client))]);
        let reply =
            post(&entra, TENANT, &form(&ledger.sign(&header, &own), &[("client_id", client)]));
        assert_refused(&entra, case, &reply, 401, 700_027, "invalid_client");
    }
    let both = form(&token, &[("client_secret", TILL_SECRET)]);
    let reply = post(&entra, TENANT, &both);
    assert_refused(&entra, "two credentials", &reply, 400, 9_002_313, "invalid_request");
}
