//! The keys of a JSON Schema as one list of paths, in the order that they nest.

use serde_json::Value;

/// One key that a person may write.
pub(crate) struct Key {
    /// From the top of the document: `rules[].match.path`.
    pub(crate) path: String,
    /// What it takes: `text`, `list of text`.
    pub(crate) value: String,
    /// The comment on the type's member, in one line.
    pub(crate) text: String,
}

/// Every key of a document.
pub(crate) fn keys(schema: &Value) -> Vec<Key> {
    let mut walk = Walk { root: schema, keys: Vec::new() };
    walk.members(schema, "");
    walk.keys
}

struct Walk<'a> {
    root: &'a Value,
    keys: Vec<Key>,
}

impl<'a> Walk<'a> {
    /// Adds the members of an object type, each followed by what is inside it.
    fn members(&mut self, object: &'a Value, path: &str) {
        let members = object.get("properties").and_then(Value::as_object);
        for (name, member) in members.into_iter().flatten() {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let (value, text) = (self.value(member), one_line(description(member)));
            self.keys.push(Key { path: path.clone(), value, text });
            self.inside(member, &path);
        }
    }

    /// Adds what a member holds: the members of its type, of its elements, of its map's values.
    fn inside(&mut self, member: &'a Value, path: &str) {
        for schema in self.alternatives(member) {
            self.members(schema, path);
            if let Some(elements) = schema.get("items") {
                self.inside(elements, &format!("{path}[]"));
            }
            if let Some(values) = schema.get("additionalProperties").filter(|it| it.is_object()) {
                self.inside(values, &format!("{path}.<name>"));
            }
        }
    }

    /// The types that a member may have, references followed, `null` (the key left out) dropped.
    fn alternatives(&self, member: &'a Value) -> Vec<&'a Value> {
        let listed = ["anyOf", "oneOf"].iter().find_map(|name| member.get(name)?.as_array());
        if let Some(listed) = listed {
            return listed.iter().flat_map(|one| self.alternatives(one)).collect();
        }
        match member.get("$ref").and_then(Value::as_str) {
            Some(reference) => {
                let pointer = reference.trim_start_matches('#');
                self.root.pointer(pointer).map_or_else(Vec::new, |to| self.alternatives(to))
            }
            None if member.get("type").and_then(Value::as_str) == Some("null") => Vec::new(),
            None => vec![member],
        }
    }

    /// What a member takes, in words.
    fn value(&self, member: &'a Value) -> String {
        let kinds: Vec<String> =
            self.alternatives(member).into_iter().map(|schema| self.kind(schema)).collect();
        kinds.join(" or ")
    }

    fn kind(&self, schema: &'a Value) -> String {
        let names = match schema.get("type") {
            Some(Value::String(name)) => vec![name.as_str()],
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        match names.into_iter().find(|name| *name != "null") {
            Some("string") => "text".to_owned(),
            Some("boolean") => "`true` or `false`".to_owned(),
            Some("integer") => "number".to_owned(),
            Some("array") => {
                let elements = schema.get("items").map(|items| self.value(items));
                format!("list of {}", elements.unwrap_or_default())
            }
            Some("object") if schema.get("additionalProperties").is_some_and(Value::is_object) => {
                let values = schema.get("additionalProperties").map(|values| self.value(values));
                format!("map of names to {}", values.unwrap_or_default())
            }
            Some("object") => "object".to_owned(),
            other => other.unwrap_or("any").to_owned(),
        }
    }
}

fn description(member: &Value) -> &str {
    member.get("description").and_then(Value::as_str).unwrap_or_default()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
