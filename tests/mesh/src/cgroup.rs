//! The mesh's cgroups: who belongs to it, also after a crash, and ending all of them.
//!
//! A process cannot leave its cgroup by dying parents, by detaching or by a namespace, so "in
//! here" means "ours": a recorded process id could be somebody else's by now.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::wait::poll;

/// The name of the mesh's group, in every hierarchy; also kubelet's `cgroupRoot`.
pub(crate) const NAME: &str = "entra-mesh";

/// The group of what is no pod; with cgroups v2 processes may be in leaves only.
const NODE: &str = "node";

const ROOT: &str = "/sys/fs/cgroup";

/// The hierarchies: one with cgroups v2, one for each controller with v1.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let root = Path::new(ROOT);
    if root.join("cgroup.controllers").exists() {
        return Ok(vec![root.to_path_buf()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(root).with_context(|| format!("{ROOT}: no cgroups"))? {
        let entry = entry?;
        // `cpu,cpuacct` and its like are links to one and the same.
        if !entry.file_type()?.is_symlink() && entry.path().join("cgroup.procs").exists() {
            found.push(entry.path());
        }
    }
    // The one by which membership is told comes first.
    found.sort_by_key(|path| !path.ends_with("pids"));
    if found.is_empty() {
        bail!("{ROOT} has no cgroup hierarchy");
    }
    Ok(found)
}

/// Makes the groups and gives the file that a process writes itself into to join.
pub(crate) fn create() -> Result<PathBuf> {
    let hierarchies = hierarchies()?;
    for hierarchy in &hierarchies {
        let group = hierarchy.join(NAME);
        fs::create_dir_all(&group).with_context(|| format!("cannot create {}", group.display()))?;
        if hierarchy.join("cgroup.controllers").exists() {
            enable_controllers(hierarchy)?;
            enable_controllers(&group)?;
        }
    }
    let first = hierarchies.first().context("no hierarchy")?.join(NAME).join(NODE);
    fs::create_dir_all(&first)?;
    Ok(first.join("cgroup.procs"))
}

/// Makes this process one of the mesh's, so that `down` ends it too.
pub(crate) fn join() -> Result<()> {
    fs::write(create()?, "0").context("cannot join the mesh's cgroup")
}

/// With v2 a group's children have only those controllers that it hands down.
fn enable_controllers(group: &Path) -> Result<()> {
    let available = fs::read_to_string(group.join("cgroup.controllers"))?;
    for controller in available.split_whitespace() {
        // One that cannot be handed down here is one that kubelet may or may not miss: it says so.
        let _refused = fs::write(group.join("cgroup.subtree_control"), format!("+{controller}"));
    }
    Ok(())
}

/// The mesh's first process, as this process sees its id: the only one in the node's group that
/// is number 1 in its process namespace.
pub(crate) fn first_process() -> Option<i32> {
    let group = hierarchies().ok()?.first()?.join(NAME).join(NODE);
    processes_of(&group).into_iter().find(|process| {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        let ids: Vec<&str> = line.unwrap_or_default().split_whitespace().collect();
        ids.len() > 1 && ids.last() == Some(&"1")
    })
}

/// Every process of the mesh.
pub(crate) fn processes() -> Vec<i32> {
    let Ok(hierarchies) = hierarchies() else { return Vec::new() };
    let groups = hierarchies.iter().flat_map(|hierarchy| tree(&hierarchy.join(NAME)));
    let mut all: Vec<i32> = groups.flat_map(|group| processes_of(&group)).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Ends every process, and waits until they are gone.
pub(crate) fn kill_all() -> Result<()> {
    poll("the end of the mesh's processes", Duration::from_secs(30), || {
        let processes = processes();
        for process in &processes {
            kill(*process);
        }
        Ok(processes.is_empty())
    })
}

/// The handle is taken first and membership looked at then, so the id cannot change hands.
fn kill(process: i32) {
    let handle = Pid::from_raw(process).and_then(|id| pidfd_open(id, PidfdFlags::empty()).ok());
    let Some(handle) = handle else { return };
    let groups = fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap_or_default();
    let ours =
        |line: &str| line.ends_with(&format!(":/{NAME}")) || line.contains(&format!(":/{NAME}/"));
    if groups.lines().any(ours) {
        let _gone = pidfd_send_signal(&handle, Signal::KILL);
    }
}

/// Removes the groups, which must be empty.
pub(crate) fn remove() -> Result<()> {
    poll("the removal of the mesh's cgroups", Duration::from_secs(20), || {
        let groups = groups();
        for group in &groups {
            // Its last process may still be on its way out; asked again then.
            let _busy = fs::remove_dir(group);
        }
        Ok(groups.is_empty())
    })
}

/// The groups that exist, children before their parents.
pub(crate) fn groups() -> Vec<PathBuf> {
    let hierarchies = hierarchies().unwrap_or_default();
    let mut all: Vec<PathBuf> =
        hierarchies.iter().flat_map(|hierarchy| tree(&hierarchy.join(NAME))).collect();
    all.reverse();
    all
}

/// The group and those in it, parents first; empty when there is none.
fn tree(group: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(group) else { return Vec::new() };
    let folders = entries.flatten().filter(|entry| entry.path().is_dir());
    let mut all = vec![group.to_path_buf()];
    all.extend(folders.flat_map(|entry| tree(&entry.path())));
    all
}

fn processes_of(group: &Path) -> Vec<i32> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).filter(|process| *process > 0).collect()
}
