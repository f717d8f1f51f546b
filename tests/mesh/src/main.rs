//! `mesh up | down | status`: what `cargo xtask mesh` hands over to.

use std::{path::Path, process::ExitCode};

use anyhow::{Result, bail};
use mesh::{Mesh, down, namespace, status, up};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mesh: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["up"] => up::up(),
        ["up-inside"] => up::inside(),
        ["down"] => down::down(),
        ["status"] => status::status(),
        ["status-inside"] => status::inside(),
        ["status", "--leftovers"] => status::nothing_left(),
        ["enter", ..] => up::enter(arguments.get(1..).unwrap_or_default()),
        ["istio", file] => Mesh::running()?.apply_istio_file(Path::new(file)),
        ["init"] => namespace::init(),
        _ => bail!("up | down | status [--leftovers] | enter COMMAND | istio VALUES"),
    }
}
