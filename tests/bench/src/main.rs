//! `cargo xtask bench`: what the filter costs Envoy, beside Envoy's own filters.
//!
//! One Envoy holds all rows side by side, each on a listener of its own. Rows take turns in short
//! rounds, and each is compared with its baseline of the same turn. What is compared is CPU of
//! the Envoy process per request: it does not change with how fast the load generator is, and
//! little with what else the machine does. With `--mesh` there are rows beside these that are pods
//! of a mesh, each with Istio's sidecar. With `--broker` the token broker is measured instead.

mod broker;
mod caller_tokens;
mod demo_policy;
mod envoy;
mod evidence;
mod footprint;
mod lane;
mod load;
mod pods;
mod process;
mod replay;
mod report;
mod rounds;
mod rows;
mod series;
mod stage;
mod statistics;
mod upstream;

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::{
    demo_policy::DemoPolicy,
    envoy::Program,
    lane::Traffic,
    pods::Pods,
    report::Table,
    rounds::Effort,
    rows::{Ratio, Row},
    series::Bench,
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
    if options.broker {
        return footprint::run(options.json.as_deref());
    }
    let module = from_environment("ENTRA_FILTER_WASM")?;
    let empty_wasm = from_environment("BENCH_EMPTY_WASM")?;
    let policy = DemoPolicy::read(include_str!("../../../envoy.yaml"), &module)?;
    let program = Program::new(from_environment("ENVOY")?.into())?;
    let version = program.version()?;
    println!("{}\nEnvoy {version}, one worker", report::machine());

    let pods = match options.rows {
        Rows::OwnEnvoy => None,
        Rows::OwnEnvoyAndMesh | Rows::Mesh => Some(open_pods()?),
    };
    // Opening pods is no part of the time that measuring may take.
    let measuring = if pods.is_some() { Instant::now() } else { began };
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
        pods: pods.as_ref(),
    };

    let (rows, ratios) = options.rows.of_main_table();
    let main = Table::new(&bench.starts(&rows, options.effort, measuring)?, &rows, &ratios);
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
    if options.rows != Rows::Mesh {
        let replay = bench.replay()?;
        println!("{replay}");
        if let Some(whole) = whole.as_object_mut() {
            whole.insert("replay".to_owned(), replay.json());
        }
    }
    if options.flatness && options.rows != Rows::Mesh {
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

fn open_pods() -> Result<Pods> {
    println!("opening the mesh's pods, when no test runs there");
    let began = Instant::now();
    let images = from_environment("MESH_IMAGES")?;
    let application = from_environment("MESH_APP")?;
    let pods = Pods::open(&rows::MESH, Path::new(&images), Path::new(&application))?;
    println!(
        "pods ready after {:.0} s; callers are outside of the mesh, without mTLS",
        began.elapsed().as_secs_f64()
    );
    Ok(pods)
}

/// Which rows the main table has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rows {
    OwnEnvoy,
    OwnEnvoyAndMesh,
    Mesh,
}

impl Rows {
    fn of_main_table(self) -> (Vec<Row>, Vec<Ratio>) {
        let own = (rows::ROWS.as_slice(), rows::RATIOS.as_slice());
        let mesh = (rows::MESH.as_slice(), rows::MESH_RATIOS.as_slice());
        match self {
            Self::OwnEnvoy => (own.0.to_vec(), own.1.to_vec()),
            Self::OwnEnvoyAndMesh => ([own.0, mesh.0].concat(), [own.1, mesh.1].concat()),
            Self::Mesh => (mesh.0.to_vec(), mesh.1.to_vec()),
        }
    }
}

struct Options {
    /// The token broker is measured, and nothing else.
    broker: bool,
    effort: Effort,
    flatness: bool,
    rows: Rows,
    json: Option<PathBuf>,
}

impl Options {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut options =
            Self { broker: false, effort: FULL, flatness: true, rows: Rows::OwnEnvoy, json: None };
        let mut seconds = None;
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => options = Self { effort: QUICK, flatness: false, ..options },
                "--broker" => options.broker = true,
                "--mesh" => options.rows = Rows::OwnEnvoyAndMesh,
                "--mesh-only" => options.rows = Rows::Mesh,
                "--seconds" => {
                    let value = arguments.next().context("--seconds wants a number")?;
                    seconds = Some(Duration::from_secs(value.parse()?));
                }
                "--json" => {
                    options.json = Some(arguments.next().context("--json wants a file")?.into());
                }
                _ => bail!(
                    "unknown argument {argument}; \
                     bench [--broker | [--quick] [--mesh | --mesh-only] [--seconds N]] [--json FILE]"
                ),
            }
        }
        if options.rows == Rows::OwnEnvoyAndMesh {
            // There are half as many rows again, and requests to an application take longer.
            let time = options.effort.time.saturating_mul(3).checked_div(2);
            options.effort.time = time.unwrap_or(options.effort.time);
        }
        options.effort.time = seconds.unwrap_or(options.effort.time);
        Ok(options)
    }
}

fn from_environment(name: &str) -> Result<String> {
    env::var(name).with_context(|| format!("{name} is not set; start this by `cargo xtask bench`"))
}
