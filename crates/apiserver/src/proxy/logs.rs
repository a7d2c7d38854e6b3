//! The `log` subresource: options checked, then streamed from the node agent, over WebSocket to those who ask for that.

use form_urlencoded::Serializer;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Either, Empty, Limited};
use meta::status::Reason;
use meta::{FieldError, FieldPath, GroupKind, GroupResource, Status};

use super::Proxy;
use super::forward::data;
use super::kubelet::choose_container;
use crate::http::query::Query;
use crate::http::{Body, Received, Response, websocket};
use crate::request_info::RequestInfo;

/// How much of a node agent's refusal is shown to the user, in bytes.
const REFUSAL_BYTES_MAX: usize = 50_000;

impl Proxy {
    /// Streams a container's log.
    pub async fn log(&self, received: &mut Received, info: &RequestInfo) -> Result<Response, Status> {
        let parameters = parameters(&received.query, &info.name)?;
        let pod = self.pod(&info.namespace, &info.name).await?;
        let container = choose_container(&pod, received.query.first("container").unwrap_or_default())?;
        let node = pod.str_at(&["spec", "nodeName"]);
        if node.is_empty() {
            // Not bound yet: there is no log, which is no error.
            let mut nothing = Response::new(Body::empty());
            *nothing.status_mut() = StatusCode::NO_CONTENT;
            return Ok(nothing);
        }
        let mut agent = self.node_agent(node).await?;
        if received.query.flag("insecureSkipTLSVerifyBackend") {
            agent.tls = Some(self.unverified_tls.clone());
        }
        let uri = format!("/containerLogs/{}/{}/{container}?{parameters}", pod.namespace(), pod.name());
        let mut request = Request::new(Either::Right(Empty::new()));
        *request.uri_mut() = uri.parse().map_err(|error| Status::bad_request(format!("bad path: {error}")))?;
        let answer = agent.send(request, &self.tasks).await?;
        if !matches!(answer.status().as_u16(), 200..=206) {
            return Err(refusal(answer, &info.name).await);
        }
        let bytes = data(answer.into_body());
        if received.wants_websocket() {
            return Ok(websocket::serve_bytes(received, &self.tasks, bytes));
        }
        let mut response = Response::new(Body::Stream(bytes));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        Ok(response)
    }
}

/// What the node agent said, as the status that upstream makes of it.
async fn refusal(answer: http::Response<hyper::body::Incoming>, pod: &str) -> Status {
    let code = answer.status();
    let body = Limited::new(answer.into_body(), REFUSAL_BYTES_MAX).collect().await;
    let words = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).trim_end().to_string()).unwrap_or_default();
    match code {
        StatusCode::BAD_REQUEST => Status::bad_request(words),
        StatusCode::INTERNAL_SERVER_ERROR => Status::internal(words),
        StatusCode::NOT_FOUND => {
            let log = GroupResource::new("", "pods/log");
            let mut status = Status::not_found(&log, pod);
            status.message = format!("the server could not find the requested resource ( {log} {pod})");
            status.with_cause(meta::StatusCause {
                reason: "UnexpectedServerResponse".into(),
                message: words,
                ..Default::default()
            })
        }
        other => {
            let mut status =
                Status::new(Reason::Unknown, format!("the server answered {other} for pods/log {pod}: {words}"));
            status.code = other.as_u16();
            status
        }
    }
}

/// The options as the node agent wants them, or what is wrong with them.
fn parameters(query: &Query, pod: &str) -> Result<String, Status> {
    let mut errors = Vec::new();
    let mut written = Serializer::new(String::new());
    for flag in ["follow", "previous", "timestamps"] {
        if query.flag(flag) {
            written.append_pair(flag, "true");
        }
    }
    let since_time = query.first("sinceTime").filter(|text| !text.is_empty());
    let bounds = [
        ("sinceSeconds", 1, "must be greater than 0"),
        ("tailLines", 0, "must be greater than or equal to 0"),
        ("limitBytes", 1, "must be greater than 0"),
    ];
    for (name, least, rule) in bounds {
        let Some(text) = query.first(name).filter(|text| !text.is_empty()) else { continue };
        let number: i64 = text
            .parse()
            .map_err(|_| Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))?;
        let path = FieldPath::new(name);
        if name == "sinceSeconds" && since_time.is_some() {
            let rule = "at most one of `sinceTime` or `sinceSeconds` may be specified";
            errors.push(FieldError::forbidden(&FieldPath::unnamed(), rule));
        } else if number < least {
            errors.push(FieldError::invalid(&path, number, rule));
        }
        written.append_pair(name, text);
    }
    if let Some(text) = since_time {
        let parsed: Result<base::Timestamp, _> = text.parse();
        parsed.map_err(|error| Status::bad_request(format!("parsing time {text:?}: {error}")))?;
        written.append_pair("sinceTime", text);
    }
    match query.first("stream").filter(|text| !text.is_empty()) {
        None | Some("All") => {}
        Some(one @ ("Stdout" | "Stderr")) => {
            written.append_pair("stream", one);
        }
        Some(other) => {
            errors.push(FieldError::not_supported(&FieldPath::new("stream"), other, &["All", "Stderr", "Stdout"]));
        }
    }
    if errors.is_empty() {
        return Ok(written.finish());
    }
    Err(Status::invalid(&GroupKind::new("", "PodLogOptions"), pod, &errors))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_options_on_and_refuses_bad_ones() {
        let read = |text: &str| parameters(&Query::parse(text), "p").map_err(|status| (status.code, status.message));
        assert_eq!(read("container=x&follow=true&tailLines=5&previous=false"), Ok("follow=true&tailLines=5".into()));
        assert_eq!(read("tailLines=-1").unwrap_err().0, 422);
        assert_eq!(
            read("sinceSeconds=0").unwrap_err().1,
            "PodLogOptions \"p\" is invalid: sinceSeconds: Invalid value: 0: must be greater than 0"
        );
        assert_eq!(read("sinceSeconds=5&sinceTime=2026-01-01T00:00:00Z").unwrap_err().0, 422);
        assert_eq!(read("limitBytes=x").unwrap_err().0, 400);
    }
}
