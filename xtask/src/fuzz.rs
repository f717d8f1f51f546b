//! `cargo xtask fuzz`: the cargo-fuzz targets, each for a bounded time.

use anyhow::{Context, Result};

use crate::{command, tools, workspace};

/// Every target of `fuzz/`.
const TARGETS: [&str; 3] = ["token", "path", "challenge"];

/// `[TARGET] [--seconds N]`
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let (target, seconds) = match arguments {
        [] => (None, "60"),
        ["--seconds", seconds] => (None, *seconds),
        [target] => (Some(*target), "60"),
        [target, "--seconds", seconds] => (Some(*target), *seconds),
        _ => anyhow::bail!("fuzz [TARGET] [--seconds N], TARGET one of {TARGETS:?}"),
    };
    let seconds: u32 = seconds.parse().context("--seconds takes a number")?;
    let targets = target.map_or_else(|| TARGETS.to_vec(), |target| vec![target]);
    let program = tools::cargo::fuzz()?.join("cargo-fuzz");
    for target in targets {
        command::step(&format!("fuzzing {target} for {seconds} s"));
        let mut fuzz = command::program(&program);
        fuzz.args(["fuzz", "run", "--fuzz-dir", "fuzz", target]);
        fuzz.args(["--", &format!("-max_total_time={seconds}"), "-max_len=4096"]);
        // The pinned toolchain has the sanitizer's library; only its flag is held back for
        // nightly, and this opens it without a second toolchain.
        fuzz.env("RUSTC_BOOTSTRAP", "1");
        command::run(&mut fuzz)?;
    }
    println!("no crash; corpus in {}", workspace::root().join("fuzz/corpus").display());
    Ok(())
}
