//! Requests that wait for the broker: for one answer in common, also when who asked first has
//! gone, in bounded numbers, and without a trace when they leave.

#![allow(
    clippy::expect_used,
    clippy::arithmetic_side_effects,
    reason = "a test: what goes wrong fails it"
)]

use contract::route;
use e2e::{
    client::{Answer, Connection, Request},
    fake_entra::{Endpoint, FakeEntra, sample::TENANT},
    stack::{
        Stack, unix_now,
        world::{payer, user},
    },
    stand_in::{self, Asked, Said, StandIn},
};
use tokio::{sync::watch, task::JoinSet};

/// Most requests that wait per VM; beyond, they are refused.
const MAX_WAITING: usize = 256;
/// With one worker Envoy runs the filter twice: in the worker, and in its main thread, where no
/// request comes. Each asks the broker for itself.
const VMS: usize = 2;

fn read(entra: &FakeEntra) -> Request {
    Request::get("/orders/7").bearer(&user(entra, &["Orders.Read"]).sign())
}

fn me() -> Request {
    Request::get("/v1.0/me").host("graph.microsoft.com")
}

/// Sends a request, and does not wait for its answer.
async fn ask(listener: std::net::SocketAddr, request: &Request) -> Connection {
    let mut connection = Connection::open(listener).await;
    connection.write(&request.to_bytes()).await;
    connection
}

/// Blocks this thread only: the stack's tasks run on others.
fn arrived(entra: &FakeEntra, endpoint: Endpoint, count: usize) {
    let came = tokio::task::block_in_place(|| entra.wait_for_calls(endpoint, count));
    assert!(came, "{endpoint:?} was not asked {count} times");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_who_wait_for_keys_are_answered_when_the_first_has_gone() {
    let stack = Stack::builder().start().await;
    stack.passed(&read(&stack.entra)).await;
    let fetched = stack.entra.count(Endpoint::Keys);
    stack.entra.roll_keys_without_overlap();
    let request = read(&stack.entra);
    let gate = stack.entra.hold_next(Endpoint::Keys, 1);

    let first = ask(stack.envoy.inbound, &request).await;
    arrived(&stack.entra, Endpoint::Keys, fetched + 1);
    let mut others = Vec::new();
    for _ in 0..20 {
        others.push(ask(stack.envoy.inbound, &request).await);
    }
    stack.under_way("inbound", 21).await;
    drop(first);
    stack.under_way("inbound", 20).await;
    gate.open();
    for other in &mut others {
        assert_eq!(other.answer().await.status, 200);
    }
    assert_eq!(stack.entra.count(Endpoint::Keys), fetched + 1);
    assert_eq!(stack.application.count(), 1 + 20, "the one who left was not served");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_who_wait_for_a_token_get_it_when_the_first_has_gone() {
    let stack = Stack::builder().without_broker().start().await;
    let (gate, opened) = watch::channel(false);
    let stand_in = StandIn::start(stack.broker_socket(), tokens_once(opened));
    stand_in.wait_for(route::TOKEN, VMS).await;
    let first = ask(stack.envoy.outbound, &me()).await;
    stack.under_way("outbound", 1).await;
    let mut others = Vec::new();
    for _ in 0..20 {
        others.push(ask(stack.envoy.outbound, &me()).await);
    }
    stack.under_way("outbound", 21).await;
    drop(first);
    stack.under_way("outbound", 20).await;
    gate.send_replace(true);
    for other in &mut others {
        assert_eq!(other.answer().await.status, 200);
    }
    assert_eq!(stand_in.asked(route::TOKEN).len(), VMS);
    let sent = stack.graph.requests();
    assert_eq!(sent.len(), 20, "the one who left was not served");
    assert!(sent.iter().all(|seen| seen.bearer().as_deref() == Some("token")));
}

/// Tokens for everybody, once the gate opens.
fn tokens_once(opened: watch::Receiver<bool>) -> impl Fn(&Asked) -> Said + Send + Sync {
    move |asked| {
        let token = stand_in::issued(asked, "token", unix_now()).to_string();
        Said::Once(opened.clone(), token)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_token_from_entra_serves_all_who_waited_for_it() {
    let mut stack = Stack::builder().without_broker().start().await;
    let gate = stack.entra.hold_next(Endpoint::Token, 1);
    stack.start_broker().await;
    arrived(&stack.entra, Endpoint::Token, 1);
    // Until the filter has asked the broker anew, it refuses at once; then requests wait.
    let mut waiting = Vec::new();
    while waiting.len() < 20 {
        let mut asked = ask(stack.envoy.outbound, &me()).await;
        let refused = tokio::time::timeout(std::time::Duration::from_millis(50), asked.answer());
        match refused.await {
            Ok(answer) => assert_eq!(answer.status, 503),
            Err(_still_waiting) => waiting.push(asked),
        }
    }
    drop(waiting.remove(0));
    stack.under_way("outbound", 19).await;
    gate.open();
    for waiting in &mut waiting {
        assert_eq!(waiting.answer().await.status, 200);
    }
    assert_eq!(stack.entra.issued(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_256_do_not_wait_inbound() {
    let stack = Stack::builder().without_broker().start().await;
    let (gate, opened) = watch::channel(false);
    let keys = stand_in::keys(TENANT, &stack.entra.key_set(TENANT), unix_now()).to_string();
    let stand_in =
        StandIn::start(stack.broker_socket(), move |_| Said::Once(opened.clone(), keys.clone()));
    stand_in.wait_for(route::KEYS, VMS).await;
    let request = read(&stack.entra);
    let mut waiting = too_many(&stack, "inbound", stack.envoy.inbound, &request).await;
    assert_eq!(stand_in.asked(route::KEYS).len(), VMS, "one call for all who wait");
    assert_eq!((stack.application.count(), stack.application.bytes()), (0, 0));
    gate.send_replace(true);
    for waiting in &mut waiting {
        assert_eq!(waiting.answer().await.status, 200);
    }
    assert_eq!(stack.application.count(), MAX_WAITING);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_256_do_not_wait_outbound() {
    let stack = Stack::builder().without_broker().start().await;
    let (gate, opened) = watch::channel(false);
    let stand_in = StandIn::start(stack.broker_socket(), tokens_once(opened));
    stand_in.wait_for(route::TOKEN, VMS).await;
    let mut waiting = too_many(&stack, "outbound", stack.envoy.outbound, &me()).await;
    assert_eq!(stand_in.asked(route::TOKEN).len(), VMS, "one call for all who wait");
    assert_eq!((stack.graph.count(), stack.graph.bytes()), (0, 0));
    gate.send_replace(true);
    for waiting in &mut waiting {
        assert_eq!(waiting.answer().await.status, 200);
    }
    assert_eq!(stack.graph.count(), MAX_WAITING);
}

/// Lets more requests come than may wait, while the broker is silent; gives those who wait.
async fn too_many(
    stack: &Stack,
    listener: &str,
    address: std::net::SocketAddr,
    request: &Request,
) -> Vec<Connection> {
    let mut waiting = Vec::new();
    for _ in 0..MAX_WAITING {
        waiting.push(ask(address, request).await);
    }
    stack.under_way(listener, MAX_WAITING as u64).await;
    for _ in 0..5 {
        let id = Stack::next_id();
        let answer = request.clone().header("x-request-id", &id).send(address).await;
        assert_eq!((answer.status, answer.header("retry-after").is_some()), (503, true));
        let record = match listener {
            "inbound" => stack.record(&id).await,
            _ => stack.outbound_record(&id).await,
        };
        assert_eq!(record.get("reason"), Some("too_many_waiting"));
    }
    // A place that becomes free is free for somebody else.
    drop(waiting.pop());
    stack.under_way(listener, MAX_WAITING as u64 - 1).await;
    waiting.push(ask(address, request).await);
    stack.under_way(listener, MAX_WAITING as u64).await;
    waiting
}

#[tokio::test(flavor = "multi_thread")]
async fn h20_streams_reset_while_they_wait_leave_nothing_behind() {
    for listener in ["inbound", "outbound"] {
        let stack = Stack::builder().without_broker().start().await;
        let (gate, opened) = watch::channel(false);
        let key_set = stack.entra.key_set(TENANT);
        let stand_in = StandIn::start(stack.broker_socket(), move |asked| {
            let said = match asked.path.as_str() {
                route::KEYS => stand_in::keys(TENANT, &key_set, unix_now()),
                _ => stand_in::issued(asked, "token", unix_now()),
            };
            Said::Once(opened.clone(), said.to_string())
        });
        let (path, address, request) = match listener {
            "inbound" => (route::KEYS, stack.envoy.inbound, read(&stack.entra)),
            _ => (route::TOKEN, stack.envoy.outbound, me()),
        };
        stand_in.wait_for(path, VMS).await;
        let mut connections = Vec::new();
        for _ in 0..100 {
            connections.push(ask(address, &request).await);
        }
        stack.under_way(listener, 100).await;
        drop(connections);
        stack.under_way(listener, 0).await;
        let mut streams = JoinSet::new();
        for _ in 0..100 {
            let request = request.clone();
            streams.spawn(async move { request.send_http2(address).await });
        }
        stack.under_way(listener, 100).await;
        streams.shutdown().await;
        stack.under_way(listener, 0).await;

        gate.send_replace(true);
        stack.until(stack.envoy.inbound, &read(&stack.entra), 200).await;
        stack.until(stack.envoy.outbound, &me(), 200).await;
        assert_eq!((stack.application.count(), stack.graph.count()), (1, 1));
        let stats = stack.envoy.stats().await;
        let reloads = stats.iter().filter(|(name, _)| name.contains("vm_reload"));
        assert_eq!(reloads.map(|(_, count)| count).sum::<u64>(), 0, "a VM trapped");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn h21_a_big_body_waits_outside_and_arrives_whole_or_not_at_all() {
    const BODY: usize = 8 * 1024 * 1024;
    let stack = Stack::builder().start().await;
    stack.passed(&read(&stack.entra)).await;
    for status in [200, 403] {
        let fetched = stack.entra.count(Endpoint::Keys);
        let before = (stack.application.count(), stack.application.bytes());
        if status == 200 {
            stack.entra.roll_keys_without_overlap();
        }
        let who =
            if status == 200 { payer(&stack.entra) } else { user(&stack.entra, &["Orders.Read"]) };
        let token = who.sign();
        let gate = stack.entra.hold_next(Endpoint::Keys, 1);
        let request = Request::post("/orders/7/pay", &vec![b'x'; BODY]).bearer(&token);
        let inbound = stack.envoy.inbound;
        let call: tokio::task::JoinHandle<Answer> =
            tokio::spawn(async move { request.send(inbound).await });
        if status == 200 {
            arrived(&stack.entra, Endpoint::Keys, fetched + 1);
            stack.under_way("inbound", 1).await;
            assert_eq!((stack.application.count(), stack.application.bytes()), before);
        }
        gate.open();
        assert_eq!(call.await.expect("an answer").status, status);
        if status == 200 {
            assert_eq!(stack.application.latest().body.len(), BODY);
        } else {
            assert_eq!((stack.application.count(), stack.application.bytes()), before);
        }
    }
}
