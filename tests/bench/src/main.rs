//! `cargo xtask bench`: what the filter costs Envoy, beside Envoy's own filters.
//!
//! One Envoy holds all rows side by side, each on a listener of its own. Rows take turns in short
//! rounds, and each is compared with its baseline of the same turn. What is compared is CPU of the Envoy process per request: it does
//! not change with how fast the load generator is, and little with what else the machine does.

mod broker;
mod caller_tokens;
mod demo_policy;
mod envoy;
mod load;
mod report;
mod rounds;
mod rows;
mod stage;
mod statistics;
mod upstream;

use std::{
    env,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    demo_policy::DemoPolicy,
    envoy::Program,
    load::{Connections, RequestTexts},
    report::Report,
    rounds::{Effort, Samples, Traffic},
    stage::Stage,
    upstream::Certificate,
};

/// More than the decision cache's bytes can hold, so that shown in turn none is ever found there.
const TOKENS: usize = 12_000;

/// A run that ends within 90 s.
const QUICK: Effort = Effort {
    cycles: 60,
    passes: 4,
    saturating: 128,
    paced: 30,
    interval: Duration::from_micros(500),
};
/// A run whose ratios can be quoted.
const FULL: Effort = Effort { cycles: 400, ..QUICK };

fn main() -> Result<()> {
    let began = Instant::now();
    let options = Options::read(env::args().skip(1))?;
    let program = Program::new(from_environment("ENVOY")?.into());
    let module = from_environment("ENTRA_FILTER_WASM")?;
    let empty_wasm = from_environment("BENCH_EMPTY_WASM")?;
    let policy = DemoPolicy::read(include_str!("../../../envoy.yaml"), &module)?;
    let version = program.version()?;
    let directory = tempfile::Builder::new().prefix("bench-").tempdir()?;

    println!("signing {TOKENS} tokens");
    let callers = caller_tokens::sign(&policy, TOKENS)?;
    let injected = stage::injected_token();
    let stage = Stage {
        directory: directory.path(),
        empty_wasm: &empty_wasm,
        policy: &policy,
        callers: &callers,
        injected: &injected,
    };
    let certificate = Certificate::make(directory.path())?;
    let keys = callers.key_sets.clone();
    broker::serve(&directory.path().join("broker.sock"), keys, injected.clone())?;

    // What is started inherits the core, so Envoy has the first and everything else the second.
    println!("{}", report::machine(&version));
    let pinned = envoy::stay_on_core(0).is_ok();
    let measured = program.start(directory.path(), "measured", &stage.measured()?)?;
    if pinned {
        envoy::stay_on_core(1)?;
    }
    let measured_rows: Vec<_> = rows::ROWS
        .into_iter()
        .filter(|row| {
            env::var_os("PEERS_ONLY").is_none()
                || !row.name.contains("bound_hit") && !row.name.contains("bound_first")
        })
        .collect();
    let mut samples = Samples::default();
    let traffic =
        Traffic { path: &policy.path, tokens: &callers.tokens, certificate: &certificate };
    let outcome = refuses_strangers(directory.path(), &policy).and_then(|()| {
        let effort = options.effort;
        rounds::measure(&measured, directory.path(), &measured_rows, &traffic, effort, &mut samples)
    });
    outcome.with_context(|| format!("Envoy's log ends:\n{}", measured.log()))?;
    let report = Report {
        samples: &samples,
        envoy: &version,
        module_bytes: std::fs::metadata(&module)?.len(),
    };
    println!("{}", report.text());
    println!("{:.0} s", began.elapsed().as_secs_f64());
    options.json.map_or(Ok(()), |file| report.write_json(&file))
}

/// A filter that lets everybody pass would look fast: each guarded row must refuse a stranger.
fn refuses_strangers(directory: &Path, policy: &DemoPolicy) -> Result<()> {
    for name in rows::GUARDED {
        if env::var_os("PEERS_ONLY").is_some() && name.starts_with("inbound") {
            continue;
        }
        let mut stranger = RequestTexts::new(&policy.path, &[]);
        let socket = directory.join(format!("{name}.sock"));
        let status = Connections::status_of(&socket, &mut stranger)?;
        if !status.starts_with("HTTP/1.1 401 ") {
            bail!("{name} does not refuse a request without a token: {status}");
        }
    }
    Ok(())
}

struct Options {
    effort: Effort,
    json: Option<PathBuf>,
}

impl Options {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self { effort: FULL, json: None };
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => options.effort = QUICK,
                "--json" => {
                    options.json = Some(arguments.next().context("--json wants a file")?.into());
                }
                _ => bail!("unknown argument {argument}; bench [--quick] [--json FILE]"),
            }
        }
        Ok(options)
    }
}

fn from_environment(name: &str) -> Result<String> {
    env::var(name).with_context(|| format!("{name} is not set; start this by `cargo xtask bench`"))
}
