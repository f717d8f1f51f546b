//! The fake Entra as a program, for trying things by hand: `cargo run -p e2e --bin fake-entra`.
//!
//! It serves the sample company of `fake_entra::sample`, writes its CA and a service account token
//! into a folder, prints what a client has to set, and stays until Ctrl-C.

use std::{error::Error, path::PathBuf, process::ExitCode};

use e2e::fake_entra::{
    Cloud, Config, FakeEntra,
    sample::{self, Cluster},
};

const USAGE: &str = "\
A fake Microsoft Entra ID on loopback.

Usage: fake-entra --out FOLDER [--proxy-port PORT] [--control-port PORT]

  --out FOLDER           where to write entra-ca.pem and service-account-token
  --proxy-port PORT      of the proxy that leads to it; a free one by default
  --control-port PORT    of the listener that mints tokens and plans faults; a free one by default";

/// Life of the service account token; Kubernetes renews its own, this program does not.
const DAY_SECONDS: u64 = 86_400;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fake-entra: {error}\n\n{USAGE}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error + Send + Sync>> {
    let Some(Arguments { out, proxy_port, control_port }) = Arguments::read(std::env::args())?
    else {
        println!("{USAGE}");
        return Ok(());
    };
    std::fs::create_dir_all(&out)?;
    let cluster = Cluster::sample();
    let mut config = Config::new(sample::directory(&cluster));
    config.ca_file = Some(out.join("entra-ca.pem"));
    config.proxy_port = proxy_port;
    config.control_port = Some(control_port);
    let entra = FakeEntra::try_start(config)?;
    let token_file = out.join("service-account-token");
    let audience = Cloud::Public.exchange_audience();
    let token = cluster.token(sample::WORKLOAD_SUBJECT, audience, entra.now(), DAY_SECONDS);
    std::fs::write(&token_file, token)?;

    println!("export HTTPS_PROXY={}", entra.proxy_url());
    println!("export SSL_CERT_FILE={}", entra.ca_file().display());
    println!("export AZURE_AUTHORITY_HOST=https://{}/", Cloud::Public.host());
    println!("export AZURE_TENANT_ID={}", sample::TENANT);
    println!("export AZURE_CLIENT_ID={}", sample::WORKLOAD);
    println!("export AZURE_FEDERATED_TOKEN_FILE={}", token_file.display());
    println!("# an application with a secret: {}, {}", sample::TILL, sample::TILL_SECRET);
    if let Some(control) = entra.control_url() {
        println!(
            "# a token of it for the orders API:\n# curl -s {control}/tokens -d '{{\"tenant\":\"{}\",\
             \"client\":\"{}\",\"resource\":\"{}\"}}'",
            sample::TENANT,
            sample::TILL,
            sample::ORDERS_URI
        );
    }
    println!("# running until Ctrl-C");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(tokio::signal::ctrl_c())?;
    Ok(())
}

struct Arguments {
    out: PathBuf,
    proxy_port: u16,
    control_port: u16,
}

impl Arguments {
    /// Reads the command line; `None` asks for help.
    fn read(arguments: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let (mut out, mut proxy_port, mut control_port) = (None, 0, 0);
        let mut arguments = arguments.skip(1);
        while let Some(name) = arguments.next() {
            if name == "--help" {
                return Ok(None);
            }
            let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
            let port = || value.parse().map_err(|_| format!("{name}: no port: {value}"));
            match name.as_str() {
                "--out" => out = Some(PathBuf::from(&value)),
                "--proxy-port" => proxy_port = port()?,
                "--control-port" => control_port = port()?,
                _ => return Err(format!("unknown argument {name}")),
            }
        }
        let out = out.ok_or("--out is required")?;
        Ok(Some(Self { out, proxy_port, control_port }))
    }
}
