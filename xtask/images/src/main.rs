//! The images: `build` makes an OCI layout of what xtask compiled, `push` sends it to a registry.
//!
//! No container engine: a layer is a tar file ([`layer`]), an image a few JSON documents
//! ([`image`], [`oci`]) in a folder ([`layout`]), a push a handful of HTTP requests
//! ([`registry`]). The same input gives the same digests: no time, user or path of the machine
//! goes into any of it.

mod address;
mod build;
mod elf;
mod image;
mod layer;
mod layout;
mod login;
mod oci;
mod push;
mod registry;
mod sbom;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// Builds the OCI images without a container engine, and pushes them.
#[derive(Parser)]
#[command(name = "images")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Writes an OCI layout with all images and their bills of materials.
    Build(build::Input),
    /// Pushes a layout, and reads back what the registry then serves.
    Push {
        /// The layout's folder.
        #[arg(long, value_name = "FOLDER")]
        layout: PathBuf,
        /// `HOST[:PORT][/PREFIX]`; `http://` only before a loopback or private address.
        registry: String,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Build(input) => build::run(&input),
        Command::Push { layout, registry } => push::run(&layout, &registry),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("images: {error:#}");
            ExitCode::FAILURE
        }
    }
}
