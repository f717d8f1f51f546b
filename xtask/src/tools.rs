//! Tools: found on the machine or installed into `.tools`, by version and hash.
//!
//! Each tool has a pin in `xtask/tools`. A copy of the pin lies beside what was installed from
//! it, so a changed pin installs anew and an installation that broke off is never used.

pub(crate) mod cargo;
pub(crate) mod envoy;
pub(crate) mod node;
pub(crate) mod python;
pub(crate) mod rust;
pub(crate) mod zig;

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::{command, workspace};

/// Installs into `.tools/<name>` unless this very pin is there, and gives that folder.
///
/// `install` fills the folder that it is handed; only when it succeeds does that get its name.
fn installed(name: &str, pin: &str, install: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let tools = workspace::tools();
    workspace::create_folder(&tools)?;
    // Two commands at once must not fill the same folder; the lock ends with this function.
    let lock = std::fs::File::create(tools.join(format!("{name}.lock")))?;
    lock.lock()?;
    let folder = tools.join(name);
    let stamp = folder.join(".pin");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == pin) {
        return Ok(folder);
    }
    command::step(&format!("installing {name} into .tools"));
    let partial = tools.join(format!("{name}.partial"));
    workspace::remove_folder(&partial)?;
    workspace::create_folder(&partial)?;
    install(&partial)?;
    workspace::write(&partial.join(".pin"), pin)?;
    workspace::remove_folder(&folder)?;
    std::fs::rename(&partial, &folder)?;
    Ok(folder)
}
