//! Label selectors, in both forms: the query text (`app=a,tier in (x,y),!old`) and the `LabelSelector` of specs.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use crate::quote::quoted;
use crate::{Object, Status, name};

/// A conjunction of requirements. An empty one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    /// A selector that is absent from a spec matches nothing, unlike one that is empty.
    nothing: bool,
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    pub values: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    /// The label's number is greater than the value; node affinity and queries only.
    Gt,
    /// The label's number is less than the value; node affinity and queries only.
    Lt,
}

impl Requirement {
    /// Whether labels, read through `get`, satisfy it.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        let value = get(&self.key);
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Gt => self.compare(value).is_some_and(|order| order.is_gt()),
            Operator::Lt => self.compare(value).is_some_and(|order| order.is_lt()),
        }
    }

    fn compare(&self, value: Option<&str>) -> Option<std::cmp::Ordering> {
        let bound: i64 = self.values.first()?.parse().ok()?;
        Some(value?.parse::<i64>().ok()?.cmp(&bound))
    }
}

impl LabelSelector {
    pub fn everything() -> Self {
        Self::default()
    }

    pub fn nothing() -> Self {
        LabelSelector { requirements: Vec::new(), nothing: true }
    }

    pub fn new(requirements: Vec<Requirement>) -> Self {
        LabelSelector { requirements, nothing: false }
    }

    /// All of these labels with exactly these values.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let requirement = |(key, value): (&str, &str)| Requirement {
            key: key.to_string(),
            operator: Operator::In,
            values: BTreeSet::from([value.to_string()]),
        };
        Self::new(labels.into_iter().map(requirement).collect())
    }

    /// Reads a `LabelSelector` of a spec. Absent selects nothing, `{}` everything. Errors are messages for the field.
    pub fn from_spec(selector: Option<&Value>) -> Result<Self, String> {
        let Some(selector) = selector.filter(|value| !value.is_null()) else { return Ok(Self::nothing()) };
        let labels = selector.get("matchLabels").and_then(Value::as_object);
        let pairs = labels.into_iter().flatten().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)));
        let mut all = Self::from_labels(pairs);
        for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            all.requirements.push(requirement_from_spec(expression)?);
        }
        Ok(all)
    }

    /// Reads the query parameter.
    pub fn parse(text: &str) -> Result<Self, Status> {
        let requirements = Parser { rest: text.trim() }.all().map_err(Status::bad_request)?;
        Ok(Self::new(requirements))
    }

    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether labels, read through `get`, satisfy all requirements.
    pub fn matches_labels<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|requirement| requirement.matches(&get))
    }

    pub fn matches(&self, object: &Object) -> bool {
        self.matches_labels(|key| object.label(key))
    }
}

fn requirement_from_spec(expression: &Value) -> Result<Requirement, String> {
    let text = |field: &str| expression.get(field).and_then(Value::as_str).unwrap_or_default();
    let values = expression.get("values").and_then(Value::as_array);
    let values = values.into_iter().flatten().filter_map(Value::as_str).map(String::from).collect();
    let operator = match text("operator") {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        other => return Err(format!("{other:?} is not a valid label selector operator")),
    };
    Ok(Requirement { key: text("key").to_string(), operator, values })
}

/// The canonical text, sorted by key as upstream prints it.
impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted: Vec<&Requirement> = self.requirements.iter().collect();
        sorted.sort_by(|a, b| a.key.cmp(&b.key));
        for (index, requirement) in sorted.into_iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = || self.values.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        match (self.operator, self.values.len()) {
            (Operator::In, 1) => write!(f, "{}={}", self.key, values()),
            (Operator::NotIn, 1) => write!(f, "{}!={}", self.key, values()),
            (Operator::In, _) => write!(f, "{} in ({})", self.key, values()),
            (Operator::NotIn, _) => write!(f, "{} notin ({})", self.key, values()),
            (Operator::Exists, _) => f.write_str(&self.key),
            (Operator::DoesNotExist, _) => write!(f, "!{}", self.key),
            (Operator::Gt, _) => write!(f, "{}>{}", self.key, values()),
            (Operator::Lt, _) => write!(f, "{}<{}", self.key, values()),
        }
    }
}

/// A hand-made reader of the query form; `rest` is what is left to read.
struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn all(mut self) -> Result<Vec<Requirement>, String> {
        let mut requirements = Vec::new();
        if self.rest.is_empty() {
            return Ok(requirements);
        }
        loop {
            if let Some(token) = self.skip().operator().filter(|token| *token != "!") {
                return Err(format!("found '{token}', expected: !, identifier, or 'end of string'"));
            }
            requirements.push(self.requirement().map_err(|why| format!("unable to parse requirement: {why}"))?);
            if self.skip().rest.is_empty() {
                return Ok(requirements);
            }
            if !self.take(",") {
                return Err(format!("found '{}', expected: ',' or 'end of string'", self.rest));
            }
            if self.skip().rest.is_empty() {
                return Err("found '', expected: identifier after ','".to_string());
            }
        }
    }

    fn skip(&mut self) -> &mut Self {
        self.rest = self.rest.trim_start();
        self
    }

    fn take(&mut self, token: &str) -> bool {
        match self.skip().rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// The operator or bracket that comes next, if one does.
    fn operator(&self) -> Option<&'a str> {
        let tokens = ["==", "=", "!=", "!", ",", "(", ")", "<", ">"];
        tokens.iter().find(|token| self.rest.starts_with(**token)).map(|token| &self.rest[..token.len()])
    }

    fn word(&mut self) -> &'a str {
        self.skip();
        let end = self.rest.find(|c: char| c.is_whitespace() || "=!,()<>".contains(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let absent = self.take("!");
        let key = self.word().to_string();
        if let Some(error) = name::qualified_name(&key).into_iter().next() {
            return Err(format!("<nil>: Invalid value: {}: {error}", quoted(&key)));
        }
        if absent {
            return Ok(Requirement { key, operator: Operator::DoesNotExist, values: BTreeSet::new() });
        }
        let (operator, values) = self.condition()?;
        for value in &values {
            if let Some(error) = name::label_value(value).into_iter().next() {
                return Err(format!("values[0][{key}]: Invalid value: {value:?}: {error}"));
            }
            if matches!(operator, Operator::Gt | Operator::Lt) && value.parse::<i64>().is_err() {
                return Err(format!(
                    "values[0]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer"
                ));
            }
        }
        Ok(Requirement { key, operator, values })
    }

    fn condition(&mut self) -> Result<(Operator, BTreeSet<String>), String> {
        for (token, operator) in [
            ("==", Operator::In),
            ("=", Operator::In),
            ("!=", Operator::NotIn),
            (">", Operator::Gt),
            ("<", Operator::Lt),
        ] {
            if self.take(token) {
                return Ok((operator, BTreeSet::from([self.word().to_string()])));
            }
        }
        if self.skip().rest.is_empty() || self.rest.starts_with(',') {
            return Ok((Operator::Exists, BTreeSet::new()));
        }
        let operator = match self.word() {
            "in" => Operator::In,
            "notin" => Operator::NotIn,
            other => return Err(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt")),
        };
        Ok((operator, self.set()?))
    }

    fn set(&mut self) -> Result<BTreeSet<String>, String> {
        if !self.take("(") {
            return Err(format!("found '{}' expected: '('", self.rest));
        }
        let mut values = BTreeSet::new();
        loop {
            values.insert(self.word().to_string());
            if self.take(")") {
                return Ok(values);
            }
            if !self.take(",") {
                return Err(format!("found '{}', expected: ',' or ')'", self.rest));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn matches(selector: &str, labels: Value) -> bool {
        let object = Object::from_value(json!({"metadata": {"labels": labels}})).unwrap();
        LabelSelector::parse(selector).unwrap().matches(&object)
    }

    #[test]
    fn every_operator_matches_as_documented() {
        for (selector, labels, expected) in [
            ("", json!({}), true),
            ("a=1", json!({"a": "1"}), true),
            ("a==1,b!=2", json!({"a": "1"}), true),
            ("a in (1, 2)", json!({"a": "2"}), true),
            ("a notin (1,2)", json!({"a": "2"}), false),
            ("a notin (1,2)", json!({}), true),
            ("a", json!({"a": ""}), true),
            ("!a", json!({"a": ""}), false),
            ("a>5", json!({"a": "6"}), true),
            ("a<5", json!({"a": "x"}), false),
            ("a=", json!({"a": ""}), true),
            ("x in (a,)", json!({"x": ""}), true),
        ] {
            assert_eq!(matches(selector, labels.clone()), expected, "{selector} on {labels}");
        }
    }

    #[test]
    fn refuses_what_it_cannot_read() {
        for text in ["a b", "a in 1", "a in (1", "=x", "a=1,", "a=b c", "a=$", "a>x", ","] {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn refuses_in_upstreams_words() {
        for (text, expected) in [
            ("=", "found '=', expected: !, identifier, or 'end of string'"),
            ("-a", "unable to parse requirement: <nil>: Invalid value: \"-a\": name part must consist"),
        ] {
            let told = LabelSelector::parse(text).unwrap_err().message;
            assert!(told.starts_with(expected), "{told}");
        }
    }

    #[test]
    fn a_spec_selector_that_is_absent_matches_nothing_and_an_empty_one_everything() {
        let any = |_: &str| None;
        assert!(!LabelSelector::from_spec(None).unwrap().matches_labels(any));
        assert!(LabelSelector::from_spec(Some(&json!({}))).unwrap().matches_labels(any));
        let spec = json!({"matchLabels": {"b": "1"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["x", "y"]}]});
        assert_eq!(LabelSelector::from_spec(Some(&spec)).unwrap().to_string(), "a in (x,y),b=1");
    }
}
