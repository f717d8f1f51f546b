//! `cargo xtask mutants`: cargo-mutants over all of the core. Long, so not part of CI.

use anyhow::Result;

use crate::{command, tools, workspace};

/// No function is skipped; arguments (`--file`, `--shard`, `--list`) are passed on.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let program = tools::cargo::mutants()?.join("cargo-mutants");
    command::step("cargo-mutants over policy: hours for all of it, less with --file or --shard");
    let output = workspace::target()?;
    let mut mutants = command::program(program);
    mutants.args(["mutants", "--package", "policy", "--jobs", "2", "--output"]).arg(output);
    command::become_program(mutants.args(arguments))
}
