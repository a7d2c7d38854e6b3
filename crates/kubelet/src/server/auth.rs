//! Who calls the node API and what they may: identities from certificates or tokens, permissions from the API server.

use std::collections::HashMap;
use std::time::Duration;

use base::{Clock, Timestamp};
use http::{Method, request::Parts};
use k8s_openapi::api::authentication::v1::TokenReview;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use meta::{GroupVersionKind, GroupVersionResource, Object, Status};
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use serde_json::json;

use crate::agent::Agent;

/// How long an answer of the API server holds, as upstream's node agent keeps it.
const ALLOWED_FOR: Duration = Duration::from_secs(300);
const DENIED_FOR: Duration = Duration::from_secs(30);
const TOKENS_FOR: Duration = Duration::from_secs(120);
/// Answers kept; more than this and all are asked anew.
const ANSWERS_MAX: usize = 1024;

/// Who calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Identity {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Question {
    who: Identity,
    verb: &'static str,
    subresource: String,
}

/// Whether something may be done; the error is the message to refuse with.
type Access = Result<(), String>;

/// What has been answered lately.
#[derive(Default)]
pub struct Answers {
    tokens: Mutex<HashMap<String, (Timestamp, Option<Identity>)>>,
    access: Mutex<HashMap<Question, (Timestamp, Access)>>,
}

/// The identity in a client certificate that has been verified against the authorities.
pub fn from_certificate(certificate: &CertificateDer<'_>, clock: &Clock) -> Option<Identity> {
    let subject = pki::peer::identity(certificate, clock)?;
    Some(Identity { name: subject.common_name, uid: subject.uid.unwrap_or_default(), groups: subject.organizations })
}

impl Answers {
    /// The caller's identity; none when they cannot show one.
    pub async fn authenticate(
        &self,
        agent: &Agent,
        certificate: Option<&Identity>,
        request: &Parts,
    ) -> Result<Option<Identity>, Status> {
        if let Some(identity) = certificate {
            return Ok(Some(identity.clone()));
        }
        let header = request.headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some(token) = header.and_then(|header| header.strip_prefix("Bearer ")).map(str::trim) else {
            return Ok(None);
        };
        let now = agent.clock.now();
        if let Some((until, identity)) = self.tokens.lock().get(token)
            && now < *until
        {
            return Ok(identity.clone());
        }
        let identity = review_token(agent, token).await?;
        let mut tokens = self.tokens.lock();
        if tokens.len() >= ANSWERS_MAX {
            tokens.clear();
        }
        tokens.insert(token.to_string(), (now + TOKENS_FOR, identity.clone()));
        Ok(identity)
    }

    /// Whether the caller may; the error is the message to refuse with.
    pub async fn authorize(&self, agent: &Agent, who: &Identity, request: &Parts) -> Result<(), String> {
        let verb = verb(&request.method);
        let mut refusal = String::new();
        for subresource in subresources(request.uri.path()) {
            let question = Question { who: who.clone(), verb, subresource: subresource.to_string() };
            match self.ask(agent, question).await {
                Ok(()) => return Ok(()),
                Err(why) => refusal = why,
            }
        }
        Err(refusal)
    }

    async fn ask(&self, agent: &Agent, question: Question) -> Result<(), String> {
        let now = agent.clock.now();
        if let Some((until, answer)) = self.access.lock().get(&question)
            && now < *until
        {
            return answer.clone();
        }
        let answer = match review_access(agent, &question).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                let Question { who, verb, subresource } = &question;
                Err(format!(
                    "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{subresource}])\n",
                    who.name
                ))
            }
            Err(status) => return Err(format!("Authorization error: {status}")),
        };
        let mut access = self.access.lock();
        if access.len() >= ANSWERS_MAX {
            access.clear();
        }
        let holds_for = if answer.is_ok() { ALLOWED_FOR } else { DENIED_FOR };
        access.insert(question, (now + holds_for, answer.clone()));
        answer
    }
}

async fn review_token(agent: &Agent, token: &str) -> Result<Option<Identity>, Status> {
    let mut review = Object::new(&GroupVersionKind::new("authentication.k8s.io", "v1", "TokenReview"));
    review.set(&["spec", "token"], token);
    let reviews = GroupVersionResource::new("authentication.k8s.io", "v1", "tokenreviews");
    let answer = agent.client.create_object(&reviews, review).await?.typed::<TokenReview>()?;
    let status = answer.status.unwrap_or_default();
    let user = status.user.filter(|_| status.authenticated == Some(true));
    Ok(user.map(|user| Identity {
        name: user.username.unwrap_or_default(),
        uid: user.uid.unwrap_or_default(),
        groups: user.groups.unwrap_or_default(),
    }))
}

async fn review_access(agent: &Agent, question: &Question) -> Result<bool, Status> {
    let mut review = Object::new(&GroupVersionKind::new("authorization.k8s.io", "v1", "SubjectAccessReview"));
    review.set(&["spec", "user"], question.who.name.as_str());
    review.set(&["spec", "uid"], question.who.uid.as_str());
    review.set(&["spec", "groups"], json!(question.who.groups));
    review.set(
        &["spec", "resourceAttributes"],
        json!({"verb": question.verb, "version": "v1", "resource": "nodes", "subresource": question.subresource,
               "name": agent.config.node_name}),
    );
    let reviews = GroupVersionResource::new("authorization.k8s.io", "v1", "subjectaccessreviews");
    let request = agent.client.create_object(&reviews, review).await?;
    Ok(request.typed::<SubjectAccessReview>()?.status.is_some_and(|status| status.allowed))
}

fn verb(method: &Method) -> &'static str {
    match method.as_str() {
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "get",
    }
}

/// The subresources of `nodes` of which any one gives access to a path, the narrow one first.
fn subresources(path: &str) -> &'static [&'static str] {
    let below = |top: &str| path == top || path.strip_prefix(top).is_some_and(|rest| rest.starts_with('/'));
    match () {
        () if below("/stats") => &["stats"],
        () if below("/metrics") => &["metrics"],
        () if below("/logs") => &["log"],
        () if below("/spec") => &["spec"],
        () if below("/checkpoint") => &["checkpoint"],
        () if below("/pods") || below("/runningpods") => &["pods", "proxy"],
        () if below("/healthz") => &["healthz", "proxy"],
        () if below("/configz") => &["configz", "proxy"],
        () => &["proxy"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_need_the_permissions_upstream_names() {
        for (path, expected) in [
            ("/stats/summary", &["stats"][..]),
            ("/metrics/resource", &["metrics"]),
            ("/statsx", &["proxy"]),
            ("/exec/n/p/c", &["proxy"]),
            ("/containerLogs/n/p/c", &["proxy"]),
            ("/pods", &["pods", "proxy"]),
            ("/healthz", &["healthz", "proxy"]),
        ] {
            assert_eq!(subresources(path), expected, "{path}");
        }
        assert_eq!((verb(&Method::POST), verb(&Method::GET)), ("create", "get"));
    }
}
