//! JSON that can be read in one way only.
//!
//! Tokens are read more strictly than JSON libraries do: no member twice in an object, not even in
//! another case (RFC 7519 §4 leaves duplicates to the parser; Entra never sends them), nesting and
//! member counts bounded, all text valid UTF-8. Values borrow from the text.

use std::borrow::Cow;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Deepest nesting of objects and lists.
pub const MAX_DEPTH: usize = 32;
/// Most members in one object.
pub const MAX_MEMBERS: usize = 512;

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub enum Node<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A whole number from 0 to 2^64 - 1.
    Unsigned(u64),
    /// Any other number.
    Number(f64),
    /// Text, escapes resolved.
    Text(Cow<'a, str>),
    /// A list.
    List(Vec<Node<'a>>),
    /// An object.
    Object(Object<'a>),
}

impl Node<'_> {
    /// The text of a string.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The strings of a list that holds nothing else.
    pub fn texts(&self) -> Option<Vec<&str>> {
        match self {
            Self::List(elements) => elements.iter().map(Node::text).collect(),
            _ => None,
        }
    }
}

/// An object: members in the order of the text, no two of one name in any case.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Object<'a>(Vec<(Cow<'a, str>, Node<'a>)>);

impl<'a> Object<'a> {
    /// The value of a member, its name compared exactly.
    pub fn get(&self, name: &str) -> Option<&Node<'a>> {
        self.0.iter().find(|(member, _)| member == name).map(|(_, value)| value)
    }

    /// All members, in the order of the text.
    pub fn members(&self) -> impl Iterator<Item = (&str, &Node<'a>)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value))
    }

    /// The names of all members.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_ref())
    }
}

/// Reads one object that fills the whole text, or says that it is not one.
///
/// Text that is not UTF-8, not JSON, not an object, ambiguous or beyond the limits is `None`.
pub fn object(text: &[u8]) -> Option<Object<'_>> {
    // The whole text at once: inside values that a parser skips it would go unseen.
    let text = std::str::from_utf8(text).ok()?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let node = Strict { depth: 0 }.deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    match node {
        Node::Object(object) => Some(object),
        _ => None,
    }
}

#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        match self.depth.checked_add(1) {
            Some(depth) if depth <= MAX_DEPTH => Ok(Self { depth }),
            _ => Err(E::custom("nested too deep")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Node<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Node<'de>;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Node<'de>, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Node<'de>, E> {
        Ok(Node::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Node<'de>, E> {
        Ok(Node::Unsigned(value))
    }

    #[allow(clippy::cast_precision_loss, reason = "negative numbers only ever get refused")]
    fn visit_i64<E: Error>(self, value: i64) -> Result<Node<'de>, E> {
        Ok(Node::Number(value as f64))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Node<'de>, E> {
        Ok(Node::Number(value))
    }

    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<Node<'de>, E> {
        Ok(Node::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Node<'de>, E> {
        Ok(Node::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node<'de>, A::Error> {
        let inner = self.deeper()?;
        let mut elements = Vec::new();
        while let Some(element) = access.next_element_seed(inner)? {
            elements.push(element);
        }
        Ok(Node::List(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node<'de>, A::Error> {
        let inner = self.deeper()?;
        let mut members = Vec::new();
        while let Some(name) = access.next_key_seed(Name)? {
            if members.len() == MAX_MEMBERS {
                return Err(A::Error::custom("too many members"));
            }
            members.push((name, access.next_value_seed(inner)?));
        }
        if ambiguous(&members) {
            return Err(A::Error::custom("a member stands twice"));
        }
        Ok(Node::Object(Object(members)))
    }
}

/// Whether two names differ in nothing but case. Sorting bounds the time for hostile objects;
/// comparing lengths first makes it short for all others.
fn ambiguous(members: &[(Cow<'_, str>, Node<'_>)]) -> bool {
    let mut names: Vec<&[u8]> = members.iter().map(|(name, _)| name.as_bytes()).collect();
    names.sort_unstable_by(|one, other| {
        one.len().cmp(&other.len()).then_with(|| {
            one.iter().map(u8::to_ascii_lowercase).cmp(other.iter().map(u8::to_ascii_lowercase))
        })
    });
    names.windows(2).any(|pair| matches!(pair, [a, b] if a.eq_ignore_ascii_case(b)))
}

/// A member's name, borrowed where it holds no escapes.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a name")
    }

    fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(levels: usize) -> String {
        format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels))
    }

    fn members(count: usize) -> String {
        let members: Vec<String> = (0..count).map(|i| format!("\"m{i}\":1")).collect();
        format!("{{{}}}", members.join(","))
    }

    #[test]
    fn only_unambiguous_objects_are_read() {
        let good: [&str; 5] = [
            "{}",
            " {\"a\":1} ",
            "{\"a\":{\"b\":1},\"b\":2}",
            "{\"\\u0061\":\"\\ud83d\\ude00\"}",
            "{\"a\":[1,{}]}",
        ];
        for text in good {
            assert!(object(text.as_bytes()).is_some(), "{text}");
        }
        let bad: [&[u8]; 26] = [
            b"",
            b"[]",
            b"1",
            b"null",
            b"\"a\"",
            b"{",
            b"{}{}",
            b"{} x",
            b"{'a':1}",
            b"{a:1}",
            b"{\"a\":1,}",
            b"{\"a\":1 /* */}",
            b"{\"a\":NaN}",
            b"\xef\xbb\xbf{}",
            b"{\"a\":1,\"a\":1}",
            b"{\"tid\":1,\"TID\":1}",
            b"{\"a\":1,\"\\u0061\":2}",
            b"{\"x\":{\"a\":1,\"a\":2}}",
            b"{\"x\":[{\"a\":1,\"A\":2}]}",
            b"{\"a\":\"\xff\"}",
            b"{\"\xc0\xae\":1}",
            b"{\"a\":\"\\ud800\"}",
            b"{\"\\udc00\":1}",
            b"{\"a\":\"\n\"}",
            b"{\"a\":1e999}",
            b"{\"a\":01}",
        ];
        for text in bad {
            assert_eq!(object(text), None, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn depth_is_bounded_on_both_sides() {
        assert!(object(nested(MAX_DEPTH).as_bytes()).is_some());
        for levels in [MAX_DEPTH + 1, 100, 1_000, 100_000] {
            assert_eq!(object(nested(levels).as_bytes()), None);
        }
        let lists = format!("{{\"a\":{}{}}}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
        assert_eq!(object(lists.as_bytes()), None);
    }

    #[test]
    fn member_counts_are_bounded_on_both_sides() {
        assert!(object(members(MAX_MEMBERS).as_bytes()).is_some());
        assert_eq!(object(members(MAX_MEMBERS + 1).as_bytes()), None);
    }

    #[test]
    fn values_keep_their_kinds() {
        let text = b"{\"n\":null,\"t\":true,\"u\":18446744073709551615,\"i\":-1,\"f\":1.5,\"s\":\"a\\n\",\"l\":[\"x\",\"y\"],\"m\":[1]}";
        let read = object(text).unwrap();
        assert_eq!(read.get("n"), Some(&Node::Null));
        assert_eq!(read.get("t"), Some(&Node::Bool(true)));
        assert_eq!(read.get("u"), Some(&Node::Unsigned(u64::MAX)));
        assert_eq!(read.get("i"), Some(&Node::Number(-1.0)));
        assert_eq!(read.get("f"), Some(&Node::Number(1.5)));
        assert_eq!(read.get("s").and_then(Node::text), Some("a\n"));
        assert_eq!(read.get("l").and_then(Node::texts), Some(vec!["x", "y"]));
        assert_eq!(read.get("m").and_then(Node::texts), None);
        assert_eq!(read.get("s").and_then(Node::texts), None);
        assert_eq!(read.get("n").and_then(Node::text), None);
        assert_eq!(read.get("N"), None);
        assert_eq!(read.names().collect::<Vec<_>>(), ["n", "t", "u", "i", "f", "s", "l", "m"]);
    }
}
