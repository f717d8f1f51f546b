//! The recording upstream: what it serves on which address, and what it knows of who came.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test: what goes wrong fails it"
)]

use e2e::{
    client::Request,
    fake_entra::{FakeEntra, client::Client},
    hostile::{Attack, Tls},
    upstream::{Reply, Upstream, self_signed},
};

const GRAPH: &str = "graph.microsoft.com";

/// A blocking call of a client that trusts the fake's authority, to one address.
async fn get(entra: &FakeEntra, upstream: &Upstream, host: &'static str) -> Result<u16, String> {
    let (address, ca_file) = (upstream.address, entra.ca_file().to_owned());
    let call = tokio::task::spawn_blocking(move || {
        let client = Client::direct(address, &ca_file).map_err(|error| error.to_string())?;
        let reply = client.get(host, "/v1.0/me").map_err(|error| error.to_string())?;
        Ok(reply.status)
    });
    call.await.expect("no panic")
}

#[tokio::test]
async fn only_the_right_certificate_is_taken_and_the_others_see_no_request() {
    let (entra, _) = FakeEntra::sample();
    let any = "127.0.0.1:0".parse().expect("an address");
    let two = entra.tls_server_of(&[GRAPH, "vault.azure.net"]);
    let right = Upstream::start_tls_at(any, two).await;
    assert_eq!(get(&entra, &right, GRAPH).await, Ok(200));
    assert_eq!(get(&entra, &right, "vault.azure.net").await, Ok(200));
    let seen = right.connected();
    let names: Vec<_> = seen.iter().map(|known| known.server_name.as_deref()).collect();
    assert_eq!(names, [Some(GRAPH), Some("vault.azure.net")]);
    assert!(seen.iter().all(|known| known.failed.is_none()));

    for wrong in [entra.tls_server_for_any_name("evil.example"), self_signed(GRAPH)] {
        let wrong = Upstream::start_tls_at(any, wrong).await;
        assert!(get(&entra, &wrong, GRAPH).await.is_err());
        assert_eq!((wrong.count(), wrong.connections(), wrong.bytes()), (0, 1, 0));
        wrong.wait_until_failed().await;
    }
}

#[tokio::test]
async fn what_goes_over_the_wire_in_clear_is_seen_and_what_does_not_is_not() {
    let (entra, _) = FakeEntra::sample();
    let any = "127.0.0.1:0".parse().expect("an address");
    let plain = Upstream::start_at(any).await;
    let tls = Upstream::start_tls_at(any, entra.tls_server(GRAPH)).await;
    let request = Request::get("/").bearer("in-clear");
    assert_eq!(request.send(plain.address).await.status, 200);
    assert!(plain.saw(b"in-clear") && !plain.saw(b"not-there"));
    assert!(plain.connected()[0].wire.starts_with(b"GET / HTTP/1.1\r\n"));

    let hidden = Attack::on(tls.address).tls(Tls::default().server_name(GRAPH));
    assert_eq!(hidden.http1(&Request::get("/").bearer("hidden")).await.status(), Some(200));
    let wire = &tls.connected()[0].wire;
    assert!(!wire.is_empty() && !wire.windows(6).any(|window| window == b"hidden"));
    assert!(tls.saw(b"hidden"), "in the request that it deciphered");

    // Plaintext at the TLS port: no request, but the bytes were there for everybody to read.
    let outcome = Attack::on(tls.address).http1(&Request::get("/").bearer("careless")).await;
    tls.wait_until_failed().await;
    assert!(!outcome.was_served() && tls.count() == 1);
    assert!(tls.saw(b"careless"));
}

#[tokio::test]
async fn planned_answers_come_once_each_and_then_the_others() {
    let upstream = Upstream::start().await;
    upstream.respond_in_turn([Reply::challenge("{}"), Reply::status(503)]);
    for status in [401, 503, 200, 200] {
        assert_eq!(Request::get("/").send(upstream.address).await.status, status);
    }
    upstream.respond_in_turn([Reply::grpc(0, b"four")]);
    let answer = Request::post("/a.B/C", b"").send_http2(upstream.address).await;
    assert_eq!(answer.body, b"\0\0\0\0\x04four");
    assert_eq!(answer.trailer("grpc-status").as_deref(), Some("0"));
}
