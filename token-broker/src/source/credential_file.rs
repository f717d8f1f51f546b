//! Credentials in files: read anew at each use, because whoever renews them replaces the file.

use std::{
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use contract::{ErrorKind, Secret, TypedError};
use zeroize::Zeroizing;

use crate::{
    failure::failure,
    file::{self, Link, NotRead},
    source::Fingerprint,
};

/// Largest credential that is read.
const MAX_BYTES: u64 = 16 * 1024;

/// Who may be able to read the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readers {
    /// Not everyone: a secret that lasts is protected by its mode.
    NotEveryone,
    /// Anyone: the kubelet writes projected tokens so, and they end soon.
    Any,
}

/// What the file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// A secret or a token: one line, whose end does not count.
    Line,
    /// PEM (RFC 7468).
    Pem,
}

/// Why a credential cannot be used. Never with a piece of it.
#[derive(Debug, PartialEq, Eq)]
enum Unusable {
    Unreadable(std::io::ErrorKind),
    NotAFile,
    WorldReadable,
    Empty,
    TooLarge,
    NotText,
}

/// A credential in a file.
pub(crate) struct CredentialFile {
    path: PathBuf,
    readers: Readers,
    content: Content,
}

impl CredentialFile {
    pub(crate) fn new(path: PathBuf, readers: Readers, content: Content) -> Self {
        Self { path, readers, content }
    }

    /// Where it is, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What the file holds now, in a form that only compares.
    pub(super) async fn fingerprint(&self) -> Option<Fingerprint> {
        self.read().await.ok().map(|credential| Fingerprint::of(&credential))
    }

    /// What the file holds now.
    pub(crate) async fn read(&self) -> Result<Secret, TypedError> {
        let (path, readers, content) = (self.path.clone(), self.readers, self.content);
        let outcome = tokio::task::spawn_blocking(move || read_now(&path, readers, content))
            .await
            .unwrap_or(Err(Unusable::Unreadable(std::io::ErrorKind::Other)));
        outcome.map_err(|unusable| refused(&self.path, &unusable))
    }
}

fn read_now(path: &Path, readers: Readers, content: Content) -> Result<Secret, Unusable> {
    let unreadable = |error: std::io::Error| Unusable::Unreadable(error.kind());
    let file = file::open(path, Link::Followed).map_err(|refused| match refused {
        NotRead::Unreadable(kind) => Unusable::Unreadable(kind),
        NotRead::NotAFile => Unusable::NotAFile,
        NotRead::TooLarge(_) => Unusable::TooLarge,
    })?;
    // Of the file that is open, not of whatever has the name by now.
    let mode = file.metadata().map_err(unreadable)?.permissions().mode();
    if readers == Readers::NotEveryone && mode & 0o004 != 0 {
        return Err(Unusable::WorldReadable);
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(MAX_BYTES.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_BYTES {
        return Err(Unusable::TooLarge);
    }
    let text = std::str::from_utf8(&bytes).map_err(|_binary| Unusable::NotText)?;
    if content == Content::Pem {
        return if text.is_empty() { Err(Unusable::Empty) } else { Ok(Secret::new(text)) };
    }
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(Unusable::Empty);
    }
    if text.chars().any(char::is_control) {
        return Err(Unusable::NotText);
    }
    Ok(Secret::new(text))
}

fn refused(path: &Path, unusable: &Unusable) -> TypedError {
    let reason = match unusable {
        Unusable::Unreadable(kind) => kind.to_string(),
        Unusable::NotAFile => "not a file".to_owned(),
        Unusable::WorldReadable => "everyone can read it; give it mode 0440 or less \
             (in a Kubernetes secret volume `defaultMode: 0440`)"
            .to_owned(),
        Unusable::Empty => "empty".to_owned(),
        Unusable::TooLarge => format!("larger than {MAX_BYTES} bytes"),
        Unusable::NotText => "not one line of text".to_owned(),
    };
    failure(ErrorKind::Config, format!("credential_file: {}: {reason}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions, write};

    use super::*;

    fn check(bytes: &[u8], mode: u32, readers: Readers, expected: Result<&str, Unusable>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("credential");
        write(&path, bytes).unwrap();
        set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let found =
            read_now(&path, readers, Content::Line).map(|secret| secret.expose().to_owned());
        assert_eq!(found, expected.map(str::to_owned));
    }

    #[test]
    fn one_trailing_newline_does_not_count() {
        use Readers::NotEveryone;
        check(b"s3cret", 0o440, NotEveryone, Ok("s3cret"));
        check(b"s3cret\n", 0o400, NotEveryone, Ok("s3cret"));
        check(b"s3cret\r\n", 0o600, NotEveryone, Ok("s3cret"));
        check(b" s3cret ", 0o600, NotEveryone, Ok(" s3cret "));
    }

    #[test]
    fn b10_what_is_no_credential_is_refused() {
        use Readers::NotEveryone;
        let largest = vec![b'x'; 16 * 1024];
        let larger = vec![b'x'; 16 * 1024 + 1];
        check(b"", 0o400, NotEveryone, Err(Unusable::Empty));
        check(b"\n", 0o400, NotEveryone, Err(Unusable::Empty));
        check(b"a\n\n", 0o400, NotEveryone, Err(Unusable::NotText));
        check(b"a\0b", 0o400, NotEveryone, Err(Unusable::NotText));
        check(&[0xff, 0xfe], 0o400, NotEveryone, Err(Unusable::NotText));
        check(&larger, 0o400, NotEveryone, Err(Unusable::TooLarge));
        check(&largest, 0o400, NotEveryone, Ok(std::str::from_utf8(&largest).unwrap()));
    }

    #[test]
    fn b10_a_world_readable_secret_is_refused_but_not_a_projected_token() {
        check(b"s", 0o644, Readers::NotEveryone, Err(Unusable::WorldReadable));
        check(b"s", 0o604, Readers::NotEveryone, Err(Unusable::WorldReadable));
        check(b"s", 0o640, Readers::NotEveryone, Ok("s"));
        check(b"s", 0o644, Readers::Any, Ok("s"));
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let found = |path: PathBuf| read_now(&path, Readers::Any, Content::Line).err();
        assert_eq!(found(directory.path().to_owned()), Some(Unusable::NotAFile));
        assert_eq!(
            found(directory.path().join("missing")),
            Some(Unusable::Unreadable(std::io::ErrorKind::NotFound))
        );
    }
}
