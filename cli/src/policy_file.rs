//! The one policy of a file that a request is put to.

use std::path::Path;

use policy::config::Config;

use crate::{
    find::{self, Configuration, Kind},
    output::{self, Failure},
};

/// Which of the directions is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// What comes in.
    Inbound,
    /// What goes out.
    Outbound,
}

/// Reads the filter's configuration of a direction out of a file: its only one, or the one of the
/// filter (or resource) with this name.
pub(crate) fn read(
    path: &Path,
    direction: Direction,
    name: Option<&str>,
) -> Result<Config, Failure> {
    let shown = path.display();
    let found = find::contents(&output::read(path)?);
    let is_wanted = |found: &&Configuration| {
        let named = name.is_none_or(|name| found.place.split([' ', ',']).any(|word| word == name));
        found.kind == Kind::Filter && named
    };
    let mut fitting = Vec::new();
    for configuration in found.configurations.iter().filter(is_wanted) {
        let config = Config::read(configuration.text.as_bytes()).map_err(|errors| {
            let first = errors.first();
            let line = configuration.line_of(first.map_or("", |error| &error.path));
            let error = first.map(ToString::to_string).unwrap_or_default();
            Failure::new(format!(
                "{shown}:{line}: {error} (`entra-sidecar check {shown}` shows all errors)"
            ))
        })?;
        let same = match config {
            Config::Inbound(_) => direction == Direction::Inbound,
            Config::Outbound(_) => direction == Direction::Outbound,
        };
        if same {
            fitting.push((config, &configuration.place));
        }
    }
    let word = match direction {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
    };
    let places: Vec<&str> = fitting.iter().map(|(_, place)| place.as_str()).collect();
    let several = places.join("; ");
    match (fitting.pop(), fitting.is_empty(), found.problems.first()) {
        (Some((config, _)), true, _) => Ok(config),
        (Some(_), false, _) => Err(Failure::new(format!(
            "{shown}: has more than one {word} configuration ({several}); choose by --filter"
        ))),
        (None, _, Some(problem)) => {
            Err(Failure::new(format!("{shown}:{}: {}", problem.line, problem.message)))
        }
        (None, _, None) => Err(Failure::new(format!("{shown}: has no {word} configuration"))),
    }
}
