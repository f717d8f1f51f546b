//! The broker is killed (`SIGKILL`) every second while applications and filters ask: whoever gets an
//! answer gets the right one, everybody gets one, and the next broker is ready soon.
//!
//! `KILLS=60 cargo xtask test b11_killed_every_second` makes a minute of it; the counts are printed.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test: what goes wrong fails it"
)]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use e2e::{
    client::{Answer, Request},
    fake_entra::{
        Application, Cloud, Lifetime,
        sample::{BILLING, BILLING_SUBJECT, CLUSTER_ISSUER, Cluster, GRAPH, TENANT, WORKLOAD},
    },
    stack::{
        Stack, unix_now,
        world::{self, GRAPH_SCOPE},
    },
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    task::JoinSet,
    time::{interval, timeout},
};

/// As many as a run of all tests has time for.
const KILLS: u32 = 15;
const BETWEEN: Duration = Duration::from_secs(1);
/// How long there is none: longer than the broker itself needs, so that it is missed.
const DEAD: Duration = Duration::from_millis(300);
/// How long an answer may take, and a start; far above what either takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two requests of one asker.
const TICK: Duration = Duration::from_millis(5);
/// A filter uses a token until 30 s before its end: so it asks for another every other second.
const LIFE_SECONDS: u64 = 33;

/// Identities of the broker, with the application that each is.
const IDENTITIES: [(&str, &str); 2] = [("default", WORKLOAD), ("billing", BILLING)];

/// What came of how many requests.
type Counts = Arc<Mutex<BTreeMap<String, u64>>>;

fn count(counts: &Counts, what: impl Into<String>) {
    *counts.lock().expect("counts").entry(what.into()).or_default() += 1;
}

#[tokio::test(flavor = "multi_thread")]
async fn b11_killed_every_second_it_answers_nobody_wrongly_and_is_soon_back() {
    let kills = std::env::var("KILLS").map_or(KILLS, |kills| kills.parse().expect("a number"));
    let directory = tempfile::tempdir().expect("a directory");
    let mut stack = start(directory.path()).await;
    stack.passed(&read(&stack)).await;
    stack.graph_passed(&me()).await;

    let counts = Counts::default();
    let mut load = JoinSet::new();
    for asker in 0..4 {
        let socket = stack.broker_socket().to_owned();
        load.spawn(ask_broker(socket, asker, Arc::clone(&counts)));
    }
    let (inbound, outbound) = (stack.envoy.inbound, stack.envoy.outbound);
    let graph = me().host("graph.microsoft.com");
    load.spawn(call(inbound, read(&stack), "inbound", Arc::clone(&counts)));
    load.spawn(call(outbound, graph, "outbound", Arc::clone(&counts)));

    let mut ready = Vec::new();
    let mut due = interval(BETWEEN);
    for kill in 1..=kills {
        due.tick().await;
        stack.kill_broker();
        tokio::time::sleep(DEAD).await;
        if kill == kills {
            // The broker that stays gets tokens as Entra's are: of those before, a filter that comes
            // three seconds late can use none until their renewal.
            stack.entra.set_lifetime(Lifetime::default());
        }
        let began = Instant::now();
        stack.start_broker().await;
        ready_again(&stack, began).await;
        ready.push(began.elapsed());
        // An asker that has found something wrong has panicked.
        if let Some(ended) = load.try_join_next() {
            ended.expect("nobody is answered wrongly");
        }
    }
    // With a broker that stays, all is well again.
    stack.until(outbound, &me().host("graph.microsoft.com"), 200).await;
    load.abort_all();
    while let Some(ended) = load.join_next().await {
        assert!(ended.is_err_and(|error| error.is_cancelled()), "an asker has failed");
    }

    ready.sort_unstable();
    let (middle, last) = (ready[ready.len() / 2], ready[ready.len() - 1]);
    println!("{kills} kills; ready again after {middle:?} (median), {last:?} (longest)");
    let counts = counts.lock().expect("counts").clone();
    for (what, count) in &counts {
        println!("{count:>8}  {what}");
    }
    reasons(&stack);
    for what in ["broker: 200 default", "broker: 200 billing", "inbound: 200", "outbound: 200"] {
        assert!(counts.get(what).is_some_and(|count| *count >= u64::from(kills)), "{what}");
    }
    // What Graph saw, application by application.
    for request in stack.graph.requests() {
        assert_eq!(application(&request.bearer().expect("a token")), WORKLOAD);
    }
}

/// The shipped configuration with a second identity, whose token no rule of Envoy's asks for, and
/// keys in a file.
async fn start(directory: &Path) -> Stack {
    let token_file = directory.join("billing-token");
    let audience = Cloud::Public.exchange_audience();
    let token = Cluster::sample().token(BILLING_SUBJECT, audience, unix_now(), 3_600);
    std::fs::write(&token_file, token).expect("the federated token");
    let billing = json!({
        "workload_identity":
            {"tenant": TENANT, "client_id": BILLING, "token_file": token_file},
        "scopes": [GRAPH_SCOPE],
    });
    Stack::builder()
        .broker("/identities/billing", billing)
        .broker("/key_snapshot", json!({"file": directory.join("keys.json")}))
        .entra(|entra| {
            let audience = Cloud::Public.exchange_audience();
            entra.directory(|directory| {
                *directory = std::mem::take(directory).application(
                    Application::new(TENANT, BILLING, "Billing workload")
                        .federated(CLUSTER_ISSUER, BILLING_SUBJECT, audience)
                        .role(GRAPH, "Mail.Send"),
                );
            });
            entra.set_lifetime(Lifetime { expires_in: LIFE_SECONDS, refresh_in: None });
        })
        .start()
        .await
}

fn me() -> Request {
    Request::get("/v1.0/me")
}

fn read(stack: &Stack) -> Request {
    let token = world::user(&stack.entra, &["Orders.Read"]).lifetime(3_600).sign();
    Request::get("/orders/7").bearer(&token)
}

async fn ready_again(stack: &Stack, began: Instant) {
    while stack.broker().admin("/readyz").await.status != 200 {
        assert!(began.elapsed() < PATIENCE, "the broker is not ready again");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Asks as a filter does, for both identities in turn. That a connection fails while nobody listens,
/// or breaks when the broker is killed, is not an answer.
async fn ask_broker(socket: PathBuf, asker: usize, counts: Counts) {
    let mut due = interval(TICK);
    for turn in asker.. {
        due.tick().await;
        let (identity, client_id) = IDENTITIES[turn % 2];
        let asked = timeout(PATIENCE, exchange(&socket, identity)).await.expect("an answer");
        let Some((status, answer)) = asked else {
            count(&counts, "broker: no connection");
            continue;
        };
        if status == 200 {
            assert_eq!(
                (&answer["identity"], &answer["scope"]),
                (&json!(identity), &json!(GRAPH_SCOPE))
            );
            let token = answer["access_token"].as_str().expect("a token");
            assert_eq!(application(token), client_id, "another identity's token for {identity}");
            count(&counts, format!("broker: 200 {identity}"));
        } else {
            assert_eq!(status, 503, "{answer}");
            count(&counts, format!("broker: 503 {}", answer["kind"].as_str().expect("a kind")));
        }
    }
}

/// One request and its answer, where there is a whole one.
async fn exchange(socket: &Path, identity: &str) -> Option<(u16, Value)> {
    let body =
        json!({"identity": identity, "scope": GRAPH_SCOPE, "destination": "graph"}).to_string();
    let request = format!(
        "POST /v1/token HTTP/1.1\r\nhost: token-broker\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let mut stream = UnixStream::connect(socket).await.ok()?;
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, serde_json::from_str(body).ok()?))
}

/// Calls through Envoy, as the application or its callers do. Each call is answered, and a refusal
/// says why and when to come again: never as if it were the caller's fault.
async fn call(listener: SocketAddr, request: Request, side: &'static str, counts: Counts) {
    let mut due = interval(TICK);
    loop {
        due.tick().await;
        let answer: Answer = request.send(listener).await;
        if answer.status != 200 {
            assert_eq!(answer.status, 503, "{side}: {}", answer.text());
            assert!(answer.header("retry-after").is_some(), "{side}: {}", answer.text());
            let problem = answer.header("content-type");
            assert_eq!(problem.as_deref(), Some("application/problem+json"), "{side}");
        }
        count(&counts, format!("{side}: {}", answer.status));
    }
}

/// Whose token it is, by what its resource reads in it.
fn application(token: &str) -> String {
    let claims = token.split('.').nth(1).expect("three parts");
    let claims: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).expect("base64")).expect("claims");
    let found = claims.get("appid").or_else(|| claims.get("azp"));
    found.and_then(Value::as_str).expect("an application").to_owned()
}

/// Prints why Envoy refused, by the filter's own records.
fn reasons(stack: &Stack) {
    let mut reasons = BTreeMap::<String, u64>::new();
    for line in stack.envoy.access_log() {
        if line["status"] != 503 {
            continue;
        }
        let record = line["entra_outbound"].as_str().or_else(|| line["entra"].as_str());
        let reason = record.and_then(|record| record.split(' ').next()).unwrap_or_default();
        assert!(reason.starts_with("reason="), "a 503 without a reason: {line}");
        *reasons.entry(reason.to_owned()).or_default() += 1;
    }
    for (reason, count) in reasons {
        println!("{count:>8}  503 with {reason}");
    }
}
