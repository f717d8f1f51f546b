//! `entra-sidecar explain`: what would happen to one request, check by check.
//!
//! It prints no token: of an injected one whose it is, of the caller's what its claims say.

mod inbound;
mod outbound;

use std::path::PathBuf;

use contract::Secret;
use policy::{
    config::{Accepted, Config},
    decision::Decision,
    effect::Effect,
    reply::Reply,
    time::UnixTime,
};

use crate::{
    key_file,
    output::{self, Failure, Output},
    policy_file::{self, Direction},
    request::{Keys, Request},
    time,
};

/// Say what would happen to a request, check by check, and answer as the filter would.
///
/// With --destination it is a call that goes out, else one that comes in. No connection is made:
/// without --keys the signature is not checked, and of an outgoing call the token that the broker
/// would give is only named. The token is never printed.
///
/// Ends with 0 when the request passes, with 1 when it is refused, and with 2 when it cannot be
/// decided, as with a configuration that has errors.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// File with the filter's configuration, as for `check`.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Name of the filter or resource, where the file has several of a direction.
    #[arg(long, value_name = "NAME")]
    filter: Option<String>,
    /// File with the caller's token and nothing else; without it the request has none.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// File with signing keys: a key set as Entra publishes it, or the broker's answer to
    /// /v1/keys.
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,
    /// Method of the request.
    #[arg(long, default_value = "GET")]
    method: String,
    /// Path of the request, with its query.
    #[arg(long, required_unless_present = "destination")]
    path: Option<String>,
    /// Host of the request.
    #[arg(long, default_value = "localhost")]
    host: String,
    /// A further header; can be given several times.
    #[arg(long = "header", value_name = "NAME:VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// When the request comes, as in 2026-11-24T12:00:00Z; without it, now.
    #[arg(long, value_name = "TIME", value_parser = time::read)]
    at: Option<UnixTime>,
    /// The destination that the cluster names in its metadata: explains a call that goes out.
    #[arg(long, value_name = "NAME")]
    destination: Option<String>,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("expected NAME:VALUE")?;
    Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
}

/// Explains one request.
pub(crate) fn run(arguments: &Arguments) -> Result<Output, Failure> {
    let now = arguments.at.unwrap_or_else(time::now);
    let token = match &arguments.token_file {
        Some(file) => Some(Secret::new(output::read(file)?.trim().to_owned())),
        None => None,
    };
    let request = Request {
        method: arguments.method.clone(),
        path: arguments.path.clone(),
        host: arguments.host.clone(),
        headers: arguments.headers.clone(),
        token,
    };
    let direction = match arguments.destination {
        Some(_) => Direction::Outbound,
        None => Direction::Inbound,
    };
    let config = policy_file::read(&arguments.config, direction, arguments.filter.as_deref())?;
    let keys = |accepted: &Accepted| match &arguments.keys {
        Some(file) => Ok(Keys::Given(key_file::read(file, accepted.cloud, now)?)),
        None => Ok(Keys::Unchecked),
    };
    match (config, &arguments.destination) {
        (Config::Inbound(config), _) => {
            let keys = keys(&config.accepted)?;
            inbound::explain(*config, &request, &keys, now)
        }
        (Config::Outbound(config), destination) => {
            let keys = match (&config.accepted, &arguments.keys) {
                (Some(accepted), _) => keys(accepted)?,
                (None, None) => Keys::Unchecked,
                (None, Some(_)) => {
                    let message =
                        "--keys: no rule asks on behalf of callers, so nothing is verified";
                    return Err(Failure::new(message));
                }
            };
            let destination = destination.as_deref().unwrap_or_default();
            outbound::explain(config, destination, &request, &keys, now)
        }
    }
}

/// The checks, a line for each that was made and one for all others.
#[derive(Default)]
struct Table {
    lines: Vec<String>,
    not_made: Vec<&'static str>,
}

impl Table {
    fn made(&mut self, name: &str, verdict: &str, detail: &str) {
        self.lines.push(format!("  {name:<14} {verdict:<14} {detail}").trim_end().to_owned());
    }

    fn below(&mut self, name: &str, verdict: &str, detail: &str) {
        self.lines.push(format!("    {name:<26} {verdict:<22} {detail}").trim_end().to_owned());
    }

    fn print(mut self, output: &mut Output, why_not: &str) {
        if !self.not_made.is_empty() {
            self.lines.push(format!("  {why_not}: {}", self.not_made.join(", ")));
        }
        self.lines.iter().for_each(|line| output.line(line));
    }
}

/// The decision in a line.
fn decision(passes: bool, decision: &Decision, reservation: &str) -> String {
    let word = match (passes, decision.observed) {
        (true, true) => "passes, only observed",
        (true, false) => "passes",
        (false, _) => "refused",
    };
    let rule = match &decision.rule {
        Some(rule) => format!(", by rule {rule}"),
        None => String::new(),
    };
    format!("{word}: {}{rule}{reservation}", decision.reason.code())
}

/// What would be answered, byte for byte but for what Envoy adds.
fn reply(output: &mut Output, reply: &Reply) {
    output.line("the answer:");
    output.line(format!("  HTTP {}", reply.status));
    if let Some(status) = reply.grpc_status {
        output.line(format!("  grpc-status: {status}"));
    }
    for (name, value) in &reply.headers {
        output.line(format!("  {name}: {value}"));
    }
    if !reply.body.is_empty() {
        output.line("");
        output.line(format!("  {}", reply.body));
    }
}

/// Whether a request goes on.
fn passes(effect: &Effect) -> bool {
    matches!(effect, Effect::Continue(..))
}

/// Text out of a token or a request, so that it cannot move the cursor or forge a line.
fn plain(text: &str) -> String {
    const MOST: usize = 200;
    let shown = text.chars().take(MOST).map(|c| if c.is_control() { '\u{fffd}' } else { c });
    shown.collect()
}
