//! ConfigMap and Secret: data under checked keys, of bounded size, immutable on request.

use meta::{FieldError, FieldPath, Object, name};
use serde_json::Value;

use super::rules::{self, Errors};
use super::tree::Read;
use super::workload_columns::string;
use crate::columns::{Column, age_column, name_column};
use crate::strategy::{Request, Strategy};

/// 1 MiB in all.
const BYTES_MAX: usize = 1 << 20;

pub struct ConfigMap;
pub struct Secret;

/// Checks keys; answers the size of all values together. `scale` is 3/4 for base64.
fn data(errors: &mut Errors, object: &Object, field: &str, base64: bool) -> usize {
    let map = object.get(&[field]).and_then(Value::as_object);
    let mut bytes = 0;
    for (key, value) in map.into_iter().flatten() {
        rules::each_invalid(errors, &FieldPath::new(field).key(key), key, name::config_key(key));
        let length = value.as_str().map_or(0, str::len);
        bytes += if base64 { length / 4 * 3 } else { length };
    }
    bytes
}

fn unchanged(errors: &mut Errors, new: &Object, old: &Object, fields: &[&str]) {
    if !old.bool_at(&["immutable"]) {
        return;
    }
    let detail = "field is immutable when `immutable` is set";
    if !new.bool_at(&["immutable"]) {
        errors.push(FieldError::forbidden(&FieldPath::new("immutable"), detail));
    }
    for field in fields {
        let empty = |value: &&Value| value.as_object().is_none_or(|map| !map.is_empty());
        if new.get(&[field]).filter(empty) != old.get(&[field]).filter(empty) {
            errors.push(FieldError::forbidden(&FieldPath::new(field), detail));
        }
    }
}

impl Strategy for ConfigMap {
    fn has_generation(&self) -> bool {
        false
    }

    fn validate_create(&self, new: &Object) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let size = data(&mut errors, new, "data", false) + data(&mut errors, new, "binaryData", true);
        for (key, _) in new.get(&["binaryData"]).and_then(Value::as_object).into_iter().flatten() {
            if new.get(&["data", key]).is_some() {
                let path = FieldPath::new("data").key(key);
                errors.push(FieldError::invalid(&path, key.as_str(), "duplicate of key present in binaryData"));
            }
        }
        if size > BYTES_MAX {
            errors.push(FieldError::too_long(&FieldPath::unnamed(), BYTES_MAX));
        }
        errors
    }

    fn validate_update(&self, _: &Request, new: &Object, old: &Object) -> Vec<FieldError> {
        let mut errors = self.validate_create(new);
        unchanged(&mut errors, new, old, &["data", "binaryData"]);
        errors
    }

    fn acted_upon(&self) -> bool {
        true
    }
}

impl Strategy for Secret {
    fn set_defaults(&self, new: &mut Object) {
        if new.str_at(&["type"]).is_empty() {
            new.set(&["type"], "Opaque");
        }
        // `stringData` is only ever written: it becomes data at once.
        if let Some(Value::Object(plain)) = new.remove(&["stringData"]) {
            for (key, value) in plain {
                let encoded = base64::Engine::encode(
                    &base64::engine::general_purpose::STANDARD,
                    value.as_str().unwrap_or_default().as_bytes(),
                );
                new.set(&["data", &key], encoded);
            }
        }
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_create(&self, new: &Object) -> Vec<FieldError> {
        let mut errors = Errors::new();
        if data(&mut errors, new, "data", true) > BYTES_MAX {
            errors.push(FieldError::too_long(&FieldPath::new("data"), BYTES_MAX));
        }
        let needed: &[&str] = match new.str_at(&["type"]) {
            "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
            "kubernetes.io/dockercfg" => &[".dockercfg"],
            "kubernetes.io/tls" => &["tls.crt", "tls.key"],
            "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
            _ => &[],
        };
        for key in needed {
            if new.get(&["data", key]).is_none() {
                errors.push(FieldError::required(&FieldPath::new("data").key(key), ""));
            }
        }
        let account = new.annotation("kubernetes.io/service-account.name").unwrap_or_default();
        if new.str_at(&["type"]) == "kubernetes.io/service-account-token" && account.is_empty() {
            let path = FieldPath::new("metadata").child("annotations").key("kubernetes.io/service-account.name");
            errors.push(FieldError::required(&path, ""));
        }
        errors
    }

    fn validate_update(&self, _: &Request, new: &Object, old: &Object) -> Vec<FieldError> {
        let mut errors = self.validate_create(new);
        rules::immutable(&mut errors, new.get(&["type"]), old.get(&["type"]), &FieldPath::new("type"));
        unchanged(&mut errors, new, old, &["data"]);
        errors
    }

    fn selectable_fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        vec![("type", object.str_at(&["type"]).to_string())]
    }

    fn acted_upon(&self) -> bool {
        true
    }
}

fn count(object: &Object, fields: &[&str]) -> Value {
    let size = |field: &&str| object.get(&[field]).and_then(Value::as_object).map_or(0, serde_json::Map::len);
    fields.iter().map(size).sum::<usize>().to_string().into()
}

pub fn config_map_columns() -> Vec<Column> {
    vec![name_column(), string("Data", 0, |it, _| count(it, &["data", "binaryData"])), age_column()]
}

pub fn secret_columns() -> Vec<Column> {
    vec![
        name_column(),
        string("Type", 0, |it, _| Value::Object(it.0.clone()).text("type").into()),
        string("Data", 0, |it, _| count(it, &["data"])),
        age_column(),
    ]
}
