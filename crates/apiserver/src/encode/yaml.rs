//! YAML answers: block style, keys sorted, as upstream's.
//!
//! Only what JSON can say is written, so the writer is small: scalars are quoted whenever a reader could take them for
//! something else.

use serde_json::Value;

/// Writes a document.
pub fn write(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => write_map(&mut out, map, 0),
        Value::Array(list) if !list.is_empty() => write_list(&mut out, list, 0),
        other => {
            scalar(&mut out, other, 0);
            out.push('\n');
        }
    }
    out
}

fn write_map(out: &mut String, map: &serde_json::Map<String, Value>, depth: usize) {
    let mut keys: Vec<&String> = map.keys().collect();
    keys.sort();
    for (index, key) in keys.into_iter().enumerate() {
        if index > 0 || !out.ends_with("- ") {
            indent(out, depth);
        }
        text(out, key);
        out.push(':');
        write_under_key(out, &map[key], depth);
    }
}

fn write_under_key(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            write_map(out, map, depth + 1);
        }
        // Lists stand at the indentation of their key.
        Value::Array(list) if !list.is_empty() => {
            out.push('\n');
            write_list(out, list, depth);
        }
        other => {
            out.push(' ');
            scalar(out, other, depth + 1);
            out.push('\n');
        }
    }
}

fn write_list(out: &mut String, list: &[Value], depth: usize) {
    for (index, item) in list.iter().enumerate() {
        if index > 0 || !out.ends_with("- ") {
            indent(out, depth);
        }
        out.push_str("- ");
        match item {
            Value::Object(map) if !map.is_empty() => write_map(out, map, depth + 1),
            Value::Array(list) if !list.is_empty() => write_list(out, list, depth + 1),
            other => {
                scalar(out, other, depth + 1);
                out.push('\n');
            }
        }
    }
}

fn indent(out: &mut String, depth: usize) {
    out.extend(std::iter::repeat_n("  ", depth));
}

fn scalar(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::String(content) if is_block(content) => block(out, content, depth),
        Value::String(content) => text(out, content),
        Value::Object(_) => out.push_str("{}"),
        Value::Array(_) => out.push_str("[]"),
        other => out.push_str(&other.to_string()),
    }
}

/// Whether text is better shown as a literal block: several lines, nothing that a block cannot hold.
fn is_block(content: &str) -> bool {
    let holds = |letter: char| letter == '\n' || letter == '\t' || !letter.is_control();
    let first = content.chars().next();
    content.contains('\n')
        && content.chars().all(holds)
        && !matches!(first, Some(' ' | '\n' | '\t'))
        && !content.trim_end_matches('\n').is_empty()
}

fn block(out: &mut String, content: &str, depth: usize) {
    let body = content.trim_end_matches('\n');
    let newlines = content.len() - body.len();
    out.push_str(match newlines {
        0 => "|-",
        1 => "|",
        _ => "|+",
    });
    for line in body.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            indent(out, depth);
            out.push_str(line);
        }
    }
    out.extend(std::iter::repeat_n('\n', newlines.saturating_sub(1)));
}

fn text(out: &mut String, content: &str) {
    if is_plain(content) {
        out.push_str(content);
    } else if content.chars().any(char::is_control) {
        out.push_str(&Value::from(content).to_string());
    } else if content.contains('\'') && !content.contains(['"', '\\']) {
        out.push_str(&format!("\"{content}\""));
    } else {
        out.push_str(&format!("'{}'", content.replace('\'', "''")));
    }
}

/// Whether text can stand without quotes and still be read as text by YAML 1.1 and 1.2 readers.
fn is_plain(content: &str) -> bool {
    let Some(first) = content.chars().next() else { return false };
    let starts_well =
        first.is_alphanumeric() || matches!(first, '_' | '/' | '.' | '(' | '$' | '^' | '+' | ';' | '<' | '~');
    let number_like = (first.is_ascii_digit() || matches!(first, '.' | '+' | '~')) && looks_special(content);
    let misread = number_like || is_word(content) || content.ends_with([' ', ':']);
    let punctuated = content.contains(": ") || content.contains(" #") || content.chars().any(char::is_control);
    starts_well && !misread && !punctuated
}

/// Numbers in all their forms, times and dates: anything of digits and number punctuation only.
fn looks_special(content: &str) -> bool {
    let digits = content.chars().all(|letter| letter.is_ascii_hexdigit() || "+-._:~TZtzxobeE ".contains(letter));
    digits || content.parse::<f64>().is_ok()
}

fn is_word(content: &str) -> bool {
    let lower = content.to_ascii_lowercase();
    matches!(
        lower.as_str(),
        "y" | "n"
            | "yes"
            | "no"
            | "on"
            | "off"
            | "true"
            | "false"
            | "null"
            | "~"
            | ".nan"
            | ".inf"
            | "nan"
            | "inf"
            | "="
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn writes_block_style_with_sorted_keys() {
        let value = json!({"kind": "Pod", "apiVersion": "v1", "spec": {"containers": [
            {"name": "x", "args": ["-c", "a\nb\n"], "ports": []}], "nodeSelector": {}},
            "metadata": {"annotations": {"a": "true", "b": "0644", "c": "1.5", "d": "it's: x", "e": "", "f": "10Gi"}}});
        expect_test::expect![[r#"
            apiVersion: v1
            kind: Pod
            metadata:
              annotations:
                a: 'true'
                b: '0644'
                c: '1.5'
                d: "it's: x"
                e: ''
                f: 10Gi
            spec:
              containers:
              - args:
                - '-c'
                - |
                  a
                  b
                name: x
                ports: []
              nodeSelector: {}
        "#]]
        .assert_eq(&write(&value));
    }
}
