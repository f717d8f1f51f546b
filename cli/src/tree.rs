//! YAML and JSON as a tree that remembers lines.
//!
//! What a document means, its own reader says; this says where in the file a path of it stands,
//! and finds documents inside others. JSON is read as YAML, of which it is a part. The reader's
//! messages quote nothing, so that a secret in the wrong place stays out of logs.

use std::{collections::HashMap, rc::Rc};

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};
use serde_json::{Map, Value};

/// Deeper documents are no configurations.
const MAX_DEPTH: usize = 64;
const TOO_DEEP: &str = "nested too deep";
/// Most nodes of one document with its aliases followed: enough for a large Envoy, too few for a
/// document that doubles itself.
const MAX_NODES: usize = 200_000;

/// Something that is wrong with a document as such.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// In the file, from 1.
    pub(crate) line: usize,
    /// What.
    pub(crate) message: String,
}

/// A value and the line on which it begins.
#[derive(Debug)]
pub(crate) struct Node {
    /// In the file, from 1. Of a block of text the first line of its content.
    pub(crate) line: usize,
    /// The value.
    pub(crate) value: Tree,
    /// How many levels are in it, aliases followed: whoever walks through it stays on the stack.
    depth: usize,
}

/// A value.
#[derive(Debug)]
pub(crate) enum Tree {
    /// A scalar.
    Text(Text),
    /// A list.
    List(Vec<Rc<Node>>),
    /// Members in order, each with the line of its name; one name can stand twice.
    Map(Vec<(String, usize, Rc<Node>)>),
}

/// A scalar.
#[derive(Debug)]
pub(crate) struct Text {
    /// As it reads.
    pub(crate) text: String,
    /// Whether it is surely text: quoted, a block, or tagged so.
    quoted: bool,
    /// Whether its lines are lines of the file (a literal block).
    pub(crate) literal: bool,
}

/// Reads all documents of a text whose first line is line `first` of the file.
pub(crate) fn read(text: &str, first: usize) -> Result<Vec<Rc<Node>>, Problem> {
    let readable = without_surrogates(text);
    let mut reader = Reader { first, ..Reader::default() };
    // The parser repeats an error for ever, hence the `?` on each event.
    for event in Parser::new_from_str(readable.as_deref().unwrap_or(text)) {
        let (event, span) = event.map_err(|error| Problem {
            line: reader.line(error.marker().line()),
            message: format!("not YAML: {}", error.info()),
        })?;
        reader.take(event, span.start.line())?;
    }
    Ok(reader.documents)
}

/// JSON writes characters beyond the first plane as two escapes, which YAML has no word for: they
/// are replaced by others of the same length. Only lines are taken from what is read so.
fn without_surrogates(text: &str) -> Option<String> {
    serde_json::from_str::<serde::de::IgnoredAny>(text).ok()?;
    let mut replaced = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, escape)) = rest.split_once("\\u") {
        replaced.push_str(before);
        let (digits, after) = escape.split_at_checked(4)?;
        let surrogate = u16::from_str_radix(digits, 16).is_ok_and(|unit| unit & 0xf800 == 0xd800);
        replaced.push_str("\\u");
        replaced.push_str(if surrogate { "fffd" } else { digits });
        rest = after;
    }
    replaced.push_str(rest);
    Some(replaced)
}

#[derive(Default)]
struct Reader {
    first: usize,
    documents: Vec<Rc<Node>>,
    /// What is open, from the outside in.
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<Node>>,
}

struct Open {
    anchor: usize,
    line: usize,
    value: Tree,
    /// The name whose value comes next.
    name: Option<(String, usize)>,
}

impl Reader {
    fn line(&self, line: usize) -> usize {
        self.first.saturating_add(line).saturating_sub(1)
    }

    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), Problem> {
        let line = self.line(line);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let literal = style == ScalarStyle::Literal;
                // The line of a block is that of its first character that is no line feed.
                let blank = text.bytes().take_while(|byte| literal && *byte == b'\n').count();
                let text = Text {
                    quoted: style != ScalarStyle::Plain || tag.as_deref().is_some_and(is_text),
                    literal,
                    text: text.into_owned(),
                };
                let line = line.saturating_sub(blank);
                self.put(anchor, Node { line, value: Tree::Text(text), depth: 0 })
            }
            Event::SequenceStart(anchor, _) => self.begin(anchor, line, Tree::List(Vec::new())),
            Event::MappingStart(anchor, _) => self.begin(anchor, line, Tree::Map(Vec::new())),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { anchor, line, value, .. }) => {
                    let depth = value.depth();
                    if depth > MAX_DEPTH {
                        return Err(Problem { line, message: TOO_DEEP.to_owned() });
                    }
                    self.put(anchor, Node { line, value, depth })
                }
                None => Ok(()),
            },
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some(node) => self.add(node, line),
                None => Err(Problem { line, message: "an alias of nothing".to_owned() }),
            },
            _ => Ok(()),
        }
    }

    fn begin(&mut self, anchor: usize, line: usize, value: Tree) -> Result<(), Problem> {
        if self.open.len() >= MAX_DEPTH {
            return Err(Problem { line, message: TOO_DEEP.to_owned() });
        }
        self.open.push(Open { anchor, line, value, name: None });
        Ok(())
    }

    fn put(&mut self, anchor: usize, node: Node) -> Result<(), Problem> {
        let line = node.line;
        let node = Rc::new(node);
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        self.add(node, line)
    }

    /// Adds a finished value to what is open.
    fn add(&mut self, node: Rc<Node>, line: usize) -> Result<(), Problem> {
        match self.open.last_mut() {
            None => self.documents.push(node),
            Some(Open { value: Tree::List(elements), .. }) => elements.push(node),
            Some(Open { value: Tree::Map(members), name, .. }) => match name.take() {
                Some((name, line)) => members.push((name, line, node)),
                None => match &node.value {
                    Tree::Text(text) => *name = Some((text.text.clone(), line)),
                    Tree::List(_) | Tree::Map(_) => {
                        let message = "a name that is no text".to_owned();
                        return Err(Problem { line, message });
                    }
                },
            },
            Some(Open { value: Tree::Text(_), .. }) => {}
        }
        Ok(())
    }
}

fn is_text(tag: &Tag) -> bool {
    tag.is_yaml_core_schema() && tag.suffix == "str"
}

impl Tree {
    fn depth(&self) -> usize {
        let deepest = match self {
            Self::Text(_) => return 0,
            Self::List(elements) => elements.iter().map(|node| node.depth).max(),
            Self::Map(members) => members.iter().map(|(_, _, node)| node.depth).max(),
        };
        deepest.unwrap_or(0).saturating_add(1)
    }
}

impl Node {
    /// The value of a member.
    pub(crate) fn get(&self, name: &str) -> Option<&Rc<Node>> {
        match &self.value {
            Tree::Map(members) => {
                members.iter().find(|(member, _, _)| member == name).map(|(_, _, node)| node)
            }
            Tree::Text(_) | Tree::List(_) => None,
        }
    }

    /// The text of a scalar.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Tree::Text(text) => Some(&text.text),
            Tree::List(_) | Tree::Map(_) => None,
        }
    }

    /// The line on which `path` stands (as in `rules[2].match.path`), or the nearest thing around
    /// it that is there.
    pub(crate) fn line_of(&self, path: &str) -> usize {
        self.find(path.trim_start_matches('.'), self.line)
    }

    fn find(&self, path: &str, line: usize) -> usize {
        match &self.value {
            Tree::Map(members) => {
                // Names may have dots of their own: the longest that fits.
                let fits = |name: &str| {
                    path.strip_prefix(name).filter(|rest| {
                        rest.is_empty() || rest.starts_with('.') || rest.starts_with('[')
                    })
                };
                let fitting = members
                    .iter()
                    .filter_map(|(name, line, node)| Some((name.len(), line, node, fits(name)?)))
                    .max_by_key(|(length, ..)| *length);
                fitting.map_or(line, |(_, line, node, rest)| {
                    node.find(rest.trim_start_matches('.'), *line)
                })
            }
            Tree::List(elements) => {
                let index = path.strip_prefix('[').and_then(|rest| rest.split_once(']'));
                let element = index.and_then(|(index, rest)| {
                    Some((elements.get(index.parse::<usize>().ok()?)?, rest))
                });
                element
                    .map_or(line, |(node, rest)| node.find(rest.trim_start_matches('.'), node.line))
            }
            Tree::Text(_) => line,
        }
    }

    /// The same as JSON, by the core schema of YAML 1.2; no name twice.
    pub(crate) fn json(&self) -> Result<Value, Problem> {
        self.json_within(&mut MAX_NODES.clone())
    }

    fn json_within(&self, left: &mut usize) -> Result<Value, Problem> {
        *left = left.checked_sub(1).ok_or_else(|| Problem {
            line: self.line,
            message: "too large with its aliases followed".to_owned(),
        })?;
        Ok(match &self.value {
            Tree::Text(text) => text.json(),
            Tree::List(elements) => {
                let elements: Result<_, _> =
                    elements.iter().map(|element| element.json_within(left)).collect();
                Value::Array(elements?)
            }
            Tree::Map(members) => {
                let mut object = Map::new();
                for (name, line, node) in members {
                    if object.insert(name.clone(), node.json_within(left)?).is_some() {
                        let message = format!("`{name}` stands twice");
                        return Err(Problem { line: *line, message });
                    }
                }
                Value::Object(object)
            }
        })
    }

    /// The first name that stands twice in its map, in any case, for readers that cannot say where.
    pub(crate) fn twice(&self) -> Option<(usize, &str)> {
        match &self.value {
            Tree::Text(_) => None,
            Tree::List(elements) => elements.iter().find_map(|element| element.twice()),
            Tree::Map(members) => {
                let mut seen = std::collections::HashSet::new();
                members.iter().find_map(|(name, line, node)| {
                    if seen.insert(name.to_ascii_lowercase()) {
                        node.twice()
                    } else {
                        Some((*line, name.as_str()))
                    }
                })
            }
        }
    }
}

impl Text {
    fn json(&self) -> Value {
        let text = self.text.as_str();
        if self.quoted {
            return Value::from(text);
        }
        match text {
            "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
            "true" | "True" | "TRUE" => return Value::Bool(true),
            "false" | "False" | "FALSE" => return Value::Bool(false),
            _ => {}
        }
        let numeric =
            text.starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first));
        let whole =
            text.parse::<u64>().map(Value::from).or_else(|_| text.parse::<i64>().map(Value::from));
        match (numeric, whole) {
            (true, Ok(number)) => number,
            (true, Err(_)) => match text.parse::<f64>() {
                Ok(number) => Value::from(number),
                Err(_) => Value::from(text),
            },
            (false, _) => Value::from(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn only(text: &str) -> Rc<Node> {
        read(text, 1).unwrap().remove(0)
    }

    #[test]
    fn scalars_mean_what_yaml_1_2_says() {
        let text = "[~, ~, null, true, False, yes, 'true', 12, -3, 0x1f, 1.5, 1e3, .5, ., 1.2.3, \
                    2026-11-24, !!str 7, -a, inf, nan, 007a, '']";
        let expected = json!([
            null,
            null,
            null,
            true,
            false,
            "yes",
            "true",
            12,
            -3,
            "0x1f",
            1.5,
            1000.0,
            0.5,
            ".",
            "1.2.3",
            "2026-11-24",
            "7",
            "-a",
            "inf",
            "nan",
            "007a",
            ""
        ]);
        assert_eq!(only(text).json().unwrap(), expected);
    }

    #[test]
    fn a_path_leads_to_its_line_or_the_nearest_around_it() {
        let node = only("a:\n  b.c:\n    - 1\n    -\n      d: 2\n  b: 3\n");
        for (path, line) in [
            ("", 1),
            ("a", 1),
            ("a.b", 6),
            ("a.b.c", 2),
            ("a.b.c[0]", 3),
            ("a.b.c[1].d", 5),
            ("a.b.c[1].e", 5),
            ("a.b.c[2]", 2),
            ("a.x", 1),
            ("x", 1),
        ] {
            assert_eq!(node.line_of(path), line, "{path}");
        }
    }

    #[test]
    fn a_block_of_text_begins_at_its_first_line() {
        let node = only("a: |  # note\n\n  x\nb: 'c'\n");
        let text = node.get("a").unwrap();
        assert_eq!((text.line, text.text()), (2, Some("\nx\n")));
        assert_eq!(node.line_of("b"), 4);
    }
}
