//! The programs of which a mesh is made, found in the folders that xtask names.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::paths::state;

/// Where programs are. A running mesh keeps a copy of it in its state, for the tests.
#[derive(Debug, Clone)]
pub struct Programs {
    folders: Vec<PathBuf>,
    /// Debian's files, unpacked: runc, iptables and the pods' base.
    pub debian: PathBuf,
    /// The Envoy of Istio's proxies.
    pub envoy: PathBuf,
}

impl Programs {
    /// From `MESH_PROGRAMS`, `MESH_DEBIAN` and `ENVOY`, which `cargo xtask mesh` sets.
    ///
    /// # Errors
    /// When one is missing.
    pub fn from_environment() -> Result<Self> {
        let variable = |name: &str| {
            std::env::var_os(name).with_context(|| {
                format!("{name} is not set: start the mesh with `cargo xtask mesh up`")
            })
        };
        Ok(Self {
            folders: std::env::split_paths(&variable("MESH_PROGRAMS")?).collect(),
            debian: variable("MESH_DEBIAN")?.into(),
            envoy: variable("ENVOY")?.into(),
        })
    }

    /// What the running mesh was started with.
    ///
    /// # Errors
    /// When no mesh was started.
    pub fn of_running_mesh() -> Result<Self> {
        let text = fs::read_to_string(file()).context("no mesh runs: `cargo xtask mesh up`")?;
        let mut lines = text.lines().map(PathBuf::from);
        let (Some(debian), Some(envoy)) = (lines.next(), lines.next()) else {
            bail!("{}: broken off", file().display());
        };
        Ok(Self { debian, envoy, folders: lines.collect() })
    }

    /// Keeps them in the mesh's state.
    pub(crate) fn save(&self) -> Result<()> {
        let paths = [&self.debian, &self.envoy].into_iter().chain(&self.folders);
        let lines: Vec<String> = paths.map(|path| path.display().to_string()).collect();
        fs::write(file(), lines.join("\n")).context("cannot write the mesh's state")
    }

    /// A program or file by its name.
    ///
    /// # Errors
    /// When no folder has it.
    pub fn find(&self, name: &str) -> Result<PathBuf> {
        let mut candidates = self.folders.iter().map(|folder| folder.join(name));
        candidates.find(|path| path.is_file()).with_context(|| {
            format!("{name} is in none of the mesh's folders of programs: `cargo xtask mesh up`")
        })
    }

    /// A command of Debian's files, by the loader and with the libraries that it came with.
    pub(crate) fn of_debian(debian: &Path, program: &str) -> Command {
        let folder = |name: &str| debian.join(name).display().to_string();
        let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(folder);
        let mut command = Command::new(debian.join("lib64/ld-linux-x86-64.so.2"));
        command.args(["--library-path", &libraries.join(":")]).arg(debian.join(program));
        command
    }

    /// The folder of a program, for who wants them all on a path.
    pub(crate) fn folder_of(&self, name: &str) -> Result<PathBuf> {
        let program = self.find(name)?;
        Ok(program.parent().unwrap_or(Path::new("/")).to_path_buf())
    }
}

fn file() -> PathBuf {
    state("programs")
}
