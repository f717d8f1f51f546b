//! What the documents name must exist, and what must be documented is.

use std::path::Path;

use crate::{
    none,
    tree::{self, File},
};

/// Every reason of the policy: variant and code, read from the one list of them.
pub(crate) fn reasons() -> Vec<(String, String)> {
    let text = tree::read("policy/src/decision.rs");
    let mut reasons = Vec::new();
    for line in text.lines() {
        // `    TokenExpired = "token_expired", InvalidToken;`
        if let Some((variant, rest)) = line.trim().split_once(" = \"")
            && let Some((code, rest)) = rest.split_once("\", ")
            && rest.ends_with(';')
        {
            reasons.push((variant.to_owned(), code.to_owned()));
        }
    }
    assert!(reasons.len() > 20, "the list of reasons in policy/src/decision.rs is not found");
    reasons
}

/// Stand for any file, or for one that is not there on purpose.
const NOT_MEANT: [&str; 3] = ["foo.rs", "foo/bar.rs", "mod.rs"];

#[test]
fn paths_in_documents_exist() {
    let names: Vec<String> = tree::files(&["rs", "md", "yaml", "toml", "txt", "json", "py"])
        .into_iter()
        .map(|file| file.path)
        .collect();
    let mut missing = Vec::new();
    for document in tree::files(&["md"]) {
        for (path, line) in backticked(&document) {
            if !exists(&document.path, &path, &names) {
                missing.push(format!("{}:{line}: `{path}`", document.path));
            }
        }
    }
    none("paths that are not there", missing);
}

/// What stands in backticks and reads as a path in this repository, with its line.
fn backticked(document: &File) -> Vec<(String, usize)> {
    let mut paths = Vec::new();
    let mut in_code_block = false;
    for (index, line) in document.text.lines().enumerate() {
        in_code_block ^= line.trim_start().starts_with("```");
        if in_code_block {
            continue;
        }
        for word in line.split('`').skip(1).step_by(2) {
            if reads_as_path(word) {
                paths.push((word.to_owned(), index.wrapping_add(1)));
            }
        }
    }
    paths
}

fn reads_as_path(word: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "._-/".contains(letter);
    if word.starts_with('/') || NOT_MEANT.contains(&word) || !word.chars().all(plain) {
        return false;
    }
    let first = word.split('/').next().unwrap_or_default();
    let ending = Path::new(word).extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let is_file = ["rs", "md", "yaml", "toml", "lock", "wasm"].contains(&ending);
    is_file || (word.contains('/') && tree::root().join(first).exists())
}

/// Beside the document, from the top folder, as the end of a file's path, or among what is built.
fn exists(document: &str, path: &str, names: &[String]) -> bool {
    let folder = Path::new(document).parent().unwrap_or(Path::new(""));
    let first = path.split('/').next().unwrap_or_default();
    tree::root().join(path).exists()
        || tree::root().join(folder).join(path).exists()
        || tree::BUILT.contains(&first)
        || names.iter().any(|name| name.ends_with(&format!("/{path}")))
}

#[test]
fn no_file_names_a_place_outside_the_repository() {
    let homes = ["home", "root", "Users", "work"].map(|folder| format!("/{folder}/"));
    let mut found = Vec::new();
    let every = ["rs", "md", "yaml", "toml", "lock", "json", "txt", "py", "sh"];
    for file in tree::files(&every) {
        for (number, line) in file.text.lines().enumerate() {
            let elsewhere = homes.iter().any(|home| names_folder(line, home))
                || (!file.path.ends_with(".rs") && leaves(&file.path, line));
            if elsewhere {
                found.push(format!("{}:{}: {}", file.path, number.wrapping_add(1), line.trim()));
            }
        }
    }
    none("places that only one machine has", found);
}

/// Whether a line has the folder at the beginning of an absolute path.
fn names_folder(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line.get(..at).and_then(|before| before.chars().next_back());
        before.is_none_or(|letter| " \"'`(=:".contains(letter))
    })
}

/// Whether `../` climbs above the top folder from where the file is.
fn leaves(path: &str, line: &str) -> bool {
    let depth = path.matches('/').count();
    line.contains(&"../".repeat(depth.wrapping_add(1)))
}

#[test]
fn every_reason_is_in_the_troubleshooting_document() {
    let document = tree::read("docs/troubleshooting.md");
    let missing =
        reasons().into_iter().filter(|(_, code)| !document.contains(&format!("`{code}`")));
    none("reasons without help", missing.map(|(_, code)| code).collect());
}

/// Reasons for which a known attack needs no test here.
const EXCUSES: [&str; 2] = ["not our component: ", "later: "];

#[test]
fn every_attack_has_a_test_or_a_reason() {
    rows_have_a_test_or_a_reason("docs/threats.md", 50);
}

#[test]
fn every_way_around_in_a_mesh_has_a_test_or_a_reason() {
    rows_have_a_test_or_a_reason("docs/mesh-security.md", 25);
}

/// Looks at the last cell of each row with an id; there are more such rows than `least`.
fn rows_have_a_test_or_a_reason(document: &str, least: usize) {
    let tests = test_names();
    let mut wrong = Vec::new();
    let mut rows = 0_usize;
    for line in tree::read(document).lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, id, .., answer, _] = cells.as_slice() else { continue };
        if !is_row_id(id) {
            continue;
        }
        rows = rows.wrapping_add(1);
        let named: Vec<&str> = answer.split('`').skip(1).step_by(2).collect();
        let excused = EXCUSES
            .iter()
            .any(|excuse| answer.split_once(excuse).is_some_and(|(_, why)| !why.trim().is_empty()));
        if named.is_empty() && !excused {
            wrong.push(format!("{id}: neither a test nor one of {EXCUSES:?}"));
        }
        if !excused {
            let unknown = named.iter().filter(|name| !tests.contains(**name));
            wrong.extend(unknown.map(|name| format!("{id}: there is no test `{name}`")));
        }
    }
    assert!(rows > least, "{document} has only {rows} rows with an id");
    none(&format!("in {document}"), wrong);
}

/// `J01`, `W12`: a letter and two figures.
fn is_row_id(cell: &str) -> bool {
    let mut letters = cell.chars();
    letters.next().is_some_and(|first| first.is_ascii_uppercase())
        && cell.len() == 3
        && letters.all(|letter| letter.is_ascii_digit())
}

/// The names of all functions in test code; a name that is no test's is found in review.
fn test_names() -> std::collections::BTreeSet<String> {
    let mut names = std::collections::BTreeSet::new();
    for file in tree::files(&["rs"]) {
        for line in file.test_text().lines() {
            let line = line.trim_start().trim_start_matches("async ");
            if let Some((name, _)) = line.strip_prefix("fn ").and_then(|rest| rest.split_once('('))
            {
                names.insert(name.to_owned());
            }
        }
    }
    names
}
