//! `cargo xtask docs`: `docs/configuration.md`, from the types that read the configuration.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::{command, workspace};

/// Writes the document.
pub(crate) fn run() -> Result<()> {
    workspace::write(&document(), &generated()?)?;
    println!("docs/configuration.md is written");
    Ok(())
}

/// Whether the document is what the types say.
pub(crate) fn check() -> Result<()> {
    if workspace::read(&document())? != generated()? {
        bail!("docs/configuration.md is not what the types say: run `cargo xtask docs`");
    }
    Ok(())
}

fn document() -> PathBuf {
    workspace::root().join("docs/configuration.md")
}

fn generated() -> Result<String> {
    let program = ["run", "--locked", "--quiet", "--package", "config-docs"];
    command::output(command::cargo().args(program))
}
