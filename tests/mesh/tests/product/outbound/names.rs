//! Hosts as the application writes them: whatever it says and wherever it connects, a token goes to
//! the host that it is for.

use e2e::{fake_entra::sample, upstream::Upstream};

use super::stage::{Stage, claims, in_clear, stage};

/// Where the application connects to: Graph, and the address of somebody who listens. The proxy
/// goes by what is said there, not by this.
const PLACES: [&str; 2] = ["10.88.0.2:80", "10.88.0.20:80"];

/// Each server has got tokens for itself only, over TLS, under its own name; the thief none.
fn every_token_is_where_it_belongs(stage: &Stage, what: &str) {
    for (name, host, audience) in [
        ("graph", "graph.microsoft.com", sample::GRAPH_URI),
        ("stock", "stock.contoso.com", sample::STOCK_URI),
    ] {
        let server = stage.server(name);
        for seen in server.requests() {
            let Some(token) = seen.bearer() else { continue };
            assert_eq!(claims(&token)["aud"], audience, "at {name} after {what}");
            assert_eq!(seen.header("host").as_deref(), Some(host), "after {what}");
        }
        assert!(!in_clear(server), "a token in clear at {name} after {what}");
    }
    let has_none = |server: &Upstream| !server.saw(b"eyJ");
    assert!(has_none(stage.server("thief")), "the thief has a token after {what}");
    assert!(has_none(stage.server("thief443")), "the thief has a token after {what}");
}

#[test]
fn whatever_host_is_named_a_token_goes_to_its_own() {
    let stage = stage();
    stage.until_answered(&["GET", "http://stock.contoso.com/names"], 200);
    stage.until_answered(&["GET", "http://graph.microsoft.com/names"], 200);
    let hosts = [
        "graph.microsoft.com",
        "stock.contoso.com",
        "GRAPH.Microsoft.COM",
        "graph.microsoft.com:80",
        "graph.microsoft.com:443",
        "graph.microsoft.com.",
        "graph.microsoft.com.:80",
        "graph.microsoft.com:0080",
        "nobody.contoso.example",
        "x@graph.microsoft.com",
        "graph.microsoft.com@nobody.contoso.example",
        "graph.microsoft.com, nobody.contoso.example",
        "10.88.0.20",
    ];
    for host in hosts {
        for place in PLACES {
            let header = format!("host: {host}");
            let line = ["GET", "http://any.example/names", "--connect", place, "-H", &header];
            let answer = stage.call(&line);
            assert!(answer["status"].is_u64(), "{host} at {place}: {answer}");
            every_token_is_where_it_belongs(&stage, &format!("Host {host} at {place}"));
        }
    }
}

#[test]
fn an_authority_beside_a_host_takes_no_token_elsewhere() {
    let stage = stage();
    stage.until_answered(&["GET", "http://stock.contoso.com/names"], 200);
    let names = ["graph.microsoft.com", "stock.contoso.com", "nobody.contoso.example"];
    for authority in names {
        for host in names {
            let (url, header) = (format!("http://{authority}/names"), format!("host: {host}"));
            let line = ["GET", &url, "--http2", "--connect", PLACES[1], "-H", &header];
            stage.call(&line);
            every_token_is_where_it_belongs(&stage, &format!("{authority} beside {host}"));
        }
    }
}

#[test]
fn absolute_targets_and_two_hosts_take_no_token_elsewhere() {
    let stage = stage();
    stage.until_answered(&["GET", "http://stock.contoso.com/names"], 200);
    let heads = [
        "GET http://nobody.contoso.example/ HTTP/1.1\r\nHost: graph.microsoft.com\r\n\r\n",
        "GET http://graph.microsoft.com/ HTTP/1.1\r\nHost: nobody.contoso.example\r\n\r\n",
        "GET http://stock.contoso.com/ HTTP/1.1\r\nHost: graph.microsoft.com\r\n\r\n",
        "GET https://graph.microsoft.com/ HTTP/1.1\r\nHost: graph.microsoft.com\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: graph.microsoft.com\r\nHost: nobody.contoso.example\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "CONNECT graph.microsoft.com:443 HTTP/1.1\r\nHost: graph.microsoft.com:443\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: graph.microsoft.com\r\nX-Forwarded-Host: nobody.contoso.example\
         \r\nX-Envoy-Original-Dst-Host: 10.88.0.20:80\r\nX-Entra-Retry: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: graph.microsoft.com\r\nConnection: authorization\r\n\r\n",
    ];
    for head in heads {
        for place in PLACES {
            let words = ["mesh-app", "tcp", place, "--data", head, "--timeout-ms", "1000"];
            stage.open.shell(&words);
            every_token_is_where_it_belongs(&stage, head);
        }
    }
}
