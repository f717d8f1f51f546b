//! `cargo xtask bench`: builds what it measures and hands over to the bench.

use std::path::Path;

use anyhow::Result;

use crate::{
    command,
    stack::{self, Profile},
};

/// Arguments go to the bench as they are, but for the file's name: it is the caller's folder that
/// it is relative to, not the one that the bench runs in.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let mut passed_on = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        passed_on.push((*argument).to_owned());
        if *argument == "--json"
            && let Some(file) = rest.next()
        {
            passed_on.push(std::path::absolute(Path::new(file))?.display().to_string());
        }
    }
    let variables = stack::bench()?;
    command::step("building the bench, release");
    let programs = ["--package", "bench", "--bins"];
    command::run(command::cargo().args(["build", "--locked", "--release"]).args(programs))?;
    let mut bench = command::program(stack::built(Profile::Release, "bench")?);
    command::become_program(bench.args(passed_on).envs(variables))
}
