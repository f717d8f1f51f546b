//! Validates where the keys are kept, and for how long they are good.

use std::time::Duration;

use contract::route::KEY_LIFETIME_SECONDS;

use policy::document::ConfigError;

use super::{Errors, KeySnapshot, raw::RawKeySnapshot};

const FILE: &str = "key_snapshot.file";

/// The file of a configuration file.
pub(super) fn key_snapshot(
    raw: Option<RawKeySnapshot>,
    errors: &mut Errors,
) -> Option<KeySnapshot> {
    let raw = raw?;
    let seconds = raw.max_age_seconds.unwrap_or(KEY_LIFETIME_SECONDS);
    if !(1..=KEY_LIFETIME_SECONDS).contains(&seconds) {
        errors.push(
            "key_snapshot.max_age_seconds",
            format!("expected 1 to {KEY_LIFETIME_SECONDS}: older keys are not trusted"),
        );
    }
    let Some(file) = raw.file else {
        errors.missing(FILE, "the path of a file");
        return None;
    };
    Some(KeySnapshot { file: errors.file(file, FILE), max_age: Duration::from_secs(seconds) })
}

impl KeySnapshot {
    /// Whether the file's directory is there: it is not made, for a mount that was forgotten would
    /// go unnoticed.
    pub fn has_its_place(&self) -> Result<(), ConfigError> {
        match self.file.parent() {
            Some(directory) if directory.is_dir() => Ok(()),
            _ => Err(ConfigError::new(FILE, "expected a file in a directory that is there")),
        }
    }
}
