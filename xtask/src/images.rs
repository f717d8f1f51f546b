//! `cargo xtask images` and `cargo xtask push REGISTRY`: OCI images without a container engine.
//!
//! Here is what compiles: the filter's module, and the broker as a static program for each
//! machine. The images crate makes images of it and pushes them.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::{
    command, reproducible,
    tools::{python, rust, zig},
    wasm, workspace,
};

/// The machines that the broker is built for, with Rust's name of each. The first must be had.
const MACHINES: [(&str, &str); 2] =
    [("amd64", "x86_64-unknown-linux-musl"), ("arm64", "aarch64-unknown-linux-musl")];

/// Largest broker, in bytes: it runs once per pod.
const SIZE_LIMIT: u64 = 8_000_000;

/// The pin of the package whose roots go into the broker's image.
const ROOTS: &str = "certifi";

/// `cargo xtask images`
pub(crate) fn run() -> Result<()> {
    let module = wasm::shipped()?;
    let roots = workspace::pins().join("roots.txt");
    let version = pinned(&workspace::read(&roots)?)?;
    let roots = python::packages("roots", &roots)?.join("certifi/cacert.pem");
    let mut program = program("build");
    program.arg("--layout").arg(layout()).arg("--workspace").arg(workspace::root());
    program.arg("--module").arg(module).arg("--roots").arg(roots);
    program.args(["--roots-source", &format!("{ROOTS} {version}"), "--rust", &rust_version()?]);
    for (machine, target) in MACHINES {
        if let Err(error) = rust::target(target) {
            if machine == "amd64" {
                return Err(error);
            }
            // An index without a machine is still right, but nobody must take it for whole.
            eprintln!("\nWARNING: no image for {machine}: {error:#}\n");
            continue;
        }
        let broker = release("token-broker", target)?;
        let bytes = std::fs::metadata(&broker)?.len();
        println!("token-broker for {machine}: {bytes} bytes (limit {SIZE_LIMIT})");
        if bytes > SIZE_LIMIT {
            bail!("{} has {bytes} bytes, the limit is {SIZE_LIMIT}", broker.display());
        }
        let broker = broker.to_str().context("the target folder's name is no text")?;
        program.args(["--broker", &format!("{machine},{target},{broker}")]);
    }
    commit(&mut program);
    command::step("packing the images into dist/images");
    command::run(&mut program)
}

/// `cargo xtask push REGISTRY[/PREFIX]`
pub(crate) fn push(arguments: &[&str]) -> Result<()> {
    let [registry] = arguments else { bail!("push REGISTRY[/PREFIX]") };
    // What is pushed is what the sources say now; where nothing changed that takes seconds.
    run()?;
    command::step(&format!("pushing to {registry}"));
    command::run(program("push").arg("--layout").arg(layout()).args(["--", registry]))
}

/// The images, as an OCI layout.
pub(crate) fn layout() -> PathBuf {
    workspace::root().join("dist/images")
}

/// The images crate's program.
fn program(name: &str) -> std::process::Command {
    let mut program = command::cargo();
    program.args(["run", "--locked", "--quiet", "--package", "images", "--", name]);
    program
}

/// A program of the workspace for pods of this machine's kind: static.
pub(crate) fn static_program(package: &str) -> Result<PathBuf> {
    let [(_, target), _] = MACHINES;
    rust::target(target)?;
    release(package, target)
}

/// A program for a target: static, and the same bytes from the same sources.
fn release(package: &str, target: &str) -> Result<PathBuf> {
    command::step(&format!("building {package} for {target}"));
    let folder = workspace::target()?;
    let mut cargo = command::cargo();
    zig::compile_c(&mut cargo, target, &folder.join("zig").join(target))?;
    // Rust's own linker and start files; zig's would come twice.
    let linker = ["-Clinker=rust-lld", "-Clinker-flavor=ld.lld", "-Clink-self-contained=yes"];
    reproducible::prepare(&mut cargo, target, &linker)?;
    cargo.args(["build", "--locked", "--release", "--target", target]);
    cargo.args(["--package", package, "--bin", package]);
    command::run(cargo.arg("--target-dir").arg(&folder))?;
    Ok(folder.join(target).join("release").join(package))
}

/// The commit and its time, which go into the images instead of the time of the build.
fn commit(program: &mut std::process::Command) {
    let git = |arguments: &[&str]| {
        let output = command::program("git").args(arguments).env("TZ", "UTC0").output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let time = "--date=format-local:%Y-%m-%dT%H:%M:%SZ";
    let known = git(&["rev-parse", "HEAD"]).zip(git(&["log", "-1", "--format=%cd", time]));
    let Some((revision, created)) = known else {
        eprintln!("\nWARNING: no git commit is known: the images carry no revision\n");
        program.args(["--created", "1970-01-01T00:00:00Z"]);
        return;
    };
    let changed = git(&["status", "--porcelain"]).is_none_or(|changes| !changes.is_empty());
    if changed {
        eprintln!("\nWARNING: there are uncommitted changes: the revision is marked with it\n");
    }
    let mark = if changed { "-modified" } else { "" };
    program.args(["--revision", &format!("{revision}{mark}"), "--created", &created]);
}

fn rust_version() -> Result<String> {
    let answer = command::output(command::program("rustc").arg("--version"))?;
    Ok(answer.split(' ').nth(1).context("rustc names no version")?.to_owned())
}

/// The version in a pin: `certifi==2026.10.18 \`.
fn pinned(pin: &str) -> Result<String> {
    let version = pin.lines().find_map(|line| line.strip_prefix(ROOTS)?.strip_prefix("=="));
    let version = version.and_then(|rest| rest.split(' ').next());
    Ok(version.context("the pin of the roots names no version")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_the_roots_is_the_pinned_one() {
        let pin = "# certifi==1\ncertifi==2026.10.18 \\\n    --hash=sha256:00\n";
        assert_eq!(pinned(pin).unwrap(), "2026.10.18");
        assert!(pinned("# nothing").is_err());
        pinned(&workspace::read(&workspace::pins().join("roots.txt")).unwrap()).unwrap();
    }
}
