//! Field selectors: `metadata.name=x,status.phase!=Running`. Which fields a kind can be selected by is the kind's business.

use crate::Status;

/// A conjunction of `path = value` and `path != value`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    pub terms: Vec<FieldTerm>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    /// Such as `metadata.name` or `spec.nodeName`.
    pub field: String,
    pub value: String,
    /// `!=` instead of `=`.
    pub negated: bool,
}

impl FieldSelector {
    pub fn everything() -> Self {
        Self::default()
    }

    /// `field=value`
    pub fn equals(field: &str, value: &str) -> Self {
        FieldSelector { terms: vec![FieldTerm { field: field.into(), value: value.into(), negated: false }] }
    }

    /// Reads the query parameter. `\\`, `\,` and `\=` are escapes in values.
    pub fn parse(text: &str) -> Result<Self, Status> {
        let mut terms = Vec::new();
        for part in split_unescaped(text) {
            if !part.is_empty() {
                terms.push(parse_term(part)?);
            }
        }
        Ok(FieldSelector { terms })
    }

    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The value that `field` must equal, if the selector says so.
    pub fn required_value(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|term| !term.negated && term.field == field).map(|term| term.value.as_str())
    }

    /// Whether it holds, given a way to read a field; an absent field reads as empty text.
    pub fn matches<'a>(&self, read: impl Fn(&str) -> Option<std::borrow::Cow<'a, str>>) -> bool {
        self.terms.iter().all(|term| (read(&term.field).unwrap_or_default() == term.value.as_str()) != term.negated)
    }
}

impl std::fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, term) in self.terms.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let value = term.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            write!(f, "{comma}{}{}{value}", term.field, if term.negated { "!=" } else { "=" })?;
        }
        Ok(())
    }
}

fn split_unescaped(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, letter) in text.char_indices() {
        if letter == ',' && !escaped {
            parts.push(&text[start..at]);
            start = at + 1;
        }
        escaped = letter == '\\' && !escaped;
    }
    parts.push(&text[start..]);
    parts
}

fn parse_term(part: &str) -> Result<FieldTerm, Status> {
    let bad = || Status::bad_request(format!("invalid selector: '{part}'; can't understand '{part}'"));
    let at = part.find('=').ok_or_else(bad)?;
    let (left, right) = (&part[..at], &part[at + 1..]);
    let (field, negated) = left.strip_suffix('!').map_or((left, false), |field| (field, true));
    let value = if negated { right } else { right.strip_prefix('=').unwrap_or(right) };
    Ok(FieldTerm { field: field.to_string(), value: unescape(value)?, negated })
}

fn unescape(value: &str) -> Result<String, Status> {
    let bad = |why: String| Status::bad_request(format!("invalid field selector: {why}"));
    let (mut out, mut letters) = (String::with_capacity(value.len()), value.chars());
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                Some(next @ ('\\' | ',' | '=')) => out.push(next),
                next => {
                    let sequence: String = std::iter::once('\\').chain(next).collect();
                    return Err(bad(format!("invalid escape sequence: {sequence}")));
                }
            },
            ',' | '=' => return Err(bad(format!("unescaped character in value: {}", letter as u32))),
            other => out.push(other),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_all_three_operators_and_escapes() {
        let selector = FieldSelector::parse(r"metadata.name=a,status.phase!=Running,x==1\,2").unwrap();
        assert_eq!(selector.to_string(), r"metadata.name=a,status.phase!=Running,x=1\,2");
        assert_eq!(selector.required_value("metadata.name"), Some("a"));
        let read = |field: &str| match field {
            "metadata.name" => Some("a".into()),
            "x" => Some("1,2".into()),
            _ => None,
        };
        assert!(selector.matches(read));
    }

    #[test]
    fn refuses_what_it_cannot_read() {
        for text in ["metadata.name", "a=b=c", r"a=\x"] {
            assert!(FieldSelector::parse(text).is_err(), "{text}");
        }
    }
}
