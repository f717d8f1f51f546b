//! Which answers become keys, how long they stay, and that a bad one changes nothing.

use contract::{KeySet, KeySetState};
use serde_json::{Value, json};
use token_broker::https::TransportFailure;

use crate::support::{Broker, Endpoint, Entra, Reply, START, TENANT, key, metadata, pass, seconds};

fn set(broker: &Broker) -> KeySet {
    broker.state.serving().keys.sets().key_sets.remove(0)
}

fn kids(set: &KeySet) -> Vec<String> {
    set.keys.iter().filter_map(|key| key.kid.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn k10_k11_keys_are_fetched_at_start_and_about_hourly() {
    let entra = Entra::new();
    let broker = Broker::start(&entra);
    assert_eq!(set(&broker).state, KeySetState::None);
    assert_eq!(set(&broker).fetched_at, 0);
    pass(seconds(1)).await;
    let first = set(&broker);
    assert_eq!((first.state, first.fetched_at), (KeySetState::Fresh, START));
    assert_eq!(first.issuer, format!("https://login.microsoftonline.com/{TENANT}/v2.0"));
    assert_eq!(kids(&first), ["k1"]);
    entra.keys(vec![key(1, "k1"), key(2, "k2")]);
    pass(seconds(3_238)).await;
    assert_eq!(entra.count(Endpoint::Keys), 1);
    pass(seconds(800)).await;
    assert_eq!(entra.count(Endpoint::Keys), 2);
    assert_eq!(kids(&set(&broker)), ["k1", "k2"]);
    // A removed key is gone with the next fetch.
    entra.keys(vec![key(2, "k2")]);
    pass(seconds(4_000)).await;
    assert_eq!(kids(&set(&broker)), ["k2"]);
    let uris: Vec<String> = entra.calls(Endpoint::Metadata).into_iter().map(|c| c.uri).collect();
    let expected =
        format!("https://login.microsoftonline.com/{TENANT}/v2.0/.well-known/openid-configuration");
    assert!(uris.iter().all(|uri| *uri == expected), "{uris:?}");
}

#[tokio::test(start_paused = true)]
async fn k07_k08_k09_a_bad_answer_leaves_the_last_good_keys_in_place() {
    let text = |body: &str| Reply::Answer(200, Vec::new(), body.as_bytes().to_vec());
    let own = format!("https://login.microsoftonline.com/{TENANT}/v2.0/");
    let with = |member: &str, value: Value| {
        let mut body = metadata(&own);
        body[member] = value;
        Reply::json(200, &body)
    };
    let redirect = Reply::Answer(302, Vec::new(), Vec::new())
        .with_header("location", "https://login.microsoftonline.com/other");
    let many: Vec<Value> = vec![key(1, "k1"); 1_001];
    let cases = vec![
        (Endpoint::Keys, text("<html>")),
        (Endpoint::Keys, text("{}")),
        (Endpoint::Keys, text(r#"{"keys":"x"}"#)),
        (Endpoint::Keys, text(r#"{"keys":[]}"#)),
        (Endpoint::Keys, text(r#"{"keys":[{"kty":"RSA"}]}"#)),
        (Endpoint::Keys, text(r#"{"keys":[{"kty":"oct","kid":"k1","k":"c2VjcmV0"}]}"#)),
        (Endpoint::Keys, text(r#"{"keys":[{"#)),
        (Endpoint::Keys, text("\u{1f}\u{8b}")),
        (Endpoint::Keys, Reply::json(200, &json!({"keys": many}))),
        (Endpoint::Keys, Reply::Answer(200, Vec::new(), vec![b' '; 512 * 1024 + 1])),
        (Endpoint::Keys, Reply::Answer(500, Vec::new(), Vec::new())),
        (Endpoint::Keys, Reply::Answer(304, Vec::new(), Vec::new())),
        (Endpoint::Keys, redirect.clone()),
        (Endpoint::Keys, Reply::json(404, &json!({"keys": [key(2, "k2")]}))),
        (Endpoint::Keys, Reply::json(203, &json!({"keys": [key(2, "k2")]}))),
        (Endpoint::Metadata, Reply::json(302, &metadata(&own))),
        (Endpoint::Keys, Reply::Fail(TransportFailure::Timeout)),
        (Endpoint::Keys, Reply::Fail(TransportFailure::Broken)),
        (Endpoint::Metadata, redirect),
        (Endpoint::Metadata, text("<html>")),
        (Endpoint::Metadata, Reply::Fail(TransportFailure::Connection("refused".to_owned()))),
        (Endpoint::Metadata, with("issuer", json!("https://login.microsoftonline.com/x/v2.0"))),
        (Endpoint::Metadata, with("issuer", json!(7))),
        (Endpoint::Metadata, with("jwks_uri", json!("https://evil.example/keys"))),
        (Endpoint::Metadata, with("jwks_uri", json!("http://login.microsoftonline.com/keys"))),
        (Endpoint::Metadata, with("jwks_uri", json!("https://169.254.169.254/keys"))),
        (Endpoint::Metadata, with("cloud_instance_name", json!("microsoftonline.us"))),
    ];
    for (index, (endpoint, reply)) in cases.into_iter().enumerate() {
        let entra = Entra::new();
        let broker = Broker::start(&entra);
        pass(seconds(1)).await;
        entra.keys(vec![key(2, "k2")]);
        entra.always(endpoint, Some(reply));
        pass(seconds(4_000)).await;
        let kept = set(&broker);
        assert_eq!(kids(&kept), ["k1"], "case {index}");
        assert_eq!((kept.state, kept.fetched_at), (KeySetState::Stale, START), "case {index}");
        // Well again: taken within the longest pause.
        entra.always(endpoint, None);
        pass(seconds(60)).await;
        assert_eq!(kids(&set(&broker)), ["k2"], "case {index}");
        assert_eq!(set(&broker).state, KeySetState::Fresh, "case {index}");
    }
}

#[tokio::test(start_paused = true)]
async fn k06_without_a_good_answer_there_are_no_keys_and_the_pauses_grow() {
    let entra = Entra::new();
    entra.always(Endpoint::Metadata, Some(Reply::Answer(500, Vec::new(), Vec::new())));
    let broker = Broker::start(&entra);
    pass(seconds(300)).await;
    assert_eq!((set(&broker).state, set(&broker).keys.len()), (KeySetState::None, 0));
    let at: Vec<u64> =
        entra.calls(Endpoint::Metadata).iter().map(|call| call.at.as_secs()).collect();
    let pauses: Vec<u64> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!((9..=14).contains(&at.len()), "{at:?}");
    assert!(pauses.iter().all(|pause| *pause <= 60), "{pauses:?}");
    assert!(pauses[0] < pauses[5], "{pauses:?}");
    assert_eq!(entra.count(Endpoint::Keys), 0);
}

#[tokio::test(start_paused = true)]
async fn k07_keys_older_than_a_day_are_no_keys() {
    let entra = Entra::new();
    let broker = Broker::start(&entra);
    pass(seconds(1)).await;
    entra.always(Endpoint::Keys, Some(Reply::Answer(500, Vec::new(), Vec::new())));
    pass(seconds(86_399)).await;
    assert_eq!(set(&broker).state, KeySetState::Stale);
    assert_eq!(kids(&set(&broker)), ["k1"]);
    pass(seconds(1)).await;
    let gone = set(&broker);
    assert_eq!((gone.state, gone.keys.len(), gone.fetched_at), (KeySetState::None, 0, START));
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_makes_no_key_younger() {
    let entra = Entra::new();
    let broker = Broker::start(&entra);
    pass(seconds(1)).await;
    entra.always(Endpoint::Keys, Some(Reply::Answer(500, Vec::new(), Vec::new())));
    broker.clock.jump(-86_400);
    pass(seconds(86_401)).await;
    assert_eq!(set(&broker).state, KeySetState::None);
    // A machine that slept for two days fetches within a minute, though no timer ran.
    entra.always(Endpoint::Keys, None);
    pass(seconds(61)).await;
    assert_eq!(set(&broker).state, KeySetState::Fresh);
    broker.clock.jump(172_800);
    assert_eq!(set(&broker).state, KeySetState::None);
    pass(seconds(61)).await;
    assert_eq!(set(&broker).state, KeySetState::Fresh);
}

#[tokio::test(start_paused = true)]
async fn organizations_is_an_authority_of_its_own() {
    let entra = Entra::new();
    let mut config = crate::support::config();
    let mut organizations = config.authorities[0].clone();
    organizations.tenant = "organizations".to_owned();
    config.authorities.push(organizations);
    let broker = Broker::with_config(&entra, &config);
    pass(seconds(1)).await;
    let sets = broker.state.serving().keys.sets().key_sets;
    assert_eq!(sets[1].issuer, "https://login.microsoftonline.com/{tenantid}/v2.0");
    assert_eq!(sets[1].state, KeySetState::Fresh);
    // Its metadata under a tenant's address is not the tenant's.
    entra.always(
        Endpoint::Metadata,
        Some(Reply::json(200, &metadata("https://login.microsoftonline.com/organizations/"))),
    );
    pass(seconds(4_000)).await;
    let states: Vec<KeySetState> =
        broker.state.serving().keys.sets().key_sets.iter().map(|set| set.state).collect();
    assert_eq!(states, [KeySetState::Stale, KeySetState::Fresh]);
}
