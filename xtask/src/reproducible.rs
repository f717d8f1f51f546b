//! The same module and the same program from the same sources, wherever they lie.
//!
//! Panic messages name source files. Those of dependencies lie under the person's home folder,
//! under a name that depends on the registry in use, so both are replaced.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::{command, workspace};

/// Sets the compiler's flags for a target, instead of any from the environment.
pub(crate) fn prepare(cargo: &mut Command, target: &str, others: &[&str]) -> Result<()> {
    let mut flags: Vec<String> = others.iter().map(|flag| (*flag).to_owned()).collect();
    let folders = folders(target)?;
    flags.extend(folders.iter().map(|(from, to)| format!("--remap-path-prefix={from}={to}")));
    let own = format!("CARGO_TARGET_{}_RUSTFLAGS", target.replace('-', "_").to_uppercase());
    for variable in ["RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", &own] {
        cargo.env_remove(variable);
    }
    // One flag may hold spaces, which only this form keeps together.
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    Ok(())
}

/// Each folder that differs from machine to machine, with the name that stands for it.
pub(crate) fn folders(target: &str) -> Result<Vec<(String, &'static str)>> {
    // Sources must be there before their folders can be listed.
    command::run(command::cargo().args(["fetch", "--locked", "--quiet", "--target", target]))?;
    let mut folders = Vec::new();
    for folder in registry_sources()? {
        folders.push((folder.display().to_string(), "/registry"));
    }
    let sysroot = command::output(command::program("rustc").args(["--print", "sysroot"]))?;
    folders.push((sysroot.trim().to_owned(), "/rust"));
    folders.push((workspace::root().display().to_string(), "/source"));
    Ok(folders)
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
