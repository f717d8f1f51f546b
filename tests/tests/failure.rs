//! What fails, and what goes on meanwhile: broker and Entra away, keys rolled, answers that no
//! broker gives. Whatever happens, nothing passes that was not decided.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test: what goes wrong fails it"
)]

use std::time::Duration;

use contract::route;
use e2e::{
    client::Request,
    fake_entra::{Endpoint, FakeEntra, Fault, sample::TENANT},
    stack::{
        Stack, unix_now,
        world::{GRAPH_SCOPE, user},
    },
    stand_in::{self, Asked, Said, StandIn},
};
use serde_json::{Value, json};
use tokens::SigningKey;

fn read(entra: &FakeEntra) -> Request {
    Request::get("/orders/7").bearer(&user(entra, &["Orders.Read"]).sign())
}

/// A request with a good token of a key that Entra never had.
fn read_with_unknown_key(entra: &FakeEntra, kid: &str) -> Request {
    let key = SigningKey::new(98, kid, "");
    let claims = Value::Object(user(entra, &["Orders.Read"]).claims());
    Request::get("/orders/7").bearer(&key.token(&claims))
}

fn me() -> Request {
    Request::get("/v1.0/me")
}

/// Lets Entra answer nothing good until [`FakeEntra::clear_faults`].
fn take_down(entra: &FakeEntra) {
    for endpoint in [Endpoint::Discovery, Endpoint::Keys, Endpoint::Token] {
        let fault = Fault::Status { status: 500, retry_after: None };
        entra.fail_next(endpoint, usize::MAX, fault);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_broker_nothing_protected_passes_until_it_comes() {
    let mut stack = Stack::builder().without_broker().start().await;
    let request = read(&stack.entra);
    for _ in 0..5 {
        stack.denied(&request, 503, "keys_unavailable").await;
        stack.graph_denied(&me(), 503, "token_unavailable").await;
        stack.passed(&Request::get("/healthz")).await;
    }
    stack.denied(&Request::get("/orders/7"), 401, "token_missing").await;

    stack.start_broker().await;
    stack.until(stack.envoy.inbound, &request, 200).await;
    stack.until(stack.envoy.outbound, &me().host("graph.microsoft.com"), 200).await;
    stack.passed(&request).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k13_what_is_held_goes_on_while_the_broker_is_away() {
    let mut stack = Stack::builder().start().await;
    let cached = read(&stack.entra);
    stack.passed(&cached).await;
    let held = stack.graph_passed(&me()).await.bearer();

    stack.kill_broker();
    for _ in 0..10 {
        stack.passed(&cached).await;
        stack.passed(&read(&stack.entra)).await;
        assert_eq!(stack.graph_passed(&me()).await.bearer(), held);
    }
    // Whether there is such a key nobody can say now.
    let unknown = read_with_unknown_key(&stack.entra, "unknown");
    stack.denied(&unknown, 503, "keys_unavailable").await;
    stack.passed(&cached).await;

    stack.start_broker().await;
    stack.until(stack.envoy.inbound, &unknown, 401).await;
    stack.denied(&unknown, 401, "key_unknown").await;
    stack.passed(&cached).await;
    assert_eq!(stack.graph_passed(&me()).await.bearer(), held);
}

#[tokio::test(flavor = "multi_thread")]
async fn k06_without_entra_at_start_nothing_protected_passes_until_it_comes() {
    let stack = Stack::builder().entra(take_down).start().await;
    let request = read(&stack.entra);
    for _ in 0..3 {
        stack.denied(&request, 503, "keys_unavailable").await;
        stack.graph_denied(&me(), 503, "token_unavailable").await;
        stack.passed(&Request::get("/healthz")).await;
    }
    assert_eq!(stack.broker().admin("/readyz").await.status, 503);

    stack.entra.clear_faults();
    stack.until(stack.envoy.inbound, &request, 200).await;
    stack.until(stack.envoy.outbound, &me().host("graph.microsoft.com"), 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k07_the_last_good_keys_serve_while_entra_is_away() {
    let stack = Stack::builder().start().await;
    stack.passed(&read(&stack.entra)).await;
    let held = stack.graph_passed(&me()).await.bearer();
    take_down(&stack.entra);
    // The fetch that this asks for fails: whether there is such a key nobody knows, and the failure
    // costs nobody else anything.
    let unknown = read_with_unknown_key(&stack.entra, "unknown");
    stack.denied(&unknown, 503, "keys_unavailable").await;
    for _ in 0..5 {
        stack.passed(&read(&stack.entra)).await;
        assert_eq!(stack.graph_passed(&me()).await.bearer(), held);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn k11_keys_that_roll_as_announced_cost_nothing() {
    let stack = Stack::builder().start().await;
    let before = read(&stack.entra);
    stack.passed(&before).await;
    let fetched = stack.entra.count(Endpoint::Keys);
    stack.entra.roll_keys();
    stack.passed(&read(&stack.entra)).await;
    stack.passed(&before).await;
    assert_eq!(stack.entra.count(Endpoint::Keys), fetched);
}

#[tokio::test(flavor = "multi_thread")]
async fn k10_keys_rolled_at_once_are_taken_after_one_fetch_and_the_old_ones_are_dropped() {
    let stack = Stack::builder().start().await;
    let cached = read(&stack.entra);
    stack.passed(&cached).await;
    stack.passed(&cached).await;
    let fetched = stack.entra.count(Endpoint::Keys);
    stack.entra.roll_keys_without_overlap();
    // The very first one waits for the fetch and passes.
    let new = read(&stack.entra);
    stack.passed(&new).await;
    assert_eq!(stack.entra.count(Endpoint::Keys), fetched + 1);
    for _ in 0..3 {
        stack.denied(&cached, 401, "key_unknown").await;
        stack.passed(&new).await;
    }
    assert_eq!(stack.entra.count(Endpoint::Keys), fetched + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn k12_other_material_under_the_same_key_id_replaces_the_old() {
    let stack = Stack::builder().start().await;
    let old = read(&stack.entra);
    stack.passed(&old).await;
    stack.entra.replace_key_material(&stack.entra.signing_key_id());
    let new = read(&stack.entra);
    stack.denied(&new, 401, "signature_invalid").await;
    // An unknown key brings the new set.
    let unknown = read_with_unknown_key(&stack.entra, "unknown");
    stack.denied(&unknown, 401, "key_unknown").await;
    stack.passed(&new).await;
    stack.denied(&old, 401, "signature_invalid").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k04_a_flood_of_unknown_keys_is_one_fetch_and_delays_nobody() {
    let stack = Stack::builder().concurrency(2).start().await;
    let good = read(&stack.entra);
    stack.passed(&good).await;
    let fetched = stack.entra.count(Endpoint::Keys);
    let before = stack.application.count();
    let (inbound, mut flood) = (stack.envoy.inbound, tokio::task::JoinSet::new());
    for lane in 0..8 {
        let requests: Vec<_> = (0..20)
            .map(|number| read_with_unknown_key(&stack.entra, &format!("kid-{lane}-{number}")))
            .collect();
        flood.spawn(async move {
            for request in requests {
                let answer = request.send(inbound).await;
                assert_eq!(answer.status, 401, "{}", answer.text());
            }
        });
    }
    let mut passed = 0;
    while !flood.is_empty() {
        assert_eq!(stack.call(&good).await.status, 200);
        passed += 1;
        while let Some(lane) = flood.try_join_next() {
            lane.expect("a lane of the flood");
        }
    }
    assert_eq!(stack.application.count(), before + passed);
    assert_eq!(stack.entra.count(Endpoint::Keys), fetched + 1);
    let fetched = r#"entra_broker_key_refresh_requests_total{outcome="fetched"}"#;
    assert!((stack.broker().metric(fetched).await - 1.0).abs() < 0.5);
}

/// A stack whose broker is a stand-in, and whose policies can be pushed anew, so that each case of
/// a table meets a filter that has learnt nothing yet.
async fn with_stand_in() -> (Stack, StandIn) {
    let stack = Stack::builder().without_broker().pushable().start().await;
    let stand_in = StandIn::start(stack.broker_socket(), |_| Said::Nothing);
    (stack, stand_in)
}

/// Pushes a policy whose rules have the case's name, and waits until it is in force: then the
/// request must have the expected status and reason. Until then it must be refused.
async fn push(stack: &Stack, filter: &str, case: &str, request: &Request, expected: (u16, &str)) {
    let mut config = stack.config.clone();
    let rules = config.policy_mut(filter)["rules"].as_array_mut().expect("rules");
    for rule in rules.iter_mut() {
        rule["name"] = json!(format!("{}-{case}", rule["name"].as_str().expect("a name")));
    }
    stack.envoy.push(&config);
    let in_force = async {
        loop {
            let id = Stack::next_id();
            let request = request.clone().header("x-request-id", &id);
            let (answer, record) = match filter {
                "entra-inbound" => (stack.call(&request).await, stack.record(&id).await),
                _ => (stack.call_graph(request).await, stack.outbound_record(&id).await),
            };
            if record.get("rule").is_some_and(|rule| rule.ends_with(&format!("-{case}"))) {
                let found = (answer.status, record.get("reason").unwrap_or_default());
                assert_eq!(found, expected, "{case}");
                return;
            }
            let refused = [401, 503].contains(&answer.status);
            assert!(refused, "{} before {case}: {record:?}", answer.status);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(e2e::client::DEADLINE, in_force).await.expect("the new configuration");
}

#[tokio::test(flavor = "multi_thread")]
async fn k08_what_is_no_key_set_of_the_broker_opens_nothing() {
    let (stack, stand_in) = with_stand_in().await;
    let good = stand_in::keys(TENANT, &stack.entra.key_set(TENANT), unix_now());
    let other = "99999999-9999-4999-8999-999999999999";
    let with = |member: &str, value: Value| {
        let mut set = good.clone();
        set["key_sets"][0][member] = value;
        Said::json(&set)
    };
    let of_others = {
        let mut set = good.clone();
        for key in set["key_sets"][0]["keys"].as_array_mut().expect("keys") {
            key["issuer"] = json!(format!("https://login.microsoftonline.com/{other}/v2.0"));
        }
        set
    };
    let issuer = |host: &str| json!(format!("https://{host}/{TENANT}/v2.0"));
    let truncated = |text: String| text.chars().take(text.len() / 2).collect::<String>();
    let rows = [
        ("no-json", Said::Answer(200, "<html>".into())),
        ("empty-body", Said::Answer(200, String::new())),
        ("other-json", Said::json(&json!({"keys": []}))),
        ("truncated", Said::Answer(200, truncated(good.to_string()))),
        ("status-500", Said::Answer(500, good.to_string())),
        ("status-403", Said::Answer(403, good.to_string())),
        ("unchanged", Said::Answer(304, String::new())),
        ("no-http", Said::Raw(b"\x00\xff\r\n\r\n".to_vec())),
        ("closed", Said::Raw(Vec::new())),
        ("no-sets", Said::json(&json!({"key_sets": []}))),
        ("no-keys", with("keys", json!([]))),
        ("too-old", with("fetched_at", json!(unix_now() - 86_500))),
        ("other-tenant", with("issuer", json!(issuer(other)))),
        ("other-host", with("issuer", issuer("login.evil.example"))),
        ("other-cloud", with("issuer", issuer("login.microsoftonline.us"))),
    ];
    let request = read(&stack.entra);
    for (case, said) in rows {
        stand_in.say(move |_| said.clone());
        push(&stack, "entra-inbound", case, &request, (503, "keys_unavailable")).await;
    }
    // Keys that sign for others are none for this tenant, and that is final.
    stand_in.say(move |_| Said::json(&of_others));
    let refused = (401, "key_issuer_mismatch");
    push(&stack, "entra-inbound", "keys-of-others", &request, refused).await;
    assert_eq!((stack.application.count(), stack.application.bytes()), (0, 0));

    // The same filter takes what is right, so it was the answers that were refused.
    stand_in.say(move |_| Said::json(&good));
    push(&stack, "entra-inbound", "good", &request, (200, "allowed")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o06_what_is_no_token_for_this_destination_never_leaves() {
    let (stack, stand_in) = with_stand_in().await;
    let with = |member: &'static str, value: Value| {
        move |asked: &Asked| {
            let mut token = stand_in::issued(asked, "stand-in-token", unix_now());
            token[member] = value.clone();
            Said::json(&token)
        }
    };
    type Case = Box<dyn Fn(&Asked) -> Said + Send + Sync>;
    let always = |said: Said| -> Case { Box::new(move |_| said.clone()) };
    let refusal = |kind: &str| json!({"error": "x", "kind": kind}).to_string();
    let rows: Vec<(&str, Case)> = vec![
        ("no-json", always(Said::Answer(200, "token".into()))),
        ("empty-body", always(Said::Answer(200, String::new()))),
        ("status-500", always(Said::Answer(500, "{}".into()))),
        ("transient", always(Said::Answer(503, refusal("transient")))),
        ("throttled", always(Said::Answer(429, refusal("throttled")))),
        ("credential", always(Said::Answer(502, refusal("credential")))),
        ("unknown-kind", always(Said::Answer(400, refusal("whatever")))),
        ("no-http", always(Said::Raw(b"\x00\xff\r\n\r\n".to_vec()))),
        ("closed", always(Said::Raw(Vec::new()))),
        (
            "wrong-length",
            always(Said::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}".to_vec())),
        ),
        ("other-identity", Box::new(with("identity", json!("batch")))),
        ("other-scope", Box::new(with("scope", json!("https://vault.azure.net/.default")))),
        ("other-type", Box::new(with("token_type", json!("PoP")))),
        ("expired", Box::new(with("expires_on", json!(unix_now() - 1)))),
        ("about-to-expire", Box::new(with("expires_on", json!(unix_now() + 5)))),
        ("no-end", Box::new(with("expires_on", Value::Null))),
        ("empty-token", Box::new(with("access_token", json!("")))),
        ("line-break", Box::new(with("access_token", json!("a\r\nx-injected: 1")))),
        ("line-feed", Box::new(with("access_token", json!("a\nb")))),
        ("nul", Box::new(with("access_token", json!("a\u{0}b")))),
        ("comma", Box::new(with("access_token", json!("a,b")))),
        ("space", Box::new(with("access_token", json!("a b")))),
        ("non-ascii", Box::new(with("access_token", json!("aüb")))),
    ];
    for (case, said) in rows {
        stand_in.say(said);
        push(&stack, "entra-outbound", case, &me(), (503, "token_unavailable")).await;
    }
    assert_eq!((stack.graph.count(), stack.graph.bytes()), (0, 0));

    // The same filter takes what is right, so it was the answers that were refused.
    stand_in.say(|asked| Said::json(&stand_in::issued(asked, "good-token", unix_now())));
    stack.until(stack.envoy.outbound, &me().host("graph.microsoft.com"), 200).await;
    assert_eq!(stack.graph.latest().bearer().as_deref(), Some("good-token"));
    let asked = stand_in.asked(route::TOKEN);
    assert!(asked.iter().all(|asked| asked.body["scope"] == GRAPH_SCOPE), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_never_answers_holds_nobody_for_long() {
    let stack = Stack::builder().without_broker().start().await;
    let silent = StandIn::start(stack.broker_socket(), |_| Said::Nothing);
    for path in [route::KEYS, route::TOKEN] {
        silent.wait_for(path, 2).await;
    }
    let read = read(&stack.entra);
    let inbound = stack.denied(&read, 503, "keys_unavailable");
    let me = me();
    let outbound = stack.graph_denied(&me, 503, "token_unavailable");
    tokio::join!(inbound, outbound);
    stack.passed(&Request::get("/healthz")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entras_refusal_lets_nothing_out_and_is_no_authentication_failure() {
    let stack = Stack::builder()
        .entra(|entra| {
            let wrong_secret = Fault::Refuse { code: 7_000_215, retry_after: None };
            entra.fail_next(Endpoint::Token, usize::MAX, wrong_secret);
        })
        .start()
        .await;
    for _ in 0..3 {
        stack.graph_denied(&me(), 503, "token_unavailable").await;
    }
    stack.passed(&read(&stack.entra)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_is_not_allowed_to_give_is_forbidden() {
    for (pointer, value) in [
        ("/rules/0/token/scope", "https://vault.azure.net/.default"),
        ("/rules/0/token/identity", "somebody-elses"),
    ] {
        let stack = Stack::builder().outbound(pointer, json!(value)).start().await;
        stack.graph_denied(&me(), 403, "token_denied").await;
        let calls = stack.entra.calls_of(Endpoint::Token);
        assert!(calls.iter().all(|call| call.form_member("scope") != Some(value)), "{value}");
    }
}
