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

/// Brings a mesh up, unless one runs, runs the tests in its network, and takes it down again.
fn test(name: Option<&str>) -> Result<()> {
    let programs = programs()?;
    let product = product()?;
    let ran_before = command::answer(mesh()?.arg("status")).is_some();
    let result =
        command::run(mesh()?.arg("up").envs(programs)).and_then(|()| in_mesh(name, &product));
    if ran_before {
        command::step("the mesh ran before the tests and stays: cargo xtask mesh down");
        return result;
    }
    let down = command::run(mesh()?.arg("down"))
        .and_then(|()| command::run(mesh()?.args(["status", "--leftovers"])));
    result.and(down)
}

/// Pushes the product's images and runs the tests. They are built first: in the mesh's network
/// there is no way out.
fn in_mesh(name: Option<&str>, variables: &Variables) -> Result<()> {
    command::step("pushing the images into the mesh's registry");
    let mut push = mesh()?;
    push.arg("enter").arg(stack::built(Profile::Debug, "images")?);
    push.arg("push").arg("--layout").arg(images::layout()).args(["--", REGISTRY]);
    command::run(&mut push)?;
    let test = ["test", "--locked", "--package", "mesh", "--no-fail-fast"];
    command::step("building the mesh's tests");
    command::run(command::cargo().args(test).arg("--no-run").envs(variables.iter().cloned()))?;
    command::step("running the mesh's tests");
    let cargo = command::cargo();
    let mut enter = mesh()?;
    enter.arg("enter").arg(cargo.get_program()).args(test).arg("--offline").args(name);
    command::run(enter.envs(variables.iter().cloned()))
}

/// What the tests find in their environment: the product, as the other tests do, and
///
/// | variable | what |
/// |---|---|
/// | `MESH_IMAGES` | an OCI layout with the product's images |
/// | `MESH_APP` | the application of the pods, a static program |
/// | `ENTRA_SIDECAR_BIN` | the command line tool |
fn product() -> Result<Variables> {
    images::run()?;
    command::step("building the programs that the mesh's tests start");
    let packages = ["token-broker", "cli", "e2e", "images"];
    let packages = packages.iter().flat_map(|package| ["--package", package]);
    command::run(command::cargo().args(["build", "--locked", "--bins"]).args(packages))?;
    let mut variables = stack::product()?;
    variables.push(("MESH_IMAGES", images::layout()));
    variables.push(("MESH_APP", images::static_program("mesh-app")?));
    variables.push(("ENTRA_SIDECAR_BIN", stack::built(Profile::Debug, "entra-sidecar")?));
    Ok(variables)
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
