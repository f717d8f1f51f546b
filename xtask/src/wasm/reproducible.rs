//! The same module from the same sources, wherever they lie.
//!
//! Panic messages name source files. Those of dependencies lie under the person's home folder,
//! under a name that depends on the registry in use, so both are replaced.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::{command, tools::rust, workspace};

/// Sets the compiler's flags, instead of any from the environment.
pub(super) fn prepare(cargo: &mut Command) -> Result<()> {
    // Sources must be there before their folders can be listed.
    command::run(command::cargo().args(["fetch", "--locked", "--quiet", "--target", rust::WASI]))?;
    let mut flags = Vec::new();
    for folder in registry_sources()? {
        flags.push(format!("--remap-path-prefix={}=/registry", folder.display()));
    }
    let sysroot = command::output(command::program("rustc").args(["--print", "sysroot"]))?;
    flags.push(format!("--remap-path-prefix={}=/rust", sysroot.trim()));
    flags.push(format!("--remap-path-prefix={}=/source", workspace::root().display()));
    for variable in ["RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", "CARGO_TARGET_WASM32_WASIP1_RUSTFLAGS"] {
        cargo.env_remove(variable);
    }
    // One flag may hold spaces, which only this form keeps together.
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    Ok(())
}

fn registry_sources() -> Result<Vec<PathBuf>> {
    let home = match std::env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cargo"),
    };
    let sources = home.join("registry/src");
    let entries = std::fs::read_dir(&sources)
        .with_context(|| format!("no sources of dependencies in {}", sources.display()))?;
    let mut folders: Vec<PathBuf> =
        entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    folders.sort();
    Ok(folders)
}
