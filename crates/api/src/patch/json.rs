//! RFC 6902: `add`, `remove`, `replace`, `move`, `copy`, `test` on JSON pointers.

use meta::Status;
use serde::Deserialize;
use serde_json::Value;

/// Upstream's limit on one patch.
const OPERATIONS_MAX: usize = 10_000;
/// Copies of copies double: what all copies of one patch may add up to.
const COPIED_BYTES_MAX: usize = 3 * 1024 * 1024;

/// One operation. Which fields must be there depends on `op`.
#[derive(Clone, Debug, Deserialize)]
pub struct Operation {
    op: String,
    path: Option<String>,
    from: Option<String>,
    #[serde(default, deserialize_with = "given")]
    value: Option<Value>,
}

/// A null value is a value; only an absent one is none.
fn given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Why an operation does not fit the document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    #[error("operation missing {0} field: missing value")]
    MissingField(&'static str),
    #[error("{op} operation does not apply: doc is missing path: \"{path}\": missing value")]
    MissingPath { op: String, path: String },
    #[error("Unable to access invalid index: {0}: invalid index referenced")]
    Index(String),
    #[error("testing value {0} failed: test failed")]
    Test(String),
    #[error("Unexpected kind: {0}")]
    UnknownOperation(String),
    #[error("copied values are larger than {COPIED_BYTES_MAX} bytes")]
    TooLarge,
}

/// The members of an operation.
const MEMBERS: [&str; 4] = ["op", "path", "from", "value"];

/// Reads a patch and checks its size. Besides: what in it nobody knows or was said twice.
pub fn parse(patch: &[u8]) -> Result<(Vec<Operation>, Vec<String>), Status> {
    let undecodable = |why: String| Status::bad_request(format!("error decoding patch: {why}"));
    let (patch, mut problems) = super::parse(patch)?;
    let Value::Array(items) = patch else {
        return Err(undecodable(super::not_a(&patch, "[]handlers.jsonPatchOp")));
    };
    for (index, item) in items.iter().enumerate() {
        let unknown = item.as_object().into_iter().flat_map(|item| item.keys());
        let unknown = unknown.filter(|key| !MEMBERS.contains(&key.as_str()));
        problems.extend(unknown.map(|key| format!("unknown field \"[{index}].{key}\"")));
    }
    let count = items.len();
    let operations: Result<Vec<Operation>, _> = items.into_iter().map(Operation::deserialize).collect();
    let operations = operations.map_err(|error| undecodable(error.to_string()))?;
    if count > OPERATIONS_MAX {
        return Err(Status::too_large(format!(
            "Request entity too large: The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {count}"
        )));
    }
    Ok((operations, problems.into_iter().map(|problem| format!("json patch {problem}")).collect()))
}

/// The maps that the operations go into.
pub fn touched(operations: &[Operation]) -> Value {
    let mut touched = Value::Object(serde_json::Map::new());
    for pointer in operations.iter().flat_map(|operation| [&operation.path, &operation.from]).flatten() {
        super::printed::touch(&mut touched, pointer);
    }
    touched
}

/// Applies the operations in order. On an error the document is left half changed and must be thrown away.
pub fn apply(document: &mut Value, operations: &[Operation]) -> Result<(), PatchError> {
    let mut copied_bytes = 0;
    operations.iter().try_for_each(|operation| one(document, operation, &mut copied_bytes))
}

fn one(document: &mut Value, operation: &Operation, copied_bytes: &mut usize) -> Result<(), PatchError> {
    let path = operation.path.as_deref().ok_or(PatchError::MissingField("path"))?;
    // To upstream's library, a value that is not given is a null.
    let value = || operation.value.clone().unwrap_or_default();
    let from = || operation.from.as_deref().ok_or(PatchError::MissingField("from"));
    match operation.op.as_str() {
        "add" => add(document, &operation.op, path, value()),
        "remove" => remove(document, &operation.op, path).map(drop),
        "replace" => replace(document, path, value()),
        "move" => {
            let value = remove(document, &operation.op, from()?)?;
            add(document, &operation.op, path, value)
        }
        "copy" => {
            let value = copied(document, from()?)?;
            *copied_bytes += value.to_string().len();
            if *copied_bytes > COPIED_BYTES_MAX {
                return Err(PatchError::TooLarge);
            }
            add(document, &operation.op, path, value)
        }
        "test" => {
            // An absent value and a null one are the same to upstream.
            let found = find(document, path).unwrap_or(&Value::Null);
            let wanted = operation.value.as_ref().unwrap_or(&Value::Null);
            if found == wanted { Ok(()) } else { Err(PatchError::Test(path.into())) }
        }
        other => Err(PatchError::UnknownOperation(other.into())),
    }
}

fn missing(op: &str, path: &str) -> PatchError {
    PatchError::MissingPath { op: op.into(), path: path.into() }
}

fn unescape(step: &str) -> String {
    step.replace("~1", "/").replace("~0", "~")
}

fn find<'a>(document: &'a Value, path: &str) -> Option<&'a Value> {
    let Some(rest) = path.strip_prefix('/') else { return path.is_empty().then_some(document) };
    rest.split('/').try_fold(document, |value, step| match value {
        Value::Object(map) => map.get(&unescape(step)),
        Value::Array(items) => items.get(index(step, items.len())?),
        _ => None,
    })
}

fn find_mut<'a>(document: &'a mut Value, op: &str, path: &str) -> Result<&'a mut Value, PatchError> {
    let Some(rest) = path.strip_prefix('/') else {
        return if path.is_empty() { Ok(document) } else { Err(missing(op, path)) };
    };
    let found = rest.split('/').try_fold(document, |value, step| match value {
        Value::Object(map) => map.get_mut(&unescape(step)),
        Value::Array(items) => {
            let at = index(step, items.len())?;
            items.get_mut(at)
        }
        _ => None,
    });
    found.ok_or_else(|| missing(op, path))
}

/// A place in a list of this length; negative places count from the end, as upstream's library lets them.
fn index(step: &str, length: usize) -> Option<usize> {
    let at: i64 = step.parse().ok()?;
    if at < 0 { length.checked_sub(usize::try_from(-at).ok()?) } else { usize::try_from(at).ok() }
}

fn split<'a>(op: &str, path: &'a str) -> Result<(&'a str, String), PatchError> {
    let (parent, last) = path.rsplit_once('/').ok_or_else(|| missing(op, path))?;
    Ok((parent, unescape(last)))
}

fn add(document: &mut Value, op: &str, path: &str, value: Value) -> Result<(), PatchError> {
    if path.is_empty() {
        *document = value;
        return Ok(());
    }
    let (parent, last) = split(op, path)?;
    match find_mut(document, op, parent)? {
        Value::Object(map) => {
            map.insert(last, value);
            Ok(())
        }
        Value::Array(items) if last == "-" => {
            items.push(value);
            Ok(())
        }
        Value::Array(items) => match index(&last, items.len() + 1) {
            Some(at) if at <= items.len() => {
                items.insert(at, value);
                Ok(())
            }
            _ => Err(PatchError::Index(last)),
        },
        _ => Err(missing(op, path)),
    }
}

/// A member of a map need not have been there.
fn replace(document: &mut Value, path: &str, value: Value) -> Result<(), PatchError> {
    if let Ok((parent, last)) = split("replace", path)
        && let Value::Object(map) = find_mut(document, "replace", parent)?
    {
        map.insert(last, value);
        return Ok(());
    }
    *find_mut(document, "replace", path)? = value;
    Ok(())
}

/// What stands there; a null when it is a member that the map has not.
fn copied(document: &Value, from: &str) -> Result<Value, PatchError> {
    let parent = from.rsplit_once('/').and_then(|(parent, _)| find(document, parent));
    match find(document, from) {
        Some(value) => Ok(value.clone()),
        None if parent.is_some_and(Value::is_object) => Ok(Value::Null),
        None => Err(missing("copy", from)),
    }
}

fn remove(document: &mut Value, op: &str, path: &str) -> Result<Value, PatchError> {
    let (parent, last) = split(op, path)?;
    match find_mut(document, op, parent)? {
        Value::Object(map) => map.remove(&last).ok_or_else(|| missing(op, path)),
        Value::Array(items) => match index(&last, items.len()) {
            Some(at) if at < items.len() => Ok(items.remove(at)),
            _ => Err(PatchError::Index(last)),
        },
        _ => Err(missing(op, path)),
    }
}
