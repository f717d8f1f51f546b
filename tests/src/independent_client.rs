//! Runs clients that nobody here wrote: the scripts of `tests/clients`, which stand on Microsoft's
//! own libraries.
//!
//! `cargo xtask test` installs these, pinned by hash, and says where in `PYTHON_CLIENTS` and
//! `NODE_CLIENTS`. A script has no other environment than the test gives it, one question on its
//! standard input, and one answer on its output, both JSON.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::fake_entra::FakeEntra;

/// Gives a script its question and reads its answer; it reaches the fake as any client reaches Entra.
///
/// # Panics
/// When the script fails, with what it said.
pub fn run_against(entra: &FakeEntra, script: &str, asked: &Value) -> Value {
    let ca_file = entra.ca_file().display().to_string();
    run(script, asked, &[("HTTPS_PROXY", &entra.proxy_url()), ("REQUESTS_CA_BUNDLE", &ca_file)])
}

/// Gives a script (`….py` or `….js`) its question and reads its answer.
///
/// # Panics
/// When the script fails, with what it said.
pub fn run(script: &str, asked: &Value, environment: &[(&str, &str)]) -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(script);
    let (program, path, packages) = match file.extension().is_some_and(|kind| kind == "py") {
        true => ("PYTHON", "PYTHONPATH", variable("PYTHON_CLIENTS")),
        false => ("NODE", "NODE_PATH", format!("{}/node_modules", variable("NODE_CLIENTS"))),
    };
    let mut child = Command::new(variable(program))
        .arg(file)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env(path, packages)
        // Nothing of the run is left in the tree.
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the client starts");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(asked.to_string().as_bytes()).expect("written");
    drop(input);
    let output = child.wait_with_output().expect("the client ends");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script} failed: {errors}");
    serde_json::from_slice(&output.stdout).expect("JSON from the script")
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: run this by `cargo xtask test`, which installs the clients")
    })
}
