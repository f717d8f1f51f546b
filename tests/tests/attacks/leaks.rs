//! What is left of hostile traffic in logs, statistics and administration pages: no token, no
//! name of a caller's choice, no line of a caller's making.

use std::collections::BTreeSet;

use e2e::{
    client::{Connection, Request},
    stack::{Stack, world::user},
};
use policy::decision::Reason;
use serde_json::{Value, json};
use tokens::SigningKey;

use super::{no_trap, read, token};

/// Names of metrics besides `decision.<reason>`, as docs/metrics.md has them.
const INBOUND: [&str; 9] = [
    "observed",
    "cache.hit",
    "cache.miss",
    "callout.keys.failed",
    "host.failed",
    "keys.age_seconds",
    "keys.missing",
    "observing_rules",
    "callout.token.failed",
];
const OUTBOUND: [&str; 7] = [
    "callout.token.failed",
    "challenge.answered",
    "challenge.declined",
    "challenge.failed",
    "plaintext",
    "host.failed",
    "token.age_seconds",
];

/// Text that breaks what writes it down unescaped.
const BREAKER: &str = "\"}\n{\"reason\":\"allowed\"}\r\n\u{1b}[31m\u{0}${jndi:x}";

#[tokio::test(flavor = "multi_thread")]
async fn w12_w13_b13_hostile_traffic_leaves_no_secret_no_name_and_no_line() {
    let stack = Stack::builder().start().await;
    stack.envoy.log_level("wasm", "trace").await;
    let mut secrets = BTreeSet::new();
    let mut note = |token: &str| {
        // The header is the same for many; what follows it is nobody else's.
        let parts = token.split('.').skip(1).filter(|part| part.len() > 20);
        secrets.extend(parts.map(str::to_owned));
        token.to_owned()
    };
    let claims = Value::Object(user(&stack.entra, &["Orders.Read"]).claims());
    let breaking = |name: &str| user(&stack.entra, &["Orders.Read"]).claim(name, BREAKER).sign();
    let stranger = |kid: &str| {
        let key = SigningKey::new(98, kid, "");
        key.token_with(&json!({"typ": "JWT", "alg": "RS256", "kid": kid}), &claims)
    };
    let tokens = [
        note(&token(&stack)),
        note(&user(&stack.entra, &["Nothing"]).sign()),
        note(&user(&stack.entra, &["Orders.Read"]).lifetime(1).sign()),
        note(&stranger("canary-kid")),
        note(&stranger(BREAKER)),
        note(&stranger(&"k".repeat(4_000))),
        note(&breaking("azp")),
        note(&breaking("uti")),
        note(&breaking("name")),
        note(&breaking("tid")),
        note(&breaking("iss")),
        note(&breaking("aud")),
    ];
    for token in &tokens {
        stack.call(&read().bearer(token)).await;
        stack.call(&Request::get(&format!("/orders/7?access_token={token}"))).await;
        stack.call(&read().header("cookie", format!("t={token}"))).await;
        stack.call(&read().header("authorization", format!("Bearer {token} {token}"))).await;
        stack.call_graph(Request::get("/v1.0/me").bearer(token)).await;
    }
    for path in ["/canary-path", "/orders/%22%7d%0a", "/orders/\"}{", "/x/${jndi:x}"] {
        stack.call(&Request::get(path)).await;
        stack.call(&Request::get(path).host("canary-host.example")).await;
    }
    let mut connection = Connection::open(stack.envoy.inbound).await;
    connection.write(b"\"}{ /canary\x1b[31m HTTP/1.1\r\n\r\n").await;
    connection.answer_or_close().await;
    let injected = stack.graph_passed(&Request::get("/v1.0/me")).await.bearer();
    note(&injected.expect("an injected token"));
    let federated = stack.directory().join("service-account-token");
    note(&std::fs::read_to_string(federated).expect("the federated token"));
    stack.passed(&read().bearer(&tokens[0])).await;
    // Counters are handed over by the tick.
    stack.stat("wasmcustom.entra_sidecar.outbound.decision.injected", |count| count > 0).await;

    let mut pages = vec![("Envoy's log".to_owned(), stack.envoy.log())];
    let output = std::fs::read_to_string(stack.directory().join("envoy.out")).expect("the log");
    pages.push(("the access log".to_owned(), output.clone()));
    for page in ["/stats", "/stats/prometheus", "/config_dump?include_eds", "/clusters", "/certs"] {
        pages.push((page.to_owned(), stack.envoy.admin(page).await.text()));
    }
    let broker = stack.broker();
    pages.push(("the broker's log".to_owned(), broker.log()));
    for page in ["/", "/metrics", "/readyz"] {
        pages.push((format!("the broker's {page}"), broker.admin(page).await.text()));
    }
    assert!(secrets.len() >= 25, "{}", secrets.len());
    for (name, text) in &pages {
        assert!(!text.is_empty(), "{name} is empty");
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()), "{name} shows a token");
        }
    }

    // W12: names come from closed lists.
    let names: BTreeSet<_> = stack.envoy.stats().await.into_keys().collect();
    let ours = names.iter().filter_map(|name| name.split_once("entra_sidecar.")).map(|(_, n)| n);
    let mut count = 0;
    for name in ours {
        count += 1;
        let (direction, name) = name.split_once('.').expect("a direction");
        let others: &[&str] = if direction == "inbound" { &INBOUND } else { &OUTBOUND };
        let is_decision = name
            .strip_prefix("decision.")
            .is_some_and(|code| Reason::ALL.iter().any(|reason| reason.code() == code));
        assert!(is_decision || others.contains(&name), "{direction}.{name}");
    }
    assert!(count > 10, "{count} metrics");
    assert!(!names.iter().any(|name| name.contains("canary") || name.contains("jndi")));

    // W13: every line is a document of its own, and none is of a caller's making.
    for line in output.lines().chain(broker.log().lines()) {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
        assert_eq!(line.get("reason"), None, "{line}");
    }
    no_trap(&stack).await;
}
