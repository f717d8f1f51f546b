//! Tools that are built from crates.io.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::{command, workspace};

/// cargo-mutants, which changes the core and sees whether a test notices.
const MUTANTS: &str = "27.1.0";
/// cargo-fuzz, which builds and drives the fuzz targets.
const FUZZ: &str = "0.13.2";

/// Runs test modules under node. Its version must be that of wasm-bindgen in the workspace, so
/// it is a crate of our own with its own lock file.
pub(crate) fn wasm_bindgen_runner() -> Result<PathBuf> {
    let source = workspace::pins().join("wasm-bindgen");
    let pin = workspace::read(&source.join("Cargo.lock"))?;
    let folder = super::installed("wasm-bindgen", &pin, |folder| {
        let build = folder.join("build");
        command::run(
            command::cargo()
                .args(["build", "--locked", "--manifest-path"])
                .arg(source.join("Cargo.toml"))
                .arg("--target-dir")
                .arg(&build),
        )?;
        std::fs::copy(build.join("debug").join(RUNNER), folder.join(RUNNER))?;
        workspace::remove_folder(&build)
    })?;
    Ok(folder.join(RUNNER))
}

const RUNNER: &str = "wasm-bindgen-test-runner";

/// The folder with `cargo-mutants` in it.
pub(crate) fn mutants() -> Result<PathBuf> {
    published("cargo-mutants", MUTANTS)
}

/// The folder with `cargo-fuzz` in it.
pub(crate) fn fuzz() -> Result<PathBuf> {
    published("cargo-fuzz", FUZZ)
}

/// Installs a published version with the lock file that it was published with.
fn published(name: &str, version: &str) -> Result<PathBuf> {
    let folder = super::installed(name, version, |folder: &Path| {
        command::run(
            command::cargo()
                .args(["install", "--locked", "--no-track", name, "--version", version, "--root"])
                .arg(folder),
        )
    })?;
    Ok(folder.join("bin"))
}
