//! Files that somebody else puts there: opened without waiting for anybody, and read within a bound.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use rustix::fs::{Mode, OFlags};

/// Why a file cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotRead {
    /// The system says no.
    Unreadable(io::ErrorKind),
    /// A directory, a FIFO, a device: nothing with an end of its own.
    NotAFile,
    /// Larger than so many bytes.
    TooLarge(usize),
}

impl std::fmt::Display for NotRead {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreadable(kind) => write!(formatter, "{kind}"),
            Self::NotAFile => formatter.write_str("not a file"),
            Self::TooLarge(limit) => write!(formatter, "larger than {limit} bytes"),
        }
    }
}

impl std::error::Error for NotRead {}

impl From<io::Error> for NotRead {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error.kind())
    }
}

/// What to do about a symbolic link at the end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Kubernetes swaps versions so.
    Followed,
    /// It leads to whatever its maker wants.
    Refused,
}

/// Opens a regular file, or says at once that it is none: to open a FIFO that nobody writes to would
/// wait for ever.
pub fn open(path: &Path, link: Link) -> Result<File, NotRead> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let flags = if link == Link::Refused { flags | OFlags::NOFOLLOW } else { flags };
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from)?);
    // Of the file that is open, not of whatever has the name by now.
    if file.metadata()?.is_file() { Ok(file) } else { Err(NotRead::NotAFile) }
}

/// The file's bytes; an error where there are more than `limit` of them, of which no more are read.
pub fn read(path: &Path, limit: usize) -> Result<Vec<u8>, NotRead> {
    whole(open(path, Link::Followed)?, limit)
}

/// The bytes of a file that is open, likewise.
pub fn whole(file: File, limit: usize) -> Result<Vec<u8>, NotRead> {
    let mut bytes = Vec::new();
    let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    file.take(bound).read_to_end(&mut bytes)?;
    if bytes.len() > limit { Err(NotRead::TooLarge(limit)) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn no_more_than_the_bound_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "123").unwrap();
        assert_eq!(read(&path, 3).unwrap(), b"123");
        assert_eq!(read(&path, 2), Err(NotRead::TooLarge(2)));
        // One that has an end and tells no size.
        assert_eq!(read(Path::new("/proc/self/status"), 2), Err(NotRead::TooLarge(2)));
    }

    #[test]
    fn what_is_no_file_is_refused_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        // Nobody writes to it: to open it as a file is opened would wait for ever.
        rustix::fs::mkfifoat(rustix::fs::CWD, at("fifo"), Mode::RUSR | Mode::WUSR).unwrap();
        symlink("fifo", at("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        for path in [at("fifo"), at("link"), at("."), "/dev/zero".into()] {
            let (told, found) = std::sync::mpsc::channel();
            let shown = path.display().to_string();
            std::thread::spawn(move || told.send(read(&path, 2)));
            let found = found.recv_timeout(std::time::Duration::from_secs(10));
            assert_eq!(found, Ok(Err(NotRead::NotAFile)), "{shown}");
        }
        assert!(matches!(read(&at("socket"), 2), Err(NotRead::Unreadable(_))));
        let missing = Err(NotRead::Unreadable(io::ErrorKind::NotFound));
        assert_eq!(read(&at("missing"), 2), missing);
        std::fs::write(at("file"), "").unwrap();
        symlink("file", at("to-file")).unwrap();
        assert!(open(&at("to-file"), Link::Followed).is_ok());
        assert!(open(&at("to-file"), Link::Refused).is_err());
    }
}
