//! A user's token becomes one for the API behind, for the application that it was issued to and as
//! far as consent and Conditional Access go.

use e2e::fake_entra::{
    Application, Demand, FakeEntra, Policy, Standing, TokenBuilder, TokenVersion, User,
    client::Reply,
    sample::{GRAPH, ORDERS_API, STOCK_API, STOCK_URI, TENANT, TILL, ada},
};
use serde_json::{Value, json};
use tokens::SigningKey;

use crate::ask::{assert_refused, changed, claims, post, verifies};

const SECRET: &str = "orders-secret";
const PROFILE: &str = "https://graph.microsoft.com/User.Read";
const POLICY: &str = "3a1c7c6e-0f0d-4d2c-9f0a-7a3f1f2f6b22";
const SHOP: &str = "aaaaaaaa-0000-4000-8000-000000000020";

/// Contoso, where the orders API has a secret.
fn contoso() -> FakeEntra {
    let (entra, _) = FakeEntra::sample();
    let end = entra.now() + 3600;
    change(&entra, ORDERS_API, |orders| orders.secret(SECRET, end));
    entra
}

fn change(entra: &FakeEntra, client: &str, change: impl FnOnce(Application) -> Application) {
    entra.directory(|directory| {
        let known = directory.application_mut(TENANT, client).expect("an application");
        *known = change(known.clone());
    });
}

/// Ada's token for the orders API, which the till got.
fn adas(entra: &FakeEntra) -> TokenBuilder {
    entra.token(TENANT, TILL, "api://orders").user(&ada(), &["Orders.Read"])
}

fn exchange(entra: &FakeEntra, assertion: &str, changes: &[(&str, &str)]) -> Reply {
    let good = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
        ("client_id", ORDERS_API),
        ("client_secret", SECRET),
        ("assertion", assertion),
        ("scope", PROFILE),
        ("requested_token_use", "on_behalf_of"),
    ];
    post(entra, TENANT, &changed(&good, changes))
}

/// A refusal that Conditional Access made: its number, and the claims that it asks for.
fn demanded(reply: &Reply) -> (u64, Value) {
    let body = reply.json();
    let asked = (reply.status, &body["error"], &body["suberror"]);
    assert_eq!(asked, (400, &json!("interaction_required"), &json!("basic_action")), "{body}");
    let wanted = body["claims"].as_str().expect("claims as JSON text");
    let code = body["error_codes"][0].as_u64().expect("a number");
    (code, serde_json::from_str(wanted).expect("JSON"))
}

#[test]
fn the_token_is_the_same_users_for_the_api_behind() {
    let entra = contoso();
    let assertion = adas(&entra).sign();
    for (case, scope, granted) in [
        ("one scope", PROFILE.to_owned(), "User.Read"),
        (
            "all that is consented to",
            "https://graph.microsoft.com/.default".to_owned(),
            "User.Read",
        ),
        ("as msal asks", format!("openid offline_access profile {PROFILE}"), "User.Read"),
    ] {
        let reply = exchange(&entra, &assertion, &[("scope", &scope)]);
        let body = reply.json();
        assert_eq!(reply.status, 200, "{case}: {body}");
        assert_eq!(body["expires_in"], json!(3599), "{case}");
        assert_eq!(body["scope"], json!(format!("https://graph.microsoft.com/{granted}")));
        assert_eq!(body["id_token"].is_string(), scope.starts_with("openid"), "{case}");
        let token = body["access_token"].as_str().expect("a token");
        assert!(verifies(&entra.key_set(TENANT), token), "{case}");
        let claims = claims(token);
        for (name, wanted) in [
            ("oid", ada().object_id.as_str()),
            ("tid", TENANT),
            ("aud", "https://graph.microsoft.com"),
            ("appid", ORDERS_API),
            ("appidacr", "1"),
            ("scp", granted),
        ] {
            assert_eq!(claims[name], json!(wanted), "{case}: {name}");
        }
        assert!(claims["roles"].is_null(), "{case}: {claims}");
    }
    // Nobody's token is in the record.
    let (_, signature) = assertion.rsplit_once('.').expect("a token");
    let shown = format!("{:?} {}", entra.calls(), json!(entra.calls()));
    assert!(!shown.contains(signature), "{shown}");
    // A version 1.0 middle tier is named by its address.
    change(&entra, STOCK_API, |stock| {
        stock
            .secret(SECRET, u64::MAX)
            .consent(ORDERS_API, "Orders.Read")
            .consent(ORDERS_API, "Orders.Pay")
    });
    let for_stock = entra.token(TENANT, TILL, STOCK_URI).user(&ada(), &["Stock.Read"]).sign();
    let scopes = "api://orders/Orders.Read api://orders/Orders.Pay";
    let reply = exchange(&entra, &for_stock, &[("client_id", STOCK_API), ("scope", scopes)]);
    assert_eq!(reply.status, 200, "{}", reply.json());
    let claims = claims(reply.json()["access_token"].as_str().expect("a token"));
    assert_eq!((&claims["azp"], &claims["aud"]), (&json!(STOCK_API), &json!(ORDERS_API)));
    assert_eq!(claims["scp"], json!("Orders.Read Orders.Pay"));
}

#[test]
fn assertions_that_are_not_a_users_token_for_this_application_are_refused() {
    let entra = contoso();
    let good = adas(&entra);
    let stranger = SigningKey::new(99, &entra.signing_key_id(), "");
    let signed = good.sign();
    let id_token = good.clone().claim("scp", Value::Null).claim("azp", Value::Null);
    let nobody = User { object_id: "00000000-0000-4000-8000-00000000000f".to_owned(), ..ada() };
    let elsewhere = "dddddddd-0000-4000-8000-00000000000f";
    let guest = good.clone().claim("tid", elsewhere);
    let guest = guest.claim("iss", format!("https://login.microsoftonline.com/{elsewhere}/v2.0"));
    let foreign = good.clone().claim("iss", "https://login.microsoftonline.us/x/v2.0");
    let for_another = entra.token(TENANT, TILL, STOCK_URI).user(&ada(), &["Stock.Read"]);
    let grant = "invalid_grant";
    for (case, assertion, code, error) in [
        ("another key", good.clone().signed_by(&stranger).sign(), 50013, grant),
        ("unknown key", good.clone().signed_by(&SigningKey::new(99, "k", "")).sign(), 50013, grant),
        (
            "no signature",
            signed.rsplit_once('.').expect("a token").0.to_owned() + ".",
            50013,
            grant,
        ),
        ("another issuer", foreign.sign(), 50013, grant),
        ("another audience", for_another.sign(), 500_131, grant),
        (
            "audience in other case",
            good.clone().claim("aud", "API://orders").sign(),
            500_131,
            grant,
        ),
        ("ended this second", good.clone().age(3600).lifetime(3600).sign(), 500_133, grant),
        (
            "an application's own",
            entra.token(TENANT, TILL, "api://orders").sign(),
            7_000_114,
            "unauthorized_client",
        ),
        ("an ID token", id_token.sign(), 240_002, grant),
        ("another tenant's", guest.sign(), 50020, grant),
        ("nobody's", good.clone().user(&nobody, &["Orders.Read"]).sign(), 50034, grant),
        ("no token", "secret".to_owned(), 50027, "invalid_request"),
        ("five parts", "e30.e30.e30.e30.e30".to_owned(), 50027, "invalid_request"),
    ] {
        assert_refused(&entra, case, &exchange(&entra, &assertion, &[]), 400, code, error);
    }
    entra.directory(|directory| {
        directory.user_mut(TENANT, &ada().object_id).expect("ada").disabled = true;
    });
    assert_refused(&entra, "blocked", &exchange(&entra, &signed, &[]), 400, 50057, grant);
    entra.directory(|directory| {
        directory.user_mut(TENANT, &ada().object_id).expect("ada").disabled = false;
    });
    entra.revoke_sessions(TENANT, &ada().object_id);
    assert_refused(&entra, "sessions ended", &exchange(&entra, &signed, &[]), 400, 50173, grant);
}

#[test]
fn requests_of_another_shape_or_without_proof_are_refused() {
    let entra = contoso();
    let assertion = adas(&entra).sign();
    let (request, scope) = ("invalid_request", "invalid_scope");
    for (case, changes, status, code, error) in [
        ("no assertion", [("assertion", "")], 400, 900_144, request),
        ("no scope", [("scope", "")], 400, 900_144, request),
        ("no use", [("requested_token_use", "")], 400, 900_144, request),
        ("another use", [("requested_token_use", "logon")], 400, 9_002_313, request),
        ("broken claims", [("claims", "{")], 400, 50117, request),
        ("no secret", [("client_secret", "")], 401, 7_000_218, "invalid_client"),
        ("wrong secret", [("client_secret", "wrong")], 401, 7_000_215, "invalid_client"),
        ("no resource", [("scope", "User.Read")], 400, 70011, scope),
        (
            "two resources",
            [("scope", "api://orders/Orders.Read https://graph.microsoft.com/User.Read")],
            400,
            28000,
            scope,
        ),
        (
            "one and all",
            [(
                "scope",
                "https://graph.microsoft.com/User.Read https://graph.microsoft.com/.default",
            )],
            400,
            70011,
            scope,
        ),
        (
            "unknown resource",
            [("scope", "api://nobody/.default")],
            400,
            500_011,
            "invalid_resource",
        ),
        (
            "unknown scope",
            [("scope", "https://graph.microsoft.com/Sun.Shine")],
            401,
            650_053,
            "invalid_client",
        ),
    ] {
        assert_refused(&entra, case, &exchange(&entra, &assertion, &changes), status, code, error);
    }
    // What nobody consented to, for a person to change.
    for scope in [
        "https://graph.microsoft.com/Mail.Read",
        "https://stock.contoso.com/.default",
        "https://graph.microsoft.com/User.Read https://graph.microsoft.com/Mail.Read",
    ] {
        let reply = exchange(&entra, &assertion, &[("scope", scope)]);
        let body = reply.json();
        let found = (reply.status, &body["error"], &body["suberror"], &body["error_codes"]);
        let wanted = (400, &json!("invalid_grant"), &json!("consent_required"), &json!([65001]));
        assert_eq!(found, wanted, "{scope}: {body}");
    }
    assert_eq!(entra.issued(), 0);
}

#[test]
fn conditional_access_demands_until_the_assertion_has_what_it_wants() {
    let entra = contoso();
    let plain = adas(&entra).sign();
    for (demand, code, wanted, met) in [
        (
            Demand::SecondFactor,
            50076,
            json!({"capolids": {"essential": true, "values": [POLICY]}}),
            json!(["p1"]),
        ),
        (
            Demand::Enrolment,
            50079,
            json!({"capolids": {"essential": true, "values": [POLICY]}}),
            json!(["p1"]),
        ),
        (
            Demand::Context("c3".to_owned()),
            50076,
            json!({"acrs": {"essential": true, "value": "c3"}}),
            json!(["c3"]),
        ),
    ] {
        change(&entra, GRAPH, |graph| graph.policy(Policy::new(POLICY, demand.clone())));
        let refused = demanded(&exchange(&entra, &plain, &[]));
        assert_eq!(refused, (code, json!({"access_token": wanted})), "{demand:?}");
        let stronger = adas(&entra).claim("acrs", met).sign();
        assert_eq!(exchange(&entra, &stronger, &[]).status, 200, "{demand:?}");
        let weaker = adas(&entra).claim("acrs", json!(["c1"])).sign();
        assert_eq!(demanded(&exchange(&entra, &weaker, &[])).0, code, "{demand:?}");
    }
    change(&entra, GRAPH, |graph| Application { policy: None, ..graph });
    // The API behind has challenged, and the sign-in has not reached that context.
    let challenge = r#"{"access_token":{"acrs":{"essential":true,"value":"c2"}}}"#;
    let (code, wanted) = demanded(&exchange(&entra, &plain, &[("claims", challenge)]));
    assert_eq!((code, wanted.to_string()), (50076, challenge.to_owned()));
    let stronger = adas(&entra).claim("acrs", json!(["c1", "c2"])).sign();
    assert_eq!(exchange(&entra, &stronger, &[("claims", challenge)]).status, 200);
    // A policy that nothing satisfies.
    change(&entra, ORDERS_API, Application::blocked);
    let body = exchange(&entra, &plain, &[]).json();
    assert_eq!((&body["error"], &body["error_codes"]), (&json!("invalid_grant"), &json!([53003])));
    assert!(body["claims"].as_str().is_some_and(|claims| claims.contains("capolids")), "{body}");
}

#[test]
fn a_capable_application_gets_a_long_token_that_ends_with_the_users_sessions() {
    let entra = contoso();
    let capable = r#"{"access_token":{"xms_cc":{"values":["cp1"]}}}"#;
    let body = exchange(&entra, &adas(&entra).sign(), &[("claims", capable)]).json();
    assert_eq!(body["expires_in"], json!(100_799), "{body}");
    let token = body["access_token"].as_str().expect("a token").to_owned();
    assert_eq!(entra.standing(&token), Standing::Good);
    let valid_from = entra.revoke_sessions(TENANT, &ada().object_id);
    let Standing::Challenged(challenge) = entra.standing(&token) else { panic!("not challenged") };
    assert!(challenge.contains(&valid_from.to_string()), "{challenge}");
    // A new sign-in of the user, and the challenge answered.
    let fresh = adas(&entra).claim("iat", valid_from).sign();
    let body = exchange(&entra, &fresh, &[("claims", &challenge)]).json();
    let token = body["access_token"].as_str().unwrap_or_else(|| panic!("{body}"));
    assert_eq!(entra.standing(token), Standing::Good);
}

#[test]
fn a_version_2_api_behind_shows_the_contexts_that_were_asked_for() {
    let entra = contoso();
    entra.directory(|directory| {
        let shop = Application::new(TENANT, SHOP, "Shop").app_id_uri("api://shop");
        let shop = shop.secret(SECRET, u64::MAX).token_version(TokenVersion::V2);
        directory.applications.push(shop.consent(ORDERS_API, "Orders.Pay"));
    });
    let assertion = entra.token(TENANT, TILL, "api://shop").user(&ada(), &["Buy"]);
    let assertion = assertion.claim("acrs", json!(["c1", "c2"])).sign();
    let challenge = r#"{"access_token":{"acrs":{"essential":true,"value":"c2"}}}"#;
    let changes =
        [("client_id", SHOP), ("scope", "api://orders/Orders.Pay"), ("claims", challenge)];
    let body = exchange(&entra, &assertion, &changes).json();
    let claims = claims(body["access_token"].as_str().unwrap_or_else(|| panic!("{body}")));
    assert_eq!(claims["acrs"], json!(["c2"]));
    assert_eq!(claims["azp"], json!(SHOP));
}
