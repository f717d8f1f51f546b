//! The same tokens through Envoy's native jwt_authn and through ours, in one Envoy. Every
//! difference is in the table, reviewed: where the native filter is lax, ours refuses, and where
//! ours accepts more, a specification says so.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test: what goes wrong fails it"
)]

use e2e::{
    client::Request,
    fake_entra::{FakeEntra, sample},
    stack::{Stack, world::user},
};
use serde_json::{Value, json};

/// Envoy with both judges: below `/native/` jwt_authn decides alone, elsewhere ours does.
async fn both() -> Stack {
    let keys = FakeEntra::sample().0.key_set(sample::TENANT).to_string();
    let native = json!({
        "name": "envoy.filters.http.jwt_authn",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
            "providers": {"entra": {
                "issuer": format!("https://login.microsoftonline.com/{}/v2.0", sample::TENANT),
                "audiences": [sample::ORDERS_API],
                "forward": true,
                "local_jwks": {"inline_string": keys},
            }},
            "rules": [{"match": {"prefix": "/native/"}, "requires": {"provider_name": "entra"}}],
        },
    });
    let ours = json!({"name": "native", "match": {"path": "/native/{**}"}, "allow": "anyone"});
    Stack::builder()
        .configure(move |config| {
            let policy = config.policy_mut("entra-inbound");
            policy["rules"].as_array_mut().expect("rules").insert(0, ours);
            let filters = "/filter_chains/0/filters/0/typed_config/http_filters";
            let filters = config.listener_mut("inbound").pointer_mut(filters).expect("filters");
            filters.as_array_mut().expect("filters").insert(0, native);
        })
        .start()
        .await
}

/// What is sent: an Authorization value, or none and a query.
struct Case {
    what: &'static str,
    authorization: Vec<String>,
    query: String,
    native: u16,
    ours: u16,
}

fn case(what: &'static str, token: &str, native: u16, ours: u16) -> Case {
    Case {
        what,
        authorization: vec![format!("Bearer {token}")],
        query: String::new(),
        native,
        ours,
    }
}

fn cases(stack: &Stack) -> Vec<Case> {
    let key = stack.entra.signing_key();
    let made = user(&stack.entra, &["Orders.Read"]);
    let (good, claims) = (made.sign(), Value::Object(made.claims()));
    let with = |name: &str, value: Value| {
        let mut changed = claims.clone();
        match value {
            Value::Null => changed.as_object_mut().expect("claims").remove(name),
            value => changed.as_object_mut().expect("claims").insert(name.to_owned(), value),
        };
        changed
    };
    let signed = |claims: &Value| key.token(claims);
    let header = |name: &str, value: Value| {
        let mut header = json!({"typ": "JWT", "alg": "RS256", "kid": key.kid});
        match value {
            Value::Null => header.as_object_mut().expect("a header").remove(name),
            value => header.as_object_mut().expect("a header").insert(name.to_owned(), value),
        };
        key.token_with(&header, &claims)
    };
    let kid = json!({"typ": "JWT", "alg": "RS256", "kid": key.kid}).to_string();
    let quoted = key.sign_text(kid.as_bytes(), claims.to_string().replace('"', "'").as_bytes());
    let now = e2e::stack::unix_now();
    let own = sample::ORDERS_API;
    let mut tampered = good.clone();
    let last = tampered.pop().expect("a signature");
    tampered.push(if last == 'A' { 'Q' } else { 'A' });
    let mut cases = vec![
        case("a good token", &good, 200, 200),
        case("another signature", &tampered, 401, 401),
        case("no signature", good.rsplit_once('.').expect("a token").0, 401, 401),
        case("expired", &signed(&with("exp", json!(now - 100))), 401, 401),
        case("not yet valid", &signed(&with("nbf", json!(now + 100))), 401, 401),
        case("algorithm none", &header("alg", json!("none")), 401, 401),
        case("algorithm HS256", &header("alg", json!("HS256")), 401, 401),
        case("unknown key", &header("kid", json!("unknown")), 401, 401),
        case("another issuer", &signed(&with("iss", json!("https://evil.example/"))), 401, 401),
        // Ours does not tell who it was for: every refused token is `invalid_token`.
        case("another audience", &signed(&with("aud", json!("other"))), 403, 401),
        // Ours judges what the token allows, the native filter leaves that to others.
        case("without the scope", &signed(&with("scp", json!("Other"))), 200, 403),
        case("neither a user's nor an application's", &signed(&with("scp", Value::Null)), 200, 401),
        // The native filter tries every key, takes what it does not know, and reads JSON and
        // base64 in more ways than one.
        case("no key id", &header("kid", Value::Null), 200, 401),
        case("an unknown critical extension", &header("crit", json!(["x"])), 200, 401),
        case("an unencoded payload", &header("b64", json!(false)), 200, 401),
        case("another type", &header("typ", json!("at+jwt")), 200, 401),
        case("no expiry", &signed(&with("exp", Value::Null)), 200, 401),
        case("expiry 0", &signed(&with("exp", json!(0))), 200, 401),
        case("issued in the future", &signed(&with("iat", json!(now + 4000))), 200, 401),
        case("a life of days", &signed(&with("exp", json!(now + 864_000))), 200, 401),
        case("an audience with a slash", &signed(&with("aud", json!(format!("{own}/")))), 200, 401),
        case(
            "an audience with a scheme",
            &signed(&with("aud", json!(format!("https://{own}")))),
            200,
            401,
        ),
        case("a list of audiences", &signed(&with("aud", json!(["x", own]))), 200, 401),
        case(
            "another tenant's id",
            &signed(&with("tid", json!("bbbbcccc-1111-dddd-2222-eeee3333ffff"))),
            200,
            401,
        ),
        case("no tenant's id", &signed(&with("tid", Value::Null)), 200, 401),
        case("single quotes", &quoted, 200, 401),
        case("padding", &format!("{good}=="), 200, 401),
        case("a dot behind", &format!("{good}."), 200, 401),
        case("a dot before", &format!(".{good}"), 200, 401),
        // RFC 9110 §11.1: the scheme has no case.
        Case {
            authorization: vec![format!("bearer {good}")],
            ..case("a small scheme", "", 401, 200)
        },
        Case {
            authorization: vec![format!("xx Bearer {good}")],
            ..case("junk before", "", 200, 401)
        },
        Case {
            authorization: vec![format!("Bearer {good} x")],
            ..case("junk behind", "", 401, 401)
        },
        Case {
            authorization: vec![format!("Bearer {good}, Bearer {good}")],
            ..case("two by comma", "", 401, 401)
        },
        Case {
            authorization: vec![format!("Bearer {good}"), format!("Bearer {good}")],
            ..case("two lines", "", 401, 401)
        },
        Case {
            authorization: vec!["Basic eA==".to_owned(), format!("Bearer {good}")],
            ..case("two schemes", "", 200, 401)
        },
    ];
    cases.push(Case { authorization: Vec::new(), ..case("no token", "", 401, 401) });
    // RFC 9700 §4.3.2: no token in a query, where logs keep it.
    cases.push(Case {
        authorization: Vec::new(),
        query: format!("?access_token={good}"),
        ..case("a token in the query", "", 200, 401)
    });
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn every_difference_from_the_native_filter_is_on_the_reviewed_list() {
    let stack = both().await;
    let good = user(&stack.entra, &["Orders.Read"]).sign();
    stack.passed(&Request::get("/orders/7").bearer(&good)).await;
    let mut wrong = Vec::new();
    for case in cases(&stack) {
        let mut found = Vec::new();
        for path in ["/native/orders/7", "/orders/7"] {
            let mut request = Request::get(&format!("{path}{}", case.query));
            for value in &case.authorization {
                request = request.header("authorization", value);
            }
            found.push(stack.call(&request).await.status);
        }
        if found != [case.native, case.ours] {
            wrong.push(format!("{}: {found:?}, not {:?}", case.what, [case.native, case.ours]));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
