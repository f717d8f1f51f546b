//! `entra-sidecar test-token`: tokens for tests, and the keys that sign them.

use std::path::PathBuf;

use policy::{cloud::Cloud, config::Config, time::UnixTime};
use serde_json::{Map, Value, json};

use crate::{
    output::{self, Failure, Output},
    policy_file::{self, Direction},
    test_claims::Issuer,
    test_key::TestKey,
    time,
};

/// Make a token for tests, or with --new-key the key that signs them.
///
/// No Entra knows the key, so only who is given its key set takes such a token: `explain --keys`
/// and the `keys` of `test`. Its key id begins with `entra-sidecar-test-`, and no other key than
/// one made here is taken to sign.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// File of the test key; with --new-key a file that is not there yet.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Make a key: --key gets its private half, --keys the key set with its public half.
    #[arg(long, requires = "keys", conflicts_with_all = ["claims", "config", "at"])]
    new_key: bool,
    /// Where --new-key writes the key set.
    #[arg(long, value_name = "FILE", requires = "new_key")]
    keys: Option<PathBuf>,
    /// The claims, as a JSON object or as `@` and the name of a file with one. What is not written
    /// is added: version, issuer, times, ids; `null` keeps a claim away. Without `scp` it is an
    /// application's token.
    #[arg(long, value_name = "JSON", required_unless_present = "new_key")]
    claims: Option<String>,
    /// Takes tenant and audience from this inbound configuration.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Name of the filter or resource, where --config has several.
    #[arg(long, value_name = "NAME", requires = "config")]
    filter: Option<String>,
    /// The cloud: public, us-government, china, france, germany or singapore.
    #[arg(long, value_name = "CLOUD", default_value = "public", value_parser = cloud)]
    cloud: Cloud,
    /// When the token is issued, as in 2026-11-24T12:00:00Z; without it, now.
    #[arg(long, value_name = "TIME", value_parser = time::read)]
    at: Option<UnixTime>,
}

fn cloud(name: &str) -> Result<Cloud, String> {
    Cloud::from_name(name).ok_or_else(|| format!("expected {}", Cloud::names().replace('`', "")))
}

/// Prints a token, or writes a key.
pub(crate) fn run(arguments: &Arguments) -> Result<Output, Failure> {
    match (&arguments.keys, &arguments.claims) {
        (Some(keys), _) => new_key(arguments, keys),
        (None, claims) => token(arguments, claims.as_deref().unwrap_or_default()),
    }
}

fn new_key(arguments: &Arguments, keys: &std::path::Path) -> Result<Output, Failure> {
    let key = TestKey::write_new(&arguments.key)?;
    let set = json!({"keys": [key.jwk(arguments.cloud)]});
    std::fs::write(keys, format!("{set:#}\n"))
        .map_err(|error| Failure::new(format!("{}: {error}", keys.display())))?;
    let mut output = Output::default();
    output.line(format!("{}: a key that signs test tokens", arguments.key.display()));
    output.line(format!("{}: its key set, for --keys", keys.display()));
    Ok(output)
}

fn token(arguments: &Arguments, claims: &str) -> Result<Output, Failure> {
    let text = match claims.strip_prefix('@') {
        Some(file) => output::read(file.as_ref())?,
        None => claims.to_owned(),
    };
    let written: Map<String, Value> = serde_json::from_str(&text)
        .map_err(|error| Failure::new(format!("--claims: not a JSON object: {error}")))?;
    let issuer = match &arguments.config {
        Some(file) => {
            match policy_file::read(file, Direction::Inbound, arguments.filter.as_deref())? {
                Config::Inbound(config) => Issuer::of(&config.accepted),
                Config::Outbound(_) => return Err(Failure::new("not an inbound configuration")),
            }
        }
        None => Issuer { cloud: arguments.cloud, tenant: None, audiences: Vec::new() },
    };
    let claims = issuer.complete(&written, arguments.at.unwrap_or_else(time::now));
    for name in ["tid", "aud"] {
        if claims.get(name).is_none() && !written.contains_key(name) {
            let message = format!("--claims: name `{name}`, or give --config to take it from");
            return Err(Failure::new(message));
        }
    }
    let mut output = Output::default();
    output.line(TestKey::read(&arguments.key)?.token(&claims)?);
    Ok(output)
}
