//! The namespaces in which all of a mesh runs, and its first process.
//!
//! Processes, mounts, network, host name and IPC are the mesh's own. The network has no way out:
//! there is a bridge and nothing else. When the first process ends, for whatever reason, the
//! kernel ends all the others and drops their mounts, links and iptables rules.

use std::{
    ffi::OsStr,
    fs,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustix::process::{WaitOptions, wait};

use crate::{
    cgroup,
    paths::{BRIDGE, FAKES, HOST, METADATA, NODE, SERVICE_RANGE, log, state},
    wait::until,
};

/// Written by the first process when namespaces and network are ready.
const READY: &str = "namespace.ready";

/// How long that may take; it takes a tenth of a second.
const DEADLINE: Duration = Duration::from_secs(20);

/// The namespaces of a running mesh.
#[derive(Debug, Clone, Copy)]
pub struct Namespace {
    /// The id of its first process, as seen from outside.
    first: i32,
}

impl Namespace {
    /// The one that runs.
    ///
    /// # Errors
    /// When none does.
    pub fn running() -> Result<Self> {
        let first = cgroup::first_process().context("no mesh runs: `cargo xtask mesh up`")?;
        Ok(Self { first })
    }

    /// Makes the namespaces, with `program init` as their first process.
    pub(crate) fn start(program: &OsStr) -> Result<Self> {
        let join = cgroup::create()?;
        let output = fs::File::create(log("namespace"))?;
        // The shell joins the group before there is anything to lose track of.
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "echo $$ >\"$1\" && shift && exec \"$@\"", "sh"]).arg(&join);
        shell.args(["unshare", "--pid", "--fork", "--mount-proc", "--mount", "--net"]);
        shell.args(["--uts", "--ipc", "--propagation", "private"]).arg(program).arg("init");
        shell.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        // Not in this process's group: Ctrl-C must not end half of a mesh.
        let mut child = shell.process_group(0).current_dir("/").spawn()?;
        until("the mesh's namespaces", DEADLINE, || {
            if let Some(status) = child.try_wait()? {
                let said = fs::read_to_string(log("namespace")).unwrap_or_default();
                // Ends the asking: the error is the answer.
                return Ok(Some(Err(anyhow::anyhow!("the first process ended: {status}\n{said}"))));
            }
            if !state(READY).exists() {
                return Ok(None);
            }
            Ok(Some(Self::running()))
        })?
    }

    /// A command in all of the namespaces.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.first));
        command.args(["--mount", "--net", "--pid", "--uts", "--ipc", "--"]).arg(program);
        command
    }

    /// A command that is outside but for its network; where the caller is in that already, simply
    /// the command.
    #[must_use]
    pub fn in_network(&self, program: impl AsRef<OsStr>) -> Command {
        if self.is_my_network() {
            return Command::new(program);
        }
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.first)).args(["--net", "--"]).arg(program);
        command
    }

    /// Whether this process is in the mesh's network.
    #[must_use]
    pub fn is_my_network(&self) -> bool {
        let theirs = fs::read_link(format!("/proc/{}/ns/net", self.first));
        let mine = fs::read_link("/proc/self/ns/net");
        matches!((mine, theirs), (Ok(mine), Ok(theirs)) if mine == theirs)
    }

    /// Runs a shell script in all of the namespaces; what it prints is the answer.
    pub(crate) fn shell(&self, script: &str, arguments: &[&OsStr]) -> Result<String> {
        let mut command = self.command("/bin/sh");
        command.args(["-c", script, "sh"]).args(arguments).stdin(Stdio::null());
        // Nothing of the person's settings, such as a proxy, reaches the mesh.
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let output = command.output().context("cannot start nsenter")?;
        if !output.status.success() {
            bail!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// What the first process does: prepares mounts and network, then takes in orphans for ever.
///
/// # Errors
/// When something of the preparation fails.
pub fn init() -> Result<()> {
    if std::process::id() != 1 {
        bail!("`init` is what a mesh starts as its first process; `cargo xtask mesh up`");
    }
    let status = Command::new("/bin/sh").args(["-euc", &preparation()]).status()?;
    if !status.success() {
        bail!("the preparation failed: {status}");
    }
    fs::write(state(READY), "")?;
    loop {
        match wait(WaitOptions::empty()) {
            // No child at the moment: the next one may come at any time, and is then waited for.
            Err(Errno::CHILD) => std::thread::sleep(Duration::from_millis(50)),
            Err(Errno::INTR) | Ok(_) => {}
            Err(error) => return Err(error).context("wait"),
        }
    }
}

/// Programs write to fixed places in `/run`, `/var/lib` and `/var/log`: here these are the mesh's.
fn preparation() -> String {
    let (lib, work, logs) = (state("var-lib"), state("var-lib-work"), state("var-log"));
    let (lib, work, logs) = (lib.display(), work.display(), logs.display());
    let mut script = format!(
        "mount --make-rshared /
         mkdir -p {lib} {work} {logs}
         mount -t tmpfs -o mode=755 mesh /run
         mkdir -p /run/netns /run/lock
         mount -t overlay -o lowerdir=/var/lib,upperdir={lib},workdir={work} mesh /var/lib
         mount --bind {logs} /var/log
         # Whatever else would be written to the machine fails instead, and is seen.
         for folder in /etc /opt /usr; do
             mount --bind $folder $folder
             mount -o remount,bind,ro $folder
         done
         echo {NODE} >/proc/sys/kernel/hostname
         echo 1 >/proc/sys/net/ipv4/ip_forward
         ip link set lo up
         ip link add {BRIDGE} address 02:00:0a:58:00:01 type bridge
         ip link set {BRIDGE} up
         ip address add {HOST}/16 dev {BRIDGE}
         ip address add {METADATA}/32 dev {BRIDGE}
         # The node reaches services too: iptables changes the address after the route is found.
         ip route add {SERVICE_RANGE} dev {BRIDGE}
        "
    );
    for last in 2..=FAKES {
        script.push_str(&format!("ip address add 10.88.0.{last}/32 dev {BRIDGE}\n"));
    }
    // Traffic between pods by a service's address comes back over the bridge: it must pass
    // iptables there too. A kernel that has not loaded this yet does so when the file is read.
    script.push_str(
        "[ -e /proc/sys/net/bridge/bridge-nf-call-iptables ] || modprobe br_netfilter
         echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables
        ",
    );
    script
}
