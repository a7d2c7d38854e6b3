//! From a path of the node API to its answer.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use k8s_openapi::api::core::v1::Pod;
use meta::ObjectKey;
use percent_encoding::percent_decode_str;
use serde_json::json;
use tokio::sync::mpsc;

use super::query::Query;
use super::stream_routes::{self, Asked};
use super::{cadvisor, exposition, logs, stats};
use crate::agent::Agent;
use crate::pod;
use crate::runtime_view::{self, RuntimePod};

/// Pieces of a log that may wait to be sent.
const LOG_QUEUE_MAX: usize = 16;

pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;
pub type Answer = Response<Body>;

pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A plain text answer.
pub fn text(status: StatusCode, text: impl Into<String>) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(text.into())).map_err(|never| match never {}).boxed_unsync());
    *answer.status_mut() = status;
    let plain = http::HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(http::header::CONTENT_TYPE, plain);
    answer
}

fn json_answer(value: &serde_json::Value) -> Answer {
    let mut answer = text(StatusCode::OK, value.to_string());
    let json = http::HeaderValue::from_static("application/json");
    answer.headers_mut().insert(http::header::CONTENT_TYPE, json);
    answer
}

fn exposed(metrics: Result<String, cri::Error>) -> Answer {
    let mut answer = match metrics {
        Ok(metrics) => text(StatusCode::OK, metrics),
        Err(error) => return internal(error),
    };
    let kind = http::HeaderValue::from_static(exposition::CONTENT_TYPE);
    answer.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    answer
}

fn internal(error: impl std::fmt::Display) -> Answer {
    text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))
}

/// Answers a request whose caller may make it.
pub async fn answer(agent: &Arc<Agent>, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_string();
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let segments: Vec<String> = path
        .split('/')
        .filter(|segment| !segment.is_empty())
        .map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned())
        .collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let streams = matches!(request.method(), &Method::GET | &Method::POST);
    match segments.as_slice() {
        ["healthz"] | ["healthz", "ping" | "log" | "syncloop"] => text(StatusCode::OK, "ok"),
        ["pods"] => pods(agent),
        ["stats", "summary"] => match stats::summary(agent).await {
            Ok(summary) => json_answer(&summary),
            Err(error) => internal(error),
        },
        ["metrics", "resource"] => exposed(stats::resource_metrics(agent).await),
        ["metrics", "cadvisor"] => exposed(cadvisor::metrics(agent).await),
        ["metrics"] => exposed(Ok(metrics(agent))),
        ["containerLogs", namespace, name, container] => {
            settled(container_logs(agent, namespace, name, container, &query).await)
        }
        ["exec" | "attach", namespace, name, container] if streams => {
            settled(session(agent, request, (namespace, name, ""), container, &query, segments[0] == "attach").await)
        }
        ["exec" | "attach", namespace, name, uid, container] if streams => {
            settled(session(agent, request, (namespace, name, uid), container, &query, segments[0] == "attach").await)
        }
        ["portForward", namespace, name] if streams => {
            settled(port_forward(agent, request, (namespace, name, "")).await)
        }
        ["portForward", namespace, name, uid] if streams => {
            settled(port_forward(agent, request, (namespace, name, uid)).await)
        }
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

/// An answer that ends the handling early, boxed because it is large.
type Refusal = Box<Answer>;

fn refusal(code: StatusCode, why: impl Into<String>) -> Refusal {
    Box::new(text(code, why.into()))
}

fn settled(outcome: Result<Answer, Refusal>) -> Answer {
    outcome.unwrap_or_else(|refusal| *refusal)
}

/// The pod of a namespace and name, and of a uid where one is given.
fn find(agent: &Agent, (namespace, name, uid): (&str, &str, &str)) -> Result<Arc<Pod>, Refusal> {
    let found = agent.pods.lister().get(&ObjectKey::new(namespace, name));
    let found = found.filter(|found| uid.is_empty() || pod::uid(found) == uid);
    found.ok_or_else(|| refusal(StatusCode::NOT_FOUND, "pod does not exist\n"))
}

/// What the runtime has of a pod.
async fn observe(agent: &Agent, found: &Pod) -> Result<RuntimePod, Refusal> {
    runtime_view::observe(&*agent.cri, pod::uid(found)).await.map_err(|error| Box::new(internal(error)))
}

fn pods(agent: &Agent) -> Answer {
    let items: Vec<_> = agent.pods.lister().all().iter().filter_map(|pod| serde_json::to_value(&**pod).ok()).collect();
    json_answer(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

fn metrics(agent: &Agent) -> String {
    let pods = agent.pods.lister().all();
    let running = pods.iter().filter(|found| pod::status(found).phase.as_deref() == Some("Running")).count();
    format!(
        "# HELP kubelet_running_pods [BETA] Number of pods that have a running pod sandbox\n\
         # TYPE kubelet_running_pods gauge\nkubelet_running_pods {running}\n\
         # HELP kubelet_node_name [ALPHA] The node's name. The count is always 1.\n\
         # TYPE kubelet_node_name gauge\nkubelet_node_name{{node=\"{}\"}} 1\n",
        agent.config.node_name
    )
}

async fn container_logs(
    agent: &Arc<Agent>,
    namespace: &str,
    name: &str,
    container: &str,
    query: &Query,
) -> Result<Answer, Refusal> {
    let options = logs::Options::parse(query, agent.clock.now());
    let options = options.map_err(|why| refusal(StatusCode::UNPROCESSABLE_ENTITY, why))?;
    let found = find(agent, (namespace, name, ""))?;
    if pod::find_container(&found, container).is_none() {
        let why = format!("container {container:?} not found in pod {name:?}\n");
        return Err(refusal(StatusCode::NOT_FOUND, why));
    }
    let container_id = logs::choose_instance(&found, container, options.previous);
    let container_id = container_id.map_err(|why| refusal(StatusCode::BAD_REQUEST, why))?;
    let view = observe(agent, &found).await?;
    let Some(instance) = view.by_id(&container_id) else {
        let why = format!("unable to retrieve container logs for {}://{container_id}", agent.runtime_name);
        return Err(refusal(StatusCode::BAD_REQUEST, why));
    };
    let path = agent.log_dir(&found).join(container).join(format!("{}.log", instance.attempt));
    let (to, lines) = mpsc::channel(LOG_QUEUE_MAX);
    let reading = logs::Reading { agent: agent.clone(), container_id, path, options, to };
    agent.tasks.spawn("log", reading.run());
    let frames = pieces(lines).map(|piece| piece.map(Frame::data));
    let mut answer = Response::new(StreamBody::new(frames).boxed_unsync());
    let plain = http::HeaderValue::from_static("text/plain");
    answer.headers_mut().insert(http::header::CONTENT_TYPE, plain);
    Ok(answer)
}

fn pieces<T: Send>(receiver: mpsc::Receiver<T>) -> impl futures::Stream<Item = T> + Send {
    futures::stream::unfold(receiver, |mut receiver| async move { receiver.recv().await.map(|item| (item, receiver)) })
}

async fn session(
    agent: &Arc<Agent>,
    request: Request<Incoming>,
    whose: (&str, &str, &str),
    container: &str,
    query: &Query,
    attach: bool,
) -> Result<Answer, Refusal> {
    let found = find(agent, whose)?;
    let view = observe(agent, &found).await?;
    let Some(instance) = view.latest(container).filter(|instance| instance.is_running()) else {
        let why = format!("unable to upgrade connection: container not found ({container:?})\n");
        return Err(refusal(StatusCode::INTERNAL_SERVER_ERROR, why));
    };
    let asked = Asked::parse(instance.id.clone(), query, attach);
    let asked = asked.map_err(|why| refusal(StatusCode::BAD_REQUEST, why))?;
    Ok(stream_routes::session(agent, request, asked))
}

async fn port_forward(
    agent: &Arc<Agent>,
    request: Request<Incoming>,
    whose: (&str, &str, &str),
) -> Result<Answer, Refusal> {
    let found = find(agent, whose)?;
    let view = observe(agent, &found).await?;
    let Some(sandbox) = view.ready_sandbox() else {
        return Err(refusal(
            StatusCode::INTERNAL_SERVER_ERROR,
            "unable to upgrade connection: pod sandbox not found\n",
        ));
    };
    Ok(stream_routes::port_forward(agent, request, sandbox.id.clone(), pod::full_name(&found)))
}
