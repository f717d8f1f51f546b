//! A file whose size nobody vouches for, read whole and within a bound.

use std::{
    fs::File,
    io::{Error, ErrorKind, Read},
    path::Path,
};

/// The file's bytes; an error where there are more than `limit` of them, of which no more are read.
pub fn read(path: &Path, limit: usize) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path)?.take(bound).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(Error::new(ErrorKind::FileTooLarge, format!("larger than {limit} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_bound_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "123").unwrap();
        assert_eq!(read(&path, 3).unwrap(), b"123");
        assert_eq!(read(&path, 2).unwrap_err().kind(), ErrorKind::FileTooLarge);
        // One that has no end and tells no size, and what is no file at all.
        assert_eq!(read(Path::new("/dev/zero"), 2).unwrap_err().kind(), ErrorKind::FileTooLarge);
        assert_eq!(read(directory.path(), 2).unwrap_err().kind(), ErrorKind::IsADirectory);
    }
}
