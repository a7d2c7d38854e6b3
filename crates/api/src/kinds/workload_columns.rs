//! Columns that kinds with a pod template or an owner's counts share.

use meta::{LabelSelector, Object};
use serde_json::Value;

use super::tree::Read;
use crate::columns::{Cell, Column, age_column, name_column};

pub fn string(name: &'static str, priority: i32, cell: Cell) -> Column {
    Column { name, kind: "string", format: "", description: "", priority, cell }
}

pub fn integer(name: &'static str, cell: Cell) -> Column {
    Column { name, kind: "integer", format: "", description: "", priority: 0, cell }
}

fn template_containers<'a>(object: &'a Object, field: &'a str) -> impl Iterator<Item = &'a str> {
    object.list_at(&["spec", "template", "spec", "containers"]).iter().map(move |container| container.text(field))
}

fn joined<'a>(words: impl Iterator<Item = &'a str>) -> Value {
    words.collect::<Vec<_>>().join(",").into()
}

fn selector(object: &Object) -> Value {
    LabelSelector::from_spec(object.get(&["spec", "selector"])).map_or_else(
        |_| "<error>".into(),
        |selector| {
            if selector.is_everything() { "<none>".into() } else { selector.to_string().into() }
        },
    )
}

/// `Containers`, `Images` and `Selector`, in wide output.
fn wide() -> [Column; 3] {
    [
        string("Containers", 1, |object, _| joined(template_containers(object, "name"))),
        string("Images", 1, |object, _| joined(template_containers(object, "image"))),
        string("Selector", 1, |object, _| selector(object)),
    ]
}

fn number(object: &Object, path: &[&str]) -> i64 {
    object.i64_at(path).unwrap_or(0)
}

pub fn deployment() -> Vec<Column> {
    let mut columns = vec![
        name_column(),
        string("Ready", 0, |it, _| {
            format!("{}/{}", number(it, &["status", "readyReplicas"]), number(it, &["spec", "replicas"])).into()
        }),
        string("Up-to-date", 0, |it, _| number(it, &["status", "updatedReplicas"]).to_string().into()),
        string("Available", 0, |it, _| number(it, &["status", "availableReplicas"]).to_string().into()),
        age_column(),
    ];
    columns.extend(wide());
    columns
}

pub fn replica_set() -> Vec<Column> {
    let mut columns = vec![
        name_column(),
        integer("Desired", |it, _| number(it, &["spec", "replicas"]).into()),
        integer("Current", |it, _| number(it, &["status", "replicas"]).into()),
        integer("Ready", |it, _| number(it, &["status", "readyReplicas"]).into()),
        age_column(),
    ];
    columns.extend(wide());
    columns
}
