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
    command, images,
    stack::{self, Profile, Variables},
    tools::{debian, envoy, go},
};

/// The mesh's registry.
const REGISTRY: &str = "10.88.0.1:5000";

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

/// Runs the tests in the mesh's network.
fn test(name: Option<&str>) -> Result<()> {
    let variables = product()?;
    let variables = || variables.iter().cloned();
    let test = ["test", "--locked", "--package", "mesh", "--no-fail-fast"];
    command::step("building the mesh's tests");
    command::run(command::cargo().args(test).arg("--no-run").envs(variables()))?;
    with_images("the tests", |enter| {
        command::step("running the mesh's tests");
        let cargo = command::cargo();
        enter.arg(cargo.get_program()).args(test).arg("--offline").args(name);
        command::run(enter.envs(variables()))
    })
}

/// Brings a mesh up, unless one runs, pushes the product's images, runs a command in its network,
/// and takes the mesh down again. The images are built before: in that network there is no way out.
pub(crate) fn with_images(
    what: &str,
    action: impl FnOnce(&mut Command) -> Result<()>,
) -> Result<()> {
    let programs = programs()?;
    let ran_before = command::answer(mesh()?.arg("status")).is_some();
    let result = command::run(mesh()?.arg("up").envs(programs)).and_then(|()| {
        command::step("pushing the images into the mesh's registry");
        let mut push = mesh()?;
        push.arg("enter").arg(stack::built(Profile::Debug, "images")?);
        push.arg("push").arg("--layout").arg(images::layout()).args(["--", REGISTRY]);
        command::run(&mut push)?;
        action(mesh()?.arg("enter"))
    });
    if ran_before {
        command::step(&format!("the mesh ran before {what} and stays: cargo xtask mesh down"));
        return result;
    }
    let down = command::run(mesh()?.arg("down"))
        .and_then(|()| command::run(mesh()?.args(["status", "--leftovers"])));
    result.and(down)
}

/// What the tests find in their environment: the product, as the other tests do, [`pods`], and
/// `ENTRA_SIDECAR_BIN`, the command line tool.
fn product() -> Result<Variables> {
    let mut variables = pods()?;
    command::step("building the programs that the mesh's tests start");
    let packages = ["token-broker", "cli", "e2e"];
    let packages = packages.iter().flat_map(|package| ["--package", package]);
    command::run(command::cargo().args(["build", "--locked", "--bins"]).args(packages))?;
    variables.extend(stack::product()?);
    variables.push(("ENTRA_SIDECAR_BIN", stack::built(Profile::Debug, "entra-sidecar")?));
    Ok(variables)
}

/// What makes pods of the product, and the program that pushes it:
///
/// | variable | what |
/// |---|---|
/// | `MESH_IMAGES` | an OCI layout with the product's images |
/// | `MESH_APP` | the application of the pods, a static program |
pub(crate) fn pods() -> Result<Variables> {
    images::run()?;
    let images = ["build", "--locked", "--package", "images", "--bins"];
    command::run(command::cargo().args(images))?;
    let application = images::static_program("mesh-app")?;
    Ok(vec![("MESH_IMAGES", images::layout()), ("MESH_APP", application)])
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
        ("MESH_APP", images::static_program("mesh-app")?.into_os_string()),
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
