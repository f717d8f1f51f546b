//! What the sources may not do, and how long a file may be.

use crate::{
    none,
    tree::{self, File},
};

/// Lines of a file without its tests; longer ones are split.
const LONGEST_FILE: usize = 400;

/// Longer files that are known, with why they are not split.
const LONG_FILES: [(&str, &str); 0] = [];

/// The one file whose blocks may be `unsafe`: the host functions.
const HOST_FUNCTIONS: &str = "filter/src/host.rs";

/// Exported functions: the attribute counts as unsafe, no block is.
const EXPORTS: [&str; 2] = ["filter/src/callbacks.rs", "tests/bench/empty-filter/src/lib.rs"];

fn sources() -> Vec<File> {
    let own = "xtask/tests/tidy/sources.rs";
    tree::files(&["rs"]).into_iter().filter(|file| file.path != own).collect()
}

/// Lines of code that contain one of the words, as `path:line: text`.
fn lines_with(files: &[File], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files {
        for (number, line) in file.text.lines().enumerate() {
            let code = line.trim_start();
            if !code.starts_with("//") && words.iter().any(|word| code.contains(word)) {
                found.push(format!("{}:{}: {code}", file.path, number.wrapping_add(1)));
            }
        }
    }
    found
}

#[test]
fn pure_crates_read_no_clock() {
    let mut pure = sources();
    pure.retain(|file| {
        file.path.starts_with("policy/src/") || file.path.starts_with("contract/src/")
    });
    assert!(!pure.is_empty());
    none("the time is an argument", lines_with(&pure, &["SystemTime::now", "Instant::now"]));
}

#[test]
fn unsafe_code_is_in_one_file() {
    let mut files = sources();
    files.retain(|file| file.path != HOST_FUNCTIONS);
    let words = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "unsafe trait"];
    let mut found = lines_with(&files, &words);
    files.retain(|file| !EXPORTS.contains(&file.path.as_str()));
    found.extend(lines_with(&files, &["allow(unsafe_code", "#[unsafe("]));
    none(&format!("unsafe outside {HOST_FUNCTIONS}"), found);
}

#[test]
fn every_test_runs_and_names_what_it_expects() {
    none("tests that may not fail", lines_with(&sources(), &["#[ignore", "#[should_panic"]));
}

#[test]
fn files_are_short_enough_to_read() {
    let mut wrong = Vec::new();
    for file in sources().iter().filter(|file| !file.is_test()) {
        let (lines, path) = (file.product_lines(), file.path.as_str());
        let known = LONG_FILES.iter().any(|(known, _why)| *known == path);
        match (lines > LONGEST_FILE, known) {
            (true, false) => wrong.push(format!("{path}: {lines} lines without tests")),
            (false, true) => wrong.push(format!("{path}: short enough, take it off the list")),
            _ => {}
        }
    }
    none(&format!("files over {LONGEST_FILE} lines"), wrong);
}

#[test]
fn files_say_at_their_head_what_they_are() {
    let mut wrong: Vec<String> = Vec::new();
    for file in sources().iter().filter(|file| !file.is_test()) {
        if !file.text.starts_with("//!") {
            wrong.push(file.path.clone());
        }
    }
    none("files that do not begin with `//!`", wrong);
}

#[test]
fn every_reason_has_a_test() {
    let sources = sources();
    let tests: Vec<&str> = sources.iter().map(File::test_text).collect();
    let mut untested = Vec::new();
    for (variant, code) in super::documents::reasons() {
        let (variant, code) = (format!("Reason::{variant}"), format!("\"{code}\""));
        let named = |test: &&str| names_variant(test, &variant) || test.contains(&code);
        if !tests.iter().any(named) {
            untested.push(variant);
        }
    }
    none("reasons that no test names", untested);
}

/// `Reason::Allowed` is not named by `Reason::AllowedAnyone`.
fn names_variant(text: &str, variant: &str) -> bool {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once(variant) {
        if !after.starts_with(|next: char| next.is_alphanumeric()) {
            return true;
        }
        rest = after;
    }
    false
}
