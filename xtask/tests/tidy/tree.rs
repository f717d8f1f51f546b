//! The files of the repository, as a fresh clone would have them.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Folders that are built or installed, never committed.
pub(crate) const BUILT: [&str; 7] =
    ["target", "dist", ".tools", ".git", "node_modules", "corpus", "artifacts"];

/// The repository's top folder.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// A file's path from the top folder, and its text.
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Every text file with one of these extensions.
pub(crate) fn files(extensions: &[&str]) -> Vec<File> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !BUILT.contains(&name.as_str()) {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|end| extensions.iter().any(|one| end == *one)) {
                let text = fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
                found.push(File { path, text });
            }
        }
    }
    assert!(!found.is_empty(), "no file ends in {extensions:?}");
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

/// A file that must be there.
pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

impl File {
    /// Whether the whole file is test code.
    pub(crate) fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs")
            || self.path.contains("/tests/")
            || self.path.starts_with("tests/")
    }

    /// The lines before the test module at the file's end.
    pub(crate) fn product_lines(&self) -> usize {
        self.text.lines().position(|line| line.trim() == "#[cfg(test)]").unwrap_or(self.lines())
    }

    /// The test code of the file.
    pub(crate) fn test_text(&self) -> &str {
        if self.is_test() {
            return &self.text;
        }
        self.text.split_once("#[cfg(test)]").map_or("", |(_, tests)| tests)
    }

    fn lines(&self) -> usize {
        self.text.lines().count()
    }
}
