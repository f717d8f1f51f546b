//! `cargo xtask mesh`: builds what a mesh is made of and hands over to the mesh crate's program.
//!
//! Go programs and Debian's files are kept in a cache outside the clone; see [`go`] and
//! [`debian`]. What the cluster is and how it is started and removed is in `tests/mesh`.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    command,
    stack::{self, Profile, Variables},
    tools::{debian, envoy, go},
};

const USAGE: &str = "mesh up | test [NAME] | status [--leftovers] | enter COMMAND | down";

/// What is to be done with the mesh.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    match arguments {
        ["up"] => {
            let programs = programs()?;
            command::become_program(mesh()?.arg("up").envs(programs))
        }
        ["down"] => command::become_program(mesh()?.arg("down")),
        ["status" | "enter", ..] => command::become_program(mesh()?.args(arguments)),
        ["test"] => test(None),
        ["test", name] if !name.starts_with('-') => test(Some(name)),
        _ => bail!("{USAGE}"),
    }
}

/// Brings a mesh up, unless one runs, runs the tests in its network, and takes it down again.
fn test(name: Option<&str>) -> Result<()> {
    let programs = programs()?;
    let ran_before = command::answer(mesh()?.arg("status")).is_some();
    let result = command::run(mesh()?.arg("up").envs(programs)).and_then(|()| in_mesh(name));
    if ran_before {
        command::step("the mesh ran before the tests and stays: cargo xtask mesh down");
        return result;
    }
    let down = command::run(mesh()?.arg("down"))
        .and_then(|()| command::run(mesh()?.args(["status", "--leftovers"])));
    result.and(down)
}

/// Runs the tests, which are built first: in the mesh's network there is no way out.
fn in_mesh(name: Option<&str>) -> Result<()> {
    let variables = test_variables()?;
    let test = ["test", "--locked", "--package", "mesh", "--no-fail-fast"];
    command::step("building the mesh's tests");
    command::run(command::cargo().args(test).arg("--no-run").envs(variables.clone()))?;
    command::step("running the mesh's tests");
    let cargo = command::cargo();
    let mut enter = mesh()?;
    enter.arg("enter").arg(cargo.get_program()).args(test).arg("--offline").args(name);
    command::run(enter.envs(variables))
}

/// What the tests find in their environment: the product, as the other tests do.
fn test_variables() -> Result<Variables> {
    command::step("building the broker and the commands");
    command::run(command::cargo().args(["build", "--locked", "--bins"]).args([
        "--package",
        "token-broker",
        "--package",
        "cli",
    ]))?;
    stack::product()
}

/// The mesh crate's program.
fn mesh() -> Result<Command> {
    command::run(command::cargo().args(["build", "--locked", "--quiet", "--package", "mesh"]))?;
    Ok(command::program(stack::built(Profile::Debug, "mesh")?))
}

/// The programs of which the mesh is made, as its program reads them.
fn programs() -> Result<Vec<(&'static str, OsString)>> {
    let cache = cache()?;
    let folders = go::mesh_programs(&cache)?;
    let folders = std::env::join_paths(&folders).context("a folder with a colon in its name")?;
    Ok(vec![
        ("MESH_PROGRAMS", folders),
        ("MESH_DEBIAN", debian::files(&cache)?.join("root").into_os_string()),
        ("ENVOY", envoy::current()?.into_os_string()),
    ])
}

/// `$XDG_CACHE_HOME/entra-sidecar/mesh`, or the same under `~/.cache`.
fn cache() -> Result<PathBuf> {
    let named = |name: &str| std::env::var_os(name).filter(|value| value != OsStr::new(""));
    let caches = named("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| named("HOME").map(|home| PathBuf::from(home).join(".cache")));
    Ok(caches.context("neither XDG_CACHE_HOME nor HOME is set")?.join("entra-sidecar/mesh"))
}
