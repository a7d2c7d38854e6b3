//! Reads `data/schema.txt`: an index of the blocks at first use, each block when its type is first asked for.
//!
//! A block is a line `T model name [atomic] [form=...]` and a line `F json number type flags [key=value]...` for each field.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, OnceLock};

use super::{Field, Form, ListKind, PatchStrategy, Schema, SchemaRef, Type};

static TEXT: &str = include_str!("../../data/schema.txt");
static TABLE: LazyLock<Table> = LazyLock::new(Table::index);

struct Table {
    blocks: Vec<(&'static str, OnceLock<Schema>)>,
    by_model: HashMap<&'static str, u16>,
}

/// The built-in type of this model name (`io.k8s.api.core.v1.Pod`).
pub fn builtin(model: &str) -> Option<SchemaRef> {
    TABLE.by_model.get(model).copied().map(SchemaRef::Builtin)
}

/// A type of `meta/v1`, by its bare name: `Status`, `DeleteOptions`, `ObjectMeta`.
pub fn builtin_by_go_name(name: &str) -> Option<SchemaRef> {
    builtin(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{name}"))
}

/// All model names, in order.
pub fn models() -> impl Iterator<Item = (&'static str, SchemaRef)> {
    (0_u16..).zip(&TABLE.blocks).map(|(index, (text, _))| (model_of(text), SchemaRef::Builtin(index)))
}

pub(super) fn builtin_at(index: u16) -> &'static Schema {
    let (text, schema) = &TABLE.blocks[usize::from(index)];
    schema.get_or_init(|| parse_block(text))
}

fn model_of(block: &'static str) -> &'static str {
    block.split_once(' ').map_or(block, |(model, _)| model)
}

impl Table {
    fn index() -> Self {
        let blocks: Vec<_> = TEXT
            .strip_prefix("T ")
            .unwrap_or_default()
            .split("\nT ")
            .map(|block| (block.trim_end(), OnceLock::new()))
            .collect();
        let by_model = (0_u16..).zip(&blocks).map(|(index, (block, _))| (model_of(block), index)).collect();
        Table { blocks, by_model }
    }
}

fn parse_block(block: &str) -> Schema {
    let mut lines = block.lines();
    let mut head = lines.next().unwrap_or_default().split(' ');
    let model: Arc<str> = head.next().unwrap_or_default().into();
    let name: Arc<str> = head.next().unwrap_or_default().into();
    let mut schema = Schema::new(model, name, lines.map(parse_field).collect());
    for word in head {
        match word {
            "atomic" => schema.atomic = true,
            "form=items" => schema.form = Form::Items,
            "form=oneormany" => schema.form = Form::OneOrMany,
            "form=boolorone" => schema.form = Form::BoolOrOne,
            _ => {}
        }
    }
    schema
}

fn parse_field(line: &str) -> Field {
    let (line, default) = match line.split_once(" d=") {
        Some((line, default)) => (line, serde_json::from_str(default).ok()),
        None => (line, None),
    };
    let mut words = line.split(' ').skip(1);
    let mut word = || words.next().unwrap_or_default();
    let json = word();
    let number = word().parse().unwrap_or(0);
    let ty = parse_type(word());
    let flags = word();
    let has = |letter| flags.contains(letter);
    let list = if has('M') {
        ListKind::Map
    } else if has('S') {
        ListKind::Set
    } else {
        ListKind::Atomic
    };
    let mut field = Field {
        json: if has('n') { "".into() } else { json.into() },
        number,
        ty,
        pointer: has('p'),
        inline: has('n'),
        omit_empty: has('o'),
        omit_zero: has('z'),
        required: has('r'),
        list,
        atomic: has('A'),
        list_keys: Vec::new(),
        patch: PatchStrategy::default(),
        default,
        enum_values: Vec::new(),
        go_type: "".into(),
    };
    for (key, value) in words.filter_map(|word| word.split_once('=')) {
        set_extra(&mut field, key, value);
    }
    field
}

fn set_extra(field: &mut Field, key: &str, value: &str) {
    match key {
        "keys" => field.list_keys = value.split(',').map(Arc::from).collect(),
        "mk" => field.patch.merge_key = value.into(),
        "ps" => {
            field.patch.merge = value.split(',').any(|word| word == "merge");
            field.patch.retain_keys = value.split(',').any(|word| word == "retainKeys");
            field.patch.replace = value.split(',').any(|word| word == "replace");
        }
        "e" => field.enum_values = value.split('|').map(Arc::from).collect(),
        "g" => field.go_type = value.into(),
        _ => {}
    }
}

fn parse_type(word: &str) -> Type {
    if let Some(inner) = word.strip_prefix("[]") {
        return Type::List(Box::new(parse_type(inner)));
    }
    if let Some(inner) = word.strip_prefix("{}") {
        return Type::Map(Box::new(parse_type(inner)));
    }
    if let Some(index) = word.strip_prefix('@').and_then(|index| index.parse().ok()) {
        return Type::Struct(SchemaRef::Builtin(index));
    }
    match word {
        "string" => Type::String,
        "bool" => Type::Bool,
        "int32" => Type::Int32,
        "int64" => Type::Int64,
        "uint32" => Type::Uint32,
        "double" => Type::Double,
        "bytes" => Type::Bytes,
        "time" => Type::Time,
        "microtime" => Type::MicroTime,
        "duration" => Type::Duration,
        "quantity" => Type::Quantity,
        "intorstring" => Type::IntOrString,
        "raw" => Type::RawExtension,
        "fields" => Type::FieldsV1,
        "json" => Type::Json,
        _ => Type::Any,
    }
}
