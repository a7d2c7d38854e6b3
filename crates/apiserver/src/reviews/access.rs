//! "May this user do that?", read from a review and written into it.

use std::collections::BTreeMap;

use meta::{FieldError, FieldPath, GroupKind, Object, Status};
use serde_json::{Map, Value};

use super::Whose;
use crate::authz::{Attributes, Authorizer, Decision};
use crate::context::Identity;
use crate::registry::Target;

const EXACTLY_ONE: &str = "exactly one of nonResourceAttributes or resourceAttributes must be specified";

/// Answers an access review.
pub fn review(
    authorizer: &dyn Authorizer,
    whose: Whose,
    asker: &Identity,
    target: &Target,
    mut body: Object,
) -> Result<Object, Status> {
    let errors = validate(whose, &body, &target.namespace);
    if !errors.is_empty() {
        // Upstream knows the kind of what it refuses here by its group alone.
        return Err(Status::invalid(&GroupKind::new(&target.kind.group, ""), "", &errors));
    }
    let user = if whose == Whose::Own { asker.clone() } else { named_user(&body) };
    let (decision, reason) = ask(authorizer, &user, &body);
    let mut status = Map::new();
    status.insert("allowed".into(), (decision == Decision::Allow).into());
    if decision == Decision::Deny {
        status.insert("denied".into(), true.into());
    }
    if !reason.is_empty() {
        status.insert("reason".into(), reason.into());
    }
    body.set(&["status"], Value::Object(status));
    Ok(body)
}

fn validate(whose: Whose, body: &Object, namespace: &str) -> Vec<FieldError> {
    let spec = FieldPath::new("spec");
    let mut errors = Vec::new();
    let (resource, path) = (body.get(&["spec", "resourceAttributes"]), body.get(&["spec", "nonResourceAttributes"]));
    if resource.is_some() == path.is_some() {
        errors.push(FieldError::invalid(&spec, path.map_or(Value::Null, internal_path), EXACTLY_ONE));
    }
    if whose != Whose::Own && body.str_at(&["spec", "user"]).is_empty() && body.list_at(&["spec", "groups"]).is_empty()
    {
        errors.push(FieldError::invalid(&spec.child("user"), "", "at least one of user or group must be specified"));
    }
    if whose == Whose::NamedInNamespace {
        let asked = body.str_at(&["spec", "resourceAttributes", "namespace"]);
        if resource.is_some() && asked != namespace {
            let path = FieldPath::new("spec.resourceAttributes.namespace");
            errors.push(FieldError::invalid(&path, asked, "must match metadata.namespace"));
        }
        if let Some(path) = path {
            let rule = "disallowed on this kind of request";
            errors.push(FieldError::invalid(&spec.child("nonResourceAttributes"), path.clone(), rule));
        }
    }
    errors
}

/// `nonResourceAttributes` with the names of Go's own fields, as upstream's errors show them.
fn internal_path(path: &Value) -> Value {
    let text = |field: &str| path.get(field).cloned().unwrap_or_else(|| "".into());
    serde_json::json!({"Path": text("path"), "Verb": text("verb")})
}

fn named_user(body: &Object) -> Identity {
    let groups = body.list_at(&["spec", "groups"]).iter();
    let extra = body.get(&["spec", "extra"]).and_then(Value::as_object).into_iter().flatten();
    let values = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_string).collect()
    };
    let extra: BTreeMap<String, Vec<String>> = extra.map(|(key, value)| (key.to_lowercase(), values(value))).collect();
    Identity {
        name: body.str_at(&["spec", "user"]).into(),
        uid: body.str_at(&["spec", "uid"]).into(),
        groups: groups.filter_map(Value::as_str).map(Into::into).collect(),
        extra,
    }
}

fn ask(authorizer: &dyn Authorizer, user: &Identity, body: &Object) -> (Decision, String) {
    if body.get(&["spec", "nonResourceAttributes"]).is_some() {
        let text = |field: &str| body.str_at(&["spec", "nonResourceAttributes", field]);
        let question =
            Attributes { is_resource: false, path: text("path"), ..Attributes::on(user, text("verb"), "", "") };
        return authorizer.authorize(&question);
    }
    let text = |field: &str| body.str_at(&["spec", "resourceAttributes", field]);
    let raw = body.str_at(&["spec", "resourceAttributes", "fieldSelector", "rawSelector"]);
    let selector = if raw.is_empty() { selector_of(body) } else { raw.to_string() };
    authorizer.authorize(&Attributes {
        version: text("version"),
        subresource: text("subresource"),
        namespace: text("namespace"),
        name: text("name"),
        field_selector: &selector,
        ..Attributes::on(user, text("verb"), text("group"), text("resource"))
    })
}

/// The field selector of a review, from its requirements. Those that select more than one value narrow nothing.
fn selector_of(body: &Object) -> String {
    let requirements = body.list_at(&["spec", "resourceAttributes", "fieldSelector", "requirements"]).iter();
    let terms = requirements.filter_map(|requirement| {
        let values = requirement.get("values")?.as_array()?;
        match (requirement.get("operator")?.as_str()?, values.as_slice()) {
            ("In", [one]) => Some(format!("{}={}", requirement.get("key")?.as_str()?, one.as_str()?)),
            _ => None,
        }
    });
    terms.collect::<Vec<_>>().join(",")
}
