//! Outbound calls with the filter in the listener's chain, matched by host and cluster: where a
//! token goes then, and above all what such a rule cannot keep it from.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test: what goes wrong fails it"
)]

use contract::route;
use e2e::{
    client::{Connection, DEADLINE, Request},
    envoy::EnvoyConfig,
    fake_entra::sample::WORKLOAD,
    stack::{Builder, GraphProof, Record, Stack, unix_now},
    stand_in::{self, Asked, Said, StandIn},
    upstream::{Recorded, Reply, Upstream},
};
use serde_json::{Value, json};

const GRAPH: &str = "graph.microsoft.com";
const REVOKED: &str = r#"{"access_token":{"nbf":{"essential":true,"value":"1604106651"}}}"#;

fn me() -> Request {
    Request::get("/v1.0/me")
}

fn downstream() -> Builder {
    Stack::builder().configure(EnvoyConfig::move_outbound_downstream)
}

/// And every other host goes to another upstream, one of them to Graph's cluster.
async fn beside_others() -> (Builder, Upstream) {
    let elsewhere = Upstream::start().await;
    let address = elsewhere.address;
    let builder = downstream().configure(|config| {
        config.add_plain_cluster("elsewhere", address);
        let to = |cluster: &str| json!([{"match": {"prefix": "/"}, "route": {"cluster": cluster}}]);
        config.add_virtual_host(
            json!({"name": "others", "domains": ["*"], "routes": to("elsewhere")}),
        );
        config.add_virtual_host(
            json!({"name": "alias", "domains": ["alias.example"], "routes": to("graph")}),
        );
    });
    (builder, elsewhere)
}

/// Calls Graph; gives the status and what the filter noted.
async fn recorded(stack: &Stack, request: Request) -> (u16, Record) {
    let id = Stack::next_id();
    let answer = stack.call_graph(request.header("x-request-id", &id)).await;
    (answer.status, stack.outbound_record(&id).await)
}

/// That a call is answered so, for this reason.
async fn check(stack: &Stack, request: Request, status: u16, reason: &str) {
    let (answered, record) = recorded(stack, request).await;
    assert_eq!((answered, record.get("reason")), (status, Some(reason)), "{record:?}");
}

/// The application that a token was issued to; nothing is verified here.
fn issued_to(seen: &Recorded) -> Option<Value> {
    use base64::Engine;
    let token = seen.bearer()?;
    let payload = token.split('.').nth(1)?;
    let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).ok()?;
    serde_json::from_slice::<Value>(&payload).ok()?.get("appid").cloned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_goes_by_host_and_cluster_together() {
    let stack = downstream().start().await;
    for _ in 0..10 {
        check(&stack, me(), 200, "injected").await;
        assert_eq!(issued_to(&stack.graph.latest()), Some(json!(WORKLOAD)));
    }
    assert_eq!(stack.entra.issued(), 1);
}

/// One spelling of a request on the wire, and whether it is one of Graph.
struct Spelling {
    head: &'static str,
    gets_token: bool,
}

#[tokio::test(flavor = "multi_thread")]
async fn o01_no_spelling_of_a_host_takes_a_token_to_another_place() {
    let (builder, elsewhere) = beside_others().await;
    let stack = builder.start().await;
    check(&stack, me(), 200, "injected").await;
    let token = |head, gets_token| Spelling { head, gets_token };
    for spelling in [
        token("GET /me HTTP/1.1\r\nHost: graph.microsoft.com:80", true),
        token("GET /me HTTP/1.1\r\nHost: GRAPH.microsoft.COM", true),
        token("GET http://graph.microsoft.com/me HTTP/1.1\r\nHost: evil.example", true),
        token("GET http://GRAPH.microsoft.com:80/me HTTP/1.1\r\nHost: evil.example", true),
        token("GET /me HTTP/1.1\r\nHost: graph.microsoft.com.", false),
        token("GET /me HTTP/1.1\r\nHost: graph.microsoft.com..", false),
        token("GET /me HTTP/1.1\r\nHost: alias.example", false),
        token("GET /me HTTP/1.1\r\nHost: alias.example:443", false),
        token("GET http://alias.example/me HTTP/1.1\r\nHost: graph.microsoft.com", false),
        token("GET http://evil.example/me HTTP/1.1\r\nHost: graph.microsoft.com", false),
        token("GET http://graph.microsoft.com@evil.example/ HTTP/1.1\r\nHost: x", false),
        token("GET http://evil.example#graph.microsoft.com/ HTTP/1.1\r\nHost: x", false),
        token("GET /me HTTP/1.1\r\nHost: evil.example\r\nHost: graph.microsoft.com", false),
        token("GET /me HTTP/1.1\r\nHost: graph.microsoft.com\r\nHost: evil.example", false),
        token("GET /me HTTP/1.1\r\nHost: graph.microsoft.com\r\nHost: graph.microsoft.com", false),
        token("GET /me HTTP/1.1\r\nHost: graph.microsoft.com,evil.example", false),
        token("GET /me HTTP/1.1\r\nHost: graph.microsoft.com@evil.example", false),
        token("GET /me HTTP/1.1\r\nHost: graph.microsoft.com evil.example", false),
        token("GET /me HTTP/1.1\r\nHost: graph.microsoft.com/evil.example", false),
        token("GET /me HTTP/1.1\r\nHost: graph.microsoft.com.evil.example", false),
        token(
            "GET /me HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: graph.microsoft.com",
            false,
        ),
        token("GET /me HTTP/1.1\r\nHost: evil.example\r\n:authority: graph.microsoft.com", false),
        token("GET /me HTTP/1.1\r\nHost: [graph.microsoft.com]", false),
        token("GET /me HTTP/1.1\r\nHost: ", false),
        token("GET /me HTTP/1.1\r\nX-No: host", false),
    ] {
        let before = stack.graph.count();
        let mut connection = Connection::open(stack.envoy.outbound).await;
        connection
            .write(format!("{}\r\nConnection: close\r\n\r\n", spelling.head).as_bytes())
            .await;
        let answer = connection.answer_or_close().await;
        let seen = stack.graph.requests().split_off(before);
        let tokens = seen.iter().filter(|seen| seen.header("authorization").is_some()).count();
        let status = answer.map(|answer| answer.status);
        assert_eq!(tokens, usize::from(spelling.gets_token), "{} {status:?}", spelling.head);
    }
    // Over HTTP/2 there is `:authority`, and a Host that may say something else.
    for (authority, host, gets_token) in [
        (GRAPH, "evil.example", true),
        ("evil.example", GRAPH, false),
        ("alias.example", GRAPH, false),
        ("graph.microsoft.com.", GRAPH, false),
    ] {
        let before = stack.graph.count();
        let request = me().host(authority).header("host", host);
        let answer = request.send_http2(stack.envoy.outbound).await;
        let seen = stack.graph.requests().split_off(before);
        let tokens = seen.iter().filter(|seen| seen.header("authorization").is_some()).count();
        assert_eq!(tokens, usize::from(gets_token), "{authority} {host} {}", answer.status);
    }
    let others = elsewhere.requests();
    assert!(others.len() > 5, "{}", others.len());
    assert!(others.iter().all(|seen| seen.header("authorization").is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn o01_another_cluster_gets_no_token_whatever_its_host() {
    let elsewhere = Upstream::start().await;
    let address = elsewhere.address;
    let builder = downstream().configure(|config| {
        config.add_plain_cluster("elsewhere", address);
        config.add_graph_route(json!({
            "match": {"prefix": "/beta"}, "route": {"cluster": "elsewhere"},
        }));
    });
    let stack = builder.start().await;
    check(&stack, me(), 200, "injected").await;
    check(&stack, Request::get("/beta/me"), 200, "no_destination").await;
    assert_eq!(elsewhere.latest().header("authorization"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authorization_of_the_applications_own_is_treated_as_configured() {
    for (setting, status, reason) in
        [("refuse", 403, "authorization_refused"), ("keep", 200, "authorization_kept")]
    {
        let stack =
            downstream().outbound("/rules/0/existing_authorization", json!(setting)).start().await;
        check(&stack, me().bearer("own"), status, reason).await;
        match status {
            200 => assert_eq!(stack.graph.latest().bearer().as_deref(), Some("own")),
            _ => assert_eq!((stack.graph.count(), stack.graph.bytes()), (0, 0)),
        }
    }
    let replacing = json!("replace");
    let stack = downstream().outbound("/rules/0/existing_authorization", replacing).start().await;
    check(&stack, me().bearer("own"), 200, "injected").await;
    assert_eq!(issued_to(&stack.graph.latest()), Some(json!(WORKLOAD)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outbound_filter_on_an_inbound_listener_injects_nothing() {
    let builder = downstream().configure(|config| {
        *config.listener_mut("outbound").get_mut("traffic_direction").expect("a direction") =
            json!("INBOUND");
    });
    let stack = builder.start().await;
    check(&stack, me(), 200, "misplaced").await;
    assert_eq!(stack.graph.latest().header("authorization"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_for_a_clusters_chain_inject_nothing_in_a_listeners() {
    let builder = downstream().configure(|config| {
        let rule = config.policy_mut("entra-outbound").pointer_mut("/rules/0");
        let rule = rule.and_then(Value::as_object_mut).expect("the rule for Graph");
        rule.insert("match".to_owned(), json!({"destination": "graph"}));
        rule.remove("allow_unverified_destination");
        let named = json!({"filter_metadata": {"entra_sidecar": {"destination": "graph"}}});
        config.cluster_mut("graph").as_object_mut().expect("it").insert("metadata".into(), named);
    });
    let stack = builder.start().await;
    for _ in 0..3 {
        check(&stack, me(), 200, "misplaced").await;
        assert_eq!(stack.graph.latest().header("authorization"), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_tls_ends_injection() {
    let stack = downstream().graph_proof(GraphProof::None).start().await;
    // The first response shows it; from then on nothing is injected.
    check(&stack, me(), 200, "injected").await;
    for _ in 0..3 {
        check(&stack, me(), 200, "injection_stopped").await;
        assert_eq!(stack.graph.latest().header("authorization"), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_never_made_says_nothing_of_tls() {
    let stack = downstream().graph_proof(GraphProof::SelfSigned).start().await;
    // In this position the filter sees Envoy's own 503, too.
    for _ in 0..3 {
        check(&stack, me(), 503, "injected").await;
    }
    assert_eq!((stack.graph.count(), stack.graph.bytes()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn o12_a_route_chosen_by_a_header_that_we_set_is_chosen_again() {
    let elsewhere = Upstream::start().await;
    let address = elsewhere.address;
    let builder = downstream().configure(|config| {
        config.add_plain_cluster("elsewhere", address);
        config.add_graph_route(json!({
            "match": {
                "prefix": "/", "headers": [{"name": "authorization", "present_match": true}],
            },
            "route": {"cluster": "elsewhere"},
        }));
    });
    // So that it is not the missing TLS that ends it.
    let stack = builder.outbound("/rules/0/plaintext", json!(true)).start().await;
    // The filter is asked about the cluster of the call as it came, and nothing shows it the other
    // choice before the call has gone: so one token went where no rule sends it.
    check(&stack, me(), 200, "injected").await;
    assert_eq!((stack.graph.count(), elsewhere.count()), (0, 1));
    assert_eq!(issued_to(&elsewhere.latest()), Some(json!(WORKLOAD)));
    // The response showed it.
    for _ in 0..3 {
        check(&stack, me(), 200, "injection_stopped").await;
    }
    assert_eq!((stack.graph.count(), elsewhere.count()), (3, 1));
    stack.stat("wasmcustom.entra_sidecar.outbound.rerouted", |times| times == 1).await;
    assert!(stack.envoy.log().contains("a call to graph went to another cluster"));
}

#[tokio::test(flavor = "multi_thread")]
async fn o04_a_redirect_that_envoy_follows_takes_no_token_to_another_host() {
    let (builder, elsewhere) = beside_others().await;
    let builder = builder.configure(|config| {
        config.add_graph_route(json!({
            "match": {"prefix": "/redirected"},
            "route": {
                "cluster": "graph", "host_rewrite_literal": GRAPH,
                "internal_redirect_policy": {"max_internal_redirects": 1},
            },
        }));
    });
    let stack = builder.start().await;
    stack.graph.respond_with(|seen| match seen.target.as_str() {
        "/redirected" => Reply::status(302).header("location", "http://evil.example/x"),
        _ => Reply::json(&json!({})),
    });
    assert_eq!(stack.call_graph(Request::get("/redirected")).await.status, 200);
    assert!(stack.graph.latest().bearer().is_some());
    assert_eq!(elsewhere.latest().target, "/x");
    assert_eq!(elsewhere.latest().header("authorization"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn o13_a_mirror_gets_what_its_call_gets() {
    let elsewhere = Upstream::start().await;
    let address = elsewhere.address;
    let builder = downstream().configure(|config| {
        config.add_plain_cluster("elsewhere", address);
        let routes = config.graph_host_mut().get_mut("routes").expect("routes");
        routes[0]["route"]["request_mirror_policies"] = json!([{"cluster": "elsewhere"}]);
    });
    let stack = builder.start().await;
    check(&stack, me(), 200, "injected").await;
    // Known, and written down: after this filter the copy is made, and no filter sees it.
    elsewhere.wait_for(1).await;
    assert_eq!(elsewhere.latest().bearer(), stack.graph.latest().bearer());
}

/// A broker that gives out `first`, and `second` where `first` was refused.
fn give(asked: &Asked) -> Said {
    let token = if asked.body.get("refused").is_some() { "second" } else { "first" };
    Said::json(&stand_in::issued(asked, token, unix_now()))
}

#[tokio::test(flavor = "multi_thread")]
async fn o07_a_challenge_goes_to_the_application_and_its_next_call_has_another_token() {
    let stack = downstream().without_broker().start().await;
    let broker = StandIn::start(stack.broker_socket(), give);
    stack.until(stack.envoy.outbound, &me().host(GRAPH), 200).await;
    stack.graph.respond_with(|seen| match seen.bearer().as_deref() {
        Some("first") => Reply::challenge(REVOKED),
        _ => Reply::json(&json!({})),
    });
    let before = stack.graph.count();
    let answer = stack.call_graph(me()).await;
    assert_eq!(answer.status, 401);
    assert!(answer.header("www-authenticate").is_some_and(|value| value.contains("claims=\"")));
    // Not made again: the application's one call was one.
    assert_eq!(stack.graph.count(), before + 1);
    let calls = async {
        while stack.call_graph(me()).await.status != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, calls).await.expect("a call that succeeds");
    assert_eq!(stack.graph.latest().bearer().as_deref(), Some("second"));
    let asked = broker.asked(route::TOKEN);
    let challenges: Vec<_> = asked.iter().filter(|it| it.body.get("claims").is_some()).collect();
    assert_eq!(challenges.len(), 1);
    assert_eq!(challenges[0].body["claims"], REVOKED);
    assert_eq!(challenges[0].body["destination"], "graph");
    stack.stat("wasmcustom.entra_sidecar.outbound.challenge.deferred", |times| times >= 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o07_an_api_that_refuses_every_token_does_not_set_the_pace() {
    let stack = downstream().without_broker().start().await;
    let broker = StandIn::start(stack.broker_socket(), give);
    stack.until(stack.envoy.outbound, &me().host(GRAPH), 200).await;
    stack.graph.respond_with(|_| Reply::challenge(REVOKED));
    let before = stack.graph.count();
    for _ in 0..50 {
        assert_eq!(stack.call_graph(me()).await.status, 401);
    }
    assert_eq!(stack.graph.count(), before + 50, "each call goes out once");
    let asked = broker.asked(route::TOKEN);
    let challenges = asked.iter().filter(|it| it.body.get("claims").is_some()).count();
    assert_eq!(challenges, 1);
}
