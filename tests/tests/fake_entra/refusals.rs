//! Every refusal has Entra's number, status and members, and nothing is issued.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
};

use bytes::Bytes;
use e2e::fake_entra::{
    Application, Cloud, Endpoint, FakeEntra, Tenant,
    client::Client,
    sample::{ORDERS_URI, TENANT, TILL, TILL_SECRET, WORKLOAD, WORKLOAD_SUBJECT},
};
use http_body_util::Full;
use hyper::Request;
use serde_json::json;

use crate::ask::{
    ASSERTION_TYPE, AUDIENCE, CALLER_ID, HOST, ORDERS_SCOPE, assert_refused, encoded, post,
    token_path, with_assertion, with_secret,
};

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
            "SAML assertion",
            with_secret(&[("grant_type", "urn:ietf:params:oauth:grant-type:saml2-bearer")]),
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
        ("GET", format!("/{TENANT}/oauth2/authorize"), 404),
        ("POST", format!("/{TENANT}/oauth2/v2.0/authorize"), 405),
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
fn plain_http_is_answered_by_nobody() {
    let (entra, _) = FakeEntra::sample();
    let get = format!("GET /{TENANT}/discovery/v2.0/keys HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let absolute = get.replacen("GET ", &format!("GET http://{HOST}"), 1);
    let connect = |port: u16| format!("CONNECT {HOST}:{port} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    for (case, sent) in [("not tunnelled", absolute), ("tunnel to port 80", connect(80))] {
        let answer = exchange(&mut reach(&entra), &sent);
        assert!(answer.starts_with("HTTP/1.1 403"), "{case}: {answer}");
    }
    let mut tunnel = reach(&entra);
    tunnel.write_all(connect(443).as_bytes()).expect("sent");
    let mut answer = [0; 12];
    tunnel.read_exact(&mut answer).expect("an answer to CONNECT");
    assert_eq!(&answer, b"HTTP/1.1 200");
    let answer = exchange(&mut tunnel, &get);
    assert!(!answer.contains("HTTP/1.1"), "{answer}");
    assert_eq!(entra.calls().len(), 0);
}

fn reach(entra: &FakeEntra) -> TcpStream {
    TcpStream::connect(entra.proxy_address()).expect("a connection")
}

/// Sends the last of a request, and reads until the other side ends or resets the connection.
fn exchange(stream: &mut TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).expect("sent");
    stream.shutdown(Shutdown::Write).expect("the last of the request");
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer));
    String::from_utf8_lossy(&answer).into_owned()
}
