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

/// Reads a patch and checks its size.
pub fn parse(patch: &[u8]) -> Result<Vec<Operation>, Status> {
    let operations: Vec<Operation> =
        serde_json::from_slice(patch).map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
    if operations.len() > OPERATIONS_MAX {
        return Err(Status::too_large(format!(
            "Request entity too large: The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {}",
            operations.len()
        )));
    }
    Ok(operations)
}

/// Applies the operations in order. On an error the document is left half changed and must be thrown away.
pub fn apply(document: &mut Value, operations: &[Operation]) -> Result<(), PatchError> {
    let mut copied_bytes = 0;
    operations.iter().try_for_each(|operation| one(document, operation, &mut copied_bytes))
}

fn one(document: &mut Value, operation: &Operation, copied_bytes: &mut usize) -> Result<(), PatchError> {
    let path = operation.path.as_deref().ok_or(PatchError::MissingField("path"))?;
    let value = || operation.value.clone().ok_or(PatchError::MissingField("value"));
    let from = || operation.from.as_deref().ok_or(PatchError::MissingField("from"));
    match operation.op.as_str() {
        "add" => add(document, &operation.op, path, value()?),
        "remove" => remove(document, &operation.op, path).map(drop),
        "replace" => {
            *find_mut(document, &operation.op, path)? = value()?;
            Ok(())
        }
        "move" => {
            let value = remove(document, &operation.op, from()?)?;
            add(document, &operation.op, path, value)
        }
        "copy" => {
            let value = find(document, from()?).cloned().ok_or_else(|| missing(&operation.op, path))?;
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
