//! The schemas say what the readers say, as far as a schema can.

use serde_json::{Value, json};

use crate::program::{Folder, policy, repository};

fn schema(of: &str) -> jsonschema::Validator {
    let done = Folder::with(&[]).run(&["schema", of]);
    assert_eq!(done.code, 0);
    jsonschema::draft202012::new(&serde_json::from_str(&done.out).unwrap()).unwrap()
}

/// The JSON policies in `envoy.yaml`.
fn shipped() -> Vec<Value> {
    let text = std::fs::read_to_string(repository().join("envoy.yaml")).unwrap();
    let blocks = text.split("value: |\n").skip(1);
    let policies: Vec<Value> = blocks
        .map(|block| serde_json::Deserializer::from_str(block).into_iter().next().unwrap().unwrap())
        .collect();
    assert_eq!(policies.len(), 2);
    policies
}

fn with(policy: &Value, pointer: &str, value: Option<Value>) -> Value {
    let mut changed = policy.clone();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = changed.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match value {
        Some(value) => parent.insert(name.to_owned(), value),
        None => parent.remove(name),
    };
    changed
}

#[test]
fn the_filters_schema_takes_what_is_right_and_refuses_what_is_wrong() {
    let schema = schema("filter");
    let shipped = shipped();
    for policy in &shipped {
        assert_eq!(schema.validate(policy).map_err(|error| error.to_string()), Ok(()));
    }
    for (policy, pointer, value) in [
        (0, "/direction", None),
        (0, "/direction", Some(json!("sideways"))),
        (0, "/direction", Some(json!("outbound"))),
        (0, "/tenants", None),
        (0, "/audiences", None),
        (0, "/broker", None),
        (0, "/broker/cluster", None),
        (0, "/rules", None),
        (0, "/rules/0/name", None),
        (0, "/rules/0/allow", None),
        (0, "/rules/0/allow", Some(json!(3))),
        (0, "/rules/0/mode", Some(Value::Null)),
        (0, "/rules/0/unknown", Some(json!(1))),
        (0, "/rules/3/allow/0/scopes", Some(json!("Orders.Read"))),
        (0, "/mode", Some(json!(true))),
        (1, "/rules/0/match", None),
        (1, "/rules/0/match/destination", None),
        (1, "/rules/0/token/identity", None),
        (1, "/rules/0/token/scope", None),
        (1, "/forward_token", Some(json!(true))),
        (1, "/tenants", Some(json!("one"))),
        (1, "/rules/0/token/on_behalf_of", Some(json!(true))),
    ] {
        let wrong = with(&shipped[policy], pointer, value);
        assert!(!schema.is_valid(&wrong), "{pointer} of {wrong}");
    }
}

#[test]
fn the_brokers_schema_takes_what_is_right_and_refuses_what_is_wrong() {
    let schema = schema("broker");
    let right = json!({
        "authorities": [{"cloud": "public", "tenants": ["organizations"]}],
        "identities": {"default": {"workload_identity": {}, "scopes": ["a/.default"]}},
        "listen": {"api": {"tcp": "127.0.0.1:1", "trust_whole_pod": true}},
    });
    assert_eq!(schema.validate(&right).map_err(|error| error.to_string()), Ok(()));
    for (pointer, value) in [
        ("/authorities/0/cloud", None),
        ("/authorities/0/tenants", None),
        ("/identities/default/scopes", None),
        ("/identities/default/scope", Some(json!("a"))),
        ("/identities/default", Some(Value::Null)),
        ("/listen/api/allow_uids", Some(json!(["root"]))),
        ("/unknown", Some(json!(1))),
    ] {
        // A list's element is reached by its number.
        let mut wrong = right.clone();
        if let Some(rest) = pointer.strip_prefix("/authorities/0") {
            wrong["authorities"][0].as_object_mut().unwrap().remove(rest.trim_start_matches('/'));
        } else {
            wrong = with(&right, pointer, value);
        }
        assert!(!schema.is_valid(&wrong), "{pointer} of {wrong}");
    }
}

#[test]
fn the_schema_of_destinations_takes_what_is_right_and_refuses_what_is_wrong() {
    let schema = schema("destinations");
    let right = json!({
        "namespace": "shop",
        "labels": {"app": "till"},
        "module": {"image": "oci://registry.example/filter:1", "sha256": "0"},
        "destinations": [{"name": "graph", "kind": "graph", "token": {"identity": "default"}}],
    });
    assert_eq!(schema.validate(&right).map_err(|error| error.to_string()), Ok(()));
    for (pointer, value) in [
        ("/namespace", None),
        ("/module", None),
        ("/module/image", None),
        ("/module/sha256", None),
        ("/module/digest", Some(json!("0"))),
        ("/labels/app", Some(Value::Null)),
        ("/destinations", None),
        ("/destinations", Some(json!([{"name": "graph", "kind": "graph"}]))),
        ("/destinations", Some(json!([{"kind": "graph", "token": {"identity": "default"}}]))),
        ("/destinations", Some(json!([{"name": "graph", "token": {}}]))),
        ("/destinations", Some(json!([{"name": "g", "token": {"identity": "a"}, "port": "80"}]))),
        ("/unknown", Some(json!(1))),
    ] {
        let wrong = with(&right, pointer, value);
        assert!(!schema.is_valid(&wrong), "{pointer} of {wrong}");
    }
}

#[test]
fn what_a_schema_is_of_must_be_known() {
    assert_eq!(Folder::with(&[("p", &policy("[]"))]).run(&["schema", "envoy"]).code, 2);
}
