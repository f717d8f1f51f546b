//! Rules by host and cluster: only with the word that says what they cannot see.

use super::*;

const CLUSTER: &str = "outbound|80||graph.microsoft.com";
const KEY: &str = "rules[0].allow_unverified_destination";

fn downstream() -> Value {
    let matches = json!({"host": "graph.microsoft.com", "cluster": CLUSTER});
    let document = changed(outbound(), "/rules/0/match", Some(matches));
    changed(document, "/rules/0/allow_unverified_destination", Some(json!(true)))
}

#[test]
fn a_rule_by_host_and_cluster_is_for_the_downstream_position() {
    let config = read_outbound(&downstream());
    assert_eq!(config.position, Position::Downstream);
    let rule = &config.rules[0];
    let route = rule.route.as_ref().unwrap();
    assert_eq!((route.host.as_str(), route.cluster.as_str()), ("graph.microsoft.com", CLUSTER));
    // What the broker and the token's place in the filter know it by.
    assert_eq!(rule.token.destination, "graph");
    let config = read_outbound(&outbound());
    assert_eq!((config.position, &config.rules[0].route), (Position::Upstream, &None));
}

#[test]
fn w07_nobody_gives_tokens_to_unverified_destinations_unawares() {
    let key = "/rules/0/allow_unverified_destination";
    for value in [None, Some(json!(false))] {
        check(&changed(downstream(), key, value), &[(KEY, "must be `true`")]);
    }
    // Where it would do nothing, it is not to look as if it did.
    for value in [json!(true), json!(false)] {
        check(&changed(outbound(), key, Some(value)), &[(KEY, "only for a match by `host`")]);
    }
}

#[test]
fn w07_host_and_cluster_stand_together_and_are_exact() {
    const HOST: &str = "rules[0].match.host";
    const ITS_CLUSTER: &str = "rules[0].match.cluster";
    let host = "/rules/0/match/host";
    check(&changed(downstream(), host, None), &[(HOST, REQUIRED)]);
    check(&changed(downstream(), "/rules/0/match/cluster", None), &[(ITS_CLUSTER, REQUIRED)]);
    let both = changed(downstream(), "/rules/0/match/destination", Some(json!("graph")));
    check(&both, &[("rules[0].match", "either `destination`, or")]);
    for name in [
        "",
        "*",
        "*.microsoft.com",
        "Graph.microsoft.com",
        "graph.microsoft.com.",
        "graph.microsoft.com:443",
        "https://graph.microsoft.com",
        "graph.microsoft.com/v1.0",
        "user@graph.microsoft.com",
        "graph.microsoft.com,evil.example",
        "gräph.example",
    ] {
        check(&changed(downstream(), host, Some(json!(name))), &[(HOST, "one host name")]);
    }
    for name in ["127.0.0.1", "graph", "a_b.example"] {
        read_outbound(&changed(downstream(), host, Some(json!(name))));
    }
    let cluster = |name: &str| changed(downstream(), "/rules/0/match/cluster", Some(json!(name)));
    for name in ["", "a b", "a\n", "é", &"a".repeat(513)] {
        check(&cluster(name), &[(ITS_CLUSTER, "without spaces")]);
    }
    read_outbound(&cluster(&"a".repeat(512)));
}

#[test]
fn w07_no_two_rules_are_for_one_host_and_cluster_and_all_for_one_position() {
    let rule = &downstream()["rules"][0];
    let second = |change: &dyn Fn(&mut Value)| {
        let mut second = rule.clone();
        second["name"] = json!("second");
        change(&mut second);
        changed(downstream(), "/rules", Some(json!([rule, second])))
    };
    let same = second(&|_| {});
    check(&same, &[("rules[1].match", "host and cluster of an earlier rule")]);
    for member in ["host", "cluster"] {
        read_outbound(&second(&|rule| rule["match"][member] = json!("other")));
    }
    let other_position = second(&|rule| {
        rule["match"] = json!({"destination": "vault"});
        rule.as_object_mut().unwrap().remove("allow_unverified_destination");
    });
    check(&other_position, &[("rules[1].match", "a filter stands in one place")]);
}
