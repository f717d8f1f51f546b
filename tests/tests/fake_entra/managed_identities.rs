//! The fake metadata service hands out tokens as strictly as the real one, and they count as client
//! assertions where an application trusts the identity.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use e2e::fake_entra::{
    FakeEntra, MetadataService,
    assertion::TOKEN_EXCHANGE,
    sample::{
        GRAPH_URI, LEDGER, LEDGER_IDENTITY, LEDGER_IDENTITY_RESOURCE, MACHINE_IDENTITY, TENANT,
        TILL, machine,
    },
};
use serde_json::{Value, json};

use crate::ask::{ASSERTION_TYPE, AUDIENCE, ORDERS_SCOPE, assert_refused, changed, claims, post};

const GRAPH: &str = "&resource=https%3A%2F%2Fgraph.microsoft.com";
const EXCHANGE: &str = "&resource=api%3A%2F%2FAzureADTokenExchange";
const VERSION: &str = "/metadata/identity/oauth2/token?api-version=2018-02-01";

/// Status and body of a plain HTTP request; blocking.
fn ask(service: &MetadataService, start: &str, headers: &str) -> (u16, Value) {
    let address = service.url().replace("http://", "");
    let mut stream = TcpStream::connect(&address).expect("a connection");
    let request = format!("{start} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    // The service ends the connection when nothing more can come.
    stream.shutdown(Shutdown::Write).expect("the last of the request");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a deadline");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    let status = head.split(' ').nth(1).and_then(|text| text.parse().ok()).expect("a status");
    (status, serde_json::from_str(body).unwrap_or_default())
}

fn get(service: &MetadataService, query: &str) -> (u16, Value) {
    ask(service, &format!("GET {VERSION}{query}"), "Metadata: true\r\n")
}

#[test]
fn the_metadata_service_gives_tokens_to_whoever_asks_as_its_documentation_says() {
    let (entra, _) = FakeEntra::sample();
    let service = MetadataService::start(&entra, machine());
    let object_id = entra.directory(|directory| {
        let known = directory.find_application(TENANT, LEDGER_IDENTITY);
        known.expect("the identity").object_id.clone()
    });
    let resource_id = LEDGER_IDENTITY_RESOURCE.replace('/', "%2F");
    for (case, query, client) in [
        ("the machine's own", GRAPH.to_owned(), MACHINE_IDENTITY),
        ("by client id", format!("{GRAPH}&client_id={LEDGER_IDENTITY}"), LEDGER_IDENTITY),
        ("by object id", format!("{GRAPH}&object_id={object_id}"), LEDGER_IDENTITY),
        ("by resource id", format!("{GRAPH}&msi_res_id={resource_id}"), LEDGER_IDENTITY),
        ("own by client id", format!("{GRAPH}&client_id={MACHINE_IDENTITY}"), MACHINE_IDENTITY),
    ] {
        let (status, body) = get(&service, &query);
        assert_eq!(status, 200, "{case}: {body}");
        let token = claims(body["access_token"].as_str().expect("a token"));
        assert_eq!((&token["appid"], &token["aud"]), (&json!(client), &json!(GRAPH_URI)), "{case}");
        assert_eq!((&body["client_id"], &body["resource"]), (&json!(client), &json!(GRAPH_URI)));
        // Numbers are strings here, and tokens live for a day.
        assert!(
            ["expires_in", "expires_on", "not_before"].iter().all(|name| body[*name].is_string())
        );
        assert_eq!(body["expires_on"], json!(token["exp"].to_string()), "{case}");
        assert_eq!(get(&service, &query).1["access_token"], body["access_token"], "{case}: cached");
    }
    let good = format!("GET {VERSION}{GRAPH}");
    let asked = |start: &str| start.replacen(VERSION, "/metadata/identity/oauth2/token", 1);
    for (case, start, headers, status, error) in [
        ("no header", good.clone(), "", 400, "invalid_request"),
        ("header says no", good.clone(), "Metadata: false\r\n", 400, "invalid_request"),
        (
            "by a proxy",
            good.clone(),
            "Metadata: true\r\nX-Forwarded-For: 10.0.0.1\r\n",
            400,
            "invalid_request",
        ),
        ("POST", good.replacen("GET", "POST", 1), "Metadata: true\r\n", 405, ""),
        (
            "other path",
            good.replacen("oauth2/token", "oauth2/info", 1),
            "Metadata: true\r\n",
            404,
            "",
        ),
        (
            "no version",
            asked(&good).replacen('&', "?", 1),
            "Metadata: true\r\n",
            400,
            "invalid_request",
        ),
        (
            "old version",
            good.replacen("2018-02-01", "2017-12-01", 1),
            "Metadata: true\r\n",
            400,
            "invalid_request",
        ),
        ("no resource", format!("GET {VERSION}"), "Metadata: true\r\n", 400, "invalid_request"),
        (
            "two resources",
            format!("{good}{EXCHANGE}"),
            "Metadata: true\r\n",
            400,
            "invalid_request",
        ),
        (
            "unknown resource",
            format!("GET {VERSION}&resource=https%3A%2F%2Fnobody.example"),
            "Metadata: true\r\n",
            400,
            "invalid_resource",
        ),
        (
            "unknown id",
            format!("{good}&client_id={TILL}"),
            "Metadata: true\r\n",
            400,
            "invalid_request",
        ),
        (
            "two names",
            format!("{good}&client_id={LEDGER_IDENTITY}&object_id={object_id}"),
            "Metadata: true\r\n",
            400,
            "invalid_request",
        ),
    ] {
        let (found, body) = ask(&service, &start, headers);
        assert_eq!(found, status, "{case}: {body}");
        assert_eq!(body["error"].as_str().unwrap_or_default(), error, "{case}: {body}");
        assert!(body["access_token"].is_null(), "{case}");
    }
    for status in [404, 410, 429, 503] {
        service.fail_next(1, status);
        assert_eq!(get(&service, GRAPH).0, status);
        assert_eq!(get(&service, GRAPH).0, 200, "once only");
    }
}

#[test]
fn without_an_identity_of_its_own_the_machine_must_be_told_which() {
    let (entra, _) = FakeEntra::sample();
    let mut of_it = machine();
    of_it.system_assigned = None;
    let service = MetadataService::start(&entra, of_it.clone());
    assert_eq!(get(&service, GRAPH).1["client_id"], json!(LEDGER_IDENTITY), "the only one");
    of_it.user_assigned.push(MACHINE_IDENTITY.to_owned());
    let service = MetadataService::start(&entra, of_it.clone());
    assert_eq!(get(&service, GRAPH).0, 400, "one of two");
    of_it.user_assigned.clear();
    let service = MetadataService::start(&entra, of_it);
    assert_eq!(get(&service, GRAPH).1["error_description"], json!("Identity not found"));
}

#[test]
fn a_managed_identitys_token_is_an_assertion_where_an_application_trusts_it() {
    let (entra, _) = FakeEntra::sample();
    let service = MetadataService::start(&entra, machine());
    let of = |resource: &str, client: &str| {
        let (_, body) = get(&service, &format!("{resource}&client_id={client}"));
        body["access_token"].as_str().expect("a token").to_owned()
    };
    let form = |assertion: &str| {
        let good = [
            ("grant_type", "client_credentials"),
            ("client_id", LEDGER),
            ("client_assertion_type", ASSERTION_TYPE),
            ("client_assertion", assertion),
            ("scope", ORDERS_SCOPE),
        ];
        changed(&good, &[])
    };
    let good = of(EXCHANGE, LEDGER_IDENTITY);
    // In the token the audience is the exchange's id, in the credential its name.
    assert_eq!(claims(&good)["aud"], json!(TOKEN_EXCHANGE));
    let mut refused = Vec::new();
    let pretender = entra.token(TENANT, TILL, AUDIENCE);
    let subject = claims(&good)["sub"].clone();
    refused.extend([
        ("another identity", of(EXCHANGE, MACHINE_IDENTITY), 700_213),
        // A version 1.0 token has another issuer.
        ("for Graph", of(GRAPH, LEDGER_IDENTITY), 700_211),
        ("an application's", pretender.sign(), 700_213),
        (
            "not signed by Entra",
            pretender
                .claim("sub", subject.clone())
                .signed_by(&tokens::SigningKey::new(99, &entra.signing_key_id(), ""))
                .sign(),
            700_027,
        ),
    ]);
    let ended = entra.token(TENANT, LEDGER_IDENTITY, AUDIENCE).lifetime(60).age(3600).sign();
    refused.push(("ended", ended, 700_024));
    for (case, assertion, code) in refused {
        let reply = post(&entra, TENANT, &form(&assertion));
        assert_refused(&entra, case, &reply, 401, code, "invalid_client");
    }
    // Trusted by mistake: an application is no managed identity.
    entra.directory(|directory| {
        let till = directory.find_application(TENANT, TILL).expect("the till").object_id.clone();
        let ledger = directory.application_mut(TENANT, LEDGER).expect("the ledger");
        let issuer = format!("https://login.microsoftonline.com/{TENANT}/v2.0");
        *ledger = ledger.clone().federated(&issuer, &till, AUDIENCE);
    });
    let reply = post(&entra, TENANT, &form(&entra.token(TENANT, TILL, AUDIENCE).sign()));
    assert_refused(&entra, "an application's, trusted", &reply, 401, 700_236, "invalid_client");
    let reply = post(&entra, TENANT, &form(&good));
    assert_eq!(reply.status, 200, "{}", reply.json());
    assert_eq!(
        claims(reply.json()["access_token"].as_str().expect("a token"))["azp"],
        json!(LEDGER)
    );
}
