//! A table of requests and expected decisions, as it is written, and read.

pub(crate) mod raw;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    rc::Rc,
};

use policy::{decision::Reason, document, document::ConfigError, time::UnixTime};
use raw::{RawCase, RawCases, RawExpected, RawRequest};
use serde_json::{Map, Value};

use crate::{
    output::{self, Failure},
    time,
    tree::{self, Node},
};

/// A table that can be run.
#[derive(Debug)]
pub(crate) struct Cases {
    /// File with the filter's configuration.
    pub(crate) config: PathBuf,
    /// Which of several.
    pub(crate) filter: Option<String>,
    /// File with the keys that are trusted; without it one that is made for the run.
    pub(crate) keys: Option<PathBuf>,
    /// File of the key that signs the tokens.
    pub(crate) key: Option<PathBuf>,
    /// The cases.
    pub(crate) cases: Vec<Case>,
}

/// A request and what is expected.
#[derive(Debug)]
pub(crate) struct Case {
    /// Its name.
    pub(crate) name: String,
    /// The line on which it begins.
    pub(crate) line: usize,
    /// When the request comes; without it, now.
    pub(crate) at: Option<UnixTime>,
    /// What comes, or goes out.
    pub(crate) request: CaseRequest,
    /// The caller's token.
    pub(crate) token: CaseToken,
    /// What is expected.
    pub(crate) expected: Expected,
}

/// A request of a case.
#[derive(Debug)]
pub(crate) struct CaseRequest {
    /// Where it goes, if it goes out.
    pub(crate) destination: Option<String>,
    /// Method.
    pub(crate) method: String,
    /// Path and query.
    pub(crate) path: Option<String>,
    /// Host.
    pub(crate) host: String,
    /// Further headers, names in lower case.
    pub(crate) headers: Vec<(String, String)>,
}

/// The token of a case.
#[derive(Debug)]
pub(crate) enum CaseToken {
    /// None.
    None,
    /// Made for the run, with these claims.
    Claims(Map<String, Value>),
    /// In a file.
    File(PathBuf),
}

/// What is expected; what is not named may be anything.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    /// Whether the request goes on.
    pub(crate) passes: Option<bool>,
    /// The status of the filter's answer.
    pub(crate) status: Option<u16>,
    /// The reason code.
    pub(crate) reason: Option<String>,
    /// The rule that decided.
    pub(crate) rule: Option<String>,
    /// All identity headers that the application gets.
    pub(crate) headers: Option<BTreeMap<String, String>>,
    /// `WWW-Authenticate` of the answer.
    pub(crate) challenge: Option<String>,
    /// Identity and scope of the injected token.
    pub(crate) injects: Option<(String, String)>,
}

/// Reads a table, or lists everything that is wrong with it as `file:line: path: message`.
pub(crate) fn read(path: &Path) -> Result<Cases, Failure> {
    let text = output::read(path)?;
    let shown = path.display();
    let at = |line: usize, message: &str| Failure::new(format!("{shown}:{line}: {message}"));
    let documents = tree::read(&text, 1).map_err(|problem| at(problem.line, &problem.message))?;
    let [document] = documents.as_slice() else {
        return Err(at(1, "expected one document with `config` and `cases`"));
    };
    let value = document.json().map_err(|problem| at(problem.line, &problem.message))?;
    let (raw, claims, mut errors) = without_claims(value);
    let cases = raw.and_then(|raw| valid(path, raw, claims, document, &mut errors));
    match cases {
        Some(cases) if errors.is_empty() => Ok(cases),
        _ => {
            let line =
                |error: &ConfigError| format!("{shown}:{}: {error}", document.line_of(&error.path));
            Err(Failure::new(errors.iter().map(line).collect::<Vec<_>>().join("\n")))
        }
    }
}

/// The claims of each case, where it has some.
type Claims = Vec<Option<Value>>;

/// Reads everything but the claims, whose nulls mean something.
fn without_claims(mut value: Value) -> (Option<RawCases>, Claims, Vec<ConfigError>) {
    let mut claims = Vec::new();
    for case in value.get_mut("cases").and_then(Value::as_array_mut).into_iter().flatten() {
        let token = case.get_mut("token").and_then(Value::as_object_mut);
        claims.push(token.and_then(|token| token.remove("claims")));
    }
    let (raw, errors) = document::read::<RawCases>(value);
    (raw, claims, errors)
}

fn valid(
    path: &Path,
    raw: RawCases,
    claims: Claims,
    document: &Rc<Node>,
    errors: &mut Vec<ConfigError>,
) -> Option<Cases> {
    let mut add = |path: &str, message: &str| {
        if !errors.iter().any(|error| error.path == path) {
            errors.push(ConfigError::new(path, message));
        }
    };
    if raw.config.is_none() {
        add("config", "required: a file with the filter's configuration");
    }
    if raw.key.is_some() && raw.keys.is_none() {
        add("key", "needs `keys`, or nobody would trust it");
    }
    let at = read_time(raw.at.as_deref(), "at", &mut add);
    let written = raw.cases.unwrap_or_default();
    if written.is_empty() {
        add("cases", "required: at least one case");
    }
    let mut cases = Vec::new();
    for ((index, case), claims) in written.into_iter().enumerate().zip(claims) {
        let place = format!("cases[{index}]");
        let Some(case) = case else { continue };
        let line = document.line_of(&place);
        if case.token.as_ref().is_some_and(|token| token.file.is_some()) && raw.keys.is_none() {
            add(&format!("{place}.token.file"), "needs `keys`: nobody trusts its signature");
        }
        cases.extend(valid_case(path, case, claims, at, &place, line, &mut add));
    }
    Some(Cases {
        config: output::beside(path, &raw.config?),
        filter: raw.filter,
        keys: raw.keys.map(|keys| output::beside(path, &keys)),
        key: raw.key.map(|key| output::beside(path, &key)),
        cases,
    })
}

fn valid_case(
    file: &Path,
    raw: RawCase,
    claims: Option<Value>,
    at: Option<UnixTime>,
    place: &str,
    line: usize,
    add: &mut impl FnMut(&str, &str),
) -> Option<Case> {
    let Some(name) = raw.name else {
        add(&format!("{place}.name"), "required: what the case shows");
        return None;
    };
    let own = read_time(raw.at.as_deref(), &format!("{place}.at"), add);
    let token = match (raw.token, claims) {
        (None, _) => CaseToken::None,
        (Some(token), claims) => match (token.file, claims) {
            (Some(file_name), None) => CaseToken::File(output::beside(file, &file_name)),
            (None, Some(Value::Object(claims))) => CaseToken::Claims(claims),
            _ => {
                add(&format!("{place}.token"), "expected either `claims`, a map, or `file`");
                CaseToken::None
            }
        },
    };
    let request = raw.request.unwrap_or_default();
    if request.path.is_none() && request.destination.is_none() {
        add(&format!("{place}.request"), "expected `path`, or `destination` of a call out");
    }
    let expected = expected(raw.expect.unwrap_or_default(), &format!("{place}.expect"), add);
    let (at, request) = (own.or(at), case_request(request));
    Some(Case { name, line, at, request, token, expected })
}

fn case_request(raw: RawRequest) -> CaseRequest {
    let headers = raw.headers.unwrap_or_default();
    let headers = headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value));
    CaseRequest {
        destination: raw.destination,
        method: raw.method.unwrap_or_else(|| "GET".to_owned()),
        path: raw.path,
        host: raw.host.unwrap_or_else(|| "localhost".to_owned()),
        headers: headers.filter_map(|(name, value)| Some((name, value?))).collect(),
    }
}

fn expected(raw: RawExpected, place: &str, add: &mut impl FnMut(&str, &str)) -> Expected {
    let injects = match raw.injects.map(|injects| (injects.identity, injects.scope)) {
        Some((Some(identity), Some(scope))) => Some((identity, scope)),
        Some(_) => {
            add(&format!("{place}.injects"), "expected `identity` and `scope`");
            None
        }
        None => None,
    };
    if raw.passes == Some(true) && (raw.status.is_some() || raw.challenge.is_some()) {
        add(place, "a request that passes is not answered: no `status`, no `challenge`");
    }
    if let Some(reason) = &raw.reason
        && !Reason::ALL.iter().any(|known| known.code() == reason)
    {
        add(&format!("{place}.reason"), "not a reason; docs/troubleshooting.md has them all");
    }
    let expected = Expected {
        passes: raw.passes,
        status: raw.status,
        reason: raw.reason,
        rule: raw.rule,
        headers: raw.headers.map(|headers| {
            headers.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
        }),
        challenge: raw.challenge,
        injects,
    };
    // A case that says nothing of the decision could never fail for it.
    if expected.passes.is_none() && expected.status.is_none() && expected.reason.is_none() {
        add(place, "expected at least one of `passes`, `status` and `reason`");
    }
    expected
}

fn read_time(
    text: Option<&str>,
    place: &str,
    add: &mut impl FnMut(&str, &str),
) -> Option<UnixTime> {
    match text.map(time::read) {
        Some(Ok(time)) => Some(time),
        Some(Err(message)) => {
            add(place, &message);
            None
        }
        None => None,
    }
}
