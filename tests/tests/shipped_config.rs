//! What the shipped `envoy.yaml` promises besides the filter's own work: the permit marker, the
//! access log, the labels of the counters, and configurations that are refused.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::arithmetic_side_effects,
    reason = "a test: what goes wrong fails it"
)]

use e2e::{
    client::Request,
    fake_entra::sample::TENANT,
    stack::{
        Stack,
        world::{WEB, user},
    },
};
use serde_json::{Value, json};

const MANAGER: &str = "/filter_chains/0/filters/0/typed_config";

fn read() -> Request {
    Request::get("/orders/7")
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_filter_nobody_gets_in_and_nobody_brings_the_marker() {
    let stack = Stack::builder()
        .configure(|config| {
            let filter = format!("{MANAGER}/http_filters/0");
            let filter = config.listener_mut("inbound").pointer_mut(&filter).expect("a filter");
            assert_eq!(filter["name"], "entra-inbound");
            filter["disabled"] = json!(true);
        })
        .start()
        .await;
    let token = user(&stack.entra, &["Orders.Read"]).sign();
    let marked = read().header("x-entra-permit", "1").header("X-Entra-Permit", "1");
    for request in [read(), Request::get("/healthz"), read().bearer(&token), marked.bearer(&token)]
    {
        for answer in [stack.call(&request).await, request.send_http2(stack.envoy.inbound).await] {
            assert_eq!(answer.status, 403, "{request:?}");
        }
    }
    assert_eq!((stack.application.count(), stack.application.bytes()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_access_log_says_who_and_why_and_keeps_secrets_out() {
    let stack = Stack::builder().start().await;
    let made = user(&stack.entra, &["Orders.Write"]);
    let token = made.sign();
    let request = Request::get("/orders/7?private=1").header("x-request-id", "denied");
    assert_eq!(stack.call(&request.bearer(&token)).await.status, 403);

    let line = stack.logged("denied").await;
    let expected = [
        ("status", json!(403)),
        ("method", json!("GET")),
        ("path", json!("/orders/7")),
        ("details", json!("scope_missing")),
    ];
    for (name, value) in expected {
        assert_eq!(line[name], value, "{name} of {line}");
    }
    let record = stack.record("denied").await;
    let payload = token.split('.').nth(1).expect("a JWT");
    let payload = base64::Engine::decode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, payload);
    let claims: Value = serde_json::from_slice(&payload.expect("base64url")).expect("JSON");
    let expected = [
        ("reason", Some("scope_missing")),
        ("rule", Some("read")),
        ("tenant", Some(TENANT)),
        ("client", Some(WEB)),
        ("uti", claims["uti"].as_str()),
    ];
    for (name, value) in expected {
        assert_eq!(record.get(name), value, "{name} of {record:?}");
    }

    let query = Request::get(&format!("/orders/7?access_token={token}"));
    stack.call_recorded(&query).await;
    assert_eq!(stack.call_graph(Request::get("/v1.0/users")).await.status, 200);
    let injected = stack.graph.latest().bearer().expect("a token");
    let mut pages = vec![
        ("Envoy's log", stack.envoy.log()),
        ("the access log", Value::from(stack.envoy.access_log()).to_string()),
        ("the broker's log", stack.broker().log()),
    ];
    for path in ["/config_dump", "/stats", "/clusters", "/server_info"] {
        pages.push((path, stack.envoy.admin(path).await.text()));
    }
    for path in ["/metrics", "/", "/readyz"] {
        pages.push((path, stack.broker().admin(path).await.text()));
    }
    for (name, text) in pages {
        assert!(!text.is_empty(), "{name} is empty");
        for secret in [&token, &injected] {
            // Most of a signature would be as bad as the whole token.
            let signature = secret.rsplit('.').next().expect("a JWT");
            assert!(!text.contains(&signature[..40]), "a token is in {name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_have_direction_and_reason_as_labels() {
    let stack = Stack::builder().start().await;
    let token = user(&stack.entra, &["Orders.Read"]).sign();
    for request in [read(), read().bearer(&token), read().bearer(&token)] {
        stack.call(&request).await;
    }
    let users = Request::get("/v1.0/users").host("graph.microsoft.com");
    stack.until(stack.envoy.outbound, &users, 200).await;
    let expected = [
        r#"entra_sidecar_decision{direction="inbound",reason="token_missing"} 1"#,
        r#"entra_sidecar_decision{direction="inbound",reason="allowed"} 2"#,
        r#"entra_sidecar_decision{direction="outbound",reason="injected"} 1"#,
        r#"entra_sidecar_cache_hit{direction="inbound"} 1"#,
        r#"entra_sidecar_cache_miss{direction="inbound"} 1"#,
    ];
    // The filter hands its counts over once a second.
    let shown = async {
        loop {
            let text = stack.envoy.admin("/stats/prometheus?filter=entra_sidecar").await.text();
            if expected.iter().all(|line| text.lines().any(|shown| shown == *line)) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(e2e::client::DEADLINE, shown).await.expect("all of these lines");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_is_refused_with_every_error() {
    let log = Stack::builder()
        .inbound("/tenants", json!([]))
        .inbound("/clock_skew_seconds", json!(301))
        .inbound("/no_such_key", json!(true))
        .configure(|config| config.policy_mut("entra-inbound")["rules"][4]["allow"] = json!([{}]))
        .refused()
        .await;
    for path in ["tenants", "clock_skew_seconds", "no_such_key", "rules[4].allow"] {
        assert!(log.contains(path), "{path} is not named:\n{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_is_decided_by_its_headers_where_it_is_let_in() {
    let stack = Stack::builder()
        .configure(|config| {
            let manager = config.listener_mut("inbound").pointer_mut(MANAGER).expect("a manager");
            manager["upgrade_configs"] = json!([{"upgrade_type": "CONNECT"}]);
            manager["route_config"]["virtual_hosts"][0]["routes"] = json!([{
                "match": {"connect_matcher": {}},
                "route": {"cluster": "application"},
            }]);
        })
        .start()
        .await;
    let connect = Request::new("CONNECT", "orders.example:443").host("orders.example:443");
    let token = user(&stack.entra, &["Orders.Read"]).sign();
    for request in [connect.clone(), connect.bearer(&token)] {
        let (answer, record) = stack.call_recorded(&request).await;
        assert_eq!((answer.status, record.0.as_str()), (403, "reason=no_rule"), "{request:?}");
    }
    assert_eq!((stack.application.count(), stack.application.bytes()), (0, 0));
}
