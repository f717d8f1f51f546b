//! `cargo xtask bench`: what the filter costs Envoy, beside Envoy's own filters.
//!
//! One Envoy holds all rows side by side, each on a listener of its own. Rows take turns in short
//! rounds, and each is compared with its baseline of the same turn. What is compared is CPU of
//! the Envoy process per request: it does not change with how fast the load generator is, and
//! little with what else the machine does.

mod broker;
mod caller_tokens;
mod demo_policy;
mod envoy;
mod evidence;
mod load;
mod replay;
mod report;
mod rounds;
mod rows;
mod stage;
mod statistics;
mod upstream;

use std::{
    env,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::{
    demo_policy::DemoPolicy,
    envoy::Program,
    replay::Replay,
    report::Table,
    rounds::{Effort, Samples, Traffic},
    rows::Row,
    stage::Stage,
    upstream::Certificate,
};

/// More than the decision cache's bytes hold, so that shown in turn none is ever found there.
const TOKENS: usize = 8_000;

/// A run that ends within 90 s.
const QUICK: Effort = Effort {
    starts: 4,
    time: Duration::from_secs(72),
    passes: 4,
    requests: 128,
    paced: 60,
    interval: Duration::from_micros(500),
};
/// A run whose ratios can be quoted.
const FULL: Effort = Effort { starts: 12, time: Duration::from_secs(420), ..QUICK };
/// For the second table, which only the full run has.
const FLATNESS: Effort = Effort { starts: 2, time: Duration::from_secs(60), ..QUICK };

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("bench: {reason:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let began = Instant::now();
    let options = Options::read(env::args().skip(1))?;
    let module = from_environment("ENTRA_FILTER_WASM")?;
    let empty_wasm = from_environment("BENCH_EMPTY_WASM")?;
    let policy = DemoPolicy::read(include_str!("../../../envoy.yaml"), &module)?;
    let program = Program::new(from_environment("ENVOY")?.into())?;
    let version = program.version()?;
    println!("{}", report::machine(&version));

    println!("signing {TOKENS} tokens");
    let callers = caller_tokens::sign(&policy, TOKENS)?;
    let injected = stage::injected_token();
    let directory = tempfile::Builder::new().prefix("entra-bench-").tempdir()?;
    let directory = directory.path();
    let keys = callers.key_sets.clone();
    broker::serve(&directory.join("broker.sock"), keys, injected.clone())?;
    let certificate = Certificate::make(directory)?;
    let bench = Bench {
        program,
        stage: Stage {
            directory,
            empty_wasm: &empty_wasm,
            policy: &policy,
            callers: &callers,
            injected: &injected,
        },
        traffic: Traffic { path: &policy.path, tokens: &callers.tokens, certificate: &certificate },
    };

    let main =
        Table::new(&bench.starts(&rows::ROWS, options.effort, began)?, &rows::ROWS, &rows::RATIOS);
    print!("{}", main.text());
    let module_bytes = std::fs::metadata(&module)?.len();
    println!("module: {module_bytes} bytes");
    let mut whole = json!({
        "envoy": version,
        "module_bytes": module_bytes,
        "rows": main.rows_json(),
        "ratios": main.ratios_json(),
        "budgets": main.budgets_json(),
    });
    let replay = bench.replay()?;
    println!("{replay}");
    if let Some(whole) = whole.as_object_mut() {
        whole.insert("replay".to_owned(), replay.json());
    }
    if options.flatness {
        let starts = bench.starts(&rows::FLATNESS, FLATNESS, Instant::now())?;
        let flatness = Table::new(&starts, &rows::FLATNESS, &rows::FLATNESS_RATIOS);
        print!("{}", flatness.text());
        if let Some(whole) = whole.as_object_mut() {
            whole.insert(
                "flatness".to_owned(),
                json!({"rows": flatness.rows_json(), "ratios": flatness.ratios_json()}),
            );
        }
    }
    println!("{:.0} s", began.elapsed().as_secs_f64());
    if let Some(file) = options.json {
        std::fs::write(file, format!("{whole:#}\n"))?;
    }
    Ok(())
}

struct Bench<'a> {
    program: Program,
    stage: Stage<'a>,
    traffic: Traffic<'a>,
}

impl Bench<'_> {
    /// Measures what a claims challenge adds to a call.
    fn replay(&self) -> Result<Replay> {
        let names: Vec<String> = (0..replay::DESTINATIONS).map(|n| format!("replay-{n}")).collect();
        let configuration = self.stage.replay_configuration(&names)?;
        let envoy = self.program.start(self.stage.directory, &configuration)?;
        envoy::divide_cores(&envoy)?;
        Replay::measure(self.stage.directory, &names, &self.traffic, self.stage.injected)
            .with_context(|| format!("Envoy's log ends:\n{}\n", envoy.log()))
    }

    /// Measures these rows side by side, in one Envoy after the other, until `effort.time` after
    /// `began`.
    fn starts(&self, rows: &[Row], effort: Effort, began: Instant) -> Result<Vec<Samples>> {
        let directory = self.stage.directory;
        let configuration = self.stage.configuration(rows)?;
        (1..=effort.starts)
            .map(|number| {
                let left = effort.time.saturating_sub(began.elapsed());
                let starts_left = effort.starts.saturating_sub(number).saturating_add(1);
                let until = Instant::now()
                    .checked_add(left.checked_div(starts_left).unwrap_or_default())
                    .context("the end of time")?;
                let envoy = self.program.start(directory, &configuration)?;
                println!("Envoy {number} of {}: {}", effort.starts, envoy::divide_cores(&envoy)?);
                evidence::strangers_are_refused(directory, self.traffic.path, rows)
                    .and_then(|()| {
                        rounds::measure(&envoy, directory, rows, &self.traffic, effort, until)
                    })
                    .with_context(|| format!("Envoy's log ends:\n{}\n", envoy.log()))
            })
            .collect()
    }
}

struct Options {
    effort: Effort,
    flatness: bool,
    json: Option<PathBuf>,
}

impl Options {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self { effort: FULL, flatness: true, json: None };
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => options = Self { effort: QUICK, flatness: false, ..options },
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
