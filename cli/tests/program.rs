//! Runs the program in a folder of its own.

use std::{path::Path, process::Command, sync::LazyLock};

use tempfile::TempDir;

pub(crate) const TENANT: &str = "8f2c3a6e-5b1d-4c47-9c0a-2d7e5f90b1c3";
pub(crate) const API: &str = "3f1b5b1e-0d2c-4a39-9a63-3f6c2c7a9d10";
/// When the requests of the tests come.
pub(crate) const AT: &str = "2026-11-24T12:00:00Z";

/// The repository's top folder.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// A folder with files, in which the program runs.
pub(crate) struct Folder(TempDir);

/// What the program did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Folder {
    pub(crate) fn with(files: &[(&str, &str)]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for (name, text) in files {
            folder.write(name, text);
        }
        folder
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.path().join(name)).unwrap()
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Done {
        let output = Command::new(env!("CARGO_BIN_EXE_entra-sidecar"))
            .args(arguments)
            .current_dir(self.0.path())
            .output()
            .unwrap();
        Done {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Puts a test key there. Making one takes a while: all folders have the same.
    pub(crate) fn with_key(self) -> Self {
        static MADE: LazyLock<[String; 2]> = LazyLock::new(|| {
            let folder = Folder::with(&[]);
            let arguments = ["test-token", "--new-key", "--key", "key.pem", "--keys", "keys.json"];
            assert_eq!(folder.run(&arguments).code, 0);
            ["key.pem", "keys.json"].map(|name| folder.read(name))
        });
        let [key, keys] = &*MADE;
        self.write("key.pem", key);
        self.write("keys.json", keys);
        self
    }

    /// Writes a token for the policy in `policy.yaml` into `token`.
    pub(crate) fn token(&self, claims: &str) -> String {
        let config = ["--config", "policy.yaml", "--at", AT, "--claims", claims];
        let done = self.run(&[&["test-token", "--key", "key.pem"][..], &config].concat());
        assert_eq!(done.code, 0, "{done:?}");
        self.write("token", &done.out);
        done.out.trim().to_owned()
    }
}

impl Done {
    /// The lines of standard output that contain a text.
    pub(crate) fn lines_with(&self, part: &str) -> Vec<&str> {
        self.out.lines().filter(|line| line.contains(part)).collect()
    }

    #[track_caller]
    pub(crate) fn says(&self, part: &str) {
        assert!(self.out.contains(part), "{part}\nis not in\n{}{}", self.out, self.err);
    }

    #[track_caller]
    pub(crate) fn is_silent_about(&self, part: &str) {
        assert!(!self.out.contains(part) && !self.err.contains(part), "{part}\nis in\n{self:?}");
    }
}

/// An inbound policy with these rules, in YAML's flow form.
pub(crate) fn policy(rules: &str) -> String {
    format!(
        "direction: inbound\ntenants: [{TENANT}]\naudiences: [{API}]\n\
         broker: {{cluster: token_broker}}\nrules: {rules}\n"
    )
}
