//! A child process with its log in a file: ended when dropped, its log shown when a test fails.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long a program may take to start before the test fails; far above what it takes.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// Lines of a log that a failing test shows.
const SHOWN_LINES: usize = 60;

/// A running program.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
    output: PathBuf,
}

impl Process {
    /// Starts a program with its output in `<directory>/<name>.{out,log}`.
    pub fn start(name: &'static str, directory: &Path, command: &mut Command) -> Self {
        let output = directory.join(format!("{name}.out"));
        let log = directory.join(format!("{name}.log"));
        let append = |path: &Path| {
            File::options().create(true).append(true).open(path).expect("a file for the log")
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(append(&output))
            .stderr(append(&log))
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", command.get_program().display()));
        Self { name, child, log, output }
    }

    /// What it wrote to its standard output so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.output).unwrap_or_default()).into_owned()
    }

    /// What it wrote to its standard error so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends it at once, as a crash would, and waits until it is gone.
    pub fn kill(&mut self) {
        let _gone_already = self.child.kill();
        let _status = self.child.wait();
    }

    /// Asks until an answer is there; fails when the process ends or the deadline passes.
    pub async fn ready<T, F: Future<Output = Option<T>>>(
        &mut self,
        what: &str,
        mut ask: impl FnMut() -> F,
    ) -> T {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("{} ended with {status} before {what}\n{}", self.name, self.tail());
            }
            assert!(Instant::now() < deadline, "{}: no {what} in time", self.name);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn tail(&self) -> String {
        let text = format!("{}{}", self.output(), self.log());
        // Envoy tells much of itself at `info`; what went wrong is above that.
        let lines: Vec<_> = text.lines().filter(|line| !line.contains("[info]")).collect();
        lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("---- the end of {}'s log ----\n{}", self.name, self.tail());
        }
    }
}
