//! What a request is about: verb, group, version, resource, namespace, name, read from method, path and query.
//!
//! Every later step (authorization, flow control, metrics, routing) looks at this and never at the path again.
//!
//! ```text
//! GET /apis/apps/v1/namespaces/default/deployments/web/status  ->  get deployments/status "web" in "default" (apps/v1)
//! GET /api/v1/pods?watch=1                                     ->  watch pods in all namespaces
//! GET /healthz                                                 ->  get, no resource
//! ```
//!
//! Deliberately not here: whether the resource exists.

use http::Method;

use crate::http::query::Query;

/// A request in the words of authorization. Empty text stands for "none".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// Whether the path is below `/api/<version>` or `/apis/<group>/<version>` and names a resource.
    pub is_resource: bool,
    pub path: String,
    /// `get`, `list`, ...; the lower-case HTTP method for paths that are no resource.
    pub verb: String,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// What follows the subresource: the path that a proxied pod, service or node is asked for, without leading slash.
    pub rest: Option<String>,
    pub label_selector: String,
    pub field_selector: String,
}

/// Subresources of a namespace, which look like resources in it.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

impl RequestInfo {
    /// Reads method, decoded path and query.
    pub fn parse(method: &Method, path: &str, query: &Query) -> Self {
        let mut info = RequestInfo {
            path: path.to_string(),
            verb: method.as_str().to_ascii_lowercase(),
            ..RequestInfo::default()
        };
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let parts = match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => {
                info.version = (*version).to_string();
                rest
            }
            ["apis", group, version, rest @ ..] if !rest.is_empty() => {
                info.group = (*group).to_string();
                info.version = (*version).to_string();
                rest
            }
            _ => return info,
        };
        info.is_resource = true;
        info.verb = verb_of(method).to_string();
        let parts = info.take_watch_prefix(parts);
        info.take_resource(parts);
        info.keep_rest(path);
        info.read_query(method, query);
        info
    }

    /// The old form of a watch: `/api/v1/watch/pods`.
    fn take_watch_prefix<'a>(&mut self, parts: &'a [&'a str]) -> &'a [&'a str] {
        match parts {
            ["watch", rest @ ..] if !rest.is_empty() => {
                self.verb = "watch".into();
                rest
            }
            _ => parts,
        }
    }

    fn take_resource(&mut self, parts: &[&str]) {
        let parts = match parts {
            ["namespaces", namespace, rest @ ..] => {
                self.namespace = (*namespace).to_string();
                let own = rest.first().is_none_or(|next| NAMESPACE_SUBRESOURCES.contains(next));
                if own { parts } else { rest }
            }
            _ => parts,
        };
        let at = |index: usize| parts.get(index).map(|part| (*part).to_string()).unwrap_or_default();
        self.resource = at(0);
        self.name = at(1);
        self.subresource = at(2);
    }

    /// Keeps the tail of a proxy path as it was sent: trailing slashes matter to the program behind it.
    fn keep_rest(&mut self, path: &str) {
        if self.subresource.is_empty() {
            return;
        }
        let marker = format!("/{}/{}/{}", self.resource, self.name, self.subresource);
        if let Some(at) = path.find(&marker) {
            let tail = &path[at + marker.len()..];
            self.rest = tail.strip_prefix('/').map(str::to_string);
        }
    }

    fn read_query(&mut self, method: &Method, query: &Query) {
        if self.name.is_empty() && self.verb == "get" {
            self.verb = if query.flag("watch") { "watch".into() } else { "list".into() };
        } else if self.verb == "get" && query.flag("watch") && self.subresource.is_empty() {
            // As upstream: a watch on one object is spelled as a get with `watch`.
            self.verb = "watch".into();
        }
        if self.name.is_empty() && *method == Method::DELETE {
            self.verb = "deletecollection".into();
        }
        if matches!(self.verb.as_str(), "list" | "watch" | "deletecollection") {
            self.label_selector = query.first("labelSelector").unwrap_or_default().to_string();
            self.field_selector = query.first("fieldSelector").unwrap_or_default().to_string();
            if self.name.is_empty() {
                self.name = selected_name(&self.field_selector);
            }
        }
    }

    /// Whether the name came with the path and not from a field selector.
    pub fn names_one_object(&self) -> bool {
        !self.name.is_empty() && !matches!(self.verb.as_str(), "list" | "deletecollection")
    }

    /// Whether the request may stay open for as long as it likes: watches and streams.
    pub fn is_long_running(&self) -> bool {
        self.verb == "watch"
            || (self.is_resource
                && matches!(self.subresource.as_str(), "attach" | "exec" | "proxy" | "log" | "portforward"))
    }

    /// The scope as metrics name it.
    pub fn scope(&self) -> &'static str {
        match (self.is_resource, self.name.is_empty() && self.verb != "create", self.namespace.is_empty()) {
            (false, _, _) => "",
            (true, false, _) => "resource",
            (true, true, false) => "namespace",
            (true, true, true) => "cluster",
        }
    }
}

fn verb_of(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::GET | Method::HEAD => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

/// A selector on `metadata.name` makes the request one on that object, as far as authorization goes.
pub fn selected_name(field_selector: &str) -> String {
    let Ok(selector) = meta::FieldSelector::parse(field_selector) else { return String::new() };
    selector.required_value("metadata.name").unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(method: Method, target: &str) -> String {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let info = RequestInfo::parse(&method, path, &Query::parse(query));
        format!(
            "{} {}/{} {}/{} ns={} name={} rest={:?}",
            info.verb, info.group, info.version, info.resource, info.subresource, info.namespace, info.name, info.rest
        )
    }

    #[test]
    fn reads_every_shape_of_path() {
        for (method, target, expected) in [
            (Method::GET, "/healthz", "get / / ns= name= rest=None"),
            (Method::GET, "/api/v1", "get / / ns= name= rest=None"),
            (Method::GET, "/api/v1/pods", "list /v1 pods/ ns= name= rest=None"),
            (Method::GET, "/api/v1/pods?watch=1", "watch /v1 pods/ ns= name= rest=None"),
            (Method::GET, "/api/v1/watch/pods", "watch /v1 pods/ ns= name= rest=None"),
            (Method::GET, "/api/v1/namespaces/a", "get /v1 namespaces/ ns=a name=a rest=None"),
            (Method::PUT, "/api/v1/namespaces/a/finalize", "update /v1 namespaces/finalize ns=a name=a rest=None"),
            (Method::GET, "/api/v1/namespaces/a/pods/p/log", "get /v1 pods/log ns=a name=p rest=None"),
            (
                Method::POST,
                "/apis/apps/v1/namespaces/a/deployments",
                "create apps/v1 deployments/ ns=a name= rest=None",
            ),
            (Method::DELETE, "/api/v1/namespaces/a/pods", "deletecollection /v1 pods/ ns=a name= rest=None"),
            (
                Method::GET,
                "/api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Dp&watch=true",
                "watch /v1 pods/ ns=a name=p rest=None",
            ),
            (
                Method::GET,
                "/api/v1/namespaces/a/services/http:s:80/proxy/x/y/",
                "get /v1 services/proxy ns=a name=http:s:80 rest=Some(\"x/y/\")",
            ),
            (Method::GET, "/api/v1/nodes/n/proxy/", "get /v1 nodes/proxy ns= name=n rest=Some(\"\")"),
        ] {
            assert_eq!(told(method, target), expected, "{target}");
        }
    }
}
