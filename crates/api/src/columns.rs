//! Printer columns: what `kubectl get` shows of a kind, as the server's tables carry it.

use jiff::Timestamp;
use meta::Object;
use serde_json::Value;

/// One column of a kind's table.
#[derive(Clone, Debug)]
pub struct Column {
    pub name: &'static str,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub kind: &'static str,
    /// `name` marks the column of the object's name; else empty or an OpenAPI format.
    pub format: &'static str,
    pub description: &'static str,
    /// 0 is always shown, more than 0 only in wide output.
    pub priority: i32,
    pub cell: Cell,
}

/// What a cell shows. `now` is for ages.
pub type Cell = fn(object: &Object, now: Timestamp) -> Value;

/// The two columns of a kind that has none of its own: `Name` and `Age`.
pub fn default_columns() -> Vec<Column> {
    vec![name_column(), age_column()]
}

/// `Name`, the first column of every table.
pub fn name_column() -> Column {
    let cell: Cell = |object, _| object.name().into();
    Column { name: "Name", kind: "string", format: "name", description: "", priority: 0, cell }
}

/// `Age`, from the creation time. `<unknown>` when there is none, as upstream prints it.
pub fn age_column() -> Column {
    let cell: Cell = |object, now| match object.creation_timestamp() {
        Some(since) => meta::time::human_age(since, now).into(),
        None => "<unknown>".into(),
    };
    Column { name: "Age", kind: "string", format: "", description: "", priority: 0, cell }
}
