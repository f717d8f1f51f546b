//! The examples in the documents do what the documents say.

use std::{os::unix::fs::symlink, path::Path, process::Command};

use crate::program::{Folder, repository};

/// A fenced block of a document: its language and its lines.
fn blocks(document: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in document.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(language), None) => open = Some((language.to_owned(), String::new())),
            (None, Some((_, text))) => *text += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    blocks
}

/// Runs a command line in a folder, with the program in its path.
fn shell(folder: &Folder, line: &str) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_entra-sidecar")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let output = Command::new("sh")
        .args(["-c", &format!("{{ {line}\n}} 2>&1")])
        .current_dir(folder.path())
        .env("PATH", path)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Text without what may change while the example stays true: the ids of test keys, which are made
/// anew each time, and the line numbers of `envoy.yaml`.
fn comparable(text: &str) -> String {
    let mut plain = text.to_owned();
    for before in ["entra-sidecar-test-", "envoy.yaml:"] {
        let mut parts = plain.split(before);
        let first = parts.next().unwrap_or_default().to_owned();
        plain = parts.fold(first, |plain, part| {
            plain + before + part.trim_start_matches(|letter: char| letter.is_ascii_hexdigit())
        });
    }
    plain
}

#[test]
fn the_examples_of_the_document_print_what_it_shows() {
    let folder = Folder::with(&[]);
    for name in ["envoy.yaml", "docs"] {
        symlink(repository().join(name), folder.path().join(name)).unwrap();
    }
    let document = std::fs::read_to_string(repository().join("docs/cli.md")).unwrap();
    let mut commands = 0;
    for (language, text) in blocks(&document) {
        // A file says its name in its first line.
        let name = text.lines().next().and_then(|line| line.strip_prefix("# "));
        if let ("yaml", Some(name)) =
            (language.as_str(), name.filter(|name| name.ends_with(".yaml")))
        {
            folder.write(name, &text);
        }
        if language != "console" {
            continue;
        }
        for example in text.split("$ ").filter(|example| !example.is_empty()) {
            let mut lines = example.lines().peekable();
            let mut command = lines.next().unwrap().to_owned();
            while command.ends_with('\\') {
                command += &format!("\n{}", lines.next().unwrap());
            }
            let expected: String = lines.map(|line| format!("{line}\n")).collect();
            let printed = shell(&folder, &command);
            let (printed, expected) = (comparable(&printed), comparable(&expected));
            assert_eq!(printed.trim_end(), expected.trim_end(), "$ {command}\n{printed}");
            commands += 1;
        }
    }
    assert!(commands > 8, "docs/cli.md has only {commands} examples");
}

#[test]
fn the_workflow_of_the_readme_passes_on_this_repository() {
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let folder = Folder::with(&[]);
    for name in ["envoy.yaml", "docs"] {
        symlink(repository().join(name), folder.path().join(name)).unwrap();
    }
    let mut steps = 0;
    for line in readme.lines() {
        let Some(command) = line.trim().strip_prefix("- run: entra-sidecar ") else { continue };
        let printed = shell(&folder, &format!("entra-sidecar {command}; echo ended $?"));
        assert!(printed.ends_with("ended 0\n"), "{command}\n{printed}");
        steps += 1;
    }
    assert_eq!(steps, 2);
}
