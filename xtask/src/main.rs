//! Everything a contributor types: `cargo xtask <command>`.
//!
//! This crate runs other programs and knows nothing of tokens. It installs what is missing
//! ([`tools`]), builds, and starts the e2e crate's programs with the paths in the environment
//! ([`stack`]). It compiles before every command, so it has next to no dependencies.

mod bench;
mod check;
mod command;
mod demo;
mod docs;
mod fuzz;
mod images;
mod mesh;
mod mutants;
mod reproducible;
mod stack;
mod summary;
mod test;
mod tools;
mod wasm;
mod workspace;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask <command>

  demo [--once]             the whole product on this machine, with a fake Entra;
                            --once checks every answer and ends
  test [NAME]               every test, or those whose name contains NAME
  test clients              Microsoft's own libraries against the broker and the fake Entra
  check                     format, clippy on host and wasm, tidy tests, generated documents
  wasm                      the shipped filter: dist/entra_filter.wasm
  images                    the filter and the broker as OCI images: dist/images
  push REGISTRY[/PREFIX]    those images into a registry, with the login of `docker login`
  bench [--quick] [--mesh] [--json FILE]
                            added CPU per request, beside Envoy's own filters; --mesh: as root,
                            with pods of a mesh beside them, Istio alone and its own policies
  bench --broker [--json FILE]
                            what the token broker takes of its pod, and how fast it answers
  docs                      writes docs/configuration.md from the configuration types
  mutants [ARGUMENTS]       cargo-mutants over all of policy (long; arguments are passed on)
  mesh up | test [NAME] | status | enter COMMAND | down
                            as root: a real Kubernetes with Istio on this machine, its tests, a
                            command in its network
  fuzz [TARGET] [--seconds N]
                            the cargo-fuzz targets, each for N seconds (60)

What is missing is installed into .tools, by pinned version and hash; nothing goes into the system.
ENVOY, ENVOY_SMOKE, ENVOY_1_37 (_38, _39), GO, NODE and PYTHON name programs to use instead.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        [] | ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            Ok(())
        }
        ["demo", rest @ ..] => demo::run(rest),
        ["test", rest @ ..] => test::run(rest),
        ["check"] => check::run(),
        ["wasm"] => wasm::run(),
        ["images"] => images::run(),
        ["push", rest @ ..] => images::push(rest),
        ["bench", rest @ ..] => bench::run(rest),
        ["docs"] => docs::run(),
        ["mutants", rest @ ..] => mutants::run(rest),
        ["fuzz", rest @ ..] => fuzz::run(rest),
        ["mesh", rest @ ..] => mesh::run(rest),
        other => {
            eprintln!("cargo xtask: cannot read `{}`\n\n{HELP}", other.join(" "));
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ncargo xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
