//! One question to one container, by the way its probe names.

use std::sync::Arc;
use std::time::Duration;

use cri::Code;
use cri::v1::ExecSyncRequest;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Pod, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{grpc, http, tcp};
use crate::agent::Agent;
use crate::pod::{self, Sort};

/// How much of a command's output a message carries.
const OUTPUT_BYTES_MAX: usize = 10 * 1024;

/// The container that is asked.
pub struct Target {
    pub pod: Arc<Pod>,
    pub sort: Sort,
    pub container: Container,
    pub container_id: String,
    /// The pod's address.
    pub address: String,
}

/// What came back.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Success,
    Failure(String),
    /// The question could not be put.
    Error(String),
}

impl From<Result<(), String>> for Answer {
    fn from(result: Result<(), String>) -> Self {
        result.map_or_else(Answer::Failure, |()| Answer::Success)
    }
}

pub async fn ask(agent: &Agent, target: &Target, probe: &Probe) -> Answer {
    let timeout_seconds = probe.timeout_seconds.filter(|seconds| *seconds > 0).unwrap_or(1);
    let timeout = Duration::from_secs(u64::from(timeout_seconds.unsigned_abs()));
    if let Some(exec) = &probe.exec {
        let command: Vec<String> = exec.command.clone().unwrap_or_default();
        return ask_command(agent, &target.container_id, command, timeout).await;
    }
    if let Some(get) = &probe.http_get {
        return match http_request(get, &target.container, &target.address, "kube-probe/1.37") {
            Ok(request) => http::probe(&request, timeout).await.into(),
            Err(why) => Answer::Error(why),
        };
    }
    if let Some(socket) = &probe.tcp_socket {
        let host = socket.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| target.address.clone());
        return match port(&socket.port, &target.container) {
            Ok(port) => tcp::probe(&host, port, timeout).await.into(),
            Err(why) => Answer::Error(why),
        };
    }
    if let Some(action) = &probe.grpc {
        let service = action.service.clone().unwrap_or_default();
        return match u16::try_from(action.port) {
            Ok(port) => grpc::probe(&target.address, port, &service, timeout).await.into(),
            Err(_) => Answer::Error(format!("invalid port number: {}", action.port)),
        };
    }
    Answer::Error("missing probe handler".to_string())
}

async fn ask_command(agent: &Agent, container_id: &str, cmd: Vec<String>, timeout: Duration) -> Answer {
    let request = ExecSyncRequest {
        container_id: container_id.to_string(),
        cmd: cmd.clone(),
        timeout: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
    };
    match agent.cri.exec_sync(request).await {
        Ok(output) if output.exit_code == 0 => Answer::Success,
        Ok(output) => {
            let mut text = output.stdout;
            text.extend(output.stderr);
            text.truncate(OUTPUT_BYTES_MAX);
            Answer::Failure(String::from_utf8_lossy(&text).into_owned())
        }
        Err(error) if error.code() == Code::DeadlineExceeded => {
            let command = cmd.join(" ");
            Answer::Failure(format!("command timed out: {command:?} timed out after {}s", timeout.as_secs()))
        }
        Err(error) => Answer::Error(error.to_string()),
    }
}

/// A request from an httpGet action, for probes and hooks.
pub fn http_request(
    get: &HTTPGetAction,
    container: &Container,
    address: &str,
    user_agent: &str,
) -> Result<http::Get, String> {
    let host = get.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| address.to_string());
    let path = get.path.clone().unwrap_or_default();
    let path = if path.starts_with('/') { path } else { format!("/{path}") };
    let mut headers: Vec<(String, String)> =
        get.http_headers.iter().flatten().map(|header| (header.name.clone(), header.value.clone())).collect();
    let given = |name: &str| headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
    let (has_agent, has_accept) = (given("user-agent"), given("accept"));
    if !has_agent {
        headers.push(("User-Agent".to_string(), user_agent.to_string()));
    }
    if !has_accept {
        headers.push(("Accept".to_string(), "*/*".to_string()));
    }
    let tls = get.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
    Ok(http::Get { tls, host, port: port(&get.port, container)?, path, headers })
}

/// A port by number or by the name the container gives it.
pub fn port(given: &IntOrString, container: &Container) -> Result<u16, String> {
    let found = match given {
        IntOrString::Int(number) => u16::try_from(*number).ok().filter(|port| *port > 0),
        IntOrString::String(name) => pod::named_port(container, name).or_else(|| name.parse().ok()),
    };
    found.ok_or_else(|| match given {
        IntOrString::Int(number) => format!("invalid port number: {number}"),
        IntOrString::String(name) => format!("couldn't find port: {name:?}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ports_are_found_by_name_or_number() {
        let container: Container =
            serde_json::from_value(json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]})).unwrap();
        let named = |name: &str| port(&IntOrString::String(name.into()), &container);
        assert_eq!(named("web"), Ok(8080));
        assert_eq!(named("81"), Ok(81));
        assert_eq!(named("gone"), Err("couldn't find port: \"gone\"".into()));
        assert!(port(&IntOrString::Int(0), &container).is_err());
    }

    #[test]
    fn an_http_action_becomes_a_request() {
        let container = Container::default();
        let get: HTTPGetAction = serde_json::from_value(json!({"port": 80, "path": "healthz?x=1", "scheme": "HTTPS",
            "httpHeaders": [{"name": "user-agent", "value": "mine"}]}))
        .unwrap();
        let request = http_request(&get, &container, "10.0.0.9", "kube-probe/1.37").unwrap();
        assert_eq!((request.tls, request.host.as_str(), request.path.as_str()), (true, "10.0.0.9", "/healthz?x=1"));
        assert_eq!(request.headers.len(), 2);
    }
}
