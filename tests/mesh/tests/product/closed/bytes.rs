//! What is not HTTP, what hides in HTTP, and who knows the permit marker.

use e2e::{
    client::Request,
    hostile::payload::{self, around_http, spellings},
};

use super::{
    BANNER, BANNERS, DECLARED, TCP, UNDECLARED, all, closed, forged, has_text, nothing_arrived, on,
    open, ports, saw,
};
use crate::world::world;

#[test]
fn http_on_a_declared_and_on_an_undeclared_port_is_the_filters_to_answer() {
    let _guard = world().mesh.shared().unwrap();
    for port in [DECLARED, UNDECLARED, TCP[1], BANNERS[1]] {
        let outcome = world().wait_for(on(closed(), port).http1(&forged()));
        assert_eq!(outcome.status(), Some(401), "{port}: {}", outcome.text());
        nothing_arrived(&[(format!("HTTP/1.1 on {port}"), outcome)]);
    }
}

#[test]
fn http2_without_tls_is_the_filters_to_answer() {
    let _guard = world().mesh.shared().unwrap();
    let lines = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "orders"),
        (":path", "/orders/7"),
        ("x-entra-object-id", "00000000-0000-4000-8000-00000000beef"),
        ("x-entra-permit", "1"),
    ];
    for port in ports() {
        let outcome = world().wait_for(on(closed(), port).http2(&lines));
        if [UNDECLARED, TCP[1], BANNERS[1]].contains(&port) {
            assert_eq!(outcome.http2_status(), Some(401), "{port}: {}", outcome.text());
        }
        nothing_arrived(&[(format!("HTTP/2 on {port}"), outcome)]);
    }
}

#[test]
fn a_port_declared_as_tcp_takes_nothing_at_all() {
    let _guard = world().mesh.shared().unwrap();
    let requests = [forged(), Request::get("/healthz")];
    for port in [TCP[0], BANNERS[0]] {
        for request in &requests {
            let outcome = world().wait_for(on(closed(), port).http1(request));
            assert!(outcome.is_silent(), "{port}: {}", outcome.text());
            nothing_arrived(&[(format!("HTTP on {port}"), outcome)]);
        }
    }
}

#[test]
fn bytes_that_are_no_http_reach_no_port() {
    let _guard = world().mesh.shared().unwrap();
    let attacks = ports().into_iter().flat_map(|port| {
        around_http(&forged())
            .into_iter()
            .map(move |(name, bytes)| (format!("{name} on {port}"), on(closed(), port), bytes))
    });
    nothing_arrived(&all(attacks.collect()));
}

#[test]
fn a_server_that_speaks_first_says_nothing_to_a_denied_caller() {
    let _guard = world().mesh.shared().unwrap();
    let words: [&[u8]; 4] = [b"", b"x", b"EHLO attacker\r\n", b"no http at all\n"];
    let attacks = BANNERS.into_iter().flat_map(|port| {
        words.map(|word| (format!("{word:?} on {port}"), on(closed(), port), word.to_vec()))
    });
    nothing_arrived(&all(attacks.collect()));
}

#[test]
fn no_spelling_of_the_permit_marker_lets_anybody_in() {
    let _guard = world().mesh.shared().unwrap();
    let attacks = ports().into_iter().flat_map(|port| {
        spellings("x-entra-permit", "1").into_iter().map(move |(name, lines)| {
            let request = lines.iter().fold(Request::get("/orders/7"), |request, (name, value)| {
                request.header(name, value)
            });
            (format!("{name} on {port}"), on(closed(), port), request.to_bytes())
        })
    });
    let attacks: Vec<_> = attacks.collect();
    assert_eq!(attacks.len() / ports().len(), 17, "spellings were lost");
    nothing_arrived(&all(attacks));
}

#[test]
fn without_the_policy_each_of_these_bytes_arrives() {
    let _guard = world().mesh.shared().unwrap();
    // An identity as the application would believe it, on every port that is not declared HTTP.
    let hidden = [b"\r\n".as_slice(), &Request::get("/stolen").to_bytes()].concat();
    for port in [UNDECLARED, TCP[0], TCP[1]] {
        let _said = world().wait_for(on(open(), port).send(&hidden));
        saw(port, "the hidden request", |event| has_text(event, "GET /stolen"));
    }
    for port in BANNERS {
        let outcome = world().wait_for(on(open(), port).send(b"no http at all\n"));
        assert!(outcome.text().contains(BANNER), "{port}: {outcome:?}");
    }
    let preface = payload::http2(&[(":method", "GET"), (":path", "/")]);
    let _said = world().wait_for(on(open(), TCP[0]).send(&preface));
    saw(TCP[0], "HTTP/2 on a TCP port", |event| has_text(event, "PRI * HTTP/2.0"));
}
