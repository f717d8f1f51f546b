//! `entra-sidecar`: the command line tool of the person who writes policy.
//!
//! It reads configurations with the readers of those who run on them, and puts requests to the
//! filter's own decisions; nothing is decided here. It makes no connection. Exit codes: 0 all is
//! well, 1 something is wrong with what was looked at (each command says what), 2 it could not be
//! looked at.

mod cases;
mod check;
mod destinations;
mod explain;
mod find;
mod istio;
mod key_file;
mod output;
mod policy_file;
mod request;
mod schema;
mod test;
mod test_claims;
mod test_key;
mod test_token;
mod time;
mod tree;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::output::{Failure, Output};

/// Checks configurations of Entra Sidecar, explains its decisions, and tests them.
#[derive(Debug, Parser)]
#[command(name = "entra-sidecar", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::Arguments),
    Schema(schema::Arguments),
    Explain(explain::Arguments),
    Test(test::Arguments),
    TestToken(test_token::Arguments),
    Istio(istio::Arguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Check(arguments) => check::run(&arguments),
        Command::Schema(arguments) => schema::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::TestToken(arguments) => test_token::run(&arguments),
        Command::Istio(arguments) => istio::run(&arguments),
    };
    done.map_or_else(Failure::report, Output::write)
}
