//! Removes a mesh: whole, half started or crashed, and also when there is none.

use std::{fs, io::ErrorKind};

use anyhow::{Context, Result, bail};

use crate::{cgroup, paths::STATE, status};

/// Ends all processes, which drops mounts, network and iptables, and removes cgroups and state.
///
/// # Errors
/// When something cannot be removed.
pub fn down() -> Result<()> {
    need_root()?;
    cgroup::kill_all()?;
    cgroup::remove()?;
    // All mounts were the mesh's own and are gone; one that is here is somebody else's, and
    // deleting through it would be wrong.
    let mounts = status::mounts();
    if !mounts.is_empty() {
        bail!("something is mounted in {STATE}: {}", mounts.join(", "));
    }
    match fs::remove_dir_all(STATE) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {STATE}"))
        }
        _ => Ok(()),
    }
}

/// A mesh makes namespaces, mounts and cgroups.
pub(crate) fn need_root() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("the mesh needs root (namespaces, mounts, cgroups): run it with sudo or as root");
    }
    Ok(())
}
