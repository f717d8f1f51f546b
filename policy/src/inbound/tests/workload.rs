//! Who calls, by the connection's certificate: as a demand of a rule, and in the record.

use super::*;

const TILL: &str = "spiffe://cluster.local/ns/shop/sa/till";

/// Asks with a user's token over a connection with this certificate.
fn ask_as(inbound: &mut Inbound, workload: Option<&str>, request: &Request) -> Effect {
    let config = inbound.config().clone();
    let lines = request.iter().map(|(name, value)| (name.as_bytes(), value.as_slice()));
    let mut head = RequestHead::read(lines, &config.own_headers);
    head.workload = workload.map(str::as_bytes);
    inbound.on_request(&head, true, NOW, &tokens::verify)
}

#[test]
fn a_rule_may_ask_for_the_calling_workload() {
    let rule = json!([{"scopes": ["Orders.Read"], "caller_workload": ["spiffe://a/b", TILL]}]);
    let mut inbound = ready(&allowing(rule));
    let request = read(&KEY.token(&user()));
    for (workload, expected) in [
        (Some(TILL), Reason::Allowed),
        (Some("spiffe://a/b"), Reason::Allowed),
        (None, Reason::CallerWorkloadRefused),
        (Some(""), Reason::CallerWorkloadRefused),
        (Some("spiffe://cluster.local/ns/shop/sa/tills"), Reason::CallerWorkloadRefused),
        (Some("spiffe://cluster.local/ns/shop/sa/till/"), Reason::CallerWorkloadRefused),
        (Some("spiffe://cluster.local/ns/shop/sa/Till"), Reason::CallerWorkloadRefused),
        (
            Some("spiffe://cluster.local/ns/shop/sa/till,spiffe://a/b"),
            Reason::CallerWorkloadRefused,
        ),
        (Some("spiffe://"), Reason::CallerWorkloadRefused),
    ] {
        let effect = ask_as(&mut inbound, workload, &request);
        assert_eq!(reason(&effect), Some(expected), "{workload:?}");
    }
    // A header is no certificate.
    let spoofed = and(request, "x-forwarded-client-cert", format!("URI={TILL}"));
    let effect = ask_as(&mut inbound, None, &spoofed);
    assert_eq!(reason(&effect), Some(Reason::CallerWorkloadRefused));
}

#[test]
fn a_stronger_sign_in_is_asked_for_only_where_the_workload_is_right() {
    let rule = json!([{
        "scopes": ["Orders.Read"], "caller_workload": [TILL], "authentication_context": "c2",
    }]);
    let only_one_id = with(allowing(rule), json!({"audiences": [API]}));
    let mut inbound = ready(&only_one_id);
    let request = read(&KEY.token(&with(user(), json!({"xms_cc": ["cp1"]}))));
    for (workload, expected) in
        [(Some(TILL), Reason::StepUpRequired), (None, Reason::CallerWorkloadRefused)]
    {
        assert_eq!(reason(&ask_as(&mut inbound, workload, &request)), Some(expected));
    }
}

#[test]
fn the_record_names_the_calling_workload_where_it_is_asked_for() {
    let logging = with(config(), json!({"log_caller_workload": true}));
    let good = read(&KEY.token(&user()));
    for (config, request, workload, expected) in [
        (&logging, &good, Some(TILL), Some(TILL)),
        (&logging, &good, Some("spiffe://a/b c=d"), Some("spiffe://a/b%20c%3Dd")),
        (&logging, &good, None, None),
        // Of refused requests most of all.
        (&logging, &request("GET", "/orders/7"), Some(TILL), Some(TILL)),
        (&logging, &request("GET", "/a/../b"), Some(TILL), Some(TILL)),
        (&logging, &request("GET", "/healthz"), Some(TILL), Some(TILL)),
        (&config(), &good, Some(TILL), None),
    ] {
        let effect = ask_as(&mut ready(config), workload, request);
        let record = effect.decision().unwrap().record();
        let shown = record.split(' ').find_map(|member| member.strip_prefix("workload="));
        assert_eq!(shown, expected, "{record}");
    }
}
