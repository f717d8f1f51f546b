//! A person signs in: what the client gets for it, and everything that Entra refuses on the way.

use e2e::fake_entra::{
    Application, Endpoint, FakeEntra,
    client::{Client, Reply},
    sample::{ORDERS_API, TENANT, TILL, TILL_SECRET, ada},
};
use serde_json::{Value, json};

use crate::ask::{HOST, claims, encoded, token_path};

const BACK: &str = "http://localhost:5000/signed-in";
const SHOP: &str = "aaaaaaaa-0000-4000-8000-000000000010";
const SECRET: &str = "shop-secret";
/// RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const STEP_UP: &str = r#"{"access_token":{"acrs":{"essential":true,"value":"c2"}}}"#;
const POLICY: &str = "3a1c7c6e-0f0d-4d2c-9f0a-7a3f1f2f6b22";
const SATISFIED: &str = r#"{"access_token":{"capolids":{"essential":true,
    "values":["3a1c7c6e-0f0d-4d2c-9f0a-7a3f1f2f6b22"]}}}"#;
const CAPABLE: &str = r#"{"access_token":{"xms_cc":{"values":["cp1","unheard"]}}}"#;

/// Contoso with a web shop, and Ada at its browser, who can satisfy `c1`, `c2` and one policy.
fn shop() -> FakeEntra {
    let (entra, _) = FakeEntra::sample();
    let end = entra.now() + 3600;
    entra.directory(|directory| {
        let shop = Application::new(TENANT, SHOP, "Shop").secret(SECRET, end).redirect_uri(BACK);
        directory.applications.push(shop);
    });
    entra.at_the_browser(&ada(), &["c1", "c2", POLICY]);
    entra
}

/// A good form, with members replaced, added or (by "") removed.
fn changed(good: &[(&str, &str)], changes: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut form: Vec<(String, String)> =
        good.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    for (name, value) in changes {
        form.retain(|(known, _)| known != name);
        if !value.is_empty() {
            form.push(((*name).into(), (*value).into()));
        }
    }
    form
}

/// What the browser gets for an authorization request.
fn authorize(entra: &FakeEntra, changes: &[(&str, &str)]) -> Reply {
    let good = [
        ("response_type", "code"),
        ("client_id", SHOP),
        ("redirect_uri", BACK),
        ("scope", "openid api://orders/Orders.Read api://orders/Orders.Pay"),
        ("state", "s t&te"),
        ("nonce", "n-1"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ];
    let query = encoded(&changed(&good, changes));
    let path = format!("/{TENANT}/oauth2/v2.0/authorize?{query}");
    Client::of(entra).get(HOST, &path).expect("an answer")
}

/// The query with which the browser comes back.
fn back(reply: &Reply) -> Value {
    assert_eq!(reply.status, 302);
    let (address, query) =
        reply.header("location").and_then(|l| l.split_once('?')).expect("a query");
    assert_eq!(address, BACK);
    form_urlencoded::parse(query.as_bytes()).map(|(n, v)| (n.into_owned(), json!(v))).collect()
}

/// A code of a sign-in with these claims asked for.
fn code(entra: &FakeEntra, claims: &str) -> String {
    let back = back(&authorize(entra, &[("claims", claims)]));
    assert_eq!(back["state"], "s t&te");
    back["code"].as_str().expect("a code").to_owned()
}

fn redeem(entra: &FakeEntra, code: &str, changes: &[(&str, &str)]) -> Reply {
    let good = [
        ("grant_type", "authorization_code"),
        ("client_id", SHOP),
        ("client_secret", SECRET),
        ("redirect_uri", BACK),
        ("code", code),
        ("code_verifier", VERIFIER),
    ];
    let form = changed(&good, changes);
    let form: Vec<_> = form.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    Client::of(entra).post_form(HOST, &token_path(TENANT), &form).expect("an answer")
}

#[test]
fn a_sign_in_ends_in_a_users_token_for_what_was_asked() {
    let entra = shop();
    let answer = redeem(&entra, &code(&entra, ""), &[("client_info", "1")]).json();
    let token = claims(answer["access_token"].as_str().expect("a token"));
    assert_eq!(token["scp"], "Orders.Read Orders.Pay");
    assert_eq!((&token["oid"], &token["azp"]), (&json!(ada().object_id), &json!(SHOP)));
    assert_eq!((&token["aud"], &token["azpacr"]), (&json!(ORDERS_API), &json!("1")));
    assert_eq!((token.get("acrs"), token.get("xms_cc")), (None, None));
    let id_token = claims(answer["id_token"].as_str().expect("an ID token"));
    assert_eq!((&id_token["aud"], &id_token["nonce"]), (&json!(SHOP), &json!("n-1")));
    assert!(answer["client_info"].is_string());
    assert!(answer.get("refresh_token").is_none());
}

#[test]
fn contexts_and_capabilities_are_in_the_token_only_for_who_asks_in_entras_shape() {
    let entra = shop();
    let both =
        r#"{"access_token":{"acrs":{"essential":true,"value":"c2"},"xms_cc":{"values":["cp1"]}}}"#;
    for (at_sign_in, at_token, contexts, capabilities) in [
        (STEP_UP, "", json!(["c2"]), Value::Null),
        (STEP_UP, STEP_UP, json!(["c2"]), Value::Null),
        (both, both, json!(["c2"]), json!(["cp1"])),
        ("", CAPABLE, Value::Null, json!(["cp1"])),
        (CAPABLE, "", Value::Null, Value::Null),
        // What an exchange on behalf of a user was refused with: the sign-in satisfies the policy.
        (SATISFIED, "", json!(["p1"]), Value::Null),
        (r#"{"id_token":{"acrs":{"essential":true,"value":"c2"}}}"#, "", Value::Null, Value::Null),
    ] {
        let answer = redeem(&entra, &code(&entra, at_sign_in), &[("claims", at_token)]).json();
        let token = claims(answer["access_token"].as_str().expect("a token"));
        let found = |name: &str| token.get(name).cloned().unwrap_or_default();
        assert_eq!((found("acrs"), found("xms_cc")), (contexts, capabilities), "{at_sign_in}");
    }
    // An API that never asked for the optional claims gets neither.
    entra.directory(|directory| {
        let api = directory.application_mut(TENANT, ORDERS_API).expect("the API");
        api.optional_claims.clear();
    });
    let answer = redeem(&entra, &code(&entra, both), &[("claims", both)]).json();
    let token = claims(answer["access_token"].as_str().expect("a token"));
    assert_eq!((token.get("acrs"), token.get("xms_cc")), (None, None));
}

#[test]
fn claims_in_another_shape_are_refused() {
    let entra = shop();
    for claims in [
        "c2",
        "{",
        "[]",
        r#"{"acrs":{"essential":true,"value":"c2"}}"#,
        r#"{"access_token":{"acrs":"c2"}}"#,
        r#"{"access_token":{"acrs":["c2"]}}"#,
        r#"{"access_token":{"acrs":{"value":"c2"}}}"#,
        r#"{"access_token":{"acrs":{"essential":"true","value":"c2"}}}"#,
        r#"{"access_token":{"acrs":{"essential":true,"value":"c0"}}}"#,
        r#"{"access_token":{"acrs":{"essential":true,"value":"c100"}}}"#,
        r#"{"access_token":{"acrs":{"essential":true,"value":"c2","more":1}}}"#,
        r#"{"access_token":{"xms_cc":["cp1"]}}"#,
        r#"{"access_token":{"xms_cc":{"values":"cp1"}}}"#,
        // As the header carries it: Base64, which the client must undo.
        "eyJhY2Nlc3NfdG9rZW4iOnsiYWNycyI6eyJlc3NlbnRpYWwiOnRydWUsInZhbHVlIjoiYzIifX19",
    ] {
        let back = back(&authorize(&entra, &[("claims", claims)]));
        assert_eq!(back["error"], "invalid_request", "{claims}");
        assert!(back.get("code").is_none(), "{claims}");
        let refused = redeem(&entra, &code(&entra, ""), &[("claims", claims)]).json();
        assert_eq!(refused["error_codes"], json!([50117]), "{claims}");
    }
    assert_eq!(entra.issued(), 0);
}

#[test]
fn an_authorization_request_that_is_wrong_ends_on_a_page_or_goes_back_with_an_error() {
    let entra = shop();
    // Nothing is sent to an address that is not the client's.
    for (changes, number) in [
        ([("client_id", "aaaaaaaa-0000-4000-8000-00000000000f")], 700_016),
        ([("redirect_uri", "http://localhost:5000/elsewhere")], 50011),
        ([("redirect_uri", "")], 900_144),
    ] {
        let reply = authorize(&entra, &changes);
        assert_eq!((reply.status, reply.header("location")), (400, None), "{changes:?}");
        assert!(String::from_utf8_lossy(&reply.body).contains(&format!("AADSTS{number}")));
    }
    for (name, value, error) in [
        ("response_type", "token", "unsupported_response_type"),
        ("response_mode", "fragment", "invalid_request"),
        ("code_challenge_method", "plain", "invalid_request"),
        ("code_challenge", "", "invalid_request"),
        ("scope", "openid", "invalid_scope"),
        ("scope", "api://orders/Orders.Read api://other/x", "invalid_scope"),
        ("scope", "api://nobody/Orders.Read", "invalid_resource"),
        ("scope", "api://orders/Orders.Refund", "invalid_client"),
    ] {
        let back = back(&authorize(&entra, &[(name, value)]));
        assert_eq!((&back["error"], back.get("code")), (&json!(error), None), "{name}={value}");
        assert_eq!(back["state"], "s t&te");
    }
    // A context that the person cannot satisfy, and a browser that nobody sits at.
    let beyond = STEP_UP.replace("c2", "c3");
    let reply = authorize(&entra, &[("claims", &beyond)]);
    assert!(String::from_utf8_lossy(&reply.body).contains("AADSTS53003"));
    let (nobody, _) = FakeEntra::sample();
    nobody.directory(|directory| {
        directory.applications.push(Application::new(TENANT, SHOP, "Shop").redirect_uri(BACK));
    });
    let reply = authorize(&nobody, &[]);
    assert_eq!((reply.status, reply.header("location")), (200, None));
    assert_eq!(entra.count(Endpoint::Token) + nobody.count(Endpoint::Token), 0);
}

#[test]
fn a_code_is_redeemed_once_by_its_client_with_its_proof() {
    let entra = shop();
    for (changes, number) in [
        (vec![("client_secret", "")], 7_000_218),
        (vec![("client_secret", "wrong")], 7_000_215),
        (vec![("client_id", TILL), ("client_secret", TILL_SECRET)], 70000),
        (vec![("code", "aaaaaaaa-0000-4000-8000-00000000000f")], 70000),
        (vec![("code", "")], 900_144),
        (vec![("redirect_uri", "http://localhost:5000/")], 500_112),
        (vec![("code_verifier", "another")], 501_481),
        (vec![("code_verifier", "")], 501_481),
        (vec![("claims", STEP_UP)], 50076),
    ] {
        let refused = redeem(&entra, &code(&entra, ""), &changes).json();
        assert_eq!(refused["error_codes"], json!([number]), "{changes:?}");
    }
    let used = code(&entra, "");
    assert_eq!(redeem(&entra, &used, &[]).status, 200);
    assert_eq!(redeem(&entra, &used, &[]).json()["error_codes"], json!([54005]));
    // A wrong proof spends the code as well.
    let spoiled = code(&entra, "");
    redeem(&entra, &spoiled, &[("code_verifier", "another")]);
    assert_eq!(redeem(&entra, &spoiled, &[]).json()["error_codes"], json!([54005]));
    let old = code(&entra, "");
    entra.set_clock_offset(600);
    assert_eq!(redeem(&entra, &old, &[]).json()["error_codes"], json!([70008]));
    assert_eq!(entra.issued(), 1);
}
