//! The fake Entra as a program, for trying things by hand: `cargo run -p e2e --bin fake-entra`.
//!
//! It serves the sample company of `fake_entra::sample`, writes its CA (and, without a cluster, a
//! service account token) into a folder, prints what to set, and stays until Ctrl-C. With an issuer
//! it trusts the service accounts of a real cluster, by the key set that its API server publishes.

use std::{error::Error, net::SocketAddr, path::PathBuf, process::ExitCode};

use e2e::fake_entra::{
    Cloud, Config, FakeEntra, read_key_set,
    sample::{self, Cluster},
    service_account,
};

const USAGE: &str = "\
A fake Microsoft Entra ID on loopback, or for a cluster on an address that it reaches.

Usage: fake-entra --out FOLDER [--proxy-port PORT] [--control-port PORT] [--listen ADDRESS:PORT]
                  [--issuer ISSUER --issuer-jwks FILE [--service-account NAMESPACE/NAME]]

  --out FOLDER           where to write entra-ca.pem and service-account-token
  --proxy-port PORT      of the proxy that leads to it; a free one by default
  --control-port PORT    of the listener that mints tokens and plans faults; a free one by default
  --listen ADDRESS:PORT  where it serves TLS itself, for a cluster whose DNS leads there
  --issuer ISSUER        the cluster's issuer of service account tokens
  --issuer-jwks FILE     its key set: kubectl get --raw /openid/v1/jwks
  --service-account NAMESPACE/NAME
                         the workload's service account there; shop/orders by default";

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
    let Some(arguments) = Arguments::read(std::env::args())? else {
        println!("{USAGE}");
        return Ok(());
    };
    let sample_cluster = Cluster::sample();
    let directory = match &arguments.cluster {
        None => sample::directory(&sample_cluster),
        Some(RealCluster { issuer, key_set, subject }) => {
            let text = std::fs::read_to_string(key_set)
                .map_err(|error| format!("{}: {error}", key_set.display()))?;
            let issuer = read_key_set(issuer, &text)
                .map_err(|error| format!("{}: {error}", key_set.display()))?;
            sample::directory_of_cluster(issuer, [subject, sample::BILLING_SUBJECT])
        }
    };
    std::fs::create_dir_all(&arguments.out)?;
    let mut config = Config::new(directory);
    config.ca_file = Some(arguments.out.join("entra-ca.pem"));
    config.proxy_port = arguments.proxy_port;
    config.control_port = Some(arguments.control_port);
    config.listen = arguments.listen;
    let entra = FakeEntra::try_start(config)?;

    if arguments.listen.is_some() {
        println!("# {} must lead clients to {}", Cloud::Public.host(), entra.address());
    }
    match &arguments.cluster {
        None => {
            let token_file = arguments.out.join("service-account-token");
            let audience = Cloud::Public.exchange_audience();
            let token =
                sample_cluster.token(sample::WORKLOAD_SUBJECT, audience, entra.now(), DAY_SECONDS);
            std::fs::write(&token_file, token)?;
            for_a_process(&entra, &token_file);
        }
        Some(cluster) => for_a_cluster(&entra, cluster),
    }
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

/// What a process on this machine has to set.
fn for_a_process(entra: &FakeEntra, token_file: &std::path::Path) {
    println!("export HTTPS_PROXY={}", entra.proxy_url());
    println!("export SSL_CERT_FILE={}", entra.ca_file().display());
    println!("export AZURE_AUTHORITY_HOST=https://{}/", Cloud::Public.host());
    println!("export AZURE_TENANT_ID={}", sample::TENANT);
    println!("export AZURE_CLIENT_ID={}", sample::WORKLOAD);
    println!("export AZURE_FEDERATED_TOKEN_FILE={}", token_file.display());
}

/// What whoever installs into a cluster has to know.
fn for_a_cluster(entra: &FakeEntra, RealCluster { issuer, subject, .. }: &RealCluster) {
    println!("# the authority that the broker has to trust: {}", entra.ca_file().display());
    println!("# the tenant: {}", sample::TENANT);
    println!("# {subject} is the application {}", sample::WORKLOAD);
    println!("# {} is the application {}", sample::BILLING_SUBJECT, sample::BILLING);
    println!(
        "# callers bring tokens for {}, application {}",
        sample::ORDERS_URI,
        sample::ORDERS_API
    );
    if let Some(control) = entra.control_url() {
        println!("# when the API server's keys changed:");
        println!(
            "# curl -s {control}/issuers -d \"{{\\\"issuer\\\":\\\"{issuer}\\\",\
             \\\"key_set\\\":$(kubectl get --raw /openid/v1/jwks)}}\""
        );
        println!("# what it was asked and answered: curl -s {control}/calls");
    }
}

/// A cluster whose service accounts are trusted in place of the sample's.
struct RealCluster {
    issuer: String,
    key_set: PathBuf,
    subject: String,
}

struct Arguments {
    out: PathBuf,
    proxy_port: u16,
    control_port: u16,
    listen: Option<SocketAddr>,
    cluster: Option<RealCluster>,
}

impl Arguments {
    /// Reads the command line; `None` asks for help.
    fn read(arguments: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let (mut out, mut proxy_port, mut control_port, mut listen) = (None, 0, 0, None);
        let (mut issuer, mut key_set, mut subject) = (None, None, None);
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
                "--listen" => {
                    let address = value.parse();
                    listen = Some(address.map_err(|_| format!("{name}: no address: {value}"))?);
                }
                "--issuer" => issuer = Some(value),
                "--issuer-jwks" => key_set = Some(PathBuf::from(value)),
                "--service-account" => {
                    let (namespace, account) = value
                        .split_once('/')
                        .ok_or_else(|| format!("{name}: no NAMESPACE/NAME: {value}"))?;
                    subject = Some(service_account(namespace, account));
                }
                _ => return Err(format!("unknown argument {name}")),
            }
        }
        let cluster = match (issuer, key_set, subject) {
            (None, None, None) => None,
            (Some(issuer), Some(key_set), subject) => {
                let subject = subject.unwrap_or_else(|| sample::WORKLOAD_SUBJECT.to_owned());
                Some(RealCluster { issuer, key_set, subject })
            }
            _ => return Err("--issuer and --issuer-jwks go together".to_owned()),
        };
        let out = out.ok_or("--out is required")?;
        Ok(Some(Self { out, proxy_port, control_port, listen, cluster }))
    }
}
