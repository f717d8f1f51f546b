//! The fake Entra refuses what Entra refuses: one table, each refusal with its number and status.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test's own functions fail the test"
)]

use bytes::Bytes;
use e2e::fake_entra::{
    Application, Cloud, Endpoint, FakeEntra, Tenant,
    client::{Client, Reply},
    sample::{
        Cluster, ORDERS_API, ORDERS_URI, STOCK_API, STOCK_URI, TENANT, TILL, TILL_SECRET, WORKLOAD,
        WORKLOAD_SUBJECT,
    },
};
use http_body_util::Full;
use hyper::Request;
use serde_json::{Value, json};
use tokens::SigningKey;

const HOST: &str = "login.microsoftonline.com";
const AUDIENCE: &str = "api://AzureADTokenExchange";
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const ORDERS_SCOPE: &str = "api://orders/.default";
const CALLER_ID: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";

fn token_path(tenant: &str) -> String {
    format!("/{tenant}/oauth2/v2.0/token")
}

/// The form of a good request with a secret, with members replaced, added or (by "") removed.
fn with_secret(changes: &[(&str, &str)]) -> Vec<(String, String)> {
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
fn with_assertion(assertion: &str, changes: &[(&str, &str)]) -> Vec<(String, String)> {
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

fn changed(form: &[(&str, &str)], changes: &[(&str, &str)]) -> Vec<(String, String)> {
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

fn encoded(form: &[(String, String)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish()
}

fn post(entra: &FakeEntra, tenant: &str, form: &[(String, String)]) -> Reply {
    let form: Vec<_> = form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    Client::of(entra).post_form(HOST, &token_path(tenant), &form).expect("an answer")
}

/// Asserts the whole shape of a refusal, and that nothing was issued.
fn assert_refused(
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

/// A case of a table of forms: name, form, status, AADSTS number, OAuth error.
type Row = (&'static str, Vec<(String, String)>, u16, u64, &'static str);

#[test]
fn requests_that_entra_refuses_get_its_number_status_and_members() {
    let (entra, _) = FakeEntra::sample();
    let now = entra.now();
    entra.directory(|directory| {
        let add = |application| directory.applications.push(application);
        let expired = Application::new(TENANT, "aaaaaaaa-0000-4000-8000-000000000001", "Expired");
        let disabled = Application::new(TENANT, "aaaaaaaa-0000-4000-8000-000000000002", "Disabled");
        let public = Application::new(TENANT, "aaaaaaaa-0000-4000-8000-000000000003", "Phone");
        [
            expired.secret("old", now),
            disabled.secret("s", now + 60).disabled(),
            public.public_client(),
        ]
        .into_iter()
        .for_each(add);
    });
    let expired = "aaaaaaaa-0000-4000-8000-000000000001";
    let disabled = "aaaaaaaa-0000-4000-8000-000000000002";
    let public = "aaaaaaaa-0000-4000-8000-000000000003";
    let unknown = "aaaaaaaa-0000-4000-8000-00000000000f";
    let rows: Vec<Row> = vec![
        ("no grant type", with_secret(&[("grant_type", "")]), 400, 900_144, "invalid_request"),
        ("no client id", with_secret(&[("client_id", "")]), 400, 900_144, "invalid_request"),
        ("no scope", with_secret(&[("scope", "")]), 400, 900_144, "invalid_request"),
        ("no credential", with_secret(&[("client_secret", "")]), 401, 7_000_216, "invalid_client"),
        (
            "password grant",
            with_secret(&[("grant_type", "password"), ("username", "ada"), ("password", "x")]),
            400,
            70003,
            "unsupported_grant_type",
        ),
        (
            "on behalf of",
            with_secret(&[("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer")]),
            400,
            70003,
            "unsupported_grant_type",
        ),
        (
            "refresh token",
            with_secret(&[("grant_type", "refresh_token")]),
            400,
            70003,
            "unsupported_grant_type",
        ),
        (
            "unknown application",
            with_secret(&[("client_id", unknown)]),
            400,
            700_016,
            "unauthorized_client",
        ),
        (
            "disabled application",
            with_secret(&[("client_id", disabled), ("client_secret", "s")]),
            400,
            7_000_112,
            "unauthorized_client",
        ),
        (
            "wrong secret",
            with_secret(&[("client_secret", "wrong")]),
            401,
            7_000_215,
            "invalid_client",
        ),
        (
            "secret of an application that has none",
            with_secret(&[("client_id", WORKLOAD)]),
            401,
            7_000_215,
            "invalid_client",
        ),
        (
            "secret in other case",
            with_secret(&[("client_secret", &TILL_SECRET.to_lowercase())]),
            401,
            7_000_215,
            "invalid_client",
        ),
        (
            "expired secret",
            with_secret(&[("client_id", expired), ("client_secret", "old")]),
            401,
            7_000_222,
            "invalid_client",
        ),
        (
            "public client with a secret",
            with_secret(&[("client_id", public)]),
            400,
            700_025,
            "unauthorized_client",
        ),
        (
            "public client without",
            with_secret(&[("client_id", public), ("client_secret", "")]),
            401,
            7_000_216,
            "invalid_client",
        ),
        (
            "single scope",
            with_secret(&[("scope", "api://orders/Orders.Read.All")]),
            400,
            1_002_012,
            "invalid_scope",
        ),
        (
            "resource without .default",
            with_secret(&[("scope", ORDERS_URI)]),
            400,
            1_002_012,
            "invalid_scope",
        ),
        (
            "OpenID scopes beside it",
            with_secret(&[("scope", "openid api://orders/.default")]),
            400,
            1_002_012,
            "invalid_scope",
        ),
        ("only .default", with_secret(&[("scope", "/.default")]), 400, 70011, "invalid_scope"),
        (
            "two resources",
            with_secret(&[("scope", "api://orders/.default https://graph.microsoft.com/.default")]),
            400,
            28000,
            "invalid_scope",
        ),
        (
            "unknown resource",
            with_secret(&[("scope", "api://nobody/.default")]),
            400,
            500_011,
            "invalid_resource",
        ),
        (
            "resource in other case",
            with_secret(&[("scope", "api://Orders/.default")]),
            400,
            500_011,
            "invalid_resource",
        ),
        (
            "two credentials",
            with_secret(&[
                ("client_assertion", "e.e.e"),
                ("client_assertion_type", ASSERTION_TYPE),
            ]),
            400,
            9_002_313,
            "invalid_request",
        ),
    ];
    for (case, form, status, code, error) in rows {
        assert_refused(&entra, case, &post(&entra, TENANT, &form), status, code, error);
    }
    let good = post(&entra, TENANT, &with_secret(&[]));
    assert_eq!((good.status, entra.issued()), (200, 1), "{}", good.json());
}

#[test]
fn tenants_that_are_not_there_are_refused() {
    let (entra, _) = FakeEntra::sample();
    let american = "dddddddd-0000-4000-8000-000000000001";
    entra.directory(|directory| {
        let tenant = Tenant::new(american, "Fabrikam").cloud(Cloud::UsGovernment);
        directory.tenants.push(tenant);
    });
    let other = "dddddddd-0000-4000-8000-00000000000f";
    for (tenant, code) in [
        (other, 90002),
        (american, 90002),
        ("fabrikam.onmicrosoft.com", 90002),
        ("common", 50059),
        ("organizations", 50059),
        ("consumers", 50059),
    ] {
        let reply = post(&entra, tenant, &with_secret(&[]));
        assert_refused(&entra, tenant, &reply, 400, code, "invalid_request");
    }
    for (tenant, path) in [
        (other, "v2.0/.well-known/openid-configuration"),
        (american, ".well-known/openid-configuration"),
        (other, "discovery/v2.0/keys"),
        (other, "discovery/keys"),
    ] {
        let reply = Client::of(&entra).get(HOST, &format!("/{tenant}/{path}")).expect("an answer");
        assert_refused(&entra, path, &reply, 400, 90002, "invalid_request");
    }
    let contoso = post(&entra, "Contoso.onmicrosoft.com", &with_secret(&[]));
    assert_eq!(contoso.status, 200, "a verified domain stands for its tenant");
}

#[test]
fn requests_of_another_shape_are_refused() {
    let (entra, _) = FakeEntra::sample();
    let client = Client::of(&entra);
    let path = token_path(TENANT);
    let form = encoded(&with_secret(&[]));
    let json = json!({"grant_type": "client_credentials", "client_id": TILL,
        "client_secret": TILL_SECRET, "scope": ORDERS_SCOPE})
    .to_string();
    let twice = format!("{form}&client_id={TILL}");
    let in_query = format!("{path}?{form}");
    let form_type = Some("application/x-www-form-urlencoded");
    let json_type = Some("application/json");
    for (case, method, path, content_type, body, code) in [
        ("GET", "GET", &path, None, "", 900_561),
        ("PUT", "PUT", &path, form_type, form.as_str(), 900_561),
        ("JSON body", "POST", &path, json_type, json.as_str(), 900_144),
        ("JSON as a form", "POST", &path, form_type, json.as_str(), 900_144),
        ("no content type", "POST", &path, None, form.as_str(), 900_144),
        ("form in the query", "POST", &in_query, form_type, "", 900_144),
        ("member twice", "POST", &path, form_type, twice.as_str(), 9_002_313),
        ("not UTF-8", "POST", &path, form_type, "scope=%FF", 9_002_313),
    ] {
        let mut request = Request::builder().method(method).uri(path).header("host", HOST);
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        let request = request.body(Full::from(body.to_owned())).expect("a request");
        let reply = client.send(HOST, request).expect("an answer");
        assert_refused(&entra, case, &reply, 400, code, "invalid_request");
    }
    for (method, path, status) in [
        ("POST", format!("/{TENANT}/oauth2/token"), 404),
        ("GET", format!("/{TENANT}/oauth2/v2.0/authorize"), 404),
        ("GET", "/".to_owned(), 404),
        ("POST", format!("/{TENANT}/discovery/v2.0/keys"), 405),
        ("POST", format!("/{TENANT}/v2.0/.well-known/openid-configuration"), 405),
    ] {
        let request = Request::builder().method(method).uri(&path).header("host", HOST);
        let request = request.body(Full::<Bytes>::default()).expect("a request");
        let reply = client.send(HOST, request).expect("an answer");
        assert_eq!(reply.status, status, "{method} {path}");
    }
    assert_eq!(entra.issued(), 0);
}

/// A change to a service account token, and what Entra says to it.
struct AssertionRow {
    case: &'static str,
    assertion: String,
    status: u16,
    code: u64,
    error: &'static str,
}

#[test]
fn assertions_that_do_not_match_exactly_are_refused() {
    let (entra, cluster) = FakeEntra::sample();
    let now = entra.now();
    let good = |subject: &str, audience: &str| cluster.token(subject, audience, now, 3600);
    let of = |issuer: &str| {
        let other = Cluster { issuer: issuer.to_owned(), key: cluster.key.clone() };
        other.token(WORKLOAD_SUBJECT, AUDIENCE, now, 3600)
    };
    let claims = json!({"iss": cluster.issuer, "sub": WORKLOAD_SUBJECT, "aud": [AUDIENCE],
        "nbf": now, "exp": now + 3600});
    let without = |name: &str| {
        let mut claims = claims.clone();
        claims.as_object_mut().expect("an object").remove(name);
        cluster.key.token_with(&json!({"alg": "RS256", "kid": cluster.key.kid}), &claims)
    };
    let header = |header: Value| cluster.key.token_with(&header, &claims);
    let stranger = SigningKey::new(99, &cluster.key.kid, "");
    let tampered = {
        let token = good(WORKLOAD_SUBJECT, AUDIENCE);
        let (signed, _) = token.rsplit_once('.').expect("a token");
        format!("{signed}.{}", "AAAA".repeat(86))
    };
    let issuer = cluster.issuer.as_str();
    let slashless = issuer.trim_end_matches('/');
    let shouted = issuer.to_uppercase();
    let malformed = |case, assertion| AssertionRow {
        case,
        assertion,
        status: 400,
        code: 50027,
        error: "invalid_request",
    };
    let unproven = |case, assertion, code| AssertionRow {
        case,
        assertion,
        status: 401,
        code,
        error: "invalid_client",
    };
    let rows = [
        unproven("other issuer", of("https://token.actions.githubusercontent.com"), 700_211),
        unproven("issuer without its slash", of(slashless), 700_211),
        unproven("issuer in other case", of(&shouted), 700_211),
        unproven("other subject", good("system:serviceaccount:shop:till", AUDIENCE), 700_213),
        unproven(
            "subject with more",
            good("system:serviceaccount:shop:orders2", AUDIENCE),
            700_213,
        ),
        unproven(
            "subject in other case",
            good("system:serviceaccount:Shop:orders", AUDIENCE),
            7_002_138,
        ),
        unproven("other audience", good(WORKLOAD_SUBJECT, "api://orders"), 700_212),
        unproven(
            "audience in other case",
            good(WORKLOAD_SUBJECT, "api://azureadtokenexchange"),
            700_212,
        ),
        unproven(
            "other cloud's audience",
            good(WORKLOAD_SUBJECT, "api://AzureADTokenExchangeChina"),
            700_212,
        ),
        unproven(
            "other key",
            stranger.token_with(&json!({"alg": "RS256", "kid": "cluster-signing-key"}), &claims),
            700_027,
        ),
        unproven("no such key", header(json!({"alg": "RS256", "kid": "other"})), 700_027),
        unproven("wrong signature", tampered, 700_027),
        unproven("no key id", header(json!({"alg": "RS256"})), 5_002_723),
        unproven("HS256", header(json!({"alg": "HS256", "kid": "cluster-signing-key"})), 5_002_738),
        unproven("none", header(json!({"alg": "none", "kid": "cluster-signing-key"})), 5_002_738),
        unproven("ended", cluster.token(WORKLOAD_SUBJECT, AUDIENCE, now - 3901, 3600), 700_024),
        unproven("not begun", cluster.token(WORKLOAD_SUBJECT, AUDIENCE, now + 400, 3600), 700_024),
        malformed("no token", "secret".to_owned()),
        malformed("two parts", "e30.e30".to_owned()),
        malformed("five parts", "e30.e30.e30.e30.e30".to_owned()),
        malformed(
            "no JSON",
            cluster.key.sign_text(b"{\"alg\":\"RS256\",\"kid\":\"cluster-signing-key\"}", b"x"),
        ),
        malformed("no issuer", without("iss")),
        malformed("no subject", without("sub")),
        malformed("no audience", without("aud")),
        malformed("no end", without("exp")),
    ];
    for AssertionRow { case, assertion, status, code, error } in rows {
        let reply = post(&entra, TENANT, &with_assertion(&assertion, &[]));
        assert_refused(&entra, case, &reply, status, code, error);
    }
    let assertion = good(WORKLOAD_SUBJECT, AUDIENCE);
    for (case, changes, status, code, error) in [
        ("no type", [("client_assertion_type", "")], 400, 900_144, "invalid_request"),
        (
            "SAML type",
            [("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer")],
            400,
            9_002_313,
            "invalid_request",
        ),
        ("application without federation", [("client_id", TILL)], 400, 70021, "invalid_request"),
    ] {
        let reply = post(&entra, TENANT, &with_assertion(&assertion, &changes));
        assert_refused(&entra, case, &reply, status, code, error);
    }
    entra.directory(|directory| directory.issuers.clear());
    let reply = post(&entra, TENANT, &with_assertion(&assertion, &[]));
    assert_refused(&entra, "issuer out of reach", &reply, 400, 90061, "invalid_request");
}

#[test]
fn assertions_count_from_five_minutes_before_their_begin_to_five_after_their_end() {
    let (entra, cluster) = FakeEntra::sample();
    let now = entra.now();
    // Nobody's clock stands still, so the limits are taken a minute off.
    for (case, begin, status) in [
        ("about to begin", now + 240, 200),
        ("too early", now + 360, 401),
        ("just ended", now - 3600 - 240, 200),
        ("long ended", now - 3600 - 360, 401),
    ] {
        let assertion = cluster.token(WORKLOAD_SUBJECT, AUDIENCE, begin, 3600);
        let reply = post(&entra, TENANT, &with_assertion(&assertion, &[]));
        assert_eq!(reply.status, status, "{case}: {}", reply.json());
    }
}

#[test]
fn the_callers_request_id_is_the_correlation_id_and_echoed_when_asked_for() {
    let (entra, _) = FakeEntra::sample();
    let client = Client::of(&entra);
    for (sent, wanted, echoed) in [
        (CALLER_ID, "true", Some(CALLER_ID)),
        (CALLER_ID, "false", None),
        ("not a GUID", "true", None),
    ] {
        let request = Request::post(token_path(TENANT))
            .header("host", HOST)
            .header("client-request-id", sent)
            .header("return-client-request-id", wanted)
            .body(Full::<Bytes>::default())
            .expect("a request");
        let reply = client.send(HOST, request).expect("an answer");
        assert_eq!(reply.header("client-request-id"), echoed, "{sent} {wanted}");
        let correlation_id = reply.json()["correlation_id"].as_str().map(str::to_owned);
        assert_eq!(correlation_id.as_deref() == Some(CALLER_ID), sent == CALLER_ID, "{sent}");
    }
}

#[test]
fn secrets_and_assertions_are_not_shown_by_debug() {
    let (entra, cluster) = FakeEntra::sample();
    let assertion = cluster.token(WORKLOAD_SUBJECT, AUDIENCE, entra.now(), 3600);
    post(&entra, TENANT, &with_secret(&[]));
    post(&entra, TENANT, &with_assertion(&assertion, &[]));
    let calls = entra.calls_of(Endpoint::Token);
    assert_eq!(calls.len(), 2);
    let shown = format!("{calls:?} {entra:?} {:?}", entra.directory(|directory| directory.clone()));
    let (_, signature) = assertion.rsplit_once('.').expect("a token");
    for secret in [TILL_SECRET, signature] {
        assert!(!shown.contains(secret), "{shown}");
        assert!(!json!(calls).to_string().contains(secret));
    }
    let exposed = calls[0].credential.as_ref().map(contract::Secret::expose);
    assert_eq!(exposed, Some(TILL_SECRET), "the test itself can look");
    assert_eq!(calls[0].form_member("client_id"), Some(TILL));
}

#[test]
fn only_entras_and_mapped_names_are_connected_and_only_by_tls() {
    let (entra, _) = FakeEntra::sample();
    let client = Client::of(&entra);
    let path = "/common/discovery/v2.0/keys";
    for host in Cloud::ALL.into_iter().flat_map(Cloud::hosts) {
        assert_eq!(client.get(host, path).expect("an answer").status, 200, "{host}");
    }
    for host in ["example.com", "login.microsoftonline.com.evil.example", "localhost"] {
        let failure = client.get(host, path).expect_err("a refusal").to_string();
        assert!(failure.contains("403"), "{host}: {failure}");
    }
    let elsewhere = Request::get(path).header("host", "login.microsoftonline.us");
    let elsewhere = elsewhere.body(Full::<Bytes>::default()).expect("a request");
    assert_eq!(client.send(HOST, elsewhere).expect("an answer").status, 400);

    // A name that is mapped to the proxy itself answers no TLS: the client sees no handshake.
    entra.map_host("graph.microsoft.com", entra.proxy_address());
    assert!(client.get("graph.microsoft.com", path).is_err());
    let connections = entra.connections();
    assert!(connections.contains(&"CONNECT graph.microsoft.com:443".to_owned()), "{connections:?}");
    assert!(connections.contains(&"CONNECT example.com:443".to_owned()), "{connections:?}");
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
        let claims = support::claims(body["access_token"].as_str().expect("a token"));
        assert_eq!(claims["aud"], json!(audience), "{resource}");
    }
}

mod support {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    use serde_json::Value;

    /// The claims of a token, unverified.
    pub(super) fn claims(token: &str) -> Value {
        let payload = token.split('.').nth(1).expect("three parts");
        let payload = URL_SAFE_NO_PAD.decode(payload).expect("base64url");
        serde_json::from_slice(&payload).expect("JSON")
    }
}
