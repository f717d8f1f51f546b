//! The list of a module's exports: one name a line, then why it is there.

use std::{ffi::OsString, path::Path};

use anyhow::{Result, bail};

use super::FEATURES;
use crate::{command, tools::node::Node, workspace};

/// Reads a list: `name  reason`, empty lines and lines with `#` are for people.
pub(super) fn read(path: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for line in workspace::read(path)?.lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, _reason)) = line.split_once(char::is_whitespace) else {
            bail!("{}: `{line}` has no reason beside it", path.display());
        };
        names.push(name.to_owned());
    }
    names.sort();
    Ok(names)
}

/// Removes every other export from a module, and what only those reach.
pub(super) fn prune(node: &Node, module: &Path, names: &[String]) -> Result<()> {
    let offered = of(node, module)?;
    let stale: Vec<_> = names.iter().filter(|name| !offered.contains(name)).collect();
    if !stale.is_empty() {
        bail!("listed, but not exported by the module: {stale:?}");
    }
    let graph = module.with_extension("json");
    workspace::write(&graph, &reachability(names))?;
    let mut metadce = node.binaryen("wasm-metadce")?;
    metadce.args(FEATURES).arg(module).arg("--graph-file").arg(&graph).arg("-o").arg(module);
    // It prints what it removed, of no interest here.
    command::output(&mut metadce)?;
    Ok(std::fs::remove_file(graph)?)
}

/// What wasm-metadce reads: everything outside reaches exactly the listed exports.
fn reachability(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("\"export {name}\"")).collect();
    let mut graph = format!(
        "[\n{{\"name\": \"outside\", \"reaches\": [{}], \"root\": true}}",
        quoted.join(", ")
    );
    for name in names {
        graph.push_str(&format!(",\n{{\"name\": \"export {name}\", \"export\": \"{name}\"}}"));
    }
    graph.push_str("\n]\n");
    graph
}

/// What ships exports the list and nothing else.
pub(super) fn check_exact(node: &Node, module: &Path, names: &[String]) -> Result<()> {
    let exported = of(node, module)?;
    if exported != names {
        bail!("{} exports {exported:?}, the list has {names:?}", module.display());
    }
    Ok(())
}

/// A module's exports, sorted, as an engine reads them.
fn of(node: &Node, module: &Path) -> Result<Vec<String>> {
    let script = "WebAssembly.Module.exports(new WebAssembly.Module(require('fs').readFileSync(\
                  process.argv[1]))).forEach(e => console.log(e.name))";
    let printed = node.evaluate(script, &[OsString::from(module)])?;
    let mut names: Vec<String> = printed.lines().map(str::to_owned).collect();
    names.sort();
    Ok(names)
}
