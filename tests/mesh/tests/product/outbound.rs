//! Tokens for the application's own calls: the right one for each destination, over TLS to that
//! very host, and never into the application's hands.
//!
//! `stage` is the pod whose calls are watched, with a destination and a server for each test, and
//! the objects that `entra-sidecar istio destinations` makes of them. `challenge` is the replay
//! after a claims challenge; `servers`, `objects` and `names` are what goes wrong or is made to go
//! wrong on the way, from the server's, the cluster's and the application's side. `registry_only`
//! and `downstream` have a namespace of their own each.

mod challenge;
mod downstream;
mod names;
mod objects;
mod registry_only;
mod servers;
pub(crate) mod stage;

use e2e::{fake_entra::sample, upstream::Reply};
use serde_json::json;

use self::stage::{claims, in_clear, stage};

#[test]
fn each_destination_gets_its_own_token_over_tls() {
    let stage = stage();
    for (name, host, audience) in [
        ("graph", "graph.microsoft.com", sample::GRAPH_URI),
        ("stock", "stock.contoso.com", sample::STOCK_URI),
    ] {
        let server = stage.server(name);
        let answer = stage.until_answered(&["GET", &format!("http://{host}/v1.0/{name}")], 200);
        assert_eq!(answer["version"], "1.1");
        let path = format!("/v1.0/{name}");
        let seen = server.requests().into_iter().rfind(|seen| seen.target == path).unwrap();
        let token = claims(&seen.bearer().expect("a token"));
        assert_eq!(token["aud"], audience, "{name}");
        assert_eq!(token["appid"], sample::WORKLOAD, "{name}");
        assert_eq!(seen.header("host").as_deref(), Some(host));
        let names: Vec<_> = server.connected().into_iter().map(|known| known.server_name).collect();
        assert!(names.contains(&Some(host.to_owned())), "{names:?}");
        assert!(!in_clear(server), "{name} saw a token in clear");
    }
}

#[test]
fn the_application_never_sees_a_token() {
    let stage = stage();
    stage.server("stock").respond_with(|_| Reply::json(&json!({"stock": 7})));
    let answer = stage.until_answered(&["GET", "http://stock.contoso.com/stock"], 200);
    assert!(stage.server("stock").latest().bearer().is_some());
    assert!(!answer.to_string().contains("eyJ"), "the response carries a token");
    assert!(!answer["headers"].to_string().to_lowercase().contains("authorization"), "{answer}");
    let environment = stage.open.shell(&["env"]);
    assert_eq!(environment.code, 0, "{}", environment.stderr);
    for word in ["eyJ", "AZURE", "IDENTITY_ENDPOINT"] {
        assert!(!environment.stdout.contains(word), "{word} is in the environment");
    }
}

#[test]
fn a_token_of_the_application_is_refused_and_does_not_leave() {
    let stage = stage();
    stage.until_answered(&["GET", "http://stock.contoso.com/own"], 200);
    let words = ["GET", "http://stock.contoso.com/stolen", "-H", "authorization: Bearer mine"];
    let answer = stage.call(&words);
    assert_eq!(answer["status"], 403, "{answer}");
    let requests = stage.server("stock").requests();
    assert!(!requests.iter().any(|seen| seen.target == "/stolen"));
}

#[test]
fn a_destination_without_a_rule_gets_no_token() {
    let stage = stage();
    stage.until_answered(&["GET", "http://stock.contoso.com/ready"], 200);
    for url in ["http://nobody.contoso.example/", "http://10.88.0.20/"] {
        let answer = stage.call(&["GET", url]);
        assert_eq!(answer["status"], 200, "{answer}");
        let seen = stage.server("thief").latest();
        assert_eq!(seen.header("authorization"), None);
    }
    assert!(!stage.server("thief").saw(b"eyJ"));
}
