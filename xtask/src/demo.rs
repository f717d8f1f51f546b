//! `cargo xtask demo`: installs, builds, and hands over to the e2e crate's `demo`.

use anyhow::Result;

use crate::{
    command,
    stack::{self, Profile},
};

/// Arguments go to the demo as they are.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let variables = stack::product()?;
    command::step("building the broker and the demo");
    let programs = ["--package", "token-broker", "--package", "e2e", "--bins"];
    command::run(command::cargo().args(["build", "--locked"]).args(programs))?;
    let mut demo = command::program(stack::built(Profile::Debug, "demo")?);
    command::become_program(demo.args(arguments).envs(variables))
}
