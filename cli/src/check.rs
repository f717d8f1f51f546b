//! `entra-sidecar check`: everything that is wrong with configurations, with file, line and path.
//!
//! The filter's are read by `policy`, the broker's by the broker's own reader: what is in order
//! here starts there. Warnings are about what is in order and still may not be meant.

mod broker;
mod marker;
mod replay;
mod together;
mod warnings;

use std::path::PathBuf;

use policy::config::Config;

use crate::{
    destinations::{self, Destinations},
    find::{self, Configuration, Kind},
    output::{self, Failure, Output},
};

/// Say what is wrong with configurations, with file, line and path.
///
/// A file is a configuration of the filter or of the token broker, or a list of destinations, or
/// holds some: an Envoy configuration, or Kubernetes resources (WasmPlugin, TrafficExtension,
/// EnvoyFilter, ConfigMap; an AuthorizationPolicy on the filter's marker).
/// Files given together are also compared with each other: whether the broker has the identities,
/// scopes and keys that the filter will ask for.
///
/// Ends with 0 when all is in order, with 1 when there is an error (with --deny-warnings also a
/// warning), or a file without a configuration, and with 2 when a file cannot be read.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// YAML or JSON.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// End with 1 also when there are only warnings.
    #[arg(long)]
    deny_warnings: bool,
    /// The application tells `/a` from `/A` and from `/a/`, as this filter does: do not warn of
    /// rules that another spelling of a path avoids.
    #[arg(long)]
    exact_router: bool,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Severity {
    /// It would not start.
    Error,
    /// It starts, and may not do what was meant.
    Warning,
}

/// One thing to say about a file.
#[derive(Debug)]
struct Finding {
    line: usize,
    severity: Severity,
    path: String,
    message: String,
}

/// A file's name, and what is in order in it.
struct Checked {
    file: String,
    sound: Vec<(Configuration, Sound)>,
}

/// A configuration that would start.
enum Sound {
    Filter(Config),
    Broker(Box<token_broker::config::Config>),
    Destinations(Box<Destinations>),
}

/// Checks every file, prints all there is to say, and a line for each configuration in order.
pub(crate) fn run(arguments: &Arguments) -> Result<Output, Failure> {
    let mut report = Report { exact_router: arguments.exact_router, ..Report::default() };
    let mut checked = Vec::new();
    for path in &arguments.files {
        let text = output::read(path)?;
        checked.push(report.file(&path.display().to_string(), &text));
    }
    for (file, finding) in together::warnings(&checked) {
        report.finding(file, &finding);
    }
    let plural = |count: usize, word: &str| match count {
        1 => format!("1 {word}"),
        count => format!("{count} {word}s"),
    };
    let mut output = Output { text: report.text, wrong: false };
    output.line(format!(
        "{} in order, {}, {}",
        plural(report.sound, "configuration"),
        plural(report.errors, "error"),
        plural(report.warnings, "warning"),
    ));
    output.wrong = report.errors > 0 || (arguments.deny_warnings && report.warnings > 0);
    Ok(output)
}

#[derive(Default)]
struct Report {
    exact_router: bool,
    text: String,
    sound: usize,
    errors: usize,
    warnings: usize,
}

impl Report {
    fn file(&mut self, file: &str, text: &str) -> Checked {
        let contents = find::contents(text);
        for problem in &contents.problems {
            self.error(file, problem.line, &problem.message);
        }
        let configurations = contents.configurations.len();
        let mut sound = Vec::new();
        for configuration in contents.configurations {
            match read(&configuration, self.exact_router) {
                Ok((meaning, is, mut findings)) => {
                    findings.sort_by_key(|finding| finding.line);
                    findings.iter().for_each(|finding| self.finding(file, finding));
                    self.sound = self.sound.saturating_add(1);
                    let place = match configuration.place.as_str() {
                        "" => String::new(),
                        place => format!("{place}: "),
                    };
                    self.say(file, configuration.line, &format!("{place}{meaning}"));
                    sound.push((configuration, is));
                }
                Err(mut findings) => {
                    findings.sort_by_key(|finding| finding.line);
                    findings.iter().for_each(|finding| self.finding(file, finding));
                }
            }
        }
        let policies = marker::policies(&contents.documents, &sound);
        let nothing = configurations == 0 && policies.is_empty();
        if nothing && contents.problems.is_empty() {
            let message = match contents.foreign {
                0 => "there is no configuration of Entra Sidecar in this file",
                _ => "the wasm filters in this file are of other modules",
            };
            self.error(file, 1, message);
        }
        for policy in policies {
            policy.findings.iter().for_each(|finding| self.finding(file, finding));
            self.sound = self.sound.saturating_add(1);
            self.say(file, policy.line, &policy.meaning);
        }
        for finding in replay::warnings(&contents.documents, &sound) {
            self.finding(file, &finding);
        }
        Checked { file: file.to_owned(), sound }
    }

    fn finding(&mut self, file: &str, finding: &Finding) {
        let word = match finding.severity {
            Severity::Error => {
                self.errors = self.errors.saturating_add(1);
                "error"
            }
            Severity::Warning => {
                self.warnings = self.warnings.saturating_add(1);
                "warning"
            }
        };
        let path = match finding.path.as_str() {
            "" => String::new(),
            path => format!("{path}: "),
        };
        self.say(file, finding.line, &format!("{word}: {path}{}", finding.message));
    }

    fn error(&mut self, file: &str, line: usize, message: &str) {
        let (severity, message) = (Severity::Error, message.to_owned());
        self.finding(file, &Finding { line, severity, path: String::new(), message });
    }

    fn say(&mut self, file: &str, line: usize, text: &str) {
        // One finding is one line, whatever is quoted in it.
        let text: String =
            text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        self.text.push_str(&format!("{file}:{line}: {text}\n"));
    }
}

type Read = Result<(String, Sound, Vec<Finding>), Vec<Finding>>;

/// Has a configuration read by its reader: what it means and what to warn of, or its errors.
fn read(configuration: &Configuration, exact_router: bool) -> Read {
    let finding = |severity, path: &str, message: String| Finding {
        line: configuration.line_of(path),
        severity,
        path: path.to_owned(),
        message,
    };
    let warned = |warnings: Vec<(String, String)>| {
        let warning =
            |(path, message): (String, String)| finding(Severity::Warning, &path, message);
        warnings.into_iter().map(warning).collect()
    };
    let refused = |errors: Vec<policy::document::ConfigError>| {
        let error = |error: policy::document::ConfigError| {
            finding(Severity::Error, &error.path, error.message)
        };
        errors.into_iter().map(error).collect()
    };
    match configuration.kind {
        Kind::Filter => match Config::read(configuration.text.as_bytes()) {
            Ok(config) => {
                let warnings = warned(warnings::of(&config, configuration, exact_router));
                Ok((warnings::meaning(&config), Sound::Filter(config), warnings))
            }
            Err(errors) => Err(unreadable(configuration).unwrap_or_else(|| refused(errors))),
        },
        Kind::Broker => match broker::read(&configuration.text) {
            Ok((config, warnings)) => {
                let warnings = warned(warnings);
                Ok((broker::meaning(&config), Sound::Broker(Box::new(config)), warnings))
            }
            Err(errors) => Err(refused(errors)),
        },
        Kind::Destinations => match destinations::read(&configuration.text) {
            Ok(list) => {
                let count = list.list.len();
                let plural = if count == 1 { "" } else { "s" };
                let meaning = format!("{count} destination{plural} of {}", list.namespace);
                Ok((meaning, Sound::Destinations(Box::new(list)), Vec::new()))
            }
            Err(errors) => Err(refused(errors)),
        },
    }
}

/// Where JSON is no JSON, or has a name twice: its reader says only that it is so.
fn unreadable(configuration: &Configuration) -> Option<Vec<Finding>> {
    let (line, message) = match serde_json::from_str::<serde::de::IgnoredAny>(&configuration.text) {
        Err(error) => {
            let (line, column) = (error.line(), error.column());
            let message = error.to_string();
            let message = message.split(" at line ").next().unwrap_or_default();
            let line = configuration.line_in(line);
            (line, format!("not JSON: {message} (column {column} of the line's JSON)"))
        }
        Ok(_) => {
            let (line, name) = configuration.tree()?.twice()?;
            (line, format!("`{name}` stands twice"))
        }
    };
    Some(vec![Finding { line, severity: Severity::Error, path: String::new(), message }])
}
