//! The keys in a file (`key_snapshot`): so that a broker that starts while Entra cannot be reached
//! has those that the one before it had.
//!
//! A file is believed less than an answer of Entra. It must be ours alone, whole, and young; each set
//! must be of a configured authority, and goes through the checks of a fetched one. What does not
//! fit is told, counted and left. It is written whole beside its name and then moved there, so that a
//! broker that is killed leaves the old file or the new one. Public keys are in it, and no token.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use contract::{Jwk, KeySetState, KeySets, route::MAX_KEY_SET_BYTES};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    config::{Authority, KeySnapshot},
    entra::discovery::{self, NoKeys},
    file::{self, Link, NotRead},
};

/// What is written, and the one that is read.
const VERSION: u32 = 1;
/// Its owner reads and writes it, and nobody else does either.
const MODE: u32 = 0o600;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<Key> {
    version: u32,
    key_sets: Vec<Saved<Key>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved<Key> {
    /// The authority, as on the wire between filter and broker.
    issuer: String,
    /// Unix seconds.
    fetched_at: u64,
    keys: Vec<Key>,
}

/// The version alone: what else another one has is not known.
#[derive(Deserialize)]
struct OfVersion {
    version: u32,
}

/// The keys of one authority, out of the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Restored {
    pub(super) issuer: String,
    /// Unix seconds.
    pub(super) fetched_at: u64,
    /// Seconds since then.
    pub(super) age: u64,
    pub(super) keys: Vec<Jwk>,
}

/// Why a file, or a set in it, is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refused {
    /// It cannot be opened or read; a symbolic link neither.
    Unreadable(io::ErrorKind),
    NotAFile,
    Owner,
    Mode,
    TooLarge,
    Malformed,
    Version,
    /// Of a set: not configured, or there twice.
    Authority,
    /// Of a set: fetched later than now.
    Future,
    /// Of a set: fetched too long ago.
    Old,
    /// Of a set: what would be refused of Entra.
    Keys(NoKeys),
}

impl From<NotRead> for Refused {
    fn from(refused: NotRead) -> Self {
        match refused {
            NotRead::Unreadable(kind) => Self::Unreadable(kind),
            NotRead::NotAFile => Self::NotAFile,
            NotRead::TooLarge(_) => Self::TooLarge,
        }
    }
}

impl Refused {
    /// A word for metrics.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "unreadable",
            Self::NotAFile => "not_a_file",
            Self::Owner => "owner",
            Self::Mode => "mode",
            Self::TooLarge => "too_large",
            Self::Malformed => "malformed",
            Self::Version => "version",
            Self::Authority => "unknown_authority",
            Self::Future => "future",
            Self::Old => "old",
            Self::Keys(refused) => refused.label(),
        }
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Unreadable(kind) => return write!(formatter, "cannot be read: {kind}"),
            Self::NotAFile => "not a file",
            Self::Owner => "another user's",
            Self::Mode => "others may use it; its mode must be 0600",
            Self::TooLarge => "larger than the configured authorities' keys can be",
            Self::Malformed => "not what a broker writes",
            Self::Version => "written by a broker of another version",
            Self::Authority => "of an authority that is not configured, or there twice",
            Self::Future => "fetched later than now",
            Self::Old => "fetched too long ago",
            Self::Keys(refused) => return write!(formatter, "{refused}"),
        })
    }
}

/// The sets that can be taken, and the issuers of those that cannot, with why.
pub(super) type Found = (Vec<Restored>, Vec<(String, Refused)>);

/// What the file holds for these authorities; none where there is no file.
pub(super) fn read(
    settings: &KeySnapshot,
    authorities: &[Authority],
    unix_now: u64,
) -> Result<Option<Found>, Refused> {
    let limit = MAX_KEY_SET_BYTES.saturating_mul(authorities.len().max(1));
    let text = match text(&settings.file, limit) {
        Err(Refused::Unreadable(io::ErrorKind::NotFound)) => return Ok(None),
        text => text?,
    };
    let malformed = |_error| Refused::Malformed;
    let OfVersion { version } = serde_json::from_slice(&text).map_err(malformed)?;
    if version != VERSION {
        return Err(Refused::Version);
    }
    let document: Document<Value> = serde_json::from_slice(&text).map_err(malformed)?;
    let (mut taken, mut left) = (Vec::<Restored>::new(), Vec::new());
    for set in document.key_sets {
        let issuer = set.issuer.clone();
        let twice = taken.iter().any(|other| other.issuer == issuer);
        let authority = authorities.iter().find(|known| !twice && known.issuer() == issuer);
        match authority
            .ok_or(Refused::Authority)
            .and_then(|authority| restored(set, authority, settings, unix_now))
        {
            Ok(set) => taken.push(set),
            Err(refused) => left.push((issuer, refused)),
        }
    }
    Ok(Some((taken, left)))
}

fn restored(
    set: Saved<Value>,
    authority: &Authority,
    settings: &KeySnapshot,
    unix_now: u64,
) -> Result<Restored, Refused> {
    let Saved { issuer, fetched_at, keys } = set;
    let age = unix_now.checked_sub(fetched_at).ok_or(Refused::Future)?;
    if age > settings.max_age.as_secs() {
        return Err(Refused::Old);
    }
    let instance = authority.cloud.instance_name();
    let keys = discovery::sound(keys, Some(instance)).map_err(Refused::Keys)?;
    Ok(Restored { issuer, fetched_at, age, keys })
}

/// The bytes of a file that nobody else can have written.
fn text(path: &Path, limit: usize) -> Result<Vec<u8>, Refused> {
    let file = file::open(path, Link::Refused)?;
    let found = file.metadata().map_err(NotRead::from)?;
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(Refused::Owner);
    }
    if found.mode() & 0o7777 & !MODE != 0 {
        return Err(Refused::Mode);
    }
    Ok(file::whole(file, limit)?)
}

/// The text of a file with the keys that there are.
pub(super) fn document(sets: KeySets) -> serde_json::Result<Vec<u8>> {
    let there = sets.key_sets.into_iter().filter(|set| set.state != KeySetState::None);
    let saved =
        there.map(|set| Saved { issuer: set.issuer, fetched_at: set.fetched_at, keys: set.keys });
    serde_json::to_vec(&Document { version: VERSION, key_sets: saved.collect() })
}

/// Puts a text into the file's place, whole or not at all.
pub(super) fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut beside = std::ffi::OsString::from(".");
    beside.push(name);
    beside.push(".new");
    let beside = path.with_file_name(beside);
    // Of one that was killed while it wrote. What has the name may be anything; it is not opened.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&beside)?;
    let moved = file
        .write_all(text)
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&beside, path));
    if moved.is_err() {
        let _gone = fs::remove_file(&beside);
    }
    moved
}
