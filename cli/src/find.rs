//! Finds our configurations in a file: the document itself, or inside Envoy's and Kubernetes'.
//!
//! It knows where a configuration can stand, not what one means: `check` has it read by those who
//! run on it.

use std::rc::Rc;

use crate::tree::{self, Node, Problem, Tree};

/// Whose configuration it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The filter's.
    Filter,
    /// The token broker's.
    Broker,
    /// A list of destinations, for `istio destinations`.
    Destinations,
}

/// A configuration somewhere in a file.
#[derive(Debug)]
pub(crate) struct Configuration {
    /// Whose.
    pub(crate) kind: Kind,
    /// What it stands in, for people: `filter entra-inbound`; empty where it is the file.
    pub(crate) place: String,
    /// The line on which it begins.
    pub(crate) line: usize,
    /// As its reader takes it: JSON, or for the broker YAML.
    pub(crate) text: String,
    lines: Lines,
}

/// How lines of a configuration become lines of the file.
#[derive(Debug)]
enum Lines {
    /// Every value has its own.
    Each(Rc<Node>),
    /// All of it stands on one line, or cannot be told apart.
    One(usize),
}

impl Configuration {
    /// The line in the file on which a path of the configuration stands.
    pub(crate) fn line_of(&self, path: &str) -> usize {
        match &self.lines {
            Lines::Each(node) => node.line_of(path),
            Lines::One(line) => *line,
        }
    }

    /// The line in the file of a line of the text, where the text is broken.
    pub(crate) fn line_in(&self, line: usize) -> usize {
        match &self.lines {
            Lines::One(line) => *line,
            Lines::Each(_) => self.line.saturating_add(line).saturating_sub(1),
        }
    }

    /// The tree, where there is one.
    pub(crate) fn tree(&self) -> Option<&Rc<Node>> {
        match &self.lines {
            Lines::Each(node) => Some(node),
            Lines::One(_) => None,
        }
    }
}

/// What is in a file.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// Our configurations, in order.
    pub(crate) configurations: Vec<Configuration>,
    /// What should be one and cannot be read.
    pub(crate) problems: Vec<Problem>,
    /// Other modules' filters, which are nobody's business here.
    pub(crate) foreign: usize,
    /// The documents themselves, a list of resources taken apart.
    pub(crate) documents: Vec<Rc<Node>>,
}

/// Looks through the text of a file.
pub(crate) fn contents(text: &str) -> Contents {
    let mut found = Contents::default();
    match tree::read(text, 1) {
        Ok(documents) => {
            // One document alone is read by its reader as it was written.
            let whole = if documents.len() == 1 { Some(text) } else { None };
            for document in &documents {
                found.document(document, whole, "");
            }
        }
        Err(problem) => found.problems.push(problem),
    }
    found
}

impl Contents {
    /// A document: ours, a Kubernetes resource, or something that holds filters.
    fn document(&mut self, node: &Rc<Node>, text: Option<&str>, place: &str) {
        if let Some(kind) = kind(node) {
            return self.ours(kind, node, text, place);
        }
        if place.is_empty() {
            self.documents.push(node.clone());
        }
        let name = node.get("metadata").and_then(|metadata| metadata.get("name")?.text());
        let within = |kind: &str| format!("{kind} {}", name.unwrap_or("without a name"));
        match node.get("kind").and_then(|kind| kind.text()) {
            Some("ConfigMap") => {
                if let Some(Tree::Map(entries)) = node.get("data").map(|data| &data.value) {
                    for (entry, _, node) in entries {
                        self.entry(node, &format!("{}, {entry}", within("ConfigMap")));
                    }
                }
            }
            Some(kind @ ("WasmPlugin" | "TrafficExtension")) => {
                let spec = node.get("spec");
                let module = spec.map(|spec| spec.get("wasm").unwrap_or(spec));
                let config = module.and_then(|module| module.get("pluginConfig"));
                let ours = config.is_some_and(|config| reads_as_filter(config))
                    || module.and_then(|module| module.get("url")?.text()).is_some_and(names_us);
                match config {
                    Some(config) if ours => self.ours(Kind::Filter, config, None, &within(kind)),
                    None if ours => self.problems.push(Problem {
                        line: node.line,
                        message: "no `pluginConfig`: the filter would not start".to_owned(),
                    }),
                    _ => self.foreign = self.foreign.saturating_add(1),
                }
            }
            Some("List") => {
                if let Some(Tree::List(items)) = node.get("items").map(|items| &items.value) {
                    for item in items {
                        self.document(item, None, place);
                    }
                }
            }
            _ => self.filters(node, place, &mut MAX_VISITS.clone()),
        }
    }

    /// An entry of a ConfigMap: a file of its own.
    fn entry(&mut self, node: &Rc<Node>, place: &str) {
        let Tree::Text(text) = &node.value else { return };
        // Whatever else is in a ConfigMap need not be YAML.
        let Ok(documents) = tree::read(&text.text, node.line) else {
            if names_a_member(&text.text) {
                self.problems.push(Problem {
                    line: node.line,
                    message: format!("{place}: looks like a configuration, but is not YAML"),
                });
            }
            return;
        };
        let whole = if documents.len() == 1 { Some(text.text.as_str()) } else { None };
        let before = self.configurations.len();
        for document in &documents {
            self.document(document, whole, place);
        }
        if !text.literal {
            for found in self.configurations.iter_mut().skip(before) {
                (found.line, found.lines) = (node.line, Lines::One(node.line));
            }
        }
    }

    /// Looks for wasm filters anywhere in Envoy's configuration, or in a patch of Istio.
    fn filters(&mut self, node: &Rc<Node>, place: &str, left: &mut usize) {
        let Some(rest) = left.checked_sub(1) else {
            return self.problems.push(Problem {
                line: node.line,
                message: "too large with its aliases followed".to_owned(),
            });
        };
        *left = rest;
        match &node.value {
            Tree::Text(_) => {}
            Tree::List(elements) => {
                for element in elements {
                    self.filters(element, place, left);
                }
            }
            Tree::Map(members) => {
                if let Some(plugin) = plugin(node) {
                    return self.plugin(plugin, place);
                }
                for (_, _, member) in members {
                    self.filters(member, place, left);
                }
            }
        }
    }

    /// A PluginConfig of Envoy (envoy.extensions.wasm.v3.PluginConfig).
    fn plugin(&mut self, plugin: &Rc<Node>, place: &str) {
        let name = plugin.get("name").and_then(|name| name.text()).unwrap_or("without a name");
        let place = match place {
            "" => format!("filter {name}"),
            place => format!("{place}, filter {name}"),
        };
        let code = plugin.get("vm_config").and_then(|vm| {
            let code = vm.get("code")?;
            let local = code.get("local").and_then(|local| local.get("filename"));
            local.or_else(|| code.get("remote")?.get("http_uri")?.get("uri"))?.text()
        });
        let ours = code.is_some_and(names_us);
        // An Any: StringValue with JSON in it, or a Struct.
        let value = plugin.get("configuration").and_then(|any| any.get("value"));
        match value.map(|value| (value, &value.value)) {
            Some((node, Tree::Text(text))) if ours || names_a_member(&text.text) => {
                let read = tree::read(&text.text, node.line).ok();
                let lines = match read.as_deref() {
                    Some([only]) if text.literal => Lines::Each(only.clone()),
                    // Broken, and yet every line is one of the file's.
                    _ if text.literal => Lines::Each(node.clone()),
                    _ => Lines::One(node.line),
                };
                self.configurations.push(Configuration {
                    kind: Kind::Filter,
                    place,
                    line: node.line,
                    text: text.text.clone(),
                    lines,
                });
            }
            Some((node, Tree::Map(_))) if ours || reads_as_filter(node) => {
                self.ours(Kind::Filter, node, None, &place);
            }
            None if ours => self.problems.push(Problem {
                line: plugin.line,
                message: format!("{place}: no `configuration`: the filter would not start"),
            }),
            _ => self.foreign = self.foreign.saturating_add(1),
        }
    }

    fn ours(&mut self, kind: Kind, node: &Rc<Node>, text: Option<&str>, place: &str) {
        let is_json = |text: &&str| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
        let text = match (kind, text) {
            (Kind::Broker, Some(text)) => text.to_owned(),
            (Kind::Filter, Some(text)) if is_json(&text) => text.to_owned(),
            _ => match node.json() {
                Ok(value) => value.to_string(),
                Err(problem) => return self.problems.push(problem),
            },
        };
        self.configurations.push(Configuration {
            kind,
            place: place.to_owned(),
            line: node.line,
            text,
            lines: Lines::Each(node.clone()),
        });
    }
}

/// Most nodes that are looked at in one document.
pub(crate) const MAX_VISITS: usize = 1_000_000;

/// Whose configuration a document is, by its members' names.
fn kind(node: &Node) -> Option<Kind> {
    let Tree::Map(members) = &node.value else { return None };
    let has = |name: &str| members.iter().any(|(member, _, _)| member == name);
    if has("kind") && has("apiVersion") {
        None
    } else if reads_as_filter(node) {
        Some(Kind::Filter)
    } else if has("authorities") || has("identities") {
        Some(Kind::Broker)
    } else if has("destinations") || (has("namespace") && has("module")) {
        Some(Kind::Destinations)
    } else {
        None
    }
}

/// Whether an object is meant for the filter, also where something is missing or misspelt.
fn reads_as_filter(node: &Node) -> bool {
    let has = |name: &str| node.get(name).is_some();
    has("direction") || (has("rules") && (has("audiences") || has("tenants") || has("broker")))
}

/// The same of text that may be broken.
fn names_a_member(text: &str) -> bool {
    let names = |name: &str| text.contains(name);
    names("direction") && (names("inbound") || names("outbound"))
        || names("rules") && (names("audiences") || names("tenants"))
        || names("authorities") && names("identities")
}

/// Whether a module is ours by the name of its file.
fn names_us(address: &str) -> bool {
    address.contains("entra_filter") || address.contains("entra-sidecar")
}

/// The plugin's configuration of a map that is Envoy's Wasm filter, in its own type or in a
/// TypedStruct as patches have it.
fn plugin(node: &Node) -> Option<&Rc<Node>> {
    const FILTER: &str = "envoy.extensions.filters.http.wasm.v3.Wasm";
    let is = |member: &str, name: &str| {
        node.get(member).and_then(|node| node.text()).is_some_and(|text| text.ends_with(name))
    };
    if is("@type", FILTER) {
        node.get("config")
    } else if is("@type", ".TypedStruct") && is("type_url", FILTER) {
        node.get("value")?.get("config")
    } else {
        None
    }
}
