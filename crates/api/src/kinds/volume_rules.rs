//! The rules of a pod's volumes.

use std::collections::BTreeSet;

use meta::{FieldError, FieldPath, name};
use serde_json::Value;

use super::container_rules::{field_ref, local_path};
use super::rules::{self, Errors};
use super::tree::Read;

const VOLUME_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// Checks all volumes and answers their names.
pub fn volumes(errors: &mut Errors, spec: &Value, path: &FieldPath) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (index, volume) in spec.items("volumes").iter().enumerate() {
        let path = path.index(index);
        let text = volume.text("name");
        if text.is_empty() {
            errors.push(FieldError::required(&path.child("name"), ""));
        } else {
            rules::each_invalid(errors, &path.child("name"), text, name::dns1123_label(text));
        }
        if !names.insert(text.to_string()) {
            errors.push(FieldError::duplicate(&path.child("name"), text));
        }
        sources(errors, volume, &path);
    }
    names
}

fn sources(errors: &mut Errors, volume: &Value, path: &FieldPath) {
    let given: Vec<(&String, &Value)> =
        volume.as_object().into_iter().flatten().filter(|(key, value)| *key != "name" && !value.is_null()).collect();
    if given.is_empty() {
        errors.push(FieldError::required(path, "must specify a volume type"));
    }
    for (extra, _) in given.iter().skip(1) {
        errors.push(FieldError::forbidden(&path.child(extra), "may not specify more than 1 volume type"));
    }
    let Some((kind, source)) = given.first() else { return };
    let path = path.child(kind);
    match kind.as_str() {
        "hostPath" => host_path(errors, source, &path),
        "configMap" => {
            rules::required(errors, source, &path, "name");
            key_paths(errors, source, &path);
        }
        "secret" => {
            rules::required(errors, source, &path, "secretName");
            key_paths(errors, source, &path);
        }
        "persistentVolumeClaim" => drop(rules::required(errors, source, &path, "claimName")),
        "downwardAPI" => downward(errors, source, &path),
        "projected" => projected(errors, source, &path),
        "emptyDir" if source.has("sizeLimit") => {
            rules::quantity(errors, &source["sizeLimit"], &path.child("sizeLimit"));
        }
        _ => {}
    }
}

fn host_path(errors: &mut Errors, source: &Value, path: &FieldPath) {
    if let Some(text) = rules::required(errors, source, path, "path")
        && text.split('/').any(|part| part == "..")
    {
        errors.push(FieldError::invalid(&path.child("path"), text, "must not contain '..'"));
    }
    let supported =
        ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    if !supported.contains(&source.text("type")) {
        errors.push(FieldError::not_supported(&path.child("type"), source.text("type"), &supported));
    }
}

fn mode(errors: &mut Errors, of: &Value, path: &FieldPath, field: &str) {
    if let Some(mode) = of.number(field).filter(|mode| !(0..=0o777).contains(mode)) {
        let detail = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.push(FieldError::invalid(&path.child(field), mode, detail));
    }
}

fn key_paths(errors: &mut Errors, source: &Value, path: &FieldPath) {
    mode(errors, source, path, "defaultMode");
    for (index, item) in source.items("items").iter().enumerate() {
        let path = path.child("items").index(index);
        rules::required(errors, item, &path, "key");
        if let Some(text) = rules::required(errors, item, &path, "path") {
            local_path(errors, text, &path.child("path"));
        }
        mode(errors, item, &path, "mode");
    }
}

fn downward(errors: &mut Errors, source: &Value, path: &FieldPath) {
    mode(errors, source, path, "defaultMode");
    for (index, item) in source.items("items").iter().enumerate() {
        let path = path.child("items").index(index);
        if let Some(text) = rules::required(errors, item, &path, "path") {
            local_path(errors, text, &path.child("path"));
        }
        match (item.get("fieldRef").filter(|it| !it.is_null()), item.has("resourceFieldRef")) {
            (Some(_), true) => {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(FieldError::invalid(&path, "resource", detail));
            }
            (Some(field), false) => field_ref(errors, field, &path.child("fieldRef"), VOLUME_FIELDS),
            (None, false) => {
                errors.push(FieldError::required(&path, "one of fieldRef and resourceFieldRef is required"))
            }
            (None, true) => {}
        }
        mode(errors, item, &path, "mode");
    }
}

fn projected(errors: &mut Errors, source: &Value, path: &FieldPath) {
    mode(errors, source, path, "defaultMode");
    for (index, part) in source.items("sources").iter().enumerate() {
        let path = path.child("sources").index(index);
        let given: Vec<(&String, &Value)> =
            part.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()).collect();
        for (extra, _) in given.iter().skip(1) {
            errors.push(FieldError::forbidden(&path.child(extra), "may not specify more than 1 volume type"));
        }
        let Some((kind, inner)) = given.first() else { continue };
        let path = path.child(kind);
        match kind.as_str() {
            "configMap" | "secret" => {
                rules::required(errors, inner, &path, "name");
                key_paths(errors, inner, &path);
            }
            "downwardAPI" => downward(errors, inner, &path),
            "serviceAccountToken" => token(errors, inner, &path),
            _ => {}
        }
    }
}

fn token(errors: &mut Errors, source: &Value, path: &FieldPath) {
    let seconds = source.number("expirationSeconds").unwrap_or(3600);
    if seconds < 600 {
        let detail = "may not specify a duration less than 10 minutes";
        errors.push(FieldError::invalid(&path.child("expirationSeconds"), seconds, detail));
    }
    if seconds > 1 << 32 {
        let detail = "may not specify a duration larger than 2^32 seconds";
        errors.push(FieldError::invalid(&path.child("expirationSeconds"), seconds, detail));
    }
    if let Some(text) = rules::required(errors, source, path, "path") {
        local_path(errors, text, &path.child("path"));
    }
}
