//! What rustup must hold besides the toolchain that already runs xtask.

use anyhow::{Context, Result, bail};

use crate::command;

/// The filter's target.
pub(crate) const WASI: &str = "wasm32-wasip1";
/// The target of the core's tests under node.
pub(crate) const BROWSER: &str = "wasm32-unknown-unknown";

/// Adds a target's standard library where it is missing.
///
/// `rust-toolchain.toml` names both, but rustup reads that only when it installs by itself,
/// which can be turned off.
pub(crate) fn target(name: &str) -> Result<()> {
    let folder = command::output(command::program("rustc").args([
        "--print",
        "target-libdir",
        "--target",
        name,
    ]))?;
    if std::path::Path::new(folder.trim()).is_dir() {
        return Ok(());
    }
    add("target", name)
}

/// Adds rustfmt or clippy where it is missing.
pub(crate) fn component(name: &str, subcommand: &str) -> Result<()> {
    match command::answer(command::cargo().args([subcommand, "--version"])) {
        Some(_) => Ok(()),
        None => add("component", name),
    }
}

fn add(kind: &str, name: &str) -> Result<()> {
    command::step(&format!("installing the Rust {kind} {name}"));
    if command::on_path("rustup").is_none() {
        bail!("this Rust has no {kind} {name}, and there is no rustup to add it");
    }
    command::run(command::program("rustup").args([kind, "add", name]))
        .with_context(|| format!("the Rust {kind} {name} could not be added"))
}
