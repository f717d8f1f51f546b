//! The downstream position: which calls a rule by host and cluster is for, and what their responses
//! show.

use super::*;
use crate::config::Position;
use crate::outbound::tests::challenges::{Response, named, respond};

const CLUSTER: &str = "outbound|80||graph.example";

fn by_route(name: &str, host: &str, cluster: &str, members: Value) -> Value {
    let mut rule = rule(name, members);
    rule["match"] = json!({"host": host, "cluster": cluster});
    rule["allow_unverified_destination"] = json!(true);
    rule
}

fn graph(members: Value) -> Value {
    by_route("graph", "graph.example", CLUSTER, members)
}

/// What happens to a call to this host by this cluster.
fn call(outbound: &mut Outbound, authority: &[u8], cluster: &str) -> String {
    let destination = outbound.destination(authority, cluster.as_bytes()).map(str::to_owned);
    outcome(outbound, &Attempt { destination: destination.as_deref(), ..Attempt::default() })
}

#[test]
fn o01_a_token_goes_only_where_host_and_cluster_are_both_the_rules() {
    let vault = by_route("vault", "vault.example", "outbound|80||vault.example", json!({}));
    let mut outbound = ready(json!([graph(json!({})), vault]));
    let set = "injected authorization=Bearer graph";
    let none = "no_destination";
    for (authority, expected) in [
        ("graph.example", set),
        ("graph.example:80", set),
        ("graph.example:8443", set),
        ("GRAPH.Example", set),
        ("graph.example.", set),
        ("Graph.Example.:80", set),
        ("", none),
        (".", none),
        ("graph.example..", none),
        (".graph.example", none),
        ("graph.example:", none),
        ("graph.example:80:80", none),
        ("graph.example:https", none),
        ("graph.example,evil.example", none),
        ("graph.example, graph.example", none),
        ("graph.example,graph.example", none),
        ("evil.example,graph.example", none),
        ("user@graph.example", none),
        ("graph.example@evil.example", none),
        ("http://graph.example", none),
        ("graph.example/", none),
        ("graph.example#", none),
        ("graph.example?", none),
        ("graph.example\\@evil.example", none),
        ("graph.example evil.example", none),
        (" graph.example", none),
        ("graph.example\t", none),
        ("graph.example\0", none),
        ("graph%2eexample", none),
        ("graph\u{3002}example", none),
        ("evil.example", none),
        ("graph.example.evil.example", none),
        ("xgraph.example", none),
        ("vault.example", none),
        ("[graph.example]", none),
    ] {
        assert_eq!(call(&mut outbound, authority.as_bytes(), CLUSTER), expected, "{authority:?}");
    }
    assert_eq!(call(&mut outbound, b"graph.example\xff", CLUSTER), none);
    for cluster in [
        "",
        "outbound|80||graph.exampl",
        "outbound|80||graph.example2",
        "OUTBOUND|80||graph.example",
        "outbound|443||graph.example",
        "outbound|80||vault.example",
        "outbound|80||graph.example outbound|80||graph.example",
        "PassthroughCluster",
    ] {
        assert_eq!(call(&mut outbound, b"graph.example", cluster), none, "{cluster}");
    }
    assert_eq!(
        call(&mut outbound, b"vault.example", "outbound|80||vault.example"),
        "injected authorization=Bearer vault"
    );
}

#[test]
fn what_holds_of_a_rule_by_destination_holds_here() {
    let mut outbound = ready(json!([graph(json!({}))]));
    let destination = outbound.destination(b"graph.example", CLUSTER.as_bytes());
    let destination = destination.map(str::to_owned);
    let attempt = || Attempt { destination: destination.as_deref(), ..Attempt::default() };
    check(&mut outbound, &Attempt { inbound_listener: true, ..attempt() }, "misplaced");
    let own = || Attempt { authorization: Some(b"Bearer own".to_vec()), ..attempt() };
    check(&mut outbound, &own(), "authorization_refused");
    // Ours, from before an internal redirect to the same place.
    let ours = Attempt { authorization: Some(b"Bearer graph".to_vec()), ..attempt() };
    check(&mut outbound, &ours, "injected authorization=Bearer graph");
    // And to another place, where it must not arrive.
    let effect = outbound.on_request(
        &Attempt { destination: None, ..ours },
        true,
        NOW,
        Protocol::default,
        &tokens::verify,
    );
    assert!(matches!(effect, Effect::Continue(edits, _) if edits.remove_authorization));
    let mut keeping = ready(json!([graph(json!({"existing_authorization": "keep"}))]));
    check(&mut keeping, &own(), "authorization_kept");
}

#[test]
fn a_call_that_went_to_another_cluster_ends_injection() {
    let vault = by_route("vault", "vault.example", "vault", json!({}));
    let mut outbound = ready(json!([graph(json!({})), vault]));
    assert!(!outbound.on_cluster("graph", Some(CLUSTER.as_bytes())));
    // No cluster: the call went nowhere.
    assert!(!outbound.on_cluster("graph", None));
    assert_eq!(
        call(&mut outbound, b"graph.example", CLUSTER),
        "injected authorization=Bearer graph"
    );
    assert!(outbound.on_cluster("graph", Some(b"elsewhere")));
    // Said once.
    assert!(!outbound.on_cluster("graph", Some(b"elsewhere")));
    assert_eq!(call(&mut outbound, b"graph.example", CLUSTER), "injection_stopped");
    assert_eq!(
        call(&mut outbound, b"vault.example", "vault"),
        "injected authorization=Bearer vault"
    );
    assert!(!outbound.on_cluster("nowhere", Some(b"elsewhere")));
}

#[test]
fn in_the_upstream_position_the_cluster_is_nobodys_question() {
    let mut outbound = ready(json!([rule("graph", json!({}))]));
    assert_eq!(outbound.position(), Position::Upstream);
    assert_eq!(outbound.destination(b"graph.example", CLUSTER.as_bytes()), None);
    assert_eq!(outbound.destination(b"graph", b"graph"), None);
    assert!(!outbound.on_cluster("graph", Some(b"elsewhere")));
    check(&mut outbound, &attempt("graph"), "injected authorization=Bearer graph");
}

#[test]
fn o07_a_challenge_goes_to_the_application_and_the_next_call_has_another_token() {
    let mut outbound = outbound(json!([graph(json!({"claims_challenges": true}))]));
    let request = outbound.next_call(NOW).unwrap();
    outbound.on_result(&request, named("first"), NOW);
    // Nobody waits for it, and nobody has gone again before: neither is asked.
    let crowded = Response { may_wait: false, replayed: true, ..Response::default() };
    assert_eq!(respond(&mut outbound, &crowded), ResponseEffect::Deferred);
    // However many are challenged meanwhile, there is one call.
    let challenge = outbound.next_call(NOW).unwrap();
    assert_eq!(challenge.refused.as_deref(), Some("hash-first"));
    for _ in 0..100 {
        assert_eq!(respond(&mut outbound, &crowded), ResponseEffect::Deferred);
    }
    assert_eq!(outbound.next_call(NOW), None);
    assert_eq!(
        call(&mut outbound, b"graph.example", CLUSTER),
        "injected authorization=Bearer first"
    );
    outbound.on_result(&challenge, named("second"), NOW);
    assert_eq!(
        call(&mut outbound, b"graph.example", CLUSTER),
        "injected authorization=Bearer second"
    );
    // Late challenges to the old token ask for nothing; those to the new one not at once.
    assert_eq!(respond(&mut outbound, &crowded), ResponseEffect::Deferred);
    let injected = crate::outbound::tests::challenges::injected("graph", "second");
    let again = Response { injected, ..Response::default() };
    assert_eq!(respond(&mut outbound, &again), ResponseEffect::Declined);
    assert_eq!(outbound.next_call(NOW), None);
}

#[test]
fn o07_without_the_key_a_challenge_is_the_applications() {
    let mut outbound = ready(json!([graph(json!({}))]));
    assert_eq!(respond(&mut outbound, &Response::default()), ResponseEffect::Pass);
    assert_eq!(outbound.next_call(NOW), None);
}
