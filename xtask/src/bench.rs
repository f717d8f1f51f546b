//! `cargo xtask bench`: builds what it measures and hands over to the bench.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::{
    command, images, mesh,
    stack::{self, Profile, Variables},
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
    if arguments.iter().any(|argument| matches!(*argument, "--mesh" | "--mesh-only")) {
        return in_mesh(&passed_on);
    }
    // The broker alone needs no Envoy and no module.
    let variables = if arguments.contains(&"--broker") { of_broker()? } else { stack::bench()? };
    let mut bench = command::program(built()?);
    command::become_program(bench.args(passed_on).envs(variables))
}

/// The broker as it ships, and beside it a server that does nothing, built the same way.
fn of_broker() -> Result<Variables> {
    Ok(vec![
        ("TOKEN_BROKER_BIN", images::static_program("token-broker")?),
        ("BENCH_EMPTY_HANDLER", images::static_program("empty-handler")?),
    ])
}

/// All of it is built before the mesh is started: in its network there is no way out.
fn in_mesh(arguments: &[String]) -> Result<()> {
    let mut variables: Variables = mesh::pods()?;
    variables.extend(stack::bench()?);
    let bench = built()?;
    mesh::with_images("the bench", |enter: &mut Command| {
        command::run(enter.arg(&bench).args(arguments).envs(variables.iter().cloned()))
    })
}

fn built() -> Result<PathBuf> {
    command::step("building the bench, release");
    let programs = ["--package", "bench", "--bins"];
    command::run(command::cargo().args(["build", "--locked", "--release"]).args(programs))?;
    stack::built(Profile::Release, "bench")
}
