//! Values of the chart that are refused before anything is installed: misspelt, of another type,
//! or such that would open what they should close.

use std::io::Write;

use mesh::Mesh;
use serde_json::{Value, json};

use crate::world::repository;

/// What is wrong, the values over those of the quick start, and a word of the complaint.
fn cases() -> Vec<(&'static str, Value, &'static str)> {
    let digest = |digest: &str| json!({"filter": {"digest": digest}});
    let image = |image: &str| json!({"filter": {"image": image}});
    let policy = |policy: Value| json!({"inbound": {"policy": policy}});
    let rule = |more: Value| {
        let mut rule = json!({"name": "read", "match": {"path": "/"}, "allow": "anyone"});
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"inbound": {"policy": {"rules": [rule]}}})
    };
    let whole = |value: Value| value;
    vec![
        ("an unknown value", whole(json!({"fliter": {}})), "fliter"),
        ("an unknown member of filter", whole(json!({"filter": {"tag": "1"}})), "tag"),
        ("an unknown member of closed", whole(json!({"closed": {"markers": true}})), "markers"),
        ("an unknown member of istio", whole(json!({"istio": {"version": "1.31"}})), "version"),
        ("an unknown member of timeouts", whole(json!({"timeouts": {"all": "1s"}})), "all"),
        ("an unknown member of broker", whole(json!({"broker": {"image": "x"}})), "image"),
        (
            "an unknown key of the broker",
            whole(json!({"broker": {"config": {"cafile": "x"}}})),
            "cafile",
        ),
        (
            "an unknown member of networkPolicy",
            whole(json!({"networkPolicy": {"udp": true}})),
            "udp",
        ),
        ("an unknown member of podMonitor", whole(json!({"podMonitor": {"on": true}})), "on"),
        ("an unknown member of admission", whole(json!({"admission": {"enable": true}})), "enable"),
        ("an unknown key of the policy", policy(json!({"audience": "api://x"})), "audience"),
        ("an unknown key of a rule", rule(json!({"alow": []})), "alow"),
        ("a digest without its kind", digest(&"0".repeat(64)), "digest"),
        ("a tag for a digest", digest("latest"), "digest"),
        ("a short digest", digest("sha256:00"), "digest"),
        ("an image with a tag", image("registry.example.com/filter:1"), "image"),
        ("an image with a scheme", image("oci://registry.example.com/filter"), "image"),
        ("an image without a registry", image("filter"), "image"),
        ("a resource that is none", whole(json!({"istio": {"resource": "Lua"}})), "resource"),
        ("a switch in words", whole(json!({"closed": {"policy": "yes"}})), "policy"),
        ("a port in words", whole(json!({"closed": {"tcpPorts": ["http"]}})), "tcpPorts"),
        ("a port beyond ports", whole(json!({"closed": {"tcpPorts": [70000]}})), "tcpPorts"),
        ("no time limit by a number", whole(json!({"timeouts": {"inbound": 0}})), "inbound"),
        ("a time limit of nothing", whole(json!({"timeouts": {"inbound": "0s"}})), "inbound"),
        ("another access log", whole(json!({"accessLog": "some"})), "accessLog"),
        ("no tenants", policy(json!({"tenants": []})), "tenants"),
        ("a tenant by its name", policy(json!({"tenants": ["contoso.com"]})), "tenants"),
        ("no audiences", policy(json!({"audiences": []})), "audiences"),
        ("another direction", policy(json!({"direction": "outbound"})), "direction"),
        ("another mode", policy(json!({"mode": "off"})), "mode"),
        ("too much skew", policy(json!({"clock_skew_seconds": 301})), "clock_skew_seconds"),
        ("a rule for all", rule(json!({"allow": "everyone"})), "allow"),
        ("a rule for nobody", rule(json!({"allow": []})), "allow"),
        ("a selector of no text", whole(json!({"selector": {"app": 1}})), "selector"),
        (
            "admission without images",
            whole(json!({
            "admission": {"enabled": true, "images": {"proxy": [], "broker": []}}})),
            "images",
        ),
        (
            "an admission that does something else",
            whole(json!({
            "admission": {"actions": ["Ignore"]}})),
            "actions",
        ),
    ]
}

#[test]
fn the_chart_refuses_values_that_it_does_not_have() {
    let mesh = Mesh::running().unwrap();
    let chart = repository("istio/chart");
    let render = |values: &Value| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(values.to_string().as_bytes()).unwrap();
        let quick_start = format!("--values={}/examples/orders.yaml", chart.display());
        let values = format!("--values={}", file.path().display());
        let chart = chart.to_str().unwrap();
        mesh.helm(&["template", "entra", chart, "--namespace=shop", &quick_start, &values]).unwrap()
    };
    let good = render(&json!({}));
    assert_eq!(good.code, 0, "{}", good.stderr);
    let mut wrong = Vec::new();
    for (what, values, complaint) in cases() {
        let done = render(&values);
        if done.code == 0 || !done.stderr.contains(complaint) {
            wrong.push(format!("{what}: {} {}", done.code, done.stderr));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_chart_does_without_no_value_that_it_needs() {
    let mesh = Mesh::running().unwrap();
    let chart = repository("istio/chart").display().to_string();
    let quick_start = format!("--values={chart}/examples/orders.yaml");
    for needed in [
        "filter.image",
        "filter.digest",
        "inbound.policy.tenants",
        "inbound.policy.audiences",
        "inbound.policy.rules",
    ] {
        let without = format!("--set={needed}=null");
        let done = mesh.helm(&["template", "entra", &chart, &quick_start, &without]).unwrap();
        let name = needed.rsplit('.').next().unwrap();
        assert!(done.code != 0 && done.stderr.contains(name), "{needed}: {}", done.stderr);
    }
}
