//! `entra-sidecar istio`: the objects of a mesh that nobody should have to write by hand.

mod objects;

use std::path::PathBuf;

use crate::{
    destinations::{self, Destinations},
    find::{self, Configuration, Kind},
    output::{self, Failure, Output},
};

/// Make the objects that Istio needs.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Destinations(DestinationsArguments),
}

/// Print all that a namespace needs so that its pods' calls get their tokens.
///
/// From a list of destinations come: the filter for the proxies, one EnvoyFilter for each host that
/// brings TLS, the filter and the replay after a claims challenge together, and the ServiceEntries
/// of the hosts and of Entra's login host. To be applied as it is, or given to the chart.
///
/// Ends with 2 when the list has errors, of which it names all.
#[derive(Debug, clap::Args)]
struct DestinationsArguments {
    /// The list of destinations, in YAML or JSON; `entra-sidecar schema destinations` has its keys.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where to write the objects instead of standard output.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Makes the objects.
pub(crate) fn run(arguments: &Arguments) -> Result<Output, Failure> {
    let Command::Destinations(arguments) = &arguments.command;
    let shown = arguments.config.display();
    let destinations = read(&output::read(&arguments.config)?).map_err(|errors| {
        let errors: Vec<String> =
            errors.iter().map(|(line, error)| format!("{shown}:{line}: {error}")).collect();
        Failure::new(errors.join("\n"))
    })?;
    let objects = objects::of(&destinations);
    let Some(path) = &arguments.output else {
        return Ok(Output { text: objects, wrong: false });
    };
    std::fs::write(path, objects)
        .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    let mut output = Output::default();
    let count = destinations.list.len();
    let plural = if count == 1 { "" } else { "s" };
    output.line(format!("{}: the objects of {count} destination{plural}", path.display()));
    Ok(output)
}

/// The only list in a file, or what is wrong with it, each with its line.
fn read(text: &str) -> Result<Destinations, Vec<(usize, String)>> {
    let found = find::contents(text);
    let problems = found.problems.into_iter();
    let problems: Vec<(usize, String)> =
        problems.map(|problem| (problem.line, problem.message)).collect();
    let is_list = |found: &Configuration| found.kind == Kind::Destinations;
    let lists: Vec<Configuration> = found.configurations.into_iter().filter(is_list).collect();
    match lists.as_slice() {
        [list] if problems.is_empty() => destinations::read(&list.text).map_err(|errors| {
            let mut errors: Vec<(usize, String)> = errors
                .into_iter()
                .map(|error| (list.line_of(&error.path), error.to_string()))
                .collect();
            errors.sort_by_key(|(line, _)| *line);
            errors
        }),
        [] if problems.is_empty() => Err(vec![(1, "there is no list of destinations".to_owned())]),
        [_, second, ..] if problems.is_empty() => {
            Err(vec![(second.line, "a second list of destinations".to_owned())])
        }
        _ => Err(problems),
    }
}
