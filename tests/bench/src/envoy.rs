//! One Envoy process: started, waited for, its CPU time read, ended.

use std::{
    fmt,
    fs::File,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    time::{ClockId, clock_getcpuclockid},
    unistd::Pid,
};

/// Longer than an Envoy without requests needs to clear away the last ones.
const SETTLE: Duration = Duration::from_micros(200);

/// The Envoy program.
pub(crate) struct Program {
    path: PathBuf,
    cores: CpuSet,
}

impl Program {
    /// The Envoy at `path`.
    pub(crate) fn new(path: PathBuf) -> Result<Self> {
        Ok(Self { path, cores: sched_getaffinity(Pid::from_raw(0))? })
    }

    /// What `envoy --version` says: release and kind of build.
    pub(crate) fn version(&self) -> Result<String> {
        let output = Command::new(&self.path).arg("--version").output().context("no Envoy")?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.trim().rsplit("version: ").next().unwrap_or_default().to_owned())
    }

    /// Starts an Envoy with one worker and waits until it is ready.
    ///
    /// The configuration puts its admin page on `admin.sock` in `directory`.
    pub(crate) fn start(&self, directory: &Path, configuration: &str) -> Result<Envoy> {
        // Compiling the modules takes all cores that there are; this thread may be on one by now.
        sched_setaffinity(Pid::from_raw(0), &self.cores)?;
        let file = directory.join("envoy.json");
        std::fs::write(&file, configuration)?;
        let log = directory.join("envoy.log");
        let child = Command::new(&self.path)
            .arg("--config-path")
            .arg(&file)
            .args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .context("Envoy does not start")?;
        let clock = clock_getcpuclockid(Pid::from_raw(child.id().try_into()?))?;
        let admin = directory.join("admin.sock");
        let mut envoy = Envoy { child, clock, admin, log };
        envoy.wait_until_ready()?;
        Ok(envoy)
    }
}

/// A running Envoy; dropped, it ends.
pub(crate) struct Envoy {
    child: Child,
    clock: ClockId,
    admin: PathBuf,
    log: PathBuf,
}

impl Envoy {
    /// CPU time of all its threads since its start, in nanoseconds.
    ///
    /// The kernel books a running thread's time when it goes off its core or at the next tick
    /// (milliseconds later), so this first lets the worker run out of work and go to sleep.
    pub(crate) fn cpu_nanoseconds(&self) -> Result<i64> {
        thread::sleep(SETTLE);
        let time = self.clock.now()?;
        Ok(time.tv_sec().saturating_mul(1_000_000_000).saturating_add(time.tv_nsec()))
    }

    fn threads(&self) -> Result<Vec<Pid>> {
        std::fs::read_dir(format!("/proc/{}/task", self.child.id()))?
            .map(|entry| Ok(Pid::from_raw(entry?.file_name().to_string_lossy().parse()?)))
            .collect()
    }

    /// The text of an admin page.
    pub(crate) fn admin(&self, path: &str) -> Result<String> {
        let mut connection = UnixStream::connect(&self.admin).context("no admin page")?;
        write!(connection, "GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        if !answer.starts_with("HTTP/1.1 200") {
            bail!("{path}: {}", answer.lines().next().unwrap_or_default());
        }
        Ok(answer)
    }

    /// The last lines of its log.
    pub(crate) fn log(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let began = Instant::now();
        while self.admin("/ready").is_err() {
            if self.child.try_wait()?.is_some() {
                bail!("Envoy refused its configuration:\n{}", self.log());
            }
            if began.elapsed() > Duration::from_secs(30) {
                bail!("Envoy is not ready after 30 s:\n{}", self.log());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        // Either fails only when the process has ended already.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Gives Envoy the first core and the calling thread the second, and puts both before all other
/// work of the machine. Neither is possible everywhere; what is not, shows in the figures when the
/// machine is busy.
pub(crate) fn divide_cores(envoy: &Envoy) -> Result<Placement> {
    let threads = envoy.threads()?;
    let this = Pid::from_raw(0);
    let pinned = threads.iter().try_for_each(|thread| stay_on(*thread, 0)).is_ok()
        && stay_on(this, 1).is_ok();
    let first = [envoy.child.id(), std::process::id()].into_iter().all(before_others);
    Ok(Placement { pinned, first })
}

/// How far the machine is ours.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placement {
    /// Envoy and the load generator have a core each.
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
fn before_others(process: u32) -> bool {
    Command::new("chrt")
        .args(["--all-tasks", "--fifo", "--pid", "1", &process.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
