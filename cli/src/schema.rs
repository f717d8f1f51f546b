//! `entra-sidecar schema`: JSON Schema of the configurations, for editors.

use clap::ValueEnum;
use policy::config::raw::{RawInbound, RawOutbound};
use schemars::{Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use serde_json::Value;
use token_broker::config::raw::RawConfig;

use crate::{
    destinations::raw::RawDestinations,
    output::{Failure, Output},
};

/// Print the JSON Schema (2020-12) of a configuration, for editors.
///
/// It knows every key and its type; what goes with what, `check` knows.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Whose configuration.
    #[arg(value_enum, default_value = "filter")]
    of: Of,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Of {
    /// The filter's, in either direction.
    Filter,
    /// The token broker's.
    Broker,
    /// The list that `istio destinations` takes.
    Destinations,
}

/// Prints the schema.
pub(crate) fn run(arguments: &Arguments) -> Result<Output, Failure> {
    let mut schema = match arguments.of {
        Of::Filter => filter(),
        Of::Broker => generator().into_root_schema_for::<RawConfig>().to_value(),
        Of::Destinations => generator().into_root_schema_for::<RawDestinations>().to_value(),
    };
    strict(&mut schema);
    let mut output = Output::default();
    output.line(serde_json::to_string_pretty(&schema).unwrap_or_default());
    Ok(output)
}

fn generator() -> SchemaGenerator {
    SchemaSettings::draft2020_12().into_generator()
}

/// One schema for both directions, told apart by `direction`.
fn filter() -> Value {
    let mut generator = generator();
    let mut directions = Vec::new();
    for (word, schema) in [
        ("inbound", generator.subschema_for::<RawInbound>()),
        ("outbound", generator.subschema_for::<RawOutbound>()),
    ] {
        directions.push(serde_json::json!({
            "if": {"properties": {"direction": {"const": word}}},
            "then": schema,
        }));
    }
    let definitions: serde_json::Map<String, Value> = generator.take_definitions(true);
    let schema: Schema = json_schema!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The filter of Entra Sidecar",
        "type": "object",
        "required": ["direction"],
        "properties": {"direction": {"enum": ["inbound", "outbound"]}},
        "allOf": directions,
        "$defs": definitions,
    });
    schema.to_value()
}

/// The types hold everything as optional, so that all errors are found at once. For who writes a
/// document neither `null` nor leaving out what the descriptions call required is allowed.
fn strict(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            members.retain(|name, value| !(name == "default" && value.is_null()));
            if let Some(Value::Array(types)) = members.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    members.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(any)) = members.get_mut("anyOf") {
                any.retain(|one| one.get("type").is_none_or(|name| name != "null"));
            }
            let required: Vec<Value> = match members.get("properties") {
                Some(Value::Object(properties)) => properties
                    .iter()
                    .filter(|(_, property)| says_required(property))
                    .map(|(name, _)| Value::from(name.as_str()))
                    .collect(),
                _ => Vec::new(),
            };
            if !required.is_empty() {
                members.insert("required".to_owned(), Value::Array(required));
            }
            members.values_mut().for_each(strict);
        }
        Value::Array(elements) => elements.iter_mut().for_each(strict),
        _ => {}
    }
}

fn says_required(property: &Value) -> bool {
    let description = property.get("description").and_then(Value::as_str).unwrap_or_default();
    description.split(['.', ',', ':', ';']).any(|sentence| sentence.trim() == "Required")
}
