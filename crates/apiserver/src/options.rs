//! The query parameters of resource requests, read and checked, with upstream's refusals.

use bytes::Bytes;
use client::Verb;
use client::door::{DeleteOptions, Options, PatchKind};
use meta::quote::quoted;
use meta::{FieldError, FieldPath, GroupKind, Media, Object, Status};
use serde_json::Value;

use crate::http::query::Query;

/// The longest field manager, in bytes.
const FIELD_MANAGER_BYTES_MAX: usize = 128;

/// Reads what the verb may be given. `patch` is the kind of patch, for patches.
pub fn parse(query: &Query, verb: Verb, patch: Option<PatchKind>) -> Result<Options, Status> {
    let text = |name: &str| query.first(name).unwrap_or_default().to_string();
    let options = Options {
        label_selector: text("labelSelector"),
        field_selector: text("fieldSelector"),
        resource_version: text("resourceVersion"),
        resource_version_match: text("resourceVersionMatch"),
        limit: number(query, "limit")?,
        continue_token: text("continue"),
        timeout_seconds: number(query, "timeoutSeconds")?,
        allow_watch_bookmarks: query.flag("allowWatchBookmarks"),
        send_initial_events: query.first("sendInitialEvents").map(|_| query.flag("sendInitialEvents")),
        dry_run: query.all("dryRun").any(|value| !value.is_empty()),
        field_manager: text("fieldManager"),
        field_validation: text("fieldValidation"),
        force: query.flag("force"),
        // Clients say that in a header; see `negotiate`.
        media: Media::default(),
    };
    let mut errors = Vec::new();
    if is_write(verb) {
        check_write(&options, patch, query, &mut errors);
    } else {
        check_dry_run(query.all("dryRun"), &mut errors);
    }
    match verb {
        Verb::List | Verb::DeleteCollection => check_list(&options, &mut errors),
        Verb::Watch => check_watch(&options, &mut errors),
        _ => {}
    }
    if errors.is_empty() { Ok(options) } else { Err(invalid(verb, &errors)) }
}

/// What may stand together in a list.
fn check_list(options: &Options, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("resourceVersionMatch");
    let wanted = options.resource_version_match.as_str();
    if !wanted.is_empty() {
        if options.resource_version.is_empty() {
            let rule = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            errors.push(FieldError::forbidden(&path, rule));
        }
        if !options.continue_token.is_empty() {
            errors.push(FieldError::forbidden(&path, "resourceVersionMatch is forbidden when continue is provided"));
        }
        if !matches!(wanted, "Exact" | "NotOlderThan") {
            errors.push(FieldError::not_supported(&path, wanted, &["Exact", "NotOlderThan", ""]));
        }
        if wanted == "Exact" && options.resource_version == "0" {
            let rule = r#"resourceVersionMatch "exact" is forbidden for resourceVersion "0""#;
            errors.push(FieldError::forbidden(&path, rule));
        }
    }
    if options.send_initial_events.is_some() {
        let path = FieldPath::new("sendInitialEvents");
        errors.push(FieldError::forbidden(&path, "sendInitialEvents is forbidden for list"));
    }
}

/// What may stand together in a watch.
fn check_watch(options: &Options, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("resourceVersionMatch");
    let wanted = options.resource_version_match.as_str();
    if options.send_initial_events.is_some() && wanted != "NotOlderThan" {
        let rule = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        errors.push(FieldError::forbidden(&path, rule));
    }
    if wanted.is_empty() {
        return;
    }
    if options.send_initial_events.is_none() {
        let rule = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
        errors.push(FieldError::forbidden(&path, rule));
    }
    if wanted != "NotOlderThan" {
        errors.push(FieldError::not_supported(&path, wanted, &["NotOlderThan"]));
    }
    if !options.continue_token.is_empty() {
        errors.push(FieldError::forbidden(&path, "resourceVersionMatch is forbidden when continue is provided"));
    }
}

fn is_write(verb: Verb) -> bool {
    matches!(verb, Verb::Create | Verb::Update | Verb::Patch)
}

fn invalid(verb: Verb, errors: &[FieldError]) -> Status {
    let kind = match verb {
        Verb::Create => "CreateOptions",
        Verb::Update => "UpdateOptions",
        Verb::Patch => "PatchOptions",
        Verb::Delete | Verb::DeleteCollection => "DeleteOptions",
        Verb::Get | Verb::List | Verb::Watch => "ListOptions",
    };
    Status::invalid(&GroupKind::new("meta.k8s.io", kind), "", errors)
}

fn number(query: &Query, name: &str) -> Result<u64, Status> {
    match query.first(name).filter(|text| !text.is_empty()) {
        None => Ok(0),
        Some(text) => match text.parse::<i64>() {
            Ok(number) => Ok(u64::try_from(number).unwrap_or(0)),
            Err(_) => Err(not_a_number(text)),
        },
    }
}

/// Go's error about a text that should be a number.
fn not_a_number(text: &str) -> Status {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let why = if is_number { "value out of range" } else { "invalid syntax" };
    Status::bad_request(format!("strconv.ParseInt: parsing {}: {why}", quoted(text)))
}

fn check_dry_run<'a>(values: impl Iterator<Item = &'a str>, errors: &mut Vec<FieldError>) {
    let values: Vec<&str> = values.filter(|value| !value.is_empty()).collect();
    if values.iter().any(|value| *value != "All") {
        errors.push(FieldError::not_supported(&FieldPath::new("dryRun"), values, &["All"]));
    }
}

fn check_write(options: &Options, patch: Option<PatchKind>, query: &Query, errors: &mut Vec<FieldError>) {
    let manager = FieldPath::new("fieldManager");
    match patch {
        Some(PatchKind::Apply) if options.field_manager.is_empty() => {
            errors.push(FieldError::required(&manager, "is required for apply patch"));
        }
        Some(PatchKind::Json | PatchKind::Merge | PatchKind::StrategicMerge) if query.first("force").is_some() => {
            errors.push(FieldError::forbidden(&FieldPath::new("force"), "may not be specified for non-apply patch"));
        }
        _ => {}
    }
    if options.field_manager.len() > FIELD_MANAGER_BYTES_MAX {
        errors.push(FieldError::too_long(&manager, FIELD_MANAGER_BYTES_MAX));
    }
    if let Some((at, letter)) = options.field_manager.char_indices().find(|(_, letter)| letter.is_control()) {
        let detail = format!("invalid character U+{:04X} (at position {at})", letter as u32);
        errors.push(FieldError::invalid(&manager, options.field_manager.as_str(), detail));
    }
    check_dry_run(query.all("dryRun"), errors);
    if !matches!(options.field_validation.as_str(), "" | "Ignore" | "Warn" | "Strict") {
        let supported = ["", "Ignore", "Strict", "Warn"];
        let path = FieldPath::new("fieldValidation");
        errors.push(FieldError::not_supported(&path, options.field_validation.as_str(), &supported));
    }
}

/// The options of a delete: from the body when there is one, else from the query. Sets `options.dry_run` too.
pub fn delete(query: &Query, body: Option<Object>, options: &mut Options) -> Result<DeleteOptions, Status> {
    let read = match body {
        Some(body) => from_body(&body, options)?,
        None => from_query(query)?,
    };
    let mut errors = Vec::new();
    let path = FieldPath::new("propagationPolicy");
    if let Some(policy) = &read.propagation_policy {
        if read.orphan_dependents.is_some() {
            let rule = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(FieldError::invalid(&path, policy.as_str(), rule));
        }
        if !matches!(policy.as_str(), "Foreground" | "Background" | "Orphan") {
            errors.push(FieldError::not_supported(
                &path,
                policy.as_str(),
                &["Foreground", "Background", "Orphan", "nil"],
            ));
        }
    }
    if errors.is_empty() { Ok(read) } else { Err(invalid(Verb::Delete, &errors)) }
}

fn from_query(query: &Query) -> Result<DeleteOptions, Status> {
    let grace = query.first("gracePeriodSeconds").filter(|text| !text.is_empty());
    let grace = grace.map(|text| text.parse().map_err(|_| not_a_number(text)));
    Ok(DeleteOptions {
        grace_period_seconds: grace.transpose()?,
        propagation_policy: query.first("propagationPolicy").filter(|text| !text.is_empty()).map(str::to_string),
        orphan_dependents: query.first("orphanDependents").map(|_| query.flag("orphanDependents")),
        ignore_store_read_error: query.flag("ignoreStoreReadErrorWithClusterBreakingPotential"),
        ..DeleteOptions::default()
    })
}

fn from_body(body: &Object, options: &mut Options) -> Result<DeleteOptions, Status> {
    if !matches!(body.kind(), "" | "DeleteOptions") {
        let message = format!("decoded object cannot be converted to DeleteOptions: {} given", body.kind());
        return Err(Status::bad_request(message));
    }
    let mut errors = Vec::new();
    let dry_run = body.list_at(&["dryRun"]);
    check_dry_run(dry_run.iter().filter_map(Value::as_str), &mut errors);
    if !errors.is_empty() {
        return Err(invalid(Verb::Delete, &errors));
    }
    options.dry_run |= !dry_run.is_empty();
    let text = |path: &[&str]| Some(body.str_at(path)).filter(|text| !text.is_empty()).map(str::to_string);
    Ok(DeleteOptions {
        grace_period_seconds: body.i64_at(&["gracePeriodSeconds"]),
        propagation_policy: text(&["propagationPolicy"]),
        orphan_dependents: body.get(&["orphanDependents"]).and_then(Value::as_bool),
        precondition_uid: text(&["preconditions", "uid"]),
        precondition_resource_version: text(&["preconditions", "resourceVersion"]),
        ignore_store_read_error: body.bool_at(&["ignoreStoreReadErrorWithClusterBreakingPotential"]),
    })
}

/// Which patch a content type announces.
pub fn patch_kind(content_type: &str, strategic: bool) -> Result<PatchKind, Status> {
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    let mut kinds = vec![PatchKind::Json, PatchKind::Merge];
    if strategic {
        kinds.push(PatchKind::StrategicMerge);
    }
    kinds.push(PatchKind::Apply);
    let found = PatchKind::from_media_type(media_type).filter(|kind| kinds.contains(kind));
    found.ok_or_else(|| match strategic {
        // The routes of the built-in kinds say which types they take, and what they refuse never reaches a handler.
        true => Status::unsupported_media_type("415: Unsupported Media Type"),
        false => crate::negotiate::unsupported(&kinds.iter().map(|kind| kind.media_type()).collect::<Vec<_>>()),
    })
}

/// Whether there is a body at all: clients send an empty one with a delete.
pub fn has_body(body: &Bytes) -> bool {
    !body.trim_ascii().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(query: &str, verb: Verb, patch: Option<PatchKind>) -> Option<String> {
        parse(&Query::parse(query), verb, patch).err().map(|status| format!("{} {}", status.code, status.message))
    }

    #[test]
    fn refuses_what_upstream_refuses() {
        for (query, verb, patch, expected) in [
            ("limit=x", Verb::List, None, Some(r#"400 strconv.ParseInt: parsing "x": invalid syntax"#)),
            (
                "dryRun=Some",
                Verb::Create,
                None,
                Some(
                    r#"422 CreateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: ["Some"]: supported values: "All""#,
                ),
            ),
            (
                "",
                Verb::Patch,
                Some(PatchKind::Apply),
                Some(
                    r#"422 PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch"#,
                ),
            ),
            (
                "force=true",
                Verb::Patch,
                Some(PatchKind::Merge),
                Some(
                    r#"422 PatchOptions.meta.k8s.io "" is invalid: force: Forbidden: may not be specified for non-apply patch"#,
                ),
            ),
            ("dryRun=All&fieldManager=me&fieldValidation=Strict", Verb::Create, None, None),
        ] {
            assert_eq!(refused(query, verb, patch).as_deref(), expected, "{query}");
        }
    }

    #[test]
    fn a_delete_body_wins_over_the_query() {
        let mut options = Options::default();
        let body = serde_json::json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Foreground",
            "dryRun": ["All"], "preconditions": {"uid": "u"}});
        let query = Query::parse("gracePeriodSeconds=5");
        let read = delete(&query, Object::from_value(body), &mut options).unwrap();
        assert_eq!(read.propagation_policy.as_deref(), Some("Foreground"));
        assert_eq!((read.grace_period_seconds, read.precondition_uid.as_deref()), (None, Some("u")));
        assert!(options.dry_run);
        assert_eq!(delete(&query, None, &mut options).unwrap().grace_period_seconds, Some(5));
        assert!(delete(&Query::parse("propagationPolicy=Now"), None, &mut options).is_err());
    }

    #[test]
    fn patches_are_told_by_their_content_type() {
        assert_eq!(patch_kind("application/merge-patch+json; charset=utf-8", true), Ok(PatchKind::Merge));
        let status = patch_kind("application/strategic-merge-patch+json", false).unwrap_err();
        assert_eq!(
            status.message,
            "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
        );
    }
}
