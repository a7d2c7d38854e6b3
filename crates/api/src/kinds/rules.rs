//! Rules that several kinds share: names of things, labels, selectors, quantities, ports.

use meta::{FieldError, FieldPath, Quantity, label_selector, name};
use serde_json::Value;

use super::tree::Read;

/// Errors found so far.
pub type Errors = Vec<FieldError>;

/// Notes each complaint about `value` as an invalid value at `path`.
pub fn each_invalid(errors: &mut Errors, path: &FieldPath, value: &str, complaints: Vec<String>) {
    errors.extend(complaints.into_iter().map(|complaint| FieldError::invalid(path, value, complaint)));
}

/// A field that must have a value; answers it when it has.
pub fn required<'a>(errors: &mut Errors, of: &'a Value, path: &FieldPath, field: &str) -> Option<&'a str> {
    let text = of.text(field);
    if text.is_empty() {
        errors.push(FieldError::required(&path.child(field), ""));
        return None;
    }
    Some(text)
}

/// A field that must have one of a few values.
pub fn one_of(errors: &mut Errors, of: &Value, path: &FieldPath, field: &str, supported: &[&str]) {
    let text = of.text(field);
    if text.is_empty() {
        errors.push(FieldError::required(&path.child(field), ""));
    } else if !supported.contains(&text) {
        errors.push(FieldError::not_supported(&path.child(field), text, supported));
    }
}

pub fn non_negative(errors: &mut Errors, of: &Value, path: &FieldPath, field: &str) {
    if let Some(number) = of.number(field).filter(|number| *number < 0) {
        errors.push(FieldError::invalid(&path.child(field), number, "must be greater than or equal to 0"));
    }
}

pub fn labels(errors: &mut Errors, labels: &Value, path: &FieldPath) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        each_invalid(errors, path, key, name::qualified_name(key));
        let text = value.as_str().unwrap_or_default();
        each_invalid(errors, path, text, name::label_value(text));
    }
}

/// A `LabelSelector`.
pub fn label_selector(errors: &mut Errors, selector: &Value, path: &FieldPath) {
    if let Some(match_labels) = selector.get("matchLabels") {
        labels(errors, match_labels, &path.child("matchLabels"));
    }
    for (index, expression) in selector.items("matchExpressions").iter().enumerate() {
        let path = path.child("matchExpressions").index(index);
        let values = expression.items("values");
        match expression.text("operator") {
            "In" | "NotIn" if values.is_empty() => {
                let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(FieldError::required(&path.child("values"), detail));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(&path.child("values"), detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.push(FieldError::invalid(&path.child("operator"), other, "not a valid selector operator")),
        }
        let key = expression.text("key");
        each_invalid(errors, &path.child("key"), key, name::qualified_name(key));
        for (at, value) in values.iter().enumerate() {
            let text = value.as_str().unwrap_or_default();
            each_invalid(errors, &path.child("values").index(at), text, name::label_value(text));
        }
    }
}

/// A selector that has to match the labels of the template beside it.
pub fn selects_template(errors: &mut Errors, spec: &Value, path: &FieldPath) {
    let selector_path = path.child("selector");
    let Some(selector) = spec.get("selector").filter(|selector| !selector.is_null()) else {
        errors.push(FieldError::required(&selector_path, ""));
        // A selector that is not there selects nothing, these labels neither.
        return not_selected(errors, spec, path);
    };
    label_selector(errors, selector, &selector_path);
    let Ok(parsed) = label_selector::LabelSelector::from_spec(Some(selector)) else {
        errors.push(FieldError::invalid(&selector_path, selector.clone(), "invalid label selector"));
        return;
    };
    if parsed.is_everything() {
        errors.push(FieldError::invalid(&selector_path, selector.clone(), "empty selector is invalid for deployment"));
        return;
    }
    let labels = spec.pointer("/template/metadata/labels");
    let read = |key: &str| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
    if !parsed.matches_labels(read) {
        not_selected(errors, spec, path);
    }
}

fn not_selected(errors: &mut Errors, spec: &Value, path: &FieldPath) {
    let labels = spec.pointer("/template/metadata/labels").cloned().unwrap_or(Value::Null);
    let path = path.child("template").child("metadata").child("labels");
    errors.push(FieldError::invalid(&path, labels, "`selector` does not match template `labels`"));
}

/// A quantity that must not be negative; answers it when it can be read.
pub fn quantity(errors: &mut Errors, value: &Value, path: &FieldPath) -> Option<Quantity> {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match text.parse::<Quantity>() {
        Ok(quantity) => {
            if quantity.is_negative() {
                errors.push(FieldError::invalid(path, text, "must be greater than or equal to 0"));
            }
            Some(quantity)
        }
        Err(error) => {
            errors.push(FieldError::invalid(path, text, error.to_string()));
            None
        }
    }
}

/// A port number or a port name.
pub fn port_number_or_name(errors: &mut Errors, value: Option<&Value>, path: &FieldPath) {
    match value {
        Some(Value::String(text)) => each_invalid(errors, path, text, name::port_name(text)),
        Some(Value::Number(number)) => {
            let complaints = name::port_number(number.as_i64().unwrap_or(-1));
            errors.extend(complaints.into_iter().map(|it| FieldError::invalid(path, number.clone(), it)));
        }
        _ => errors.push(FieldError::invalid(path, 0, "must be between 1 and 65535, inclusive")),
    }
}

/// The fields of `new` and `old` must be equal.
pub fn immutable(errors: &mut Errors, new: Option<&Value>, old: Option<&Value>, path: &FieldPath) {
    let nothing = |value: &&Value| !value.is_null();
    if new.filter(nothing) != old.filter(nothing) {
        let shown = new.cloned().unwrap_or(Value::Null);
        errors.push(FieldError::invalid(path, shown, "field is immutable"));
    }
}

/// The name without the dash that ends a prefix for generated names.
pub fn stem(name: &str, prefix: bool) -> String {
    match name.strip_suffix('-') {
        Some(stem) if prefix => format!("{stem}a"),
        _ => name.to_string(),
    }
}
