//! What the client wants back and what it sent: content types, and the shape of the answer.
//!
//! ```text
//! Accept: application/json;as=Table;v=v1;g=meta.k8s.io, application/json  ->  JSON, as a table
//! ```
//!
//! Clauses are tried by preference; one that asks for something this answer cannot be is passed over.

use meta::Status;
use meta::quote::quoted;

use crate::http::query::Query;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Yaml,
    Protobuf,
}

impl Format {
    pub const ALL: [Format; 3] = [Format::Json, Format::Yaml, Format::Protobuf];

    pub fn content_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::Yaml => "application/yaml",
            Format::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }

    /// The content type of a stream of watch events.
    pub fn stream_content_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::Yaml => "application/yaml;stream=watch",
            Format::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        }
    }
}

/// What the answer is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The object itself, or its list.
    Object,
    /// Rows for people, made by the server.
    Table,
    /// Metadata only.
    Metadata,
}

/// Whether rows of a table carry the object, its metadata, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncludeObject {
    Metadata,
    Object,
    None,
}

/// The outcome of negotiation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub format: Format,
    pub shape: Shape,
    /// The `apiVersion` of tables and metadata: `meta.k8s.io/v1` or `meta.k8s.io/v1beta1`.
    pub meta_version: &'static str,
    pub include_object: IncludeObject,
    pub pretty: bool,
}

impl Accepted {
    /// Plain JSON, for answers that are made before negotiation.
    pub fn json() -> Self {
        Accepted {
            format: Format::Json,
            shape: Shape::Object,
            meta_version: "meta.k8s.io/v1",
            include_object: IncludeObject::Metadata,
            pretty: false,
        }
    }
}

/// What this answer can be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Offer {
    /// Tables and metadata are possible, as for all reads of resources.
    pub shapes: bool,
    /// The answer is a stream of watch events.
    pub stream: bool,
    /// The path is one of a built-in kind.
    pub routed: bool,
    /// The path is that of a collection: it can be watched.
    pub listed: bool,
}

/// Picks format and shape from the `Accept` header and the query.
pub fn negotiate(accept: &str, query: &Query, user_agent: &str, offer: Offer) -> Result<Accepted, Status> {
    let mut accepted = Accepted { pretty: wants_pretty(query, user_agent), ..Accepted::json() };
    if offer.shapes {
        accepted.include_object = include_object(query)?;
    }
    if accept.trim().is_empty() {
        return Ok(accepted);
    }
    for clause in clauses(accept) {
        if let Some(chosen) = clause.choose(&accepted, offer) {
            return Ok(chosen);
        }
    }
    Err(if offer.routed && !clauses(accept).iter().any(|clause| clause.is_routed()) {
        not_routed(offer)
    } else {
        not_acceptable()
    })
}

/// The refusal of upstream's router, which sees the `Accept` header before the handlers do and knows no parameters.
fn not_routed(offer: Offer) -> Status {
    let all = Format::ALL.map(Format::content_type).join(", ");
    let streams = if offer.listed {
        ", application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"
    } else {
        ""
    };
    Status::not_acceptable(format!("406: Not Acceptable\n\nAvailable representations: {all}{streams}"))
}

/// What format a request body is in. No content type means JSON.
pub fn body_format(content_type: &str) -> Result<Format, Status> {
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match media_type.as_str() {
        "" if content_type.is_empty() => Ok(Format::Json),
        "application/json" => Ok(Format::Json),
        "application/yaml" => Ok(Format::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(Format::Protobuf),
        _ => Err(unsupported(&Format::ALL.map(Format::content_type))),
    }
}

/// `415`, naming what would have been read.
pub fn unsupported(accepted: &[&str]) -> Status {
    Status::unsupported_media_type(format!(
        "the body of the request was in an unknown format - accepted media types include: {}",
        accepted.join(", ")
    ))
}

fn not_acceptable() -> Status {
    let all = Format::ALL.map(Format::content_type).join(", ");
    Status::not_acceptable(format!("only the following media types are accepted: {all}"))
}

fn wants_pretty(query: &Query, user_agent: &str) -> bool {
    match query.first("pretty") {
        Some(value) => matches!(value, "" | "1" | "t" | "T" | "true" | "TRUE" | "True"),
        None => ["curl", "Wget", "Mozilla/5.0"].iter().any(|agent| user_agent.starts_with(agent)),
    }
}

fn include_object(query: &Query) -> Result<IncludeObject, Status> {
    match query.first("includeObject").unwrap_or_default() {
        "" | "Metadata" => Ok(IncludeObject::Metadata),
        "Object" => Ok(IncludeObject::Object),
        "None" => Ok(IncludeObject::None),
        other => Err(Status::bad_request(format!(
            "Unable to convert to Table as requested: includeObject: Invalid value: {}: must be 'Metadata', 'Object', 'None', or empty",
            quoted(other)
        ))),
    }
}

/// One comma-separated part of an `Accept` header.
#[derive(Debug)]
struct Clause<'a> {
    media_type: &'a str,
    quality_permille: u32,
    parameters: Vec<(&'a str, &'a str)>,
}

fn clauses(accept: &str) -> Vec<Clause<'_>> {
    let mut all: Vec<Clause<'_>> = accept.split(',').map(Clause::parse).collect();
    // A stable sort: equal preference keeps the order in which the client wrote them.
    all.sort_by_key(|clause| std::cmp::Reverse(clause.quality_permille));
    all
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Self {
        let mut words = text.split(';').map(str::trim);
        let media_type = words.next().unwrap_or_default();
        let mut quality_permille = 1000;
        let mut parameters = Vec::new();
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            if key == "q" {
                quality_permille = value.parse::<f32>().map_or(1000, |q| (q.clamp(0.0, 1.0) * 1000.0) as u32);
            } else {
                parameters.push((key, value.trim_matches('"')));
            }
        }
        Clause { media_type, quality_permille, parameters }
    }

    fn parameter(&self, name: &str) -> &'a str {
        self.parameters.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
    }

    /// Whether upstream's router would let it pass.
    fn is_routed(&self) -> bool {
        self.media_type == "*/*" || Format::ALL.iter().any(|format| format.content_type() == self.media_type)
    }

    fn choose(&self, base: &Accepted, offer: Offer) -> Option<Accepted> {
        let format = match self.media_type {
            "*/*" | "application/*" | "application/json" => Format::Json,
            "application/yaml" => Format::Yaml,
            "application/vnd.kubernetes.protobuf" => Format::Protobuf,
            _ => return None,
        };
        if self.quality_permille == 0 || (offer.stream && format == Format::Yaml) {
            return None;
        }
        if !matches!((self.parameter("stream"), offer.stream), ("", _) | ("watch", true)) {
            return None;
        }
        let mut chosen = Accepted { format, ..base.clone() };
        chosen.pretty |= self.parameter("pretty") == "1";
        self.choose_shape(&mut chosen, offer).then_some(chosen)
    }

    /// Whether the shape that the clause asks for can be given.
    fn choose_shape(&self, chosen: &mut Accepted, offer: Offer) -> bool {
        chosen.shape = match self.parameter("as") {
            "" => return true,
            "Table" if chosen.format != Format::Protobuf => Shape::Table,
            "PartialObjectMetadata" | "PartialObjectMetadataList" => Shape::Metadata,
            _ => return false,
        };
        chosen.meta_version = match (self.parameter("g"), self.parameter("v")) {
            ("meta.k8s.io", "v1") => "meta.k8s.io/v1",
            ("meta.k8s.io", "v1beta1") => "meta.k8s.io/v1beta1",
            _ => return false,
        };
        offer.shapes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Offer = Offer { shapes: true, stream: false, routed: true, listed: false };

    fn chosen(accept: &str, offer: Offer) -> Result<(Format, Shape), u16> {
        let accepted = negotiate(accept, &Query::default(), "kubectl", offer);
        accepted.map(|accepted| (accepted.format, accepted.shape)).map_err(|status| status.code)
    }

    #[test]
    fn picks_the_first_clause_that_can_be_given() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        for (accept, offer, expected) in [
            ("", READ, Ok((Format::Json, Shape::Object))),
            ("*/*", READ, Ok((Format::Json, Shape::Object))),
            (kubectl, READ, Ok((Format::Json, Shape::Table))),
            (kubectl, Offer::default(), Ok((Format::Json, Shape::Object))),
            ("application/vnd.kubernetes.protobuf,application/json", READ, Ok((Format::Protobuf, Shape::Object))),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
                READ,
                Ok((Format::Protobuf, Shape::Metadata)),
            ),
            ("application/json;q=0.1, application/yaml;q=0.5", READ, Ok((Format::Yaml, Shape::Object))),
            ("application/json;stream=watch", Offer { stream: true, ..READ }, Ok((Format::Json, Shape::Object))),
            ("application/json;stream=watch", READ, Err(406)),
            ("application/json;as=Scale;g=autoscaling;v=v1", READ, Err(406)),
            ("text/html", READ, Err(406)),
        ] {
            assert_eq!(chosen(accept, offer), expected, "{accept}");
        }
    }

    #[test]
    fn refusals_name_what_is_accepted() {
        let status = body_format("text/plain").unwrap_err();
        assert_eq!(status.code, 415);
        assert_eq!(
            status.message,
            "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf"
        );
        assert_eq!(body_format("application/json; charset=utf-8"), Ok(Format::Json));
    }

    #[test]
    fn a_type_that_no_route_gives_is_refused_by_the_router() {
        let told = |accept, offer| negotiate(accept, &Query::default(), "", offer).unwrap_err().message;
        let all = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
        assert_eq!(told("text/html", READ), format!("406: Not Acceptable\n\nAvailable representations: {all}"));
        let streams = "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";
        assert!(told("text/html", Offer { listed: true, ..READ }).ends_with(&format!("{all}, {streams}")));
        let handled = format!("only the following media types are accepted: {all}");
        assert_eq!(told("application/json;as=Scale;g=autoscaling;v=v1", READ), handled);
        assert_eq!(told("text/html", Offer::default()), handled);
    }

    #[test]
    fn people_get_pretty_answers() {
        let pretty =
            |query: &str, agent| negotiate("", &Query::parse(query), agent, READ).map(|accepted| accepted.pretty);
        assert_eq!(pretty("", "curl/8"), Ok(true));
        assert_eq!(pretty("pretty=false", "curl/8"), Ok(false));
        assert_eq!(pretty("pretty=true", "kubectl"), Ok(true));
        assert!(negotiate("", &Query::parse("includeObject=All"), "", READ).is_err());
    }
}
