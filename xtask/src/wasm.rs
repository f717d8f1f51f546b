//! Builds wasm modules as they ship: release, only the listed exports, wasm-opt.
//!
//! The same way for the shipped filter, for its test build that can be made to trap and for the
//! bench's empty filter. What Envoy calls only because it is exported costs each request, so each
//! module has a list of its exports with the reason for each ([`exports`]).

mod exports;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context, Result, bail};

use crate::{
    command, reproducible,
    tools::{node, rust},
    workspace,
};

/// Largest shipped module, in bytes: the budget that the design gives.
const SIZE_LIMIT: u64 = 400_000;

/// The workspace's profile for modules: release, with an eye on size.
const PROFILE: &str = "module";

/// A module to build.
struct Module {
    package: &'static str,
    /// The library's file name, without `.wasm`.
    library: &'static str,
    features: &'static [&'static str],
    /// The list of its exports, in the repository; without one all stay.
    exports: Option<&'static str>,
    /// Where cargo builds it. Cargo gives a package's module one name whatever its features, so
    /// two kinds of one package need two folders.
    target: PathBuf,
    output: PathBuf,
}

/// `cargo xtask wasm`
pub(crate) fn run() -> Result<()> {
    let module = shipped()?;
    let bytes = std::fs::metadata(&module)?.len();
    let script = "console.log(require('zlib').gzipSync(require('fs').readFileSync(\
                  process.argv[1]), {level: 9}).length)";
    let zipped = node::node()?.evaluate(script, &[OsString::from(&module)])?;
    println!(
        "dist/entra_filter.wasm: {bytes} bytes, {} bytes gzip (limit {SIZE_LIMIT})",
        zipped.trim()
    );
    Ok(())
}

/// The module that ships.
pub(crate) fn shipped() -> Result<PathBuf> {
    let output = build(&Module {
        package: "filter",
        library: "entra_filter",
        features: &[],
        exports: Some("filter/exports.txt"),
        target: workspace::target()?,
        output: workspace::shipped_module(),
    })?;
    let bytes = std::fs::metadata(&output)?.len();
    if bytes > SIZE_LIMIT {
        bail!("{} has {bytes} bytes, the limit is {SIZE_LIMIT}", output.display());
    }
    Ok(output)
}

/// The same filter with a request that traps the VM, for the tests of what happens then.
pub(crate) fn trapping() -> Result<PathBuf> {
    let target = workspace::target()?.join("trap");
    build(&Module {
        package: "filter",
        library: "entra_filter",
        features: &["trap"],
        exports: Some("filter/exports.txt"),
        output: target.join("entra_filter_trap.wasm"),
        target,
    })
}

/// A filter that does nothing: what the bench compares with.
pub(crate) fn empty() -> Result<PathBuf> {
    let target = workspace::target()?;
    build(&Module {
        package: "empty-filter",
        library: "empty_filter",
        features: &[],
        exports: None,
        output: target.join("bench/empty_filter.wasm"),
        target,
    })
}

fn build(module: &Module) -> Result<PathBuf> {
    rust::target(rust::WASI)?;
    let kind = module.features.iter().map(|feature| format!(" ({feature})")).collect::<String>();
    command::step(&format!("building {} for {}{kind}", module.package, rust::WASI));
    let mut cargo = command::cargo();
    reproducible::prepare(&mut cargo, rust::WASI, &[])?;
    cargo.args(["build", "--locked", "--profile", PROFILE, "--target", rust::WASI]);
    cargo.args(["--package", module.package, "--features", &module.features.join(",")]);
    command::run(cargo.arg("--target-dir").arg(&module.target))?;
    let built = module.target.join(rust::WASI).join(PROFILE);
    let built = built.join(format!("{}.wasm", module.library));
    let list = module.exports.map(|list| workspace::root().join(list));
    let mut inputs = vec![built.clone(), workspace::pins().join("npm/package-lock.json")];
    inputs.extend(list.clone());
    if !is_newer(&module.output, &inputs) {
        let exports = list.map(|list| exports::read(&list)).transpose()?;
        optimise(&built, exports.as_deref(), &module.output)?;
    }
    Ok(module.output.clone())
}

/// Whether the output is there and younger than all that it is made from.
fn is_newer(output: &Path, inputs: &[PathBuf]) -> bool {
    let changed = |path: &Path| path.metadata().and_then(|data| data.modified()).ok();
    let inputs: Option<Vec<SystemTime>> = inputs.iter().map(|input| changed(input)).collect();
    let newest = inputs.and_then(|times| times.into_iter().max());
    changed(output).zip(newest).is_some_and(|(output, newest)| output > newest)
}

/// Drops the exports that are not listed, with all that only they reach, and optimises.
fn optimise(built: &Path, exports: Option<&[String]>, output: &Path) -> Result<()> {
    let node = node::node()?;
    // Under another name until it is whole: a broken off run leaves nothing that looks done.
    let partial = output.with_extension("partial.wasm");
    workspace::create_folder(output.parent().unwrap_or(output))?;
    std::fs::copy(built, &partial)?;
    if let Some(exports) = exports {
        command::step("removing the exports that are not listed");
        exports::prune(&node, &partial, exports)?;
    }
    command::step("wasm-opt -O3");
    let mut optimiser = node.binaryen("wasm-opt")?;
    optimiser.args(FEATURES).args(["-O3", "--strip-debug", "--strip-producers"]);
    command::run(optimiser.arg(&partial).arg("-o").arg(&partial))?;
    if let Some(exports) = exports {
        exports::check_exact(&node, &partial, exports)?;
    }
    std::fs::rename(&partial, output).with_context(|| format!("cannot write {}", output.display()))
}

/// What rustc uses of wasm for this target; the module itself does not say so once stripped.
const FEATURES: [&str; 6] = [
    "--enable-bulk-memory",
    "--enable-mutable-globals",
    "--enable-multivalue",
    "--enable-nontrapping-float-to-int",
    "--enable-reference-types",
    "--enable-sign-ext",
];
