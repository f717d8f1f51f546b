//! `entra-sidecar test`: a table of requests and the decisions that are expected of a policy.

mod decided;
mod junit;

use std::path::PathBuf;

use contract::{KeySets, Secret};
use policy::{cloud::Cloud, config::Config, time::UnixTime};

use crate::{
    cases::{self, Case, CaseToken, Cases},
    key_file,
    output::{self, Failure, Output},
    policy_file::{self, Direction},
    request::{self, Keys, Request},
    test_claims::Issuer,
    test_key::TestKey,
    time,
};
use decided::{Decided, Difference};

/// Put a table of requests to a policy, and compare what is decided with what is expected.
///
/// Ends with 0 when every case is as expected, with 1 when one is not, and with 2 when the table
/// or the policy cannot be read. docs/cli.md says what a table looks like.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The table, YAML.
    #[arg(value_name = "CASES")]
    cases: PathBuf,
    /// Also write the results as JUnit XML.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

/// What came of a case.
struct Result {
    name: String,
    line: usize,
    request: String,
    differences: Vec<Difference>,
}

/// Runs every case.
pub(crate) fn run(arguments: &Arguments) -> std::result::Result<Output, Failure> {
    let table = cases::read(&arguments.cases)?;
    let key = match (&table.key, &table.keys) {
        (Some(file), _) => Some(TestKey::read(file)?),
        (None, Some(_)) => None,
        (None, None) => {
            // Making one takes a while: only where it signs.
            let signs = |case: &Case| matches!(case.token, CaseToken::Claims(_));
            if table.cases.iter().any(signs) { Some(TestKey::new()?) } else { None }
        }
    };
    let now = time::now();
    let mut results = Vec::new();
    for case in &table.cases {
        let failure = |failure: Failure| {
            let place = format!("{}:{}", arguments.cases.display(), case.line);
            failure.within(&format!("{place}: {}", case.name))
        };
        let (request, decided) = decide(&table, case, key.as_ref(), now).map_err(failure)?;
        results.push(Result {
            name: case.name.clone(),
            line: case.line,
            request,
            differences: decided.differences(&case.expected),
        });
    }
    if let Some(file) = &arguments.junit {
        junit::write(file, &arguments.cases.display().to_string(), &results)?;
    }
    Ok(report(&arguments.cases.display().to_string(), &results))
}

/// Has one case decided; also says what was asked, in a line.
fn decide(
    table: &Cases,
    case: &Case,
    key: Option<&TestKey>,
    now: UnixTime,
) -> std::result::Result<(String, Decided), Failure> {
    let now = case.at.unwrap_or(now);
    let asked = &case.request;
    let direction = match asked.destination {
        Some(_) => Direction::Outbound,
        None => Direction::Inbound,
    };
    let mut request = Request {
        method: asked.method.clone(),
        path: asked.path.clone(),
        host: asked.host.clone(),
        headers: asked.headers.clone(),
        token: None,
    };
    match policy_file::read(&table.config, direction, table.filter.as_deref())? {
        Config::Inbound(config) => {
            request.token = token(case, key, &Issuer::of(&config.accepted), now)?;
            let keys = Keys::Given(keys(table, key, config.accepted.cloud, now)?);
            let shown = format!("{} {}", asked.method, asked.path.as_deref().unwrap_or_default());
            let judged = request::inbound(*config, &request, &keys, now)?;
            Ok((shown, Decided::inbound(&judged)))
        }
        Config::Outbound(config) => {
            let destination = asked.destination.as_deref().unwrap_or_default();
            let tokens: Vec<_> = config
                .rules
                .iter()
                .map(|rule| {
                    let (identity, scope) = (&rule.token.identity, &rule.token.scope);
                    (rule.name.to_string(), (identity.clone(), scope.clone()))
                })
                .collect();
            let keys = match &config.accepted {
                Some(accepted) => {
                    request.token = token(case, key, &Issuer::of(accepted), now)?;
                    Keys::Given(keys(table, key, accepted.cloud, now)?)
                }
                None => Keys::Unchecked,
            };
            let effect = request::outbound(config, destination, &request, &keys, now)?;
            let shown = format!("a call to {destination}");
            Ok((shown, Decided::outbound(&effect, &tokens)))
        }
    }
}

fn keys(
    table: &Cases,
    key: Option<&TestKey>,
    cloud: Cloud,
    now: UnixTime,
) -> std::result::Result<KeySets, Failure> {
    match (&table.keys, key) {
        (Some(file), _) => key_file::read(file, cloud, now),
        (None, key) => {
            let keys = key.map(|key| key.jwk(cloud)).into_iter().collect();
            Ok(key_file::of_organizations(keys, cloud, now))
        }
    }
}

fn token(
    case: &Case,
    key: Option<&TestKey>,
    issuer: &Issuer,
    now: UnixTime,
) -> std::result::Result<Option<Secret>, Failure> {
    match &case.token {
        CaseToken::None => Ok(None),
        CaseToken::File(file) => Ok(Some(Secret::new(output::read(file)?.trim().to_owned()))),
        CaseToken::Claims(claims) => {
            let key = key.ok_or_else(|| Failure::new("`claims` need a `key` beside `keys`"))?;
            Ok(Some(Secret::new(key.token(&issuer.complete(claims, now))?)))
        }
    }
}

fn report(file: &str, results: &[Result]) -> Output {
    let mut output = Output::default();
    for result in results {
        if result.differences.is_empty() {
            output.line(format!("ok      {}", result.name));
            continue;
        }
        output.wrong = true;
        output
            .line(format!("FAILED  {} ({file}:{}: {})", result.name, result.line, result.request));
        for difference in &result.differences {
            difference.lines().iter().for_each(|line| output.line(format!("        {line}")));
        }
    }
    let failed = results.iter().filter(|result| !result.differences.is_empty()).count();
    let passed = results.len().saturating_sub(failed);
    output.line(format!("{passed} as expected, {failed} not (- expected, + decided)"));
    output
}
