//! Where a walk over an object's bytes puts what it finds: JSON text, or a tree.

use std::io::Write;

use serde_json::{Map, Value};

/// Takes an object piece by piece, in order. A map's entries are a key and then a value.
pub trait Sink {
    fn begin_map(&mut self);
    fn end_map(&mut self);
    fn begin_list(&mut self);
    fn end_list(&mut self);
    fn key(&mut self, key: &str);
    /// A key that is a field's name, which nothing in needs escapes.
    fn name(&mut self, name: &str) {
        self.key(name);
    }
    fn string(&mut self, text: &str);
    fn int(&mut self, number: i64);
    fn double(&mut self, number: f64);
    fn bool(&mut self, flag: bool);
    fn null(&mut self);
    /// A value that is JSON text already. An error says that it is not.
    fn raw(&mut self, json: &[u8]) -> Result<(), serde_json::Error>;
}

/// Writes JSON text as Go's encoder does: no spaces, `<`, `>` and `&` escaped.
#[derive(Default)]
pub struct JsonText {
    pub out: Vec<u8>,
}

impl JsonText {
    pub fn with_capacity(bytes: usize) -> Self {
        JsonText { out: Vec::with_capacity(bytes) }
    }

    /// A value that was written by this type before.
    pub fn verbatim(&mut self, json: &[u8]) {
        self.separate();
        self.out.extend_from_slice(json);
    }

    /// A comma unless the value is the first of its list or follows a key.
    fn separate(&mut self) {
        if !matches!(self.out.last(), None | Some(b'{' | b'[' | b':')) {
            self.out.push(b',');
        }
    }
}

impl Sink for JsonText {
    fn begin_map(&mut self) {
        self.separate();
        self.out.push(b'{');
    }

    fn end_map(&mut self) {
        self.out.push(b'}');
    }

    fn begin_list(&mut self) {
        self.separate();
        self.out.push(b'[');
    }

    fn end_list(&mut self) {
        self.out.push(b']');
    }

    fn key(&mut self, key: &str) {
        self.separate();
        write_string(&mut self.out, key);
        self.out.push(b':');
    }

    fn name(&mut self, name: &str) {
        self.separate();
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn string(&mut self, text: &str) {
        self.separate();
        write_string(&mut self.out, text);
    }

    fn int(&mut self, number: i64) {
        self.separate();
        // writing into a vector cannot fail
        let _ = write!(self.out, "{number}");
    }

    fn double(&mut self, number: f64) {
        self.separate();
        write_double(&mut self.out, number);
    }

    fn bool(&mut self, flag: bool) {
        self.separate();
        self.out.extend_from_slice(if flag { b"true" } else { b"false" });
    }

    fn null(&mut self) {
        self.separate();
        self.out.extend_from_slice(b"null");
    }

    fn raw(&mut self, json: &[u8]) -> Result<(), serde_json::Error> {
        self.separate();
        write_compact(&mut self.out, json);
        Ok(())
    }
}

/// How many bytes are looked at together.
const LANES: usize = 16;

/// The first byte that is `sought`.
fn position(bytes: &[u8], sought: impl Fn(u8) -> bool) -> Option<usize> {
    let (whole, _) = bytes.as_chunks::<LANES>();
    // No way out of the inner loop: so it becomes a few instructions.
    let clean = whole.iter().take_while(|lanes| !lanes.iter().fold(false, |any, byte| any | sought(*byte))).count();
    let from = clean * LANES;
    Some(from + bytes[from..].iter().position(|byte| sought(*byte))?)
}

/// Whether a byte needs a look before it stands in a string: one that is escaped, or the first of a line separator's three.
fn is_not_plain(byte: u8) -> bool {
    (byte < 0x20) | (byte == 0xe2) | (byte == b'"') | (byte == b'\\') | (byte == b'<') | (byte == b'>') | (byte == b'&')
}

/// Go's string escapes.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = position(rest, is_not_plain) {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        let taken = escape(out, rest);
        rest = &rest[taken..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// Writes what stands at the beginning, which is not plain; how many bytes of it that were.
fn escape(out: &mut Vec<u8>, text: &[u8]) -> usize {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match text {
        [b'"', ..] => out.extend_from_slice(b"\\\""),
        [b'\\', ..] => out.extend_from_slice(b"\\\\"),
        [b'\n', ..] => out.extend_from_slice(b"\\n"),
        [b'\r', ..] => out.extend_from_slice(b"\\r"),
        [b'\t', ..] => out.extend_from_slice(b"\\t"),
        [0x08, ..] => out.extend_from_slice(b"\\b"),
        [0x0c, ..] => out.extend_from_slice(b"\\f"),
        [0xe2, 0x80, last @ (0xa8 | 0xa9), ..] => {
            out.extend_from_slice(if *last == 0xa8 { b"\\u2028" } else { b"\\u2029" });
            return 3;
        }
        [byte @ 0xe2, ..] => out.push(*byte),
        [byte, ..] => {
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
        [] => return 0,
    }
    1
}

/// Go's form of floating point numbers: exponents only for the very large and very small.
pub fn write_double(out: &mut Vec<u8>, number: f64) {
    let size = number.abs();
    if number == 0.0 || (1e-6..1e21).contains(&size) {
        out.extend_from_slice(format!("{number}").as_bytes());
        return;
    }
    let text = format!("{number:e}");
    match text.split_once('e') {
        Some((digits, exponent)) if !exponent.starts_with('-') => {
            out.extend_from_slice(format!("{digits}e+{exponent}").as_bytes());
        }
        _ => out.extend_from_slice(text.as_bytes()),
    }
}

/// Copies JSON text without its white space, with Go's escapes.
fn write_compact(out: &mut Vec<u8>, json: &[u8]) {
    // What was written by an encoder has nothing to change, as a rule.
    let is_changed = |byte: u8| {
        let is_space = (byte == b' ') | (byte == b'\n') | (byte == b'\r') | (byte == b'\t');
        is_space | (byte == b'<') | (byte == b'>') | (byte == b'&')
    };
    if position(json, is_changed).is_none() {
        return out.extend_from_slice(json);
    }
    let (mut in_string, mut escaped) = (false, false);
    for byte in json {
        match byte {
            b' ' | b'\n' | b'\r' | b'\t' if !in_string => continue,
            b'<' => out.extend_from_slice(b"\\u003c"),
            b'>' => out.extend_from_slice(b"\\u003e"),
            b'&' => out.extend_from_slice(b"\\u0026"),
            _ => out.push(*byte),
        }
        if in_string && !escaped && *byte == b'\\' {
            escaped = true;
            continue;
        }
        if *byte == b'"' && !escaped {
            in_string = !in_string;
        }
        escaped = false;
    }
}

/// Builds a tree.
#[derive(Default)]
pub struct Tree {
    open: Vec<(Value, String)>,
    key: String,
    root: Option<Value>,
}

impl Tree {
    /// What was built; none when nothing was.
    pub fn finish(self) -> Option<Value> {
        self.root
    }

    fn put(&mut self, value: Value) {
        match self.open.last_mut() {
            Some((Value::Object(map), _)) => {
                map.insert(std::mem::take(&mut self.key), value);
            }
            Some((Value::Array(list), _)) => list.push(value),
            _ => self.root = Some(value),
        }
    }

    fn open(&mut self, value: Value) {
        self.open.push((value, std::mem::take(&mut self.key)));
    }

    fn close(&mut self) {
        if let Some((value, key)) = self.open.pop() {
            self.key = key;
            self.put(value);
        }
    }
}

impl Sink for Tree {
    fn begin_map(&mut self) {
        self.open(Value::Object(Map::new()));
    }

    fn end_map(&mut self) {
        self.close();
    }

    fn begin_list(&mut self) {
        self.open(Value::Array(Vec::new()));
    }

    fn end_list(&mut self) {
        self.close();
    }

    fn key(&mut self, key: &str) {
        self.key = key.to_string();
    }

    fn string(&mut self, text: &str) {
        self.put(text.into());
    }

    fn int(&mut self, number: i64) {
        self.put(number.into());
    }

    fn double(&mut self, number: f64) {
        self.put(number.into());
    }

    fn bool(&mut self, flag: bool) {
        self.put(flag.into());
    }

    fn null(&mut self) {
        self.put(Value::Null);
    }

    fn raw(&mut self, json: &[u8]) -> Result<(), serde_json::Error> {
        let value = serde_json::from_slice(json)?;
        self.put(value);
        Ok(())
    }
}
