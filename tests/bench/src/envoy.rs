//! One Envoy process: started, waited for, asked for its admin pages, ended.

use std::{
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
    unistd::Pid,
};

use crate::process::Process;

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
        let process = Process::new(child.id().try_into()?)?;
        let admin = directory.join("admin.sock");
        let mut envoy = Envoy { child, process, admin, log };
        envoy.wait_until_ready()?;
        Ok(envoy)
    }
}

/// A running Envoy; dropped, it ends.
pub(crate) struct Envoy {
    child: Child,
    process: Process,
    admin: PathBuf,
    log: PathBuf,
}

impl Envoy {
    /// Its process.
    pub(crate) fn process(&self) -> Process {
        self.process
    }

    /// The text of an admin page.
    pub(crate) fn admin(&self, path: &str) -> Result<String> {
        page(UnixStream::connect(&self.admin).context("no admin page")?, path)
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

/// What Envoy answers to a GET of one of its own pages, headers and body.
pub(crate) fn page(mut connection: impl Read + Write, path: &str) -> Result<String> {
    write!(connection, "GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    if !answer.starts_with("HTTP/1.1 200") {
        bail!("{path}: {}", answer.lines().next().unwrap_or_default());
    }
    Ok(answer)
}

impl Drop for Envoy {
    fn drop(&mut self) {
        // Either fails only when the process has ended already.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}
