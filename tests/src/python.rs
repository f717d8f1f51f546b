//! Runs the Python clients of `tests/clients`, which stand on Microsoft's own library.
//!
//! `cargo xtask test` installs what they need, pinned by hash, and says where in `PYTHON_CLIENTS`.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::fake_entra::FakeEntra;

/// Gives a script its question and reads its answer, both JSON; it reaches the fake as any client
/// reaches Entra.
///
/// # Panics
/// When the script fails, with what it said.
pub fn run(entra: &FakeEntra, script: &str, asked: &Value) -> Value {
    let variable = |name: &str| {
        std::env::var(name).unwrap_or_else(|_| {
            panic!("{name} is not set: run this by `cargo xtask test`, which installs msal")
        })
    };
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(script);
    let mut child = Command::new(variable("PYTHON"))
        .arg(file)
        .env("PYTHONPATH", variable("PYTHON_CLIENTS"))
        .env("HTTPS_PROXY", entra.proxy_url())
        .env("REQUESTS_CA_BUNDLE", entra.ca_file())
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("Python starts");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(asked.to_string().as_bytes()).expect("written");
    drop(input);
    let output = child.wait_with_output().expect("Python ends");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script} failed: {errors}");
    serde_json::from_slice(&output.stdout).expect("JSON from the script")
}
