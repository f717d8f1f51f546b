//! What of a mesh runs, and what was left over.

use std::{fs, io::Write, os::unix::process::CommandExt, path::Path};

use anyhow::{Context, Result, bail};

use crate::{
    Component, Mesh, cgroup,
    namespace::Namespace,
    paths::{BRIDGE, STATE},
};

/// Prints a line for each part; an error when not all of it serves.
///
/// # Errors
/// When no mesh runs, or a part does not serve.
pub fn status() -> Result<()> {
    let Ok(namespace) = Namespace::running() else {
        let left = leftovers();
        if left.is_empty() {
            bail!("no mesh runs, and nothing is left of one");
        }
        bail!("no mesh runs, but there is left: {}", left.join("; "));
    };
    let mut inside = namespace.in_network(std::env::current_exe()?);
    Err(inside.arg("status-inside").exec()).context("cannot start nsenter")
}

/// The same, in the mesh's network.
///
/// # Errors
/// When a part does not serve.
pub fn inside() -> Result<()> {
    let mesh = Mesh::running()?;
    let mut failing = Vec::new();
    let mut line = |name: &str, state: Result<bool>| {
        let shown = match state {
            Ok(true) => "serves".to_owned(),
            Ok(false) => "does not serve".to_owned(),
            Err(ref error) => format!("does not serve: {error:#}"),
        };
        // Whoever reads may have gone.
        let _gone = writeln!(std::io::stdout(), "{name:<26} {shown}");
        if !matches!(state, Ok(true)) {
            failing.push(name.to_owned());
        }
    };
    for component in Component::ALL {
        line(component.name(), mesh.serves(component));
    }
    line("istiod", istiod_serves(&mesh));
    if !failing.is_empty() {
        bail!("not all of the mesh is up: {}", failing.join(", "));
    }
    println!("KUBECONFIG={}", mesh.kubeconfig().display());
    Ok(())
}

fn istiod_serves(mesh: &Mesh) -> Result<bool> {
    let istiod = mesh.get("istio-system", &["deployment", "istiod"])?;
    let ready = istiod.pointer("/status/readyReplicas").and_then(serde_json::Value::as_u64);
    Ok(ready.is_some_and(|ready| ready > 0))
}

/// After `down`: an error when anything of a mesh is there.
///
/// # Errors
/// When there is.
pub fn nothing_left() -> Result<()> {
    match leftovers().as_slice() {
        [] => {
            println!("nothing of a mesh is left");
            Ok(())
        }
        left => bail!("left over: {}", left.join("; ")),
    }
}

/// What of a mesh, running or not, is on this machine, outside of its namespaces.
#[must_use]
pub fn leftovers() -> Vec<String> {
    let mut left: Vec<String> = Vec::new();
    let groups = cgroup::groups().into_iter().map(|group| format!("cgroup {}", group.display()));
    left.extend(cgroup::processes().iter().map(|process| format!("process {process}")));
    left.extend(groups);
    left.extend(mounts().into_iter().map(|mount| format!("mount {mount}")));
    if Path::new("/sys/class/net").join(BRIDGE).exists() {
        left.push(format!("link {BRIDGE}"));
    }
    if Path::new(STATE).exists() {
        left.push(format!("folder {STATE}"));
    }
    left
}

/// Mounts in the state's folder that this process sees.
pub(crate) fn mounts() -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = text.lines().filter_map(|line| line.split(' ').nth(4));
    points.filter(|point| point.starts_with(STATE)).map(str::to_owned).collect()
}
