//! Tables: what `kubectl get` prints, made by the server from the kind's columns.

use meta::Object;
use serde_json::{Value, json};

use super::answer::View;
use super::metadata;
use crate::negotiate::IncludeObject;

/// A table of objects. Later events of a watch leave the column definitions out.
pub fn of(view: &View<'_>, objects: &[Object], list_metadata: Value, with_definitions: bool) -> Value {
    let definitions: Vec<Value> = view.kind.columns.iter().map(definition).collect();
    let rows: Vec<Value> = objects.iter().map(|object| row(view, object)).collect();
    json!({
        "kind": "Table",
        "apiVersion": view.accepted.meta_version,
        "metadata": list_metadata,
        "columnDefinitions": if with_definitions { definitions } else { Vec::new() },
        "rows": rows,
    })
}

fn definition(column: &api::columns::Column) -> Value {
    json!({
        "name": column.name,
        "type": column.kind,
        "format": column.format,
        "description": column.description,
        "priority": column.priority,
    })
}

fn row(view: &View<'_>, object: &Object) -> Value {
    let cells: Vec<Value> = view.kind.columns.iter().map(|column| (column.cell)(object, view.now)).collect();
    let mut row = json!({"cells": cells});
    match view.accepted.include_object {
        IncludeObject::Metadata => row["object"] = metadata::json(object, view.accepted.meta_version),
        IncludeObject::Object => row["object"] = object.clone().into_value(),
        IncludeObject::None => {}
    }
    row
}
