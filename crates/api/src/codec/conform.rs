//! Reads untyped input (JSON text, or a tree that YAML or a patch made) into an object of a schema.
//!
//! The result is canonical: what Go would drop when it writes the object again is dropped here (nulls, empty values of
//! `omitempty` fields), quantities and times have their one form. A value of the wrong type is an error in upstream's words;
//! unknown and duplicate fields are collected, and the caller decides whether they are errors, warnings or nothing.

use std::cell::RefCell;
use std::fmt::{self, Write as _};

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::schema::{Field, Form, Schema, Type};

/// Upstream reports at most this many unknown and duplicate fields.
const PROBLEMS_MAX: usize = 100;

/// An object as read.
#[derive(Debug)]
pub struct Conformed {
    pub map: Map<String, Value>,
    /// `unknown field "spec.foo"`, `duplicate field "spec.bar"`, in the order met.
    pub problems: Vec<String>,
}

/// Reads a map of the schema. The error is the whole message after `json: `, or the parser's own.
pub fn read<'de, D>(schema: &Schema, deserializer: D) -> Result<Conformed, String>
where
    D: Deserializer<'de>,
    D::Error: fmt::Display,
{
    let context = Context::default();
    let field = Place { go_path: String::new(), owner: "", go_type: "" };
    let seed = StructSeed { schema, context: &context, place: &field };
    match seed.deserialize(deserializer) {
        Ok(Value::Object(map)) => Ok(Conformed { map, problems: context.problems.into_inner() }),
        // A null is an object of which nothing is said.
        Ok(_) => Ok(Conformed { map: Map::new(), problems: context.problems.into_inner() }),
        Err(error) => Err(context.failure.into_inner().unwrap_or_else(|| error.to_string())),
    }
}

/// Reads a value of no known type, with the duplicate fields in it.
pub fn read_any<'de, D>(deserializer: D) -> Result<(Value, Vec<String>), String>
where
    D: Deserializer<'de>,
    D::Error: fmt::Display,
{
    let context = Context::default();
    let place = Place { go_path: String::new(), owner: "", go_type: "" };
    let seed = ValueSeed { ty: &Type::Any, context: &context, place: &place };
    let value = seed.deserialize(deserializer).map_err(|error| error.to_string())?;
    Ok((value, context.problems.into_inner()))
}

#[derive(Default)]
struct Context {
    path: RefCell<String>,
    problems: RefCell<Vec<String>>,
    failure: RefCell<Option<String>>,
}

impl Context {
    fn problem(&self, what: &str, name: &str) {
        let mut problems = self.problems.borrow_mut();
        if problems.len() < PROBLEMS_MAX {
            let path = self.path.borrow();
            let dot = if path.is_empty() { "" } else { "." };
            problems.push(format!("{what} field \"{path}{dot}{name}\""));
        }
    }

    /// Runs with a step added to the path.
    fn at<T>(&self, step: impl fmt::Display, run: impl FnOnce() -> T) -> T {
        let before = self.path.borrow().len();
        // Writing to a String does not fail.
        let _ = write!(self.path.borrow_mut(), "{step}");
        let result = run();
        self.path.borrow_mut().truncate(before);
        result
    }

    fn key_step(&self, key: &str) -> String {
        if self.path.borrow().is_empty() { key.to_string() } else { format!(".{key}") }
    }

    fn fail<E: de::Error>(&self, message: String) -> E {
        let error = E::custom(&message);
        self.failure.borrow_mut().get_or_insert(message);
        error
    }
}

/// Where a value goes, in Go's words: the struct and the names of the fields that led to it.
struct Place<'a> {
    go_path: String,
    owner: &'a str,
    go_type: &'a str,
}

impl Place<'_> {
    fn mismatch(&self, given: &str, wanted: &str) -> String {
        if self.owner.is_empty() {
            return format!("json: cannot unmarshal {given} into Go value of type {wanted}");
        }
        format!("json: cannot unmarshal {given} into Go struct field {}.{} of type {wanted}", self.owner, self.go_path)
    }
}

/// Reads a struct.
struct StructSeed<'a> {
    schema: &'a Schema,
    context: &'a Context,
    place: &'a Place<'a>,
}

impl<'de> DeserializeSeed<'de> for StructSeed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let ty = Kinded::Struct(self.schema);
        deserializer.deserialize_any(ValueVisitor { ty, context: self.context, place: self.place })
    }
}

/// Reads a value of a type.
struct ValueSeed<'a> {
    ty: &'a Type,
    context: &'a Context,
    place: &'a Place<'a>,
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let ty = match self.ty {
            Type::Struct(schema) => Kinded::Struct(schema),
            other => Kinded::Other(other),
        };
        deserializer.deserialize_any(ValueVisitor { ty, context: self.context, place: self.place })
    }
}

#[derive(Clone, Copy)]
enum Kinded<'a> {
    Struct(&'a Schema),
    Other(&'a Type),
}

struct ValueVisitor<'a> {
    ty: Kinded<'a>,
    context: &'a Context,
    place: &'a Place<'a>,
}

impl ValueVisitor<'_> {
    fn wrong<E: de::Error>(&self, given: &str) -> E {
        let named = self.place.go_type;
        let wanted = match self.ty {
            Kinded::Struct(schema) => go_struct(schema),
            // It reads numbers itself, and its own error does not name it.
            Kinded::Other(Type::IntOrString) => go_name(&Type::Int32),
            Kinded::Other(_) if !named.is_empty() => named.to_string(),
            Kinded::Other(ty) => go_name(ty),
        };
        self.context.fail(self.place.mismatch(given, &wanted))
    }

    fn number<E: de::Error>(&self, value: i128, text: String) -> Result<Value, E> {
        let (low, high) = match self.ty {
            Kinded::Other(Type::Int32 | Type::IntOrString) => (i128::from(i32::MIN), i128::from(i32::MAX)),
            Kinded::Other(Type::Uint32) => (0, i128::from(u32::MAX)),
            Kinded::Other(Type::Int64) => (i128::from(i64::MIN), i128::from(i64::MAX)),
            Kinded::Other(Type::Double) => return Ok((value as f64).into()),
            Kinded::Other(Type::Quantity) => return self.quantity(&text),
            Kinded::Other(Type::Any | Type::Json) => {
                return Ok(i64::try_from(value).map_or_else(|_| (value as f64).into(), Value::from));
            }
            _ => return Err(self.wrong("number")),
        };
        match i64::try_from(value) {
            Ok(number) if (low..=high).contains(&value) => Ok(number.into()),
            _ => Err(self.wrong(&format!("number {text}"))),
        }
    }

    fn quantity<E: de::Error>(&self, text: &str) -> Result<Value, E> {
        let parsed: Result<meta::Quantity, _> = text.trim().parse();
        parsed.map(|quantity| quantity.to_string().into()).map_err(|error| self.context.fail(error.to_string()))
    }

    fn time<E: de::Error>(&self, text: &str, micro: bool) -> Result<Value, E> {
        let layout = if micro { "2006-01-02T15:04:05.000000Z07:00" } else { "2006-01-02T15:04:05Z07:00" };
        let Some(at) = meta::time::parse(text) else {
            let why = format!("parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\"");
            return Err(self.context.fail(why));
        };
        Ok(if micro { meta::time::rfc3339_micro(at) } else { meta::time::rfc3339(at) }.into())
    }

    fn text<E: de::Error>(&self, text: &str) -> Result<Value, E> {
        match self.ty {
            Kinded::Other(Type::String | Type::IntOrString | Type::Any | Type::Json) => Ok(text.into()),
            Kinded::Other(Type::Bytes) => match decode_base64(text) {
                Some(canonical) => Ok(canonical.into()),
                None => Err(self.context.fail("illegal base64 data at input byte 0".into())),
            },
            Kinded::Other(Type::Time) => self.time(text, false),
            Kinded::Other(Type::MicroTime) => self.time(text, true),
            Kinded::Other(Type::Duration) => match super::duration::parse(text) {
                Some(nanos) => Ok(super::duration::format(nanos).into()),
                None => Err(self.context.fail(format!("time: invalid duration {text:?}"))),
            },
            Kinded::Other(Type::Quantity) => self.quantity(text),
            Kinded::Struct(schema) if schema.form == Form::OneOrMany => Ok(text.into()),
            _ => Err(self.wrong("string")),
        }
    }
}

impl<'de> Visitor<'de> for ValueVisitor<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Value, E> {
        match self.ty {
            Kinded::Other(Type::Bool | Type::Any | Type::Json) => Ok(flag.into()),
            Kinded::Struct(schema) if schema.form == Form::BoolOrOne => Ok(flag.into()),
            _ => Err(self.wrong("bool")),
        }
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Value, E> {
        self.number(i128::from(number), number.to_string())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Value, E> {
        self.number(i128::from(number), number.to_string())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Value, E> {
        match self.ty {
            Kinded::Other(Type::Double | Type::Any | Type::Json) => Ok(number.into()),
            Kinded::Other(Type::Quantity) => self.quantity(&number.to_string()),
            Kinded::Other(Type::Int32 | Type::Int64 | Type::Uint32 | Type::IntOrString) => {
                Err(self.wrong(&format!("number {number}")))
            }
            _ => Err(self.wrong("number")),
        }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        self.text(text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let many = match self.ty {
            Kinded::Struct(schema) => match schema.form {
                Form::Items => schema.fields.first(),
                Form::OneOrMany => schema.fields.get(1),
                _ => None,
            },
            Kinded::Other(_) => None,
        };
        let ty = match (self.ty, many) {
            (Kinded::Other(Type::List(inner)), _) => inner.as_ref(),
            (_, Some(field)) => field.ty.element().unwrap_or(&Type::Any),
            (Kinded::Other(Type::Any | Type::Json), _) => &Type::Any,
            _ => return Err(self.wrong("array")),
        };
        let mut items = Vec::new();
        loop {
            let seed = ValueSeed { ty, context: self.context, place: self.place };
            let step = format!("[{}]", items.len());
            match self.context.at(step, || access.next_element_seed(seed))? {
                Some(Value::Null) => items.push(zero(ty)),
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<Value, A::Error> {
        match self.ty {
            Kinded::Struct(schema) => match (schema.form, schema.fields.as_slice()) {
                (Form::Map, _) => self.members(schema, access),
                (Form::OneOrMany, [one, _]) | (Form::BoolOrOne, [_, one]) => match &one.ty {
                    Type::Struct(inner) => self.members(inner, access),
                    _ => Err(self.wrong("object")),
                },
                _ => Err(self.wrong("object")),
            },
            Kinded::Other(Type::Map(inner)) => self.entries(inner, access),
            Kinded::Other(Type::Any | Type::Json | Type::RawExtension | Type::FieldsV1) => {
                self.entries(&Type::Any, access)
            }
            _ => Err(self.wrong("object")),
        }
    }
}

impl ValueVisitor<'_> {
    fn entries<'de, A: MapAccess<'de>>(&self, inner: &Type, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            if map.contains_key(&key) {
                self.context.problem("duplicate", &key);
            }
            let seed = ValueSeed { ty: inner, context: self.context, place: self.place };
            let value = self.context.at(self.context.key_step(&key), || access.next_value_seed(seed))?;
            let value = if value.is_null() && !matches!(inner, Type::Any) { zero(inner) } else { value };
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }

    fn members<'de, A: MapAccess<'de>>(&self, schema: &Schema, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        let mut seen: Vec<String> = Vec::new();
        while let Some(key) = access.next_key::<String>()? {
            if seen.contains(&key) {
                self.context.problem("duplicate", &key);
            }
            let field = schema.field(&key);
            let Some(field) = field else {
                if schema.preserve_unknown {
                    let seed = ValueSeed { ty: &Type::Any, context: self.context, place: self.place };
                    let value = access.next_value_seed(seed)?;
                    map.insert(key, value);
                    continue;
                }
                access.next_value::<de::IgnoredAny>()?;
                self.context.problem("unknown", &key);
                continue;
            };
            let dot = if self.place.go_path.is_empty() { "" } else { "." };
            let place = Place {
                go_path: format!("{}{dot}{key}", self.place.go_path),
                owner: &schema.name,
                go_type: &field.go_type,
            };
            let seed = ValueSeed { ty: &field.ty, context: self.context, place: &place };
            let value = self.context.at(self.context.key_step(&key), || access.next_value_seed(seed))?;
            if is_dropped(field, &value) {
                map.remove(&key);
            } else {
                map.insert(key.clone(), value);
            }
            seen.push(key);
        }
        Ok(Value::Object(map))
    }
}

/// Whether Go would not write the value again.
fn is_dropped(field: &Field, value: &Value) -> bool {
    if value.is_null() {
        return true;
    }
    if field.pointer || !(field.omit_empty || field.omit_zero) {
        return false;
    }
    match (&field.ty, value) {
        (Type::String | Type::Bytes, Value::String(text)) => text.is_empty(),
        (Type::Bool, Value::Bool(flag)) => !flag,
        (Type::Int32 | Type::Int64 | Type::Uint32 | Type::Double, Value::Number(number)) => {
            number.as_f64() == Some(0.0)
        }
        (Type::List(_), Value::Array(list)) => list.is_empty(),
        (Type::Map(_), Value::Object(map)) => map.is_empty(),
        (Type::Struct(_), Value::Object(map)) => field.omit_zero && map.is_empty(),
        _ => false,
    }
}

/// What a null in a list or map stands for.
fn zero(ty: &Type) -> Value {
    match ty {
        Type::String => "".into(),
        Type::Bool => false.into(),
        Type::Int32 | Type::Int64 | Type::Uint32 | Type::IntOrString => 0.into(),
        Type::Double => 0.0.into(),
        Type::Quantity => "0".into(),
        Type::Struct(schema) if schema.form == Form::Map => Value::Object(Map::new()),
        _ => Value::Null,
    }
}

/// Base64 as Go's decoder takes it (line breaks are ignored), in its one form.
fn decode_base64(text: &str) -> Option<String> {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let joined;
    let text = if text.contains(['\n', '\r']) {
        joined = text.replace(['\n', '\r'], "");
        &joined
    } else {
        text
    };
    STANDARD.decode(text).ok().map(|bytes| STANDARD.encode(bytes))
}

/// The name of a struct with its package, as Go prints it: `v1.PodSpec`.
fn go_struct(schema: &Schema) -> String {
    let mut parts = schema.model.rsplit('.');
    match (parts.next(), parts.next()) {
        (Some(name), Some(package)) => format!("{package}.{name}"),
        _ => schema.name.to_string(),
    }
}

fn go_name(ty: &Type) -> String {
    match ty {
        Type::String => "string".into(),
        Type::Bool => "bool".into(),
        Type::Int32 => "int32".into(),
        Type::Int64 => "int64".into(),
        Type::Uint32 => "uint32".into(),
        Type::Double => "float64".into(),
        Type::Bytes => "[]uint8".into(),
        Type::Time => "v1.Time".into(),
        Type::MicroTime => "v1.MicroTime".into(),
        Type::Duration => "v1.Duration".into(),
        Type::Quantity => "resource.Quantity".into(),
        Type::IntOrString => "intstr.IntOrString".into(),
        Type::RawExtension => "runtime.RawExtension".into(),
        Type::FieldsV1 => "v1.FieldsV1".into(),
        Type::Json => "v1.JSON".into(),
        Type::Struct(schema) => go_struct(schema),
        Type::List(inner) => format!("[]{}", go_name(inner)),
        Type::Map(inner) => format!("map[string]{}", go_name(inner)),
        Type::Any => "interface {}".into(),
    }
}
