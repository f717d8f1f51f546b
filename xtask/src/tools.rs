//! Tools: found on the machine or installed into `.tools`, by version and hash.
//!
//! Each tool has a pin in `xtask/tools`. A copy of the pin lies beside what was installed from
//! it, so a changed pin installs anew and an installation that broke off is never used.

pub(crate) mod cargo;
pub(crate) mod debian;
pub(crate) mod envoy;
pub(crate) mod go;
pub(crate) mod node;
pub(crate) mod python;
pub(crate) mod rust;
pub(crate) mod zig;

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
};

use anyhow::Result;

use crate::{command, workspace};

/// Installs into `.tools/<name>` unless this very pin is there, and gives that folder.
fn installed(name: &str, pin: &str, install: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    filled(&workspace::tools(), name, pin, install)
}

/// Builds into a folder of the cache that is named for the pin, so that several pins stay.
fn cached(
    cache: &Path,
    name: &str,
    pin: &str,
    build: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let mut hash = DefaultHasher::new();
    pin.hash(&mut hash);
    filled(cache, &format!("{name}-{:016x}", hash.finish()), pin, build)
}

/// `install` fills the folder that it is handed; only when it succeeds does that get its name.
fn filled(
    parent: &Path,
    name: &str,
    pin: &str,
    install: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    workspace::create_folder(parent)?;
    // Two commands at once must not fill the same folder; the lock ends with this function.
    let lock = std::fs::File::create(parent.join(format!("{name}.lock")))?;
    lock.lock()?;
    let folder = parent.join(name);
    let stamp = folder.join(".pin");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == pin) {
        return Ok(folder);
    }
    command::step(&format!("installing {name} into {}", parent.display()));
    let partial = parent.join(format!("{name}.partial"));
    workspace::remove_folder(&partial)?;
    workspace::create_folder(&partial)?;
    install(&partial)?;
    workspace::write(&partial.join(".pin"), pin)?;
    workspace::remove_folder(&folder)?;
    std::fs::rename(&partial, &folder)?;
    Ok(folder)
}
