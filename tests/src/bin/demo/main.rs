//! `cargo xtask demo`: the whole product on this machine, told as a story.
//!
//! Starts the stack with the shipped `envoy.yaml`, walks through [`story`], and then stays up for
//! the person to try, or with `--once` ends with 0 when every answer was as it should be, else 1.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "the demo: what goes wrong ends it with an error"
)]

mod story;
mod try_it;

use std::process::ExitCode;

use e2e::{fake_entra::Lifetime, stack::Stack, upstream::Reply};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let once = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => false,
        ["--once"] => true,
        _ => {
            eprintln!("usage: demo [--once]");
            return ExitCode::FAILURE;
        }
    };
    // Of its own, so that what fails with a panic ends with 1 as well.
    let demo = tokio::spawn(demo(once));
    let mut terminate = signal(SignalKind::terminate()).expect("a handler of SIGTERM");
    let succeeded = tokio::select! {
        result = demo => result.unwrap_or(false),
        _ = tokio::signal::ctrl_c() => !once,
        _ = terminate.recv() => !once,
    };
    if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn demo(once: bool) -> bool {
    println!("Starting a fake Entra, the token broker, a sample application and Envoy …");
    let stack = Stack::builder()
        .shipped_ports()
        .capable()
        .entra(|entra| entra.set_lifetime(story::SHORT_LIFE))
        .start()
        .await;
    stack.graph.respond_with(|_| users());
    let succeeded = story::tell(&stack).await;
    if !once && succeeded {
        stack.entra.set_lifetime(Lifetime::default());
        try_it::stay_up(&stack).await;
    }
    succeeded
}

/// What Graph answers: nothing of what the caller sent.
fn users() -> Reply {
    Reply::json(&json!({"value": [{"displayName": "Ada Lovelace"}]}))
}
