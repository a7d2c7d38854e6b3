//! The types that a document's paths reach, each once.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Map, Value, json};

use super::Form;
use crate::schema::{self, Field, ListKind, Type};
use crate::{Kind, Schema, SchemaRef};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// Gathers types and everything they refer to.
pub struct Components {
    form: Form,
    done: BTreeMap<String, Value>,
    waiting: VecDeque<(String, SchemaRef)>,
}

impl Components {
    pub fn new(form: Form) -> Self {
        Components { form, done: BTreeMap::new(), waiting: VecDeque::new() }
    }

    /// A kind and the list of it.
    pub fn add_kind(&mut self, kind: &Kind) {
        let model = self.model_of(kind);
        self.add_schema(&model, &kind.schema);
        self.drain();
        self.mark(&model, kind, &kind.kind);
        if kind.verbs.iter().any(|verb| &**verb == "list") {
            let list = self.list_model_of(kind);
            let items = json!({"type": "array", "items": self.reference(&model)});
            let list_meta = self.named("ListMeta");
            let value = json!({
                "type": "object",
                "required": ["items"],
                "properties": {
                    "apiVersion": {"type": "string"},
                    "items": items,
                    "kind": {"type": "string"},
                    "metadata": list_meta,
                },
            });
            self.done.insert(list.clone(), value);
            self.mark(&list, kind, &kind.list_kind);
        }
    }

    /// The name of a kind's type. Custom kinds are named by group and version, as upstream does.
    pub fn model_of(&self, kind: &Kind) -> String {
        if !kind.schema.model.is_empty() {
            return kind.schema.model.to_string();
        }
        let reversed: Vec<&str> = kind.group.split('.').rev().collect();
        format!("{}.{}.{}", reversed.join("."), kind.version, kind.kind)
    }

    pub fn list_model_of(&self, kind: &Kind) -> String {
        format!("{}List", self.model_of(kind))
    }

    /// A type of the meta group that all kinds share, such as `Status`.
    pub fn named(&mut self, name: &str) -> Value {
        let model = format!("{META}.{name}");
        if name == "Patch" {
            self.done.entry(model.clone()).or_insert_with(|| json!({"type": "object"}));
        } else if let Some(schema) = schema::builtin(&model) {
            self.add_schema(&model, &schema);
            self.drain();
        } else {
            self.done.entry(model.clone()).or_insert_with(|| json!({"type": "object"}));
        }
        self.reference(&model)
    }

    /// A type by its model name, such as that of a subresource.
    pub fn model(&mut self, model: &str) -> Option<Value> {
        let schema = schema::builtin(model)?;
        self.add_schema(model, &schema);
        self.drain();
        Some(self.reference(model))
    }

    pub fn finish(self) -> Map<String, Value> {
        self.done.into_iter().collect()
    }

    pub fn reference(&self, model: &str) -> Value {
        json!({"$ref": self.form.reference(model)})
    }

    fn add_schema(&mut self, model: &str, schema: &SchemaRef) {
        if !self.done.contains_key(model) {
            // Taken before it is written, so that circles end.
            self.done.insert(model.to_string(), Value::Null);
            self.waiting.push_back((model.to_string(), schema.clone()));
        }
    }

    fn drain(&mut self) {
        while let Some((model, schema)) = self.waiting.pop_front() {
            let value = self.write(&schema);
            self.done.insert(model, value);
        }
    }

    fn mark(&mut self, model: &str, kind: &Kind, name: &str) {
        let gvk = json!({"group": &*kind.group, "version": &*kind.version, "kind": name});
        if let Some(Value::Object(value)) = self.done.get_mut(model) {
            let list = value.entry("x-kubernetes-group-version-kind").or_insert_with(|| json!([]));
            if let Some(list) = list.as_array_mut().filter(|list| !list.contains(&gvk)) {
                list.push(gvk);
            }
        }
    }

    fn write(&mut self, schema: &Schema) -> Value {
        if schema.form != schema::Form::Map {
            return json!({});
        }
        let mut properties = BTreeMap::new();
        let mut required = Vec::new();
        self.write_fields(schema, &mut properties, &mut required);
        let mut value = json!({"type": "object"});
        if !properties.is_empty() {
            value["properties"] = json!(properties);
        }
        if !required.is_empty() {
            required.sort();
            value["required"] = json!(required);
        }
        if schema.atomic {
            value["x-kubernetes-map-type"] = "atomic".into();
        }
        value
    }

    fn write_fields(&mut self, schema: &Schema, properties: &mut BTreeMap<String, Value>, required: &mut Vec<String>) {
        for field in &schema.fields {
            match (&field.ty, field.inline) {
                (Type::Struct(inner), true) => self.write_fields(inner, properties, required),
                _ => {
                    properties.insert(field.json.to_string(), self.write_field(field));
                    if field.required {
                        required.push(field.json.to_string());
                    }
                }
            }
        }
    }

    fn write_field(&mut self, field: &Field) -> Value {
        let mut value = self.write_type(&field.ty);
        let extended = field.default.is_some() || field.atomic || field.patch != schema::PatchStrategy::default();
        if value.get("$ref").is_some() && extended && self.form == Form::V3 {
            value = json!({"allOf": [value]});
        }
        if let Some(default) = &field.default {
            value["default"] = default.clone();
        }
        if !field.enum_values.is_empty() && value["type"] == "string" {
            value["enum"] = field.enum_values.iter().map(|word| Value::from(&**word)).collect();
        }
        if matches!(field.ty, Type::List(_)) {
            let kind = match field.list {
                ListKind::Atomic => "atomic",
                ListKind::Set => "set",
                ListKind::Map => "map",
            };
            value["x-kubernetes-list-type"] = kind.into();
            if field.list == ListKind::Map {
                value["x-kubernetes-list-map-keys"] = field.list_keys.iter().map(|key| Value::from(&**key)).collect();
            }
        } else if field.atomic {
            value["x-kubernetes-map-type"] = "atomic".into();
        }
        let patch =
            [(field.patch.merge, "merge"), (field.patch.retain_keys, "retainKeys"), (field.patch.replace, "replace")];
        let patch: Vec<&str> = patch.iter().filter(|(on, _)| *on).map(|(_, word)| *word).collect();
        if !patch.is_empty() {
            value["x-kubernetes-patch-strategy"] = patch.join(",").into();
        }
        if !field.patch.merge_key.is_empty() {
            value["x-kubernetes-patch-merge-key"] = (*field.patch.merge_key).into();
        }
        value
    }

    fn write_type(&mut self, ty: &Type) -> Value {
        match ty {
            Type::String => json!({"type": "string"}),
            Type::Bool => json!({"type": "boolean"}),
            Type::Int32 => json!({"type": "integer", "format": "int32"}),
            Type::Int64 | Type::Uint32 => json!({"type": "integer", "format": "int64"}),
            Type::Double => json!({"type": "number", "format": "double"}),
            Type::Bytes => json!({"type": "string", "format": "byte"}),
            Type::Time => self.special(&format!("{META}.Time"), json!({"type": "string", "format": "date-time"})),
            Type::MicroTime => {
                self.special(&format!("{META}.MicroTime"), json!({"type": "string", "format": "date-time"}))
            }
            Type::Duration => self.special(&format!("{META}.Duration"), json!({"type": "string"})),
            Type::Quantity => {
                let value = match self.form {
                    Form::V2 => json!({"type": "string"}),
                    Form::V3 => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
                };
                self.special("io.k8s.apimachinery.pkg.api.resource.Quantity", value)
            }
            Type::IntOrString => {
                let value = match self.form {
                    Form::V2 => json!({"type": "string", "format": "int-or-string"}),
                    Form::V3 => json!({"oneOf": [{"type": "integer"}, {"type": "string"}], "format": "int-or-string"}),
                };
                self.special("io.k8s.apimachinery.pkg.util.intstr.IntOrString", value)
            }
            Type::RawExtension => {
                self.special("io.k8s.apimachinery.pkg.runtime.RawExtension", json!({"type": "object"}))
            }
            Type::FieldsV1 => self.special(&format!("{META}.FieldsV1"), json!({"type": "object"})),
            Type::List(inner) => json!({"type": "array", "items": self.write_type(inner)}),
            Type::Map(inner) => json!({"type": "object", "additionalProperties": self.write_type(inner)}),
            Type::Struct(schema) if schema.model.is_empty() => self.write(schema),
            Type::Struct(schema) => {
                let model = schema.model.to_string();
                self.add_schema(&model, schema);
                self.reference(&model)
            }
            Type::Json | Type::Any => json!({}),
        }
    }

    /// A type that has a form of its own in JSON.
    fn special(&mut self, model: &str, value: Value) -> Value {
        self.done.entry(model.to_string()).or_insert(value);
        self.reference(model)
    }
}
