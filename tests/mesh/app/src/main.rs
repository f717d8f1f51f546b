//! The application and the client of the mesh tests, as one static program for pods.
//!
//! `serve` plays an application that writes down whatever reaches it; the other commands are what
//! somebody inside a container could try. It knows nothing of tokens, Entra or the sidecar. Every
//! line of its output is one JSON object, which tests read from the container's log.

mod arguments;
mod call;
mod events;
mod http;
mod raw;
mod serve;

use std::process::ExitCode;

use arguments::Arguments;

const USAGE: &str = "\
Application and client of the mesh tests. Every line of output is a JSON object.

mesh-app serve [--address IP] [--http PORT] [--health PORT] [--silent PORT] [--tcp PORT]
               [--banner PORT] [--udp-echo PORT] [--delay-ms N]
  Any of the ports may stand several times; 0 takes a free one, which is said.
  --http      HTTP/1.1 and HTTP/2 without TLS: 200 with the request as it was seen. Also
              /healthz /readyz /status/CODE /delay/MS /stream/CHUNKS/MS, Upgrade (echoes bytes),
              and gRPC calls, answered with their own message and trailers
  --health    /healthz and /readyz whose connections are not written down
  --silent    HTTP/1.1: 200 without a body to everything, and nothing is written down: as little
              as an application can do, for whoever measures what is in front of it
  --tcp       writes down bytes, answers nothing
  --banner    as --tcp, but speaks first
  --udp-echo  sends back what comes

mesh-app call METHOD URL [-H 'NAME: VALUE']... [--data TEXT] [--http2] [--connect HOST:PORT]
              [--repeat N] [--interval-ms M] [--keep-alive] [--timeout-ms T] [--quiet]
  Every answer and failure, then a summary; exit 0 when every request was answered, whatever the
  answer was. --connect goes there and leaves the URL as it is.
mesh-app unix PATH METHOD TARGET [options of call]
mesh-app tcp HOST:PORT [--data TEXT | --hex HEX] [--timeout-ms T]
  What came back and how it ended: closed, reset, open (nothing more in time) or refused; exit 0
  when there was a connection at all.
mesh-app udp HOST:PORT TEXT [--timeout-ms T]";

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("mesh-app: {error}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// Whether what was asked for went well.
fn run() -> Result<bool, String> {
    let mut arguments = Arguments::of_process();
    let command = arguments.word("a command")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    match command.as_str() {
        "serve" => runtime.block_on(serve::run(serve::Ports::read(arguments)?)),
        "call" => runtime.block_on(call::run(call::Plan::of_url(arguments)?)),
        "unix" => runtime.block_on(call::run(call::Plan::of_socket(arguments)?)),
        "tcp" => runtime.block_on(raw::tcp(raw::Plan::read(arguments)?)),
        "udp" => runtime.block_on(raw::udp(raw::Plan::read(arguments)?)),
        "--help" => {
            println!("{USAGE}");
            Ok(true)
        }
        other => Err(format!("unknown command {other}")),
    }
}
