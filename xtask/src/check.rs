//! `cargo xtask check`: everything that is wrong with the text, without running the product.

use anyhow::{Result, bail};

use crate::{
    command, docs,
    tools::rust::{self, WASI},
};

/// Runs every step, also after one failed, and says at the end which did.
pub(crate) fn run() -> Result<()> {
    rust::component("rustfmt", "fmt")?;
    rust::component("clippy", "clippy")?;
    rust::target(WASI)?;
    let steps: [Step; 6] = [
        ("format", || cargo(&["fmt", "--all", "--check"])),
        // The filters exist as wasm only, and what is large depends on the size of a pointer.
        ("clippy on the host", || {
            let others = ["--exclude", "filter", "--exclude", "empty-filter"];
            clippy(&[&["--workspace", "--all-targets"], &others[..]].concat())
        }),
        ("clippy on wasm", || {
            clippy(&["--package", "filter", "--package", "empty-filter", "--target", WASI])
        }),
        ("clippy on the trapping filter", || {
            clippy(&["--package", "filter", "--features", "trap", "--target", WASI])
        }),
        ("tidy tests", || cargo(&["test", "--locked", "--package", "xtask", "--quiet"])),
        ("generated documents", docs::check),
    ];
    let mut failed = Vec::new();
    for (name, step) in steps {
        command::step(name);
        if let Err(error) = step() {
            eprintln!("{error:#}");
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("check failed: {}", failed.join(", "));
    }
    println!("check passed");
    Ok(())
}

type Step = (&'static str, fn() -> Result<()>);

fn cargo(arguments: &[&str]) -> Result<()> {
    command::run(command::cargo().args(arguments))
}

fn clippy(arguments: &[&str]) -> Result<()> {
    let deny = ["--", "--deny", "warnings"];
    command::run(command::cargo().args(["clippy", "--locked"]).args(arguments).args(deny))
}
