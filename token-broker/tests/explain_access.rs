//! `token-broker explain-access`, and what `check` says of `identity_access`.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::{
    identity_access::{Pod, claims},
    support::START,
};

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    run_in(&[], arguments)
}

fn run_in(pod: &[(&str, &str)], arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_token-broker"));
    let command = command.env_clear().envs(pod.iter().copied()).args(arguments);
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn access() -> Value {
    json!([
        {"namespace": "tenant-a", "service_account": "orders", "labels": {"tier": "gold"},
         "identities": ["a"]},
        {"namespace": "tenant-b", "identities": ["a", "b"]},
    ])
}

fn explained(pod: &Pod, arguments: &[&str]) -> (Option<i32>, String, String) {
    let file = pod.path("broker.yaml");
    run(&[&["explain-access", "--config", file.to_str().unwrap()], arguments].concat())
}

#[test]
fn it_says_which_entry_allows_and_member_by_member_why_the_others_do_not() {
    let pod = Pod::new(&access());
    let asked = ["--namespace", "tenant-a", "--service-account", "orders", "--label", "tier=gold"];
    let (code, stdout, stderr) = explained(&pod, &asked);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert_eq!(
        stdout,
        "pod: namespace tenant-a, service account orders, labels tier=gold\n\
         identity a: allowed by identity_access[0]\n\
         identity b: denied\n\
         \x20 identity_access[0]: does not name it\n\
         \x20 identity_access[1]: namespace is `tenant-a`, not `tenant-b`\n"
    );
    let asked = ["--namespace", "tenant-c", "--label", "tier=silver", "--label", "app=x"];
    let (code, stdout, _) = explained(&pod, &asked);
    assert_eq!(code, Some(0));
    assert_eq!(
        stdout,
        "pod: namespace tenant-c, service account unknown, labels app=x tier=silver\n\
         identity a: denied\n\
         \x20 identity_access[0]: namespace is `tenant-c`, not `tenant-a`; \
         service_account is not known, not `orders`; labels.tier is `silver`, not `gold`\n\
         \x20 identity_access[1]: namespace is `tenant-c`, not `tenant-b`\n\
         identity b: denied\n\
         \x20 identity_access[0]: does not name it; namespace is `tenant-c`, not `tenant-a`; \
         service_account is not known, not `orders`; labels.tier is `silver`, not `gold`\n\
         \x20 identity_access[1]: namespace is `tenant-c`, not `tenant-b`\n"
    );
    let empty = Pod::new(&json!([]));
    let (_, stdout, _) = explained(&empty, &["--namespace", "tenant-a"]);
    assert!(stdout.contains("identity a: denied\n  identity_access is empty\n"), "{stdout}");
}

#[test]
fn without_a_pod_it_reads_and_verifies_that_of_its_own() {
    let pod = Pod::new(&access());
    let (code, stdout, stderr) = explained(&pod, &[]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(
        stdout.starts_with(
            "pod: namespace tenant-a, service account orders, labels app=orders tier=gold, \
             pod orders-1 (71c2)\nidentity a: allowed by identity_access[0]\nidentity b: denied\n"
        ),
        "{stdout}"
    );
    // A token that has ended, and one of another cluster.
    let mut ended = claims();
    ended["exp"] = json!(START - 1_000_000_000);
    pod.show(&ended);
    let (code, stdout, stderr) = explained(&pod, &[]);
    assert_eq!(
        (code, stdout.as_str(), stderr.as_str()),
        (Some(1), "", "the pod's token has ended\n")
    );
    let mut other = claims();
    other["iss"] = json!("https://other.example");
    pod.show(&other);
    let (code, _, stderr) = explained(&pod, &[]);
    assert_eq!(
        (code, stderr.as_str()),
        (Some(1), "the pod's token is not of `pod.cluster.issuer`\n")
    );
}

#[test]
fn another_pods_token_is_told_by_what_the_environment_says_of_this_one() {
    let pod = Pod::new(&access());
    let file = pod.path("broker.yaml");
    let arguments = ["explain-access", "--config", file.to_str().unwrap()];
    let (code, _, stderr) = run_in(&[("POD_UID", "71c2"), ("POD_NAME", "orders-1")], &arguments);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let (code, stdout, stderr) = run_in(&[("POD_UID", "9a0b")], &arguments);
    assert_eq!(
        (code, stdout.as_str(), stderr.as_str()),
        (Some(1), "", "the pod's token is another pod's: POD_UID says otherwise\n")
    );
    // Of a pod that is asked about, nothing is read.
    let asked = [&arguments[..], &["--namespace", "tenant-b"]].concat();
    assert_eq!(run_in(&[("POD_UID", "9a0b")], &asked).0, Some(0));
}

#[test]
fn where_the_keys_are_at_the_api_server_and_there_is_none_it_says_so() {
    let pod = Pod::new(&json!([]));
    let mut config = pod.config(&access());
    config["pod"]["cluster"].as_object_mut().unwrap().remove("keys_file");
    std::fs::write(pod.path("broker.yaml"), config.to_string()).unwrap();
    let (code, _, stderr) = explained(&pod, &[]);
    let expected = "no keys of the cluster: KUBERNETES_SERVICE_HOST is not set\n";
    assert_eq!((code, stderr.as_str()), (Some(1), expected));
}

#[test]
fn exit_codes_are_those_of_check() {
    let pod = Pod::new(&access());
    assert_eq!(run(&["explain-access"]).0, Some(2));
    assert_eq!(explained(&pod, &["--label", "tier"]).0, Some(2));
    let wrong = Pod::new(&json!([{"identities": ["a"]}]));
    let (code, stdout, stderr) = explained(&wrong, &["--namespace", "x"]);
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert!(stderr.starts_with("identity_access[0]: for every pod"), "{stderr}");
    // Nothing restricted is said, and is no failure.
    let mut config = pod.config(&access());
    for member in ["identity_access", "pod"] {
        config.as_object_mut().unwrap().remove(member);
    }
    std::fs::write(pod.path("broker.yaml"), config.to_string()).unwrap();
    let (code, stdout, _) = explained(&pod, &[]);
    assert_eq!(code, Some(0));
    assert!(stdout.starts_with("identity_access: none, every pod"), "{stdout}");
}

#[test]
fn check_names_each_entry_and_the_identities_that_nobody_gets() {
    let access = json!([{"namespace": "tenant-a", "service_account": "orders",
        "labels": {"tier": "gold"}, "identities": ["a"]}]);
    let pod = Pod::new(&access);
    let (code, stdout, _) = run(&["check", "--config", pod.path("broker.yaml").to_str().unwrap()]);
    assert_eq!(code, Some(0));
    for line in [
        "pod: token of https://kubernetes.default.svc.cluster.local",
        "access: namespace tenant-a, service account orders, label tier=gold may use a",
        "access: no pod may use b",
    ] {
        assert!(stdout.lines().any(|found| found == line), "{line}: {stdout}");
    }
}
