//! The program: arguments to configuration to [`token_broker::run`] to exit code.
//!
//! Exit codes: 0 stopped as asked or configuration in order, 1 it cannot run so, 2 wrong
//! arguments.

use std::{alloc::System, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use policy::document::ConfigError;
use token_broker::{
    access::Evidence,
    config::{
        Api, Application, Compat, Config, Credential, DownstreamApi, ManagedIdentity, Source,
        TokenOf, document,
        environment::{Environment, ProcessEnvironment},
        from_environment,
    },
    entra::claims::Capability,
    explain_access,
    https::Https,
    memory, pod,
    time::{Clock, SystemClock},
};
use tokio::signal::unix::{SignalKind, signal};
use zeroizing_alloc::ZeroAlloc;

/// Wipes what is freed: also what a library's buffer held.
#[global_allocator]
static WIPING: ZeroAlloc<System> = ZeroAlloc(System);

/// Acquires and renews Entra tokens, keeps signing keys fresh, and serves both to the filter.
#[derive(Debug, Parser)]
#[command(name = "token-broker", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run until SIGTERM or SIGINT.
    Serve {
        /// Configuration file (YAML); its changes are followed. Without it the environment alone is
        /// the configuration:
        /// AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_FEDERATED_TOKEN_FILE or AZURE_CLIENT_SECRET,
        /// AZURE_AUTHORITY_HOST, and ENTRA_SCOPES, required, separated by spaces; or AzureAd__* and
        /// DownstreamApis__*, the keys of Microsoft's auth sidecar.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// What is logged: `error`, `warn`, `info`, `debug` or `trace`. No level shows a secret.
        #[arg(long, value_name = "LEVEL", default_value = "info")]
        log_level: tracing::Level,
    },
    /// Say what is wrong with a configuration, all at once, and what it would do.
    Check {
        /// Configuration file (YAML); without it the environment is checked.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Say which entry of identity_access gives a pod which identity, or why each does not. Without
    /// a pod it is the one that this runs in, by its own token.
    ExplainAccess {
        /// Configuration file (YAML).
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The pod's namespace.
        #[arg(long, value_name = "NAME")]
        namespace: Option<String>,
        /// The pod's service account.
        #[arg(long, value_name = "NAME")]
        service_account: Option<String>,
        /// A label of the pod; may be given more than once.
        #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
        labels: Vec<(String, String)>,
    },
}

/// A label on the command line.
fn label(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}

fn main() -> ExitCode {
    // Before anything is read.
    if let Err(error) = memory::close() {
        eprintln!("cannot close its memory to others: {error}");
        return ExitCode::FAILURE;
    }
    match Arguments::parse().command {
        Command::Check { config } => match check(config.as_ref()) {
            Ok(config) => {
                print!("{}", summary(&config));
                ExitCode::SUCCESS
            }
            Err(errors) => refused(&errors),
        },
        Command::ExplainAccess { config, namespace, service_account, labels } => {
            let labels = labels.into_iter().collect();
            let pod = Evidence { namespace, service_account, labels, pod: None };
            match read(Some(&config), &ProcessEnvironment) {
                Ok(config) => explain_access(&config, pod),
                Err(errors) => refused(&errors),
            }
        }
        Command::Serve { config, log_level } => match read(config.as_ref(), &ProcessEnvironment) {
            Ok(config_read) => serve(config_read, config, log_level),
            Err(errors) => refused(&errors),
        },
    }
}

fn read(file: Option<&PathBuf>, environment: &dyn Environment) -> Result<Config, Vec<ConfigError>> {
    let Some(file) = file else { return from_environment(environment) };
    let text = document::text(file).map_err(|error| vec![error])?;
    document::read(&text, environment)
}

/// Reads the configuration and what it names that must be there before the broker starts.
fn check(file: Option<&PathBuf>) -> Result<Config, Vec<ConfigError>> {
    let config = read(file, &ProcessEnvironment)?;
    if let Some(snapshot) = &config.key_snapshot {
        snapshot.has_its_place().map_err(|error| vec![error])?;
    }
    match Https::new(config.ca_file.as_deref(), config.proxy.clone()) {
        Ok(_usable) => Ok(config),
        Err(error) => Err(vec![ConfigError::new("ca_file", error.to_string())]),
    }
}

/// Without a pod to ask about it is our own.
fn explain_access(config: &Config, pod: Evidence) -> ExitCode {
    let evidence = match &config.access {
        Some(access) if pod == Evidence::default() => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let now = SystemClock.unix_now();
            match runtime.map(|runtime| runtime.block_on(pod::look(&access.pod, now))) {
                Ok(found) => found.map_err(|failed| failed.to_string()),
                Err(error) => Err(error.to_string()),
            }
        }
        _ => Ok(pod),
    };
    match evidence {
        Ok(evidence) => {
            print!("{}", explain_access::text(config, &evidence));
            ExitCode::SUCCESS
        }
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    }
}

/// One line for each error, on standard error.
fn refused(errors: &[ConfigError]) -> ExitCode {
    for error in errors {
        eprintln!("{error}");
    }
    ExitCode::FAILURE
}

/// For a thread that has nothing to do any more.
const KEEP_ALIVE: Duration = Duration::from_millis(500);

fn serve(config: Config, file: Option<PathBuf>, log_level: tracing::Level) -> ExitCode {
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_max_level(log_level)
        .with_target(false)
        .init();
    // One thread: the work is waiting, and memory is the budget. Others read files and look up
    // names, and end soon after.
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = match runtime.enable_all().thread_keep_alive(KEEP_ALIVE).build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(async {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        token_broker::run(config, file, Box::new(ProcessEnvironment), stop)
            .await
            .map_err(std::io::Error::other)
    });
    // A name that is being looked up must not hold the end up.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(reason = %error, "cannot run");
            ExitCode::FAILURE
        }
    }
}

/// Where an identity's tokens come from.
fn described(source: &Source) -> String {
    let (application, credentials) = match source {
        Source::Application { application, credentials } => (application, credentials),
        Source::ManagedIdentity(identity) => return described_identity(identity),
    };
    let kinds: Vec<String> = credentials
        .iter()
        .map(|credential| match credential {
            Credential::Secret(_) => "client secret".to_owned(),
            Credential::Certificate { .. } => "client certificate".to_owned(),
            Credential::ServiceAccount(_) => "workload identity".to_owned(),
            Credential::ManagedIdentity(identity) => {
                format!("workload identity by {}", described_identity(identity))
            }
        })
        .collect();
    let Application { cloud, tenant, client_id } = application;
    let kinds = kinds.join(", then ");
    format!("{kinds}, application {client_id} of tenant {tenant} ({} cloud)", cloud.name())
}

fn described_identity(identity: &ManagedIdentity) -> String {
    let (which, id) = match identity {
        ManagedIdentity::SystemAssigned => return "the machine's own identity".to_owned(),
        ManagedIdentity::ClientId(id) => ("client id", id),
        ManagedIdentity::ObjectId(id) => ("object id", id),
        ManagedIdentity::ResourceId(id) => ("resource id", id),
    };
    format!("managed identity with {which} {id}")
}

/// What the compat listener hands out, a line for each family of endpoints.
fn offered(compat: &Compat) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(endpoint) = &compat.managed_identity {
        let names: Vec<&str> =
            endpoint.identities.iter().map(|offered| offered.name.as_str()).collect();
        let default = match &endpoint.default {
            Some(name) => format!("{name} to whoever names none"),
            None => "nothing to whoever names none".to_owned(),
        };
        let form = match (&endpoint.identity_header_file, endpoint.imds) {
            (Some(_), true) => "with and without X-IDENTITY-HEADER",
            (Some(_), false) => "with X-IDENTITY-HEADER only",
            (None, _) => "without X-IDENTITY-HEADER",
        };
        let names = names.join(" ");
        lines.push(format!("  {names}, by managed identity endpoints ({form}); {default}"));
    }
    if let Some(sidecar) = &compat.auth_sidecar {
        for (name, DownstreamApi { identity, scope, token, .. }) in &sidecar.apis {
            let whose = match token {
                TokenOf::Caller => "the caller's or the application's token",
                TokenOf::Application => "the application's token",
            };
            lines
                .push(format!("  {identity}, by auth sidecar endpoints: {name}, {whose}, {scope}"));
        }
        if let Some(callers) = &sidecar.callers {
            let audiences = callers.accepted.audiences.0.join(" ");
            lines.push(format!("  and validates callers' tokens for {audiences}"));
        }
    }
    lines
}

/// What a good configuration means.
fn summary(config: &Config) -> String {
    let mut lines = vec!["configuration: ok".to_owned()];
    for authority in &config.authorities {
        lines.push(format!("keys of: {}", authority.issuer()));
    }
    for (name, identity) in &config.identities {
        lines.push(format!(
            "identity {name}: {}, {}{}{}",
            described(&identity.source),
            if identity.scopes.is_empty() {
                "no scope: nothing can be asked for".to_owned()
            } else {
                format!("scopes {}", identity.scopes.join(" "))
            },
            if identity.delegated_scopes.is_empty() {
                String::new()
            } else {
                format!(", on behalf of users {}", identity.delegated_scopes.join(" "))
            },
            match identity.capability {
                Capability::None => "",
                Capability::ClaimsChallenges => ", answers claims challenges",
            },
        ));
    }
    lines.extend(explain_access::summary(config));
    lines.push(match &config.listen.api {
        Api::Unix { path, allow_uids } => {
            let uids: Vec<String> = allow_uids.iter().map(u32::to_string).collect();
            format!("api: {} for user ids {}", path.display(), uids.join(", "))
        }
        Api::Tcp(address) => {
            format!("api: {address}: every process of the pod can have the tokens")
        }
        Api::Off => "api: none".to_owned(),
    });
    lines.push(format!("admin: {}", config.listen.admin));
    if let Some(address) = config.listen.compat {
        lines.push(format!("compat: {address}: every process of the pod can have the tokens of"));
        lines.extend(offered(&config.compat));
    }
    lines.push(String::new());
    lines.join("\n")
}
