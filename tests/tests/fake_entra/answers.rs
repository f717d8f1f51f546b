//! What the fake answers when nothing is wrong: documents, tokens, and how both change.

use e2e::fake_entra::{
    Cloud, Credential, Endpoint, FakeEntra, Lifetime, Tenant,
    client::Client,
    cloud::CONSUMERS_TENANT,
    sample::{
        self, ORDERS_API, ORDERS_URI, STOCK_API, STOCK_URI, TENANT, TILL, WORKLOAD,
        WORKLOAD_SUBJECT,
    },
};
use serde_json::{Value, json};
use tokens::SigningKey;

use crate::ask::{AUDIENCE, HOST, claims, part, post, verifies, with_assertion, with_secret};

fn get(entra: &FakeEntra, host: &str, path: &str) -> Value {
    let reply = Client::of(entra).get(host, path).expect("an answer");
    assert_eq!(reply.status, 200, "{host}{path}");
    reply.json()
}

#[test]
fn documents_name_the_tenants_issuer_or_its_template_and_lead_to_their_keys() {
    let (entra, _) = FakeEntra::sample();
    let chinese = "cccccccc-0000-4000-8000-000000000001";
    let american = "cccccccc-0000-4000-8000-000000000002";
    entra.directory(|directory| {
        for (id, cloud) in [(chinese, Cloud::China), (american, Cloud::UsGovernment)] {
            directory.tenants.push(Tenant::new(id, "Fabrikam").cloud(cloud));
        }
    });
    let us = "login.microsoftonline.us";
    let cn = "login.partner.microsoftonline.cn";
    for (host, segment, in_urls, v1, v2) in [
        (HOST, TENANT, TENANT, format!("https://sts.windows.net/{TENANT}/"), TENANT),
        (
            HOST,
            "contoso.onmicrosoft.com",
            TENANT,
            format!("https://sts.windows.net/{TENANT}/"),
            TENANT,
        ),
        (HOST, "common", "common", "https://sts.windows.net/{tenantid}/".into(), "{tenantid}"),
        (
            HOST,
            "organizations",
            "organizations",
            "https://sts.windows.net/{tenantid}/".into(),
            "{tenantid}",
        ),
        (
            HOST,
            "consumers",
            "consumers",
            format!("https://sts.windows.net/{CONSUMERS_TENANT}/"),
            CONSUMERS_TENANT,
        ),
        (us, american, american, format!("https://sts.windows.net/{american}/"), american),
        (cn, chinese, chinese, format!("https://sts.chinacloudapi.cn/{chinese}/"), chinese),
    ] {
        let document =
            get(&entra, host, &format!("/{segment}/v2.0/.well-known/openid-configuration"));
        let base = format!("https://{host}/{in_urls}");
        assert_eq!(document["issuer"], json!(format!("https://{host}/{v2}/v2.0")));
        assert_eq!(document["token_endpoint"], json!(format!("{base}/oauth2/v2.0/token")));
        assert_eq!(document["jwks_uri"], json!(format!("{base}/discovery/v2.0/keys")));
        let older = get(&entra, host, &format!("/{segment}/.well-known/openid-configuration"));
        assert_eq!(older["issuer"], json!(v1));
        assert_eq!(older["jwks_uri"], json!(format!("https://{host}/common/discovery/keys")));
        assert_eq!(older["cloud_instance_name"], document["cloud_instance_name"]);
        for document in [document, older] {
            let uri = document["jwks_uri"].as_str().expect("a text");
            let path = uri.strip_prefix(&format!("https://{host}")).expect("the same host");
            assert!(!get(&entra, host, path)["keys"].as_array().expect("keys").is_empty());
        }
    }
}

#[test]
fn keys_name_their_issuer_by_who_asks_and_carry_their_certificate() {
    let (entra, _) = FakeEntra::sample();
    let anybody = "https://login.microsoftonline.com/{tenantid}/v2.0".to_owned();
    let personal = format!("https://login.microsoftonline.com/{CONSUMERS_TENANT}/v2.0");
    let contoso = format!("https://login.microsoftonline.com/{TENANT}/v2.0");
    for (segment, issuers) in [
        (TENANT, vec![&contoso, &contoso]),
        ("organizations", vec![&anybody, &anybody]),
        ("common", vec![&anybody, &anybody, &personal]),
        ("consumers", vec![&personal]),
    ] {
        let set = get(&entra, HOST, &format!("/{segment}/discovery/v2.0/keys"));
        let keys = set["keys"].as_array().expect("keys");
        let found: Vec<_> = keys.iter().map(|key| key["issuer"].as_str()).collect();
        let expected: Vec<_> = issuers.into_iter().map(|text| Some(text.as_str())).collect();
        assert_eq!(found, expected, "{segment}");
        for key in keys {
            assert_eq!(key["kid"], key["x5t"]);
            assert_eq!(key["cloud_instance_name"], json!("microsoftonline.com"));
            assert!(key["x5c"][0].as_str().is_some_and(|text| text.starts_with("MII")));
        }
        let older = get(&entra, HOST, &format!("/{segment}/discovery/keys"));
        for (key, older) in keys.iter().zip(older["keys"].as_array().expect("keys")) {
            assert_eq!((&older["kid"], &older["n"]), (&key["kid"], &key["n"]));
            assert!(older.get("issuer").is_none(), "version 1.0 key sets name no issuer");
        }
    }
}

#[test]
fn instance_discovery_lists_the_clouds() {
    let (entra, _) = FakeEntra::sample();
    let authorize = format!("https://{HOST}/{TENANT}/oauth2/v2.0/authorize");
    let path = format!(
        "/common/discovery/instance?api-version=1.1&authorization_endpoint={}",
        form_urlencoded::byte_serialize(authorize.as_bytes()).collect::<String>()
    );
    let answer = get(&entra, HOST, &path);
    let expected = format!("https://{HOST}/{TENANT}/v2.0/.well-known/openid-configuration");
    assert_eq!(answer["tenant_discovery_endpoint"], json!(expected));
    assert_eq!(answer["metadata"][0]["preferred_network"], json!(HOST));

    let client = Client::of(&entra);
    for (query, code) in [
        ("", 90014),
        ("?api-version=1.1", 50049),
        ("?api-version=1.1&authorization_endpoint=https://idp.example/common/authorize", 50049),
    ] {
        let reply = client.get(HOST, &format!("/common/discovery/instance{query}"));
        let reply = reply.expect("an answer");
        assert_eq!((reply.status, &reply.json()["error_codes"]), (400, &json!([code])), "{query}");
    }
}

#[test]
fn a_secret_and_an_assertion_give_tokens_that_the_published_keys_verify() {
    let (entra, cluster) = FakeEntra::sample();
    let assertion = cluster.token(WORKLOAD_SUBJECT, AUDIENCE, entra.now(), 3600);
    let scope = [("scope", "https://stock.contoso.com/.default")];
    let till = post(&entra, TENANT, &with_secret(&[])).json();
    let workload = post(&entra, TENANT, &with_assertion(&assertion, &scope)).json();
    for answer in [&till, &workload] {
        let mut members: Vec<_> = answer.as_object().expect("an object").keys().collect();
        members.sort();
        assert_eq!(members, ["access_token", "expires_in", "ext_expires_in", "token_type"]);
        assert_eq!(
            (&answer["token_type"], &answer["expires_in"]),
            (&json!("Bearer"), &json!(3599))
        );
    }
    let set = get(&entra, HOST, &format!("/{TENANT}/discovery/v2.0/keys"));

    let token = till["access_token"].as_str().expect("a token");
    assert!(verifies(&set, token));
    assert_eq!(part(token, 0)["x5t"], Value::Null, "version 2.0 headers have no x5t");
    let found = claims(token);
    let object_id = entra.directory(|directory| {
        directory.find_application(TENANT, TILL).expect("an application").object_id.clone()
    });
    for (name, value) in [
        ("aud", json!(ORDERS_API)),
        ("iss", json!(format!("https://{HOST}/{TENANT}/v2.0"))),
        ("azp", json!(TILL)),
        ("azpacr", json!("1")),
        ("idtyp", json!("app")),
        ("oid", json!(object_id)),
        ("sub", json!(object_id)),
        ("tid", json!(TENANT)),
        ("ver", json!("2.0")),
        ("roles", json!(["Orders.Read.All"])),
        ("nbf", found["iat"].clone()),
        ("scp", Value::Null),
        ("appid", Value::Null),
    ] {
        assert_eq!(found[name], value, "{name}");
    }
    let uti = found["uti"].as_str().expect("a text");
    assert_eq!(entra.calls_of(Endpoint::Token)[0].issued.as_deref(), Some(uti));

    let token = workload["access_token"].as_str().expect("a token");
    assert!(verifies(&set, token));
    assert_eq!(part(token, 0)["x5t"], part(token, 0)["kid"]);
    let found = claims(token);
    for (name, value) in [
        ("aud", json!(STOCK_URI)),
        ("iss", json!(format!("https://sts.windows.net/{TENANT}/"))),
        ("idp", json!(format!("https://sts.windows.net/{TENANT}/"))),
        ("appid", json!(WORKLOAD)),
        ("appidacr", json!("2")),
        ("idtyp", Value::Null),
        ("ver", json!("1.0")),
        ("roles", json!(["Stock.Read.All"])),
        ("azp", Value::Null),
    ] {
        assert_eq!(found[name], value, "{name}");
    }
}

#[test]
fn a_resource_is_named_by_client_id_or_uri_in_a_scope() {
    let (entra, _) = FakeEntra::sample();
    for (resource, audience) in [
        (ORDERS_URI, ORDERS_API),
        (ORDERS_API, ORDERS_API),
        (STOCK_URI, STOCK_URI),
        ("https://stock.contoso.com/", "https://stock.contoso.com/"),
        (STOCK_API, STOCK_API),
    ] {
        let scope = format!("{resource}/.default");
        let reply = post(&entra, TENANT, &with_secret(&[("scope", &scope)]));
        let body = reply.json();
        let claims = claims(body["access_token"].as_str().expect("a token"));
        assert_eq!(claims["aud"], json!(audience), "{resource}");
    }
}

#[test]
fn minted_tokens_look_like_issued_ones_except_for_what_a_test_changes() {
    let (entra, _) = FakeEntra::sample();
    let set = entra.key_set(TENANT);
    let ada = sample::ada();
    let token = entra.token(TENANT, TILL, ORDERS_API).user(&ada, &["Orders.Read", "Orders.Pay"]);
    let signed = token.clone().claim("acrs", json!(["c2"])).claim("rh", Value::Null).sign();
    assert!(verifies(&set, &signed));
    let found = claims(&signed);
    for (name, value) in [
        ("aud", json!(ORDERS_API)),
        ("scp", json!("Orders.Read Orders.Pay")),
        ("oid", json!(ada.object_id)),
        ("preferred_username", json!(ada.principal_name)),
        ("acrs", json!(["c2"])),
        ("rh", Value::Null),
        ("roles", Value::Null),
        ("idtyp", Value::Null),
    ] {
        assert_eq!(found[name], value, "{name}");
    }
    assert_ne!(found["sub"], found["oid"], "sub is pairwise");
    let older = entra.token(TENANT, TILL, STOCK_URI).user(&ada, &["Stock.Read"]).sign();
    assert_eq!(claims(&older)["upn"], json!(ada.principal_name));

    let issued = post(&entra, TENANT, &with_secret(&[])).json();
    let issued = claims(issued["access_token"].as_str().expect("a token"));
    let minted = claims(&entra.token(TENANT, TILL, ORDERS_API).sign());
    let members = |claims: &Value| -> Vec<String> {
        claims.as_object().expect("an object").keys().cloned().collect()
    };
    assert_eq!(members(&minted), members(&issued));

    let strong = entra.token(TENANT, TILL, ORDERS_API).credential(Credential::Assertion);
    assert_eq!(strong.claims()["azpacr"], json!("2"));
    let old = entra.token(TENANT, TILL, ORDERS_API).lifetime(60).age(100).claims();
    assert!(old["exp"].as_u64().expect("a number") < entra.now());
    let stranger = SigningKey::new(4711, &entra.signing_key_id(), "");
    let forged = entra.token(TENANT, TILL, ORDERS_API).signed_by(&stranger).sign();
    assert!(!verifies(&set, &forged));
}

#[test]
fn keys_roll_with_and_without_overlap_and_under_the_same_id() {
    let (entra, _) = FakeEntra::sample();
    let mint = || entra.token(TENANT, TILL, ORDERS_API).sign();
    let before = entra.key_set(TENANT);
    let old = mint();

    let announced = entra.roll_keys();
    let rolled = mint();
    assert_eq!(part(&rolled, 0)["kid"], json!(announced));
    assert!(verifies(&before, &rolled), "the next key was published before it signed");
    assert!(verifies(&entra.key_set(TENANT), &old), "the last key stays");

    let retired = part(&old, 0)["kid"].as_str().expect("a text").to_owned();
    entra.remove_key(&retired);
    assert!(!verifies(&entra.key_set(TENANT), &old));

    let kid = entra.signing_key_id();
    let same_id = entra.key_set(TENANT);
    entra.replace_key_material(&kid);
    let other = mint();
    assert_eq!(part(&other, 0)["kid"], json!(kid));
    assert!(!verifies(&same_id, &other) && verifies(&entra.key_set(TENANT), &other));

    let unprepared = entra.key_set(TENANT);
    entra.roll_keys_without_overlap();
    let emergency = mint();
    assert!(!verifies(&unprepared, &emergency) && !verifies(&entra.key_set(TENANT), &other));
    assert!(verifies(&entra.key_set(TENANT), &emergency));

    let added = entra.add_key();
    assert_ne!(entra.signing_key_id(), added);
    let shown = get(&entra, HOST, &format!("/{TENANT}/discovery/v2.0/keys"));
    assert_eq!(shown, entra.key_set(TENANT));
}

#[test]
fn lifetimes_and_the_clock_can_be_set() {
    let (entra, _) = FakeEntra::sample();
    for (expires_in, refresh_in, shown) in
        [(10, None, None), (10, Some(5), Some(5)), (7200, None, None), (86400, None, Some(43200))]
    {
        entra.set_lifetime(Lifetime { expires_in, refresh_in });
        let answer = post(&entra, TENANT, &with_secret(&[])).json();
        assert_eq!(answer["expires_in"], json!(expires_in));
        assert_eq!(answer.get("refresh_in").and_then(Value::as_u64), shown, "{expires_in}");
        let found = claims(answer["access_token"].as_str().expect("a token"));
        let begin = found["iat"].as_u64().expect("a number");
        assert_eq!(found["exp"], json!(begin + 300 + expires_in));
    }
    entra.set_clock_offset(40 * 365 * 86400);
    let reply = post(&entra, TENANT, &with_secret(&[]));
    assert_eq!(reply.json()["error_codes"], json!([7_000_222]), "the secret ended with 2049");
}
