//! Where things are: the repository, what cargo writes, what is installed.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command;

/// The repository's top folder.
pub(crate) fn root() -> PathBuf {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_folder.parent().unwrap_or(crate_folder).to_path_buf()
}

/// What xtask installs, never committed.
pub(crate) fn tools() -> PathBuf {
    root().join(".tools")
}

/// Where the pins of tools are.
pub(crate) fn pins() -> PathBuf {
    root().join("xtask/tools")
}

/// The shipped module.
pub(crate) fn shipped_module() -> PathBuf {
    root().join("dist/entra_filter.wasm")
}

/// Cargo's target folder, wherever the person has put it.
pub(crate) fn target() -> Result<PathBuf> {
    let metadata = command::output(command::cargo().args([
        "metadata",
        "--no-deps",
        "--format-version=1",
        "--locked",
    ]))?;
    let folder = json_member(&metadata, "target_directory")
        .context("cargo metadata names no target_directory")?;
    Ok(PathBuf::from(folder))
}

/// A string member of one-line JSON, without a JSON parser: for paths and names that cargo
/// writes, in which nothing is escaped on the systems that this runs on.
fn json_member<'a>(json: &'a str, name: &str) -> Option<&'a str> {
    let (_, after) = json.split_once(&format!("\"{name}\":\""))?;
    after.split_once('"').map(|(value, _)| value)
}

/// The text of a file, with its name in the error.
pub(crate) fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Writes a file and the folders above it.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        create_folder(folder)?;
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Makes a folder and those above it.
pub(crate) fn create_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))
}

/// Removes a folder with all that is in it; one that is not there is as good.
pub(crate) fn remove_folder(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
