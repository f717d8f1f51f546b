//! Which crate may depend on which: arrows point downward only.

use std::process::Command;

use crate::{none, tree};

/// Each crate of the product with the crates of this workspace that it may link.
const ARROWS: [(&str, &[&str]); 6] = [
    ("contract", &[]),
    ("policy", &["contract"]),
    ("filter", &["contract", "policy"]),
    ("token-broker", &["contract", "policy"]),
    // Of the broker, how it reads its configuration.
    ("cli", &["contract", "policy", "token-broker"]),
    ("xtask", &[]),
];

/// What the pure crates never link, under any feature: a host, IO, a runtime, cryptography.
const IMPURE: [&str; 11] = [
    "proxy-wasm",
    "tokio",
    "hyper",
    "hyper-util",
    "reqwest",
    "rustls",
    "ring",
    "aws-lc-rs",
    "rsa",
    "getrandom",
    "wasmtime",
];

#[test]
fn crates_link_only_what_lies_below_them() {
    let members = members();
    let mut wrong = Vec::new();
    for (package, allowed) in ARROWS {
        for linked in linked(package) {
            if linked != package && members.contains(&linked) && !allowed.contains(&&*linked) {
                wrong.push(format!("{package} links {linked}"));
            }
        }
    }
    none("arrows that point upward", wrong);
}

#[test]
fn pure_crates_link_no_host_runtime_or_cryptography() {
    let mut wrong = Vec::new();
    for package in ["contract", "policy"] {
        let linked = linked(package);
        let impure = linked.iter().filter(|linked| IMPURE.contains(&linked.as_str()));
        wrong.extend(impure.map(|impure| format!("{package} links {impure}")));
    }
    none("in the pure crates", wrong);
}

fn members() -> Vec<String> {
    tree(&["--workspace", "--depth", "0"])
}

fn linked(package: &str) -> Vec<String> {
    tree(&["--package", package, "--all-features"])
}

/// Package names of `cargo tree`, for every platform, without build and test dependencies.
fn tree(arguments: &[&str]) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .current_dir(tree::root())
        .args(["tree", "--locked", "--edges", "normal", "--target", "all", "--prefix", "none"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let names = text.lines().filter_map(|line| line.split(' ').next());
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}
