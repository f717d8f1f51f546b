//! `cargo xtask test [NAME]`: every test, and one closing line of results.
//!
//! Two parts: the workspace on the host (pure tables, broker, the whole product under Envoy, the
//! tidy tests), and the core once more as wasm under node. `cargo xtask test clients` runs one
//! program of the first alone: Microsoft's own libraries against the broker and the fake Entra.

use std::{path::Path, process::Command};

use anyhow::{Result, bail};

use crate::{
    command, stack,
    summary::Summary,
    tools::{self, node, rust},
    workspace,
};

/// The filter is no program of the host: it is tested as a module, under Envoy. The mesh's tests
/// need a mesh: `cargo xtask mesh test`.
const HOST: [&str; 8] = [
    "--locked",
    "--workspace",
    "--exclude",
    "filter",
    "--exclude",
    "empty-filter",
    "--exclude",
    "mesh",
];

/// Runs the tests whose name contains the argument, all without one.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let name = match arguments {
        [] => None,
        ["clients"] => return clients(),
        [name] if !name.starts_with('-') => Some(*name),
        _ => bail!("test [NAME]"),
    };
    command::step("building the tests and the programs that they start");
    command::run(command::cargo().arg("build").args(HOST).args(["--bins", "--tests"]))?;
    let mut all = Summary::default();
    let host = on_host(name)?;
    println!("\nhost: {} passed, {} failed", host.passed, host.failed);
    all.add(host);
    if as_wasm_wanted(name)? {
        let as_wasm = as_wasm(name)?;
        println!("\nas wasm under node: {} passed, {} failed", as_wasm.passed, as_wasm.failed);
        all.add(as_wasm);
    }
    if all.passed == 0 && all.failed == 0 {
        bail!("no test's name contains `{}`", name.unwrap_or_default());
    }
    closing(&all)
}

/// The tests of `tests/tests/clients`.
fn clients() -> Result<()> {
    command::step("building the tests and the broker");
    let broker = ["build", "--locked", "--package", "token-broker", "--bins"];
    command::run(command::cargo().args(broker))?;
    let mut cargo = command::cargo();
    cargo.args(["test", "--locked", "--package", "e2e", "--test", "clients"]);
    let summary = counted(cargo.envs(stack::clients()?), "clients")?;
    if summary.passed == 0 && summary.failed == 0 {
        bail!("no test ran");
    }
    closing(&summary)
}

fn closing(all: &Summary) -> Result<()> {
    for failure in &all.failures {
        println!("failed: {failure}");
    }
    println!("{} passed, {} failed", all.passed, all.failed);
    if all.failed > 0 {
        // The counts are the last line, for who reads only that.
        std::process::exit(1);
    }
    Ok(())
}

fn on_host(name: Option<&str>) -> Result<Summary> {
    let mut cargo = command::cargo();
    cargo.arg("test").args(HOST).arg("--no-fail-fast").args(name);
    if product_wanted(name)? {
        cargo.envs(stack::tests()?);
    }
    command::step("running the tests on the host");
    counted(&mut cargo, "host")
}

/// Runs the tests, shows what they say, and counts.
fn counted(cargo: &mut Command, what: &str) -> Result<Summary> {
    let mut summary = Summary::default();
    let status = command::each_line(cargo, |line| {
        println!("{line}");
        summary.read(line);
    })?;
    summary.ended(status.success(), what);
    Ok(summary)
}

/// Whether a test of that name starts the product; for the others Envoy, the modules and the
/// clients need not be there.
fn product_wanted(name: Option<&str>) -> Result<bool> {
    let Some(name) = name else { return Ok(true) };
    let mut programs = vec!["e2e".to_owned(), "bench".to_owned()];
    for entry in std::fs::read_dir(workspace::root().join("tests/tests"))? {
        let stem = entry?.path().with_extension("");
        programs.extend(stem.file_name().map(|stem| stem.to_string_lossy().into_owned()));
    }
    let mut running = String::new();
    let mut wanted = false;
    let mut list = command::cargo();
    command::each_line(list.arg("test").args(HOST).args([name, "--", "--list"]), |line| {
        if let Some((_, file)) = line.rsplit_once("/deps/") {
            running = file.rsplit_once('-').map_or(file, |(program, _hash)| program).to_owned();
        } else if line.ends_with(": test") && programs.contains(&running) {
            wanted = true;
        }
    })?;
    Ok(wanted)
}

fn as_wasm(name: Option<&str>) -> Result<Summary> {
    rust::target(rust::BROWSER)?;
    let runner = tools::cargo::wasm_bindgen_runner()?;
    let node = node::node()?;
    command::step("running the core's tests as wasm under node");
    let mut cargo = command::cargo();
    cargo.args(["test", "--locked", "--package", "policy", "--target", rust::BROWSER]);
    cargo.args(["--lib", "--tests", "--no-fail-fast"]).args(name);
    cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER", runner).env("PATH", node.path());
    let mut summary = counted(&mut cargo, "as wasm")?;
    if name.is_none() && summary.passed == 0 {
        summary.failed_without_count("as wasm: no test ran");
    }
    Ok(summary)
}

/// Whether a test of that name runs as wasm: the runner takes minutes to build.
fn as_wasm_wanted(name: Option<&str>) -> Result<bool> {
    let Some(name) = name else { return Ok(true) };
    let mut folders = vec![workspace::root().join("policy")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if is_rust(&path) && has_wasm_test(&workspace::read(&path)?, name) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "rs")
}

fn has_wasm_test(source: &str, name: &str) -> bool {
    let module = |line: &str| line.trim_start().starts_with("fn ") && line.contains(name);
    source.contains("wasm_bindgen_test") && source.lines().any(module)
}
