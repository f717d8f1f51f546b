//! Go programs that the test mesh runs, built from pinned modules.
//!
//! Each folder of `tests/mesh/tools` is a Go module whose `tool` lines name programs and whose
//! `go.sum` pins everything by hash. What was built from it is kept outside the clone, by a hash
//! of pin and flags, so that a fresh clone on a machine that has built before compiles nothing.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{command, workspace};

/// A module with what the linker is told.
struct Module {
    name: &'static str,
    flags: &'static str,
}

/// Without its version a kubelet reports v0.0.0, and Istio does not choose native sidecars.
const KUBERNETES: &str = "-s -w -X k8s.io/component-base/version.gitVersion=v1.34.4 \
    -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=34";
const ISTIO: &str = "-s -w -X istio.io/istio/pkg/version.buildVersion=1.31.0";

const MODULES: [Module; 8] = [
    Module { name: "kubernetes", flags: KUBERNETES },
    Module { name: "istio", flags: ISTIO },
    Module { name: "coredns", flags: "-s -w" },
    Module { name: "helm", flags: "-s -w" },
    Module { name: "etcd", flags: "-s -w" },
    Module { name: "registry", flags: "-s -w" },
    Module { name: "cni", flags: "-s -w" },
    Module { name: "containerd", flags: "-s -w" },
];

/// Files of Istio's module that its proxy image holds besides programs.
const BOOTSTRAP: &str = "tools/packaging/common/envoy_bootstrap.json";

/// The folders in which the mesh's programs are.
pub(crate) fn mesh_programs(cache: &Path) -> Result<Vec<PathBuf>> {
    MODULES.iter().map(|module| built(cache, module)).collect()
}

fn built(cache: &Path, module: &Module) -> Result<PathBuf> {
    let source = workspace::root().join("tests/mesh/tools").join(module.name);
    let pin = [
        workspace::read(&source.join("go.mod"))?,
        workspace::read(&source.join("go.sum"))?,
        module.flags.to_owned(),
    ]
    .concat();
    super::cached(cache, module.name, &pin, |folder| build(module, &source, folder))
}

fn build(module: &Module, source: &Path, folder: &Path) -> Result<()> {
    let go = program()?;
    // `tool` stands for every line of the module's tool directive. Package names are printed as
    // they compile: thousands, so only a count is shown.
    let mut build = go_in(&go, source);
    build.args(["build", "-v", "-mod=readonly", "-trimpath", "-ldflags", module.flags, "-o"]);
    build.arg(folder.join("")).arg("tool");
    let mut compiled = 0_u32;
    let mut last = Vec::new();
    let status = command::each_line(&mut build, |line| {
        compiled = compiled.saturating_add(1);
        if compiled.is_multiple_of(100) {
            eprintln!("    {}: {compiled} lines of go build, now {line}", module.name);
        }
        last.push(line.to_owned());
        if last.len() > 20 {
            last.remove(0);
        }
    })?;
    if !status.success() {
        bail!("go build of {} failed: {status}\n{}", module.name, last.join("\n"));
    }
    if module.name == "istio" {
        let mut list = go_in(&go, source);
        let found = command::output(list.args(["list", "-m", "-f", "{{.Dir}}", "istio.io/istio"]))?;
        let from = Path::new(found.trim()).join(BOOTSTRAP);
        std::fs::copy(&from, folder.join("envoy_bootstrap.json"))
            .with_context(|| format!("cannot copy {}", from.display()))?;
    }
    Ok(())
}

/// The same programs on every machine: no C compiler, no settings of the person's.
fn go_in(go: &Path, source: &Path) -> std::process::Command {
    let mut command = command::program(go);
    command.current_dir(source).env("CGO_ENABLED", "0").env_remove("GOFLAGS");
    command.env("GOWORK", "off").env("GOTOOLCHAIN", "auto");
    command
}

/// `$GO`, `go` on PATH, or where its installer puts it.
fn program() -> Result<PathBuf> {
    let usual = Path::new("/usr/local/go/bin/go").to_path_buf();
    std::env::var_os("GO")
        .map(PathBuf::from)
        .or_else(|| command::on_path("go"))
        .or_else(|| usual.is_file().then_some(usual))
        .context(
            "Go is needed to build the mesh and is not on PATH: install 1.21 or later \
             (https://go.dev/dl; it fetches the version that the modules name), or name it in $GO",
        )
}
