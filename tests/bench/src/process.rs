//! A process seen from outside: its CPU time, and the cores that it runs on.

use std::{
    fmt,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::Result;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    time::{ClockId, clock_getcpuclockid},
    unistd::Pid,
};

/// Longer than an Envoy without requests needs to clear away the last ones.
const SETTLE: Duration = Duration::from_micros(200);

/// Who belongs to the topmost group of processes that share cores.
const TOPMOST_GROUP: &str = "/sys/fs/cgroup/cpu/cgroup.procs";

/// A running process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process {
    id: Pid,
    clock: ClockId,
}

impl Process {
    /// The process of this number.
    pub(crate) fn new(id: i32) -> Result<Self> {
        let id = Pid::from_raw(id);
        Ok(Self { id, clock: clock_getcpuclockid(id)? })
    }

    /// CPU time of all its threads since its start, in nanoseconds.
    ///
    /// The kernel books a running thread's time when it goes off its core or at the next tick
    /// (milliseconds later), so this first lets the worker run out of work and go to sleep.
    pub(crate) fn cpu_nanoseconds(self) -> Result<i64> {
        thread::sleep(SETTLE);
        let time = self.clock.now()?;
        Ok(time.tv_sec().saturating_mul(1_000_000_000).saturating_add(time.tv_nsec()))
    }

    fn stays_on(self, core: usize) -> Result<()> {
        for entry in std::fs::read_dir(format!("/proc/{}/task", self.id))? {
            stay_on(Pid::from_raw(entry?.file_name().to_string_lossy().parse()?), core)?;
        }
        Ok(())
    }
}

/// Gives what is measured, and what it passes requests to, the first core and the calling thread
/// the second, and puts all of them before all other work of the machine. Neither is possible
/// everywhere; what is not, shows in the figures when the machine is busy.
pub(crate) fn divide_cores(measured: &[Process], behind: &[Process]) -> Placement {
    let mut servers = measured.iter().chain(behind);
    let pinned =
        servers.all(|server| server.stays_on(0).is_ok()) && stay_on(Pid::from_raw(0), 1).is_ok();
    let first: Vec<bool> = [Pid::this()]
        .into_iter()
        .chain(measured.iter().chain(behind).map(|process| process.id))
        .map(before_others)
        .collect();
    Placement { pinned, first: first.into_iter().all(|first| first) }
}

/// How far the machine is ours.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placement {
    /// What is measured and the load generator have a core each.
    pub(crate) pinned: bool,
    /// Both come before all ordinary work.
    pub(crate) first: bool,
}

impl fmt::Display for Placement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cores = if self.pinned { "a core for it, one for the load" } else { "any core" };
        let order = if self.first { "before other work" } else { "among other work" };
        write!(formatter, "{cores}, {order}")
    }
}

fn stay_on(thread: Pid, core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core)?;
    Ok(sched_setaffinity(thread, &cores)?)
}

/// Real-time scheduling for all threads of a process, by the tool of util-linux.
fn before_others(process: Pid) -> bool {
    // With cgroups v1 a container's group has no right to it, and the topmost one has. Where there
    // is no such hierarchy, the tool says whether it can be.
    let _no_such_hierarchy = std::fs::write(TOPMOST_GROUP, process.to_string());
    Command::new("chrt")
        .args(["--all-tasks", "--fifo", "--pid", "1", &process.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
