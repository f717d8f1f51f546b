//! Python, and what pip installs with hashes required.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

use crate::{command, workspace};

/// `$PYTHON` or the Python on PATH.
pub(crate) fn program() -> Result<PathBuf> {
    if let Some(python) = std::env::var_os("PYTHON") {
        return Ok(python.into());
    }
    for name in ["python3", "python"] {
        if let Some(python) = command::on_path(name)
            && command::answer(command::program(&python).arg("--version"))
                .is_some_and(|version| version.starts_with("Python 3."))
        {
            return Ok(python);
        }
    }
    bail!("Python 3 is needed and not on PATH: install it, or name it in $PYTHON")
}

/// Installs a requirements file, every line of which must carry hashes, into `.tools/<name>`.
///
/// Wheels only: nothing that is fetched runs at installation.
pub(crate) fn packages(name: &str, requirements: &Path) -> Result<PathBuf> {
    let pin = workspace::read(requirements)?;
    super::installed(name, &pin, |folder| {
        command::run(
            pip()?
                .args(["install", "--no-input", "--disable-pip-version-check", "--no-compile"])
                .args(["--require-hashes", "--only-binary", ":all:", "--target"])
                .arg(folder)
                .arg("--requirement")
                .arg(requirements)
                .envs([("PIP_USER", "0"), ("PIP_ROOT_USER_ACTION", "ignore")]),
        )
    })
}

/// pip of the Python found, or of an environment under `.tools` where that Python has none.
fn pip() -> Result<Command> {
    let python = program()?;
    if command::answer(command::program(&python).args(["-m", "pip", "--version"])).is_some() {
        return Ok(with_pip(&python));
    }
    let environment = workspace::tools().join("python");
    let own = environment.join("bin/python");
    let ready = own.exists()
        || command::answer(command::program(&python).args(["-m", "venv"]).arg(&environment))
            .is_some();
    if !ready {
        bail!(
            "{} has neither pip nor venv: install one (Debian: apt-get install python3-venv)",
            python.display()
        );
    }
    Ok(with_pip(&own))
}

fn with_pip(python: &Path) -> Command {
    let mut pip = command::program(python);
    pip.args(["-m", "pip"]);
    pip
}
