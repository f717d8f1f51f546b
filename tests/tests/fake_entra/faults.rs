//! What is planned to go wrong goes wrong as often as planned, and then no more.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use e2e::fake_entra::{
    Config, Endpoint, FakeEntra, Fault,
    client::Client,
    sample::{self, Cluster, ORDERS_API, ORDERS_URI, TENANT, TILL},
};
use serde_json::{Value, json};

use crate::ask::{HOST, claims, post, token_path, with_secret};

fn configuration() -> String {
    format!("/{TENANT}/v2.0/.well-known/openid-configuration")
}

fn keys() -> String {
    format!("/{TENANT}/discovery/v2.0/keys")
}

#[test]
fn planned_answers_come_in_turn_and_only_at_their_endpoint() {
    let (entra, _) = FakeEntra::sample();
    let client = Client::of(&entra);
    let retry_after = Some("7".to_owned());
    entra.fail_next(Endpoint::Token, 2, Fault::Refuse { code: 90033, retry_after: None });
    entra.fail_next(Endpoint::Token, 1, Fault::Status { status: 429, retry_after });
    entra.fail_next(Endpoint::Token, 1, Fault::Html { status: 502 });
    let json = |status: u16, body: &str| Fault::Answer {
        status,
        headers: vec![("x-ms-ests-server".to_owned(), "2.1.1".to_owned())],
        body: body.to_owned(),
    };
    entra.fail_next(Endpoint::Token, 1, json(200, "{\"expires_in\":\"3599\"}"));
    assert_eq!(client.get(HOST, &keys()).expect("an answer").status, 200, "another endpoint");

    let ask = || post(&entra, TENANT, &with_secret(&[]));
    for _ in 0..2 {
        let reply = ask();
        assert_eq!((reply.status, &reply.json()["error_codes"]), (503, &json!([90033])));
    }
    let throttled = ask();
    assert_eq!((throttled.status, throttled.header("retry-after")), (429, Some("7")));
    let page = ask();
    assert_eq!((page.status, page.header("content-type")), (502, Some("text/html; charset=utf-8")));
    let exact = ask();
    assert_eq!((exact.status, exact.header("x-ms-ests-server")), (200, Some("2.1.1")));
    assert_eq!(exact.json(), json!({"expires_in": "3599"}));
    assert_eq!(entra.issued(), 0);
    assert_eq!(ask().status, 200, "the script is used up");

    let statuses: Vec<_> = entra.calls_of(Endpoint::Token).iter().map(|call| call.status).collect();
    let expected = [503, 503, 429, 502, 200, 200].map(Some);
    assert_eq!(statuses, expected);
}

#[test]
fn refusals_by_number_have_the_status_and_claims_of_entra() {
    let (entra, _) = FakeEntra::sample();
    for (code, status, error) in [
        (50033, 503, "temporarily_unavailable"),
        (90055, 429, "temporarily_unavailable"),
        (50196, 400, "invalid_grant"),
        (7_000_215, 401, "invalid_client"),
        (700_016, 400, "unauthorized_client"),
        (53003, 400, "invalid_grant"),
    ] {
        entra.fail_next(Endpoint::Token, 1, Fault::Refuse { code, retry_after: None });
        let reply = post(&entra, TENANT, &with_secret(&[]));
        let body = reply.json();
        assert_eq!((reply.status, body["error"].as_str()), (status, Some(error)), "{code}");
        let challenge = body["claims"].as_str().map(serde_json::from_str::<Value>);
        assert_eq!(challenge.is_some_and(|claims| claims.is_ok()), code == 53003, "{code}");
    }
}

#[test]
fn documents_can_lie_about_issuer_and_keys() {
    let (entra, _) = FakeEntra::sample();
    let client = Client::of(&entra);
    let members = |members: Value| Fault::Members {
        members: members.as_object().expect("an object").clone(),
    };
    let other = "https://login.microsoftonline.com/common/v2.0";
    entra.fail_next(Endpoint::Discovery, 1, members(json!({"issuer": other})));
    let moved = "https://idp.example/keys";
    entra.fail_next(Endpoint::Discovery, 1, members(json!({"jwks_uri": moved, "issuer": null})));
    let ask = |path: &str| client.get(HOST, path).expect("an answer");
    assert_eq!(ask(&configuration()).json()["issuer"], json!(other));
    let second = ask(&configuration()).json();
    assert_eq!((&second["jwks_uri"], second.get("issuer")), (&json!(moved), None));

    let true_keys = ask(&keys()).json();
    entra.fail_next(Endpoint::Keys, 1, Fault::ManyKeys { count: 10_000 });
    let many = ask(&keys()).json();
    let many = many["keys"].as_array().expect("keys");
    assert_eq!((many.len(), &many[0]), (10_000, &true_keys["keys"][0]));
    entra.fail_next(Endpoint::Keys, 1, Fault::ManyKeys { count: 1_001 });
    assert!(ask(&keys()).body.len() < 512 * 1024, "too many keys in a small document");

    entra.fail_next(Endpoint::Keys, 1, Fault::Huge { bytes: 600_000 });
    let huge = ask(&keys());
    assert_eq!((huge.status, huge.body.len()), (200, 600_000));
    assert!(huge.json().is_string());
    entra.fail_next(Endpoint::Keys, 1, Fault::Redirect { location: moved.to_owned() });
    let redirect = ask(&keys());
    assert_eq!((redirect.status, redirect.header("location")), (302, Some(moved)));
    assert_eq!(ask(&keys()).json(), true_keys);
}

#[test]
fn connections_can_break_before_and_within_an_answer() {
    let (entra, _) = FakeEntra::sample();
    let client = Client::of(&entra);
    entra.fail_next(Endpoint::Keys, 1, Fault::Close);
    entra.fail_next(Endpoint::Keys, 1, Fault::ResetMidBody);
    for case in ["before", "within"] {
        assert!(client.get(HOST, &keys()).is_err(), "{case}");
    }
    assert_eq!(client.get(HOST, &keys()).expect("an answer").status, 200);
    let statuses: Vec<_> = entra.calls().iter().map(|call| call.status).collect();
    assert_eq!(statuses, [None, Some(200), Some(200)]);
}

#[test]
fn held_answers_wait_for_their_gate_and_are_seen_arriving() {
    let (entra, _) = FakeEntra::sample();
    let gate = entra.hold_next(Endpoint::Token, 2);
    std::thread::scope(|scope| {
        let ask = || post(&entra, TENANT, &with_secret(&[]));
        let held = [scope.spawn(ask), scope.spawn(ask)];
        assert!(entra.wait_for_calls(Endpoint::Token, 2));
        assert_eq!(ask().status, 200, "the third is not held");
        assert_eq!(entra.issued(), 1);
        gate.open();
        for thread in held {
            assert_eq!(thread.join().expect("no panic").status, 200);
        }
    });
    assert_eq!(entra.issued(), 3);
    entra.forget_calls();
    assert_eq!(entra.count(Endpoint::Token), 0);
}

#[test]
fn the_control_listener_does_what_methods_do() {
    let mut config = Config::new(sample::directory(&Cluster::sample()));
    config.control_port = Some(0);
    let entra = FakeEntra::start(config);
    let send = |method: &str, path: &str, body: &Value| control(&entra, method, path, body);

    let fault = json!({"endpoint": "token", "fault": "refuse", "code": 90033});
    assert_eq!(send("POST", "/faults", &fault).0, 200);
    assert_eq!(post(&entra, TENANT, &with_secret(&[])).status, 503);
    for refused in [
        json!({"endpoint": "token", "fault": "unknown"}),
        json!({"endpoint": "token", "fault": "refuse", "code": 1, "delay": 3}),
        json!({"fault": "close"}),
    ] {
        assert_eq!(send("POST", "/faults", &refused).0, 400, "{refused}");
    }
    let (_, calls) = send("GET", "/calls", &Value::Null);
    assert_eq!(calls[0]["refused"], json!(90033));
    let before = entra.signing_key_id();
    let (_, rolled) = send("POST", "/keys/roll", &json!({"overlap": false}));
    assert_eq!(rolled["kid"], json!(entra.signing_key_id()));
    assert_ne!(before, entra.signing_key_id());
    send("POST", "/lifetime", &json!({"expires_in": 12}));
    let answer = post(&entra, TENANT, &with_secret(&[])).json();
    assert_eq!(answer["expires_in"], json!(12));
    send("POST", "/calls/forget", &Value::Null);
    assert_eq!(entra.count(Endpoint::Token), 0);

    let user = json!({"object_id": "o", "principal_name": "ada@contoso.com", "name": "Ada"});
    let mint = json!({"tenant": TENANT, "client": TILL, "resource": ORDERS_URI, "user": user,
        "scopes": ["Orders.Read"]});
    let (status, minted) = send("POST", "/tokens", &mint);
    let found = claims(minted["access_token"].as_str().expect("a token"));
    assert_eq!(
        (status, &found["scp"], &found["aud"]),
        (200, &json!("Orders.Read"), &json!(ORDERS_API))
    );
    let unknown = json!({"tenant": TENANT, "client": TILL, "resource": "api://nobody"});
    assert_eq!(send("POST", "/tokens", &unknown).0, 400);
    assert_eq!(send("GET", &token_path(TENANT), &Value::Null).0, 404, "it is no part of Entra");

    let held = json!({"endpoint": "keys", "fault": "hold"});
    assert_eq!(send("POST", "/faults", &held).0, 200);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| Client::of(&entra).get(HOST, &keys()).expect("an answer"));
        assert!(entra.wait_for_calls(Endpoint::Keys, 1));
        assert_eq!(send("POST", "/release", &Value::Null).0, 200);
        assert_eq!(waiting.join().expect("no panic").status, 200);
    });
}

/// A plain HTTP request to the control listener.
pub(crate) fn control(entra: &FakeEntra, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let url = entra.control_url().expect("a control listener");
    let address = url.strip_prefix("http://").expect("plain HTTP");
    let body = body.to_string();
    let mut stream = TcpStream::connect(address).expect("a connection");
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("sent");
    stream.write_all(body.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.expect("a status"), serde_json::from_str(body).unwrap_or_default())
}
