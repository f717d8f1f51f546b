//! One part of the cluster as a process: started, stopped, asked whether it runs.
//!
//! How to start it is kept as a script in the mesh's state, so `up` and the tests start it alike.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{
    namespace::Namespace,
    paths::{log, state, state_text},
    programs::Programs,
};

/// Lines of a log that an error shows.
const SHOWN: usize = 25;

/// The parts of the cluster that are processes of the node; istiod is a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Component {
    Etcd,
    ApiServer,
    ControllerManager,
    Scheduler,
    Containerd,
    Kubelet,
    Proxy,
    Dns,
    Registry,
}

impl Component {
    /// All, in the order of starting.
    pub const ALL: [Self; 9] = [
        Self::Etcd,
        Self::Registry,
        Self::ApiServer,
        Self::Containerd,
        Self::ControllerManager,
        Self::Scheduler,
        Self::Dns,
        Self::Kubelet,
        Self::Proxy,
    ];

    /// Its name, as of its log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Containerd => "containerd",
            Self::Kubelet => "kubelet",
            Self::Proxy => "kube-proxy",
            Self::Dns => "coredns",
            Self::Registry => "registry",
        }
    }

    /// The name of its program in the folders of programs.
    fn program(self) -> &'static str {
        match self {
            // The module of etcd's server calls it so.
            Self::Etcd => "server",
            other => other.name(),
        }
    }

    /// Writes down how it is started, and starts it.
    pub(crate) fn launch(
        self,
        namespace: Namespace,
        programs: &Programs,
        arguments: &[String],
    ) -> Result<()> {
        let program = programs.find(self.program())?;
        let mut script = format!(
            "# Starts {}. PATH has the mesh's own runc and iptables first.\n\
             export PATH={}:/usr/sbin:/usr/bin:/sbin:/bin HOME={}\n\
             exec >>{} 2>&1 </dev/null\nexec {}",
            self.name(),
            state_text("bin"),
            state_text("home"),
            log(self.name()).display(),
            quoted(&program.display().to_string()),
        );
        for argument in arguments {
            script.push_str(" \\\n    ");
            script.push_str(&quoted(argument));
        }
        script.push('\n');
        fs::write(self.file("sh"), script)?;
        self.start(namespace)
    }

    /// Starts it again as it was started before; one that runs is left alone.
    pub(crate) fn start(self, namespace: Namespace) -> Result<()> {
        if self.is_running(namespace) {
            return Ok(());
        }
        let (script, pid) = (self.file("sh"), self.file("pid"));
        if !script.exists() {
            bail!("{} was never started", self.name());
        }
        // In the background of a shell that ends at once: the mesh's first process inherits it.
        let start = "setsid /bin/sh \"$1\" >/dev/null 2>&1 </dev/null & echo $! >\"$2\"";
        namespace
            .shell(start, &[script.as_os_str(), pid.as_os_str()])
            .with_context(|| format!("cannot start {}", self.name()))?;
        Ok(())
    }

    /// Ends it at once, as a crash would, and waits until it is gone. What it started goes on: the
    /// pods of a stopped kubelet or containerd run.
    pub(crate) fn kill(self, namespace: Namespace) -> Result<()> {
        let kill = format!(
            "{IS_IT}; kill -KILL $pid; n=0
             while kill -0 $pid 2>/dev/null; do
               n=$((n+1)); [ $n -lt 200 ] || exit 1; sleep 0.05
             done"
        );
        self.ask(namespace, &kill).with_context(|| format!("cannot stop {}", self.name()))?;
        // Its id may be another's from now on.
        match fs::remove_file(self.file("pid")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Whether its process is there.
    pub(crate) fn is_running(self, namespace: Namespace) -> bool {
        let ask = format!("{IS_IT}; echo yes");
        self.ask(namespace, &ask).is_ok_and(|answer| answer.trim() == "yes")
    }

    fn ask(self, namespace: Namespace, script: &str) -> Result<String> {
        let name = OsStr::new(self.program());
        namespace.shell(script, &[self.file("pid").as_os_str(), name])
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(self) -> String {
        tail(&log(self.name()))
    }

    fn file(self, extension: &str) -> PathBuf {
        state("components").join(format!("{}.{extension}", self.name()))
    }
}

/// Ends the script well where the recorded process is not there, or is not this program (its
/// shell counts: it is about to become it).
const IS_IT: &str = "pid=$(cat \"$1\" 2>/dev/null) || exit 0; \
    [ -n \"$pid\" ] && grep -q \"$2\" /proc/$pid/cmdline 2>/dev/null || exit 0";

/// The last lines of a file.
pub(crate) fn tail(file: &Path) -> String {
    let text = String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    let shown = lines.iter().skip(lines.len().saturating_sub(SHOWN));
    shown.map(|line| format!("  | {line}\n")).collect()
}

/// A word for the shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}
