//! YAML to trees, resolving plain scalars as kubectl does (YAML 1.1 as Go's sigs.k8s.io/yaml reads it): `0644` is 420, `yes`
//! is true, `~` is null, keys are always text.
//!
//! Anchors and merge keys are followed within a budget, so that a small text cannot become a huge tree.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Number, Value};

/// At most this many nodes come out of one text, aliases followed.
const NODES_MAX: usize = 1_000_000;
/// Lists and maps nest at most this deep.
const DEPTH_MAX: usize = 120;

/// Why a text is not YAML we take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum YamlError {
    #[error("error converting YAML to JSON: yaml: {0}")]
    Syntax(String),
    #[error("error converting YAML to JSON: yaml: document contains excessive aliasing")]
    TooLarge,
    #[error("error converting YAML to JSON: yaml: exceeded max depth of {DEPTH_MAX}")]
    TooDeep,
}

/// A document and what is odd in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    pub value: Value,
    /// Keys that stand twice in one map: `line 3: key "a" already set in map`.
    pub duplicates: Vec<String>,
}

/// All documents of a text; empty ones are null.
pub fn documents(text: &str) -> Result<Vec<Document>, YamlError> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| YamlError::Syntax(error.to_string()))?;
        builder.event(event, span.start.line())?;
    }
    Ok(builder.documents)
}

/// The only document of a text; null when there is none.
pub fn one(text: &str) -> Result<Document, YamlError> {
    Ok(documents(text)?.into_iter().next().unwrap_or_default())
}

#[derive(Default)]
struct Builder {
    documents: Vec<Document>,
    duplicates: Vec<String>,
    open: Vec<Node>,
    anchors: HashMap<usize, (Value, usize)>,
    nodes: usize,
}

struct Node {
    value: Value,
    /// The key that waits for its value, in a map.
    key: Option<String>,
    anchor: usize,
    /// `<<` values, put in at the end where no key of the map stands in their way.
    merged: Vec<Value>,
    nodes_before: usize,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, line: usize) -> Result<(), YamlError> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let tagged = tag.map(|tag| tag.suffix.clone()).unwrap_or_default();
                let is_key = self.expects_key();
                let value = match tagged.as_str() {
                    "str" | "binary" => Value::String(text.into_owned()),
                    _ if style != ScalarStyle::Plain => Value::String(text.into_owned()),
                    _ if is_key && text == "<<" => Value::String(MERGE.into()),
                    _ => resolve(&text),
                };
                self.put(value, anchor, 1, line)?;
            }
            Event::SequenceStart(anchor, _) => self.begin(Value::Array(Vec::new()), anchor)?,
            Event::MappingStart(anchor, _) => self.begin(Value::Object(Map::new()), anchor)?,
            Event::SequenceEnd | Event::MappingEnd => self.end(line)?,
            Event::Alias(anchor) => {
                let known = self.anchors.get(&anchor).cloned();
                let (value, size) = known.ok_or_else(|| YamlError::Syntax("unknown anchor referenced".into()))?;
                self.put(value, 0, size, line)?;
            }
            Event::DocumentStart(_) => self.documents.push(Document::default()),
            Event::DocumentEnd => {
                if let Some(document) = self.documents.last_mut() {
                    document.duplicates = std::mem::take(&mut self.duplicates);
                }
                self.anchors.clear();
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd => {}
        }
        Ok(())
    }

    fn expects_key(&self) -> bool {
        self.open.last().is_some_and(|node| node.value.is_object() && node.key.is_none())
    }

    fn begin(&mut self, value: Value, anchor: usize) -> Result<(), YamlError> {
        if self.open.len() >= DEPTH_MAX {
            return Err(YamlError::TooDeep);
        }
        self.open.push(Node { value, key: None, anchor, merged: Vec::new(), nodes_before: self.nodes });
        Ok(())
    }

    fn end(&mut self, line: usize) -> Result<(), YamlError> {
        let Some(mut node) = self.open.pop() else { return Ok(()) };
        if let Value::Object(map) = &mut node.value {
            for value in node.merged.drain(..) {
                merge(map, value)?;
            }
        }
        let size = self.nodes - node.nodes_before;
        self.nodes = node.nodes_before;
        self.put(node.value, node.anchor, size + 1, line)
    }

    fn put(&mut self, value: Value, anchor: usize, size: usize, line: usize) -> Result<(), YamlError> {
        self.nodes += size;
        if self.nodes > NODES_MAX {
            return Err(YamlError::TooLarge);
        }
        if anchor != 0 {
            self.anchors.insert(anchor, (value.clone(), size));
        }
        let Some(node) = self.open.last_mut() else {
            if let Some(document) = self.documents.last_mut() {
                document.value = value;
            }
            return Ok(());
        };
        match (&mut node.value, node.key.take()) {
            (Value::Array(items), _) => items.push(value),
            (Value::Object(map), Some(key)) if key == MERGE => {
                let _ = map;
                node.merged.push(value);
            }
            (Value::Object(map), Some(key)) => {
                if map.contains_key(&key) {
                    self.duplicates.push(format!("line {line}: key {key:?} already set in map"));
                }
                map.insert(key, value);
            }
            (_, None) => node.key = Some(key_text(value)?),
            _ => {}
        }
        Ok(())
    }
}

/// Stands for `<<` as a key; no text can contain it.
const MERGE: &str = "\u{0}<<";

fn merge(map: &mut Map<String, Value>, value: Value) -> Result<(), YamlError> {
    match value {
        Value::Object(other) => {
            for (key, value) in other {
                map.entry(key).or_insert(value);
            }
            Ok(())
        }
        Value::Array(items) => items.into_iter().try_for_each(|item| merge(map, item)),
        _ => Err(YamlError::Syntax("map merge requires map or sequence of maps as the value".into())),
    }
}

/// JSON keys are text: numbers and flags are written out.
fn key_text(value: Value) -> Result<String, YamlError> {
    match value {
        Value::String(text) => Ok(text),
        Value::Null => Ok("null".into()),
        Value::Bool(flag) => Ok(flag.to_string()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Array(_) | Value::Object(_) => Err(YamlError::Syntax("invalid map key".into())),
    }
}

/// What a plain scalar means.
fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => return true.into(),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => return false.into(),
        _ => {}
    }
    let starts_number = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'));
    let number = if starts_number { whole(text).or_else(|| decimal(text)) } else { None };
    number.map_or_else(|| text.into(), Value::Number)
}

/// Whole numbers in Go's notations: `10`, `1_000`, `0x1f`, `0b11`, `0o17`, and octal with a leading zero.
fn whole(text: &str) -> Option<Number> {
    let plain = text.replace('_', "");
    let (negative, digits) = match plain.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, plain.strip_prefix('+').unwrap_or(&plain)),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let size = i128::from_str_radix(digits, radix).ok()?;
    let value = if negative { -size } else { size };
    i64::try_from(value).map(Number::from).or_else(|_| u64::try_from(value).map(Number::from)).ok()
}

/// Decimal fractions and exponents. What JSON cannot hold (`.inf`, `.nan`) stays text.
fn decimal(text: &str) -> Option<Number> {
    let shape = text.chars().all(|c| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E' | '_'));
    if !shape || !text.contains(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let value: f64 = text.replace('_', "").parse().ok()?;
    if value.fract() == 0.0 && value.abs() < 1e15 {
        return Some(Number::from(value as i64));
    }
    Number::from_f64(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_plain_scalars_as_kubectl_does() {
        let cases = [
            ("0644", json!(420)),
            ("0x1f", json!(31)),
            ("1_000", json!(1000)),
            ("-5", json!(-5)),
            ("+5", json!(5)),
            ("1.5", json!(1.5)),
            ("1e3", json!(1000)),
            ("yes", json!(true)),
            ("Off", json!(false)),
            ("~", json!(null)),
            ("1.2.3", json!("1.2.3")),
            ("08", json!(8)),
            ("\"yes\"", json!("yes")),
            ("'0644'", json!("0644")),
            ("!!str 1", json!("1")),
            ("2024-01-01", json!("2024-01-01")),
            ("100m", json!("100m")),
        ];
        for (text, value) in cases {
            assert_eq!(one(&format!("a: {text}\n")).unwrap().value, json!({"a": value}), "{text}");
        }
    }

    #[test]
    fn reads_documents_anchors_merges_and_duplicates() {
        let text = "a: &x {b: 1, c: 2}\nd:\n  <<: *x\n  b: 3\n1: y\n---\n---\n- z\n- z: 1\n  z: 2\n";
        let documents = documents(text).unwrap();
        assert_eq!(documents[0].value, json!({"a": {"b": 1, "c": 2}, "d": {"b": 3, "c": 2}, "1": true}));
        assert_eq!(documents[1].value, json!(null));
        assert_eq!(documents[2].value, json!(["z", {"z": 2}]));
        assert_eq!(documents[2].duplicates, ["line 10: key \"z\" already set in map"]);
    }

    #[test]
    fn refuses_bombs_and_deep_nesting() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for level in 1..9 {
            let before = format!("*a{}, ", level - 1).repeat(9);
            bomb.push_str(&format!("a{level}: &a{level} [{}]\n", before.trim_end_matches(", ")));
        }
        assert_eq!(documents(&bomb), Err(YamlError::TooLarge));
        assert_eq!(documents(&"[".repeat(200)), Err(YamlError::TooDeep));
        assert!(matches!(documents("a: [1"), Err(YamlError::Syntax(_))));
    }
}
