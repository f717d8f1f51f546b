//! What a command prints, and with which code it ends.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Largest file that is read, in bytes: an Envoy configuration of a large mesh is smaller.
const MAX_BYTES: u64 = 32 * 1024 * 1024;

/// What a command came to.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// For standard output.
    pub(crate) text: String,
    /// Whether something is wrong with what was looked at.
    pub(crate) wrong: bool,
}

impl Output {
    /// Adds a line.
    pub(crate) fn line(&mut self, line: impl AsRef<str>) {
        self.text.push_str(line.as_ref());
        self.text.push('\n');
    }

    /// Prints it; a reader that has gone away is no error.
    pub(crate) fn write(self) -> ExitCode {
        let _gone = std::io::stdout().lock().write_all(self.text.as_bytes());
        ExitCode::from(u8::from(self.wrong))
    }
}

/// Why something could not be looked at, for a person.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    /// With what to say.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    /// The same, said of a part of what was looked at.
    pub(crate) fn within(self, place: &str) -> Self {
        Self(format!("{place}: {}", self.0))
    }

    /// Prints it.
    pub(crate) fn report(self) -> ExitCode {
        let _gone = writeln!(std::io::stderr().lock(), "entra-sidecar: {}", self.0);
        ExitCode::from(2)
    }
}

/// The text of a file.
pub(crate) fn read(path: &Path) -> Result<String, Failure> {
    let unreadable = |error: std::io::Error| Failure(format!("{}: {error}", path.display()));
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > MAX_BYTES {
        return Err(Failure(format!("{}: larger than 32 MiB", path.display())));
    }
    std::fs::read_to_string(path).map_err(unreadable)
}

/// A file named in another file: from where that one is.
pub(crate) fn beside(file: &Path, named: &str) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join(named)
}
