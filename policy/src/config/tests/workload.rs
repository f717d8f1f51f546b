//! The calling workload in a document: who is asked for it, and in which words.

use super::*;

const TILL: &str = "spiffe://cluster.local/ns/shop/sa/till";

fn demanding(ids: Value) -> Value {
    let alternative = json!({"roles": ["R"], "caller_workload": ids});
    changed(inbound(), "/rules/1/allow/0", Some(alternative))
}

#[test]
fn the_certificate_is_looked_at_only_where_a_document_wants_it() {
    assert!(!read_inbound(&inbound()).reads_caller_workload());
    for (document, logs) in [
        (changed(inbound(), "/log_caller_workload", Some(json!(true))), true),
        (demanding(json!([TILL])), false),
    ] {
        let config = read_inbound(&document);
        assert!(config.reads_caller_workload());
        assert_eq!(config.log_caller_workload, logs);
    }
    let off = changed(inbound(), "/log_caller_workload", Some(json!(false)));
    assert!(!read_inbound(&off).reads_caller_workload());
}

#[test]
fn w07_only_spiffe_ids_name_a_calling_workload() {
    let config = read_inbound(&demanding(json!([TILL, "spiffe://a/b"])));
    let Allow::AnyOf(alternatives) = &config.rules[1].allow else { panic!("{config:?}") };
    assert_eq!(alternatives[0].caller_workload, [TILL, "spiffe://a/b"]);
    const PATH: &str = "rules[1].allow[0].caller_workload";
    for id in ["", "till", "spiffe://cluster.local", "spiffe://cluster.local/ns/*", "SPIFFE://a/b"]
    {
        let document = demanding(json!([TILL, id]));
        check(&document, &[(&format!("{PATH}[1]"), "a SPIFFE id")]);
    }
    check(&demanding(json!([])), &[(PATH, "must not be empty")]);
    check(&demanding(json!(TILL)), &[(PATH, "invalid type")]);
    // A workload alone says nothing of the token.
    let alone = json!({"caller_workload": [TILL]});
    let document = changed(inbound(), "/rules/1/allow/0", Some(alone));
    check(&document, &[("rules[1].allow[0]", "any valid token is no rule")]);
}
