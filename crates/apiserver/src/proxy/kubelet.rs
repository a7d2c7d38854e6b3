//! Exec, attach and port-forward: which path of the node agent a request becomes.

use form_urlencoded::Serializer;
use meta::{Object, Status};
use serde_json::Value;

use super::Proxy;
use crate::http::query::Query;
use crate::http::{Received, Response};
use crate::request_info::RequestInfo;

/// The node agent's names for the streams that are wanted, by ours.
const STREAMS: [(&str, &str); 4] = [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")];
const CONTAINER_LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

impl Proxy {
    /// Joins the client with the node agent of the pod.
    pub async fn stream(&self, received: &mut Received, info: &RequestInfo) -> Result<Response, Status> {
        let pod = self.pod(&info.namespace, &info.name).await?;
        let path = match info.subresource.as_str() {
            "portforward" => port_forward_path(&pod, &received.query),
            subresource => container_path(&pod, subresource, &received.query)?,
        };
        let node = pod.str_at(&["spec", "nodeName"]);
        if node.is_empty() {
            return Err(Status::bad_request(format!("pod {} does not have a host assigned", pod.name())));
        }
        let agent = self.node_agent(node).await?;
        self.forward(received, &agent, &path, None).await
    }
}

fn container_path(pod: &Object, subresource: &str, query: &Query) -> Result<String, Status> {
    let container = choose_container(pod, query.first("container").unwrap_or_default())?;
    let mut parameters = Serializer::new(String::new());
    for (ours, theirs) in STREAMS {
        if query.flag(ours) {
            parameters.append_pair(theirs, "1");
        }
    }
    if subresource == "exec" {
        for word in query.all("command") {
            parameters.append_pair("command", word);
        }
    }
    Ok(format!("/{subresource}/{}/{}/{container}?{}", pod.namespace(), pod.name(), parameters.finish()))
}

fn port_forward_path(pod: &Object, query: &Query) -> String {
    let path = format!("/portForward/{}/{}", pod.namespace(), pod.name());
    let ports: Vec<&str> = query.all("ports").flat_map(|ports| ports.split(',')).collect();
    if ports.is_empty() {
        return path;
    }
    let mut parameters = Serializer::new(String::new());
    parameters.append_pair("port", &ports.join(","));
    format!("{path}?{}", parameters.finish())
}

/// The container that is meant: the named one, or the only one.
pub fn choose_container(pod: &Object, asked: &str) -> Result<String, Status> {
    let names = |list: &str| -> Vec<&str> {
        let containers = pod.list_at(&["spec", list]).iter();
        containers.filter_map(|container| container.get("name").and_then(Value::as_str)).collect()
    };
    if !asked.is_empty() {
        return match CONTAINER_LISTS.iter().any(|list| names(list).contains(&asked)) {
            true => Ok(asked.to_string()),
            false => Err(Status::bad_request(format!("container {asked} is not valid for pod {}", pod.name()))),
        };
    }
    let must = format!("a container name must be specified for pod {}", pod.name());
    match names("containers").as_slice() {
        [one] => Ok((*one).to_string()),
        [] => Err(Status::bad_request(must)),
        many => {
            let mut message = format!("{must}, choose one of: [{}]", many.join(" "));
            let init = names("initContainers");
            if !init.is_empty() {
                message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(Status::bad_request(message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> Object {
        Object::from_value(json!({"metadata": {"name": "p", "namespace": "a"}, "spec": {
            "containers": [{"name": "x"}, {"name": "y"}], "initContainers": [{"name": "i"}]}}))
        .unwrap()
    }

    #[test]
    fn a_container_must_be_named_when_there_are_several() {
        let message = |asked| choose_container(&pod(), asked).map_err(|status| status.message);
        assert_eq!(message("y"), Ok("y".into()));
        assert_eq!(message("i"), Ok("i".into()));
        assert_eq!(message("z"), Err("container z is not valid for pod p".into()));
        assert_eq!(
            message(""),
            Err(
                "a container name must be specified for pod p, choose one of: [x y] or one of the init containers: [i]"
                    .into()
            )
        );
    }

    #[test]
    fn paths_are_the_node_agents() {
        let query = Query::parse("container=x&stdin=true&stdout=1&tty=false&command=sh&command=-c&command=a%26b");
        assert_eq!(
            container_path(&pod(), "exec", &query).unwrap(),
            "/exec/a/p/x?input=1&output=1&command=sh&command=-c&command=a%26b"
        );
        assert_eq!(container_path(&pod(), "attach", &query).unwrap(), "/attach/a/p/x?input=1&output=1");
        assert_eq!(port_forward_path(&pod(), &Query::parse("")), "/portForward/a/p");
        assert_eq!(
            port_forward_path(&pod(), &Query::parse("ports=80&ports=81,82")),
            "/portForward/a/p?port=80%2C81%2C82"
        );
    }
}
