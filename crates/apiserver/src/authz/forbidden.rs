//! The refusal that a user sees, in upstream's words.

use meta::{GroupResource, Status};

use super::Attributes;

/// `403` for a question that was answered with no.
pub fn forbidden(question: &Attributes<'_>, reason: &str) -> Status {
    let mut message = message(question).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    if !reason.is_empty() {
        message = format!("{message}: {reason}");
    }
    Status::forbidden(&GroupResource::new(question.group, question.resource), question.name, message)
}

fn message(question: &Attributes<'_>) -> String {
    let (user, verb) = (&*question.user.name, question.verb);
    if !question.is_resource {
        return format!("User {user:?} cannot {verb} path {:?}", question.path);
    }
    let mut resource = question.resource.to_string();
    if !question.subresource.is_empty() {
        resource = format!("{resource}/{}", question.subresource);
    }
    let scope = match question.namespace {
        "" => "at the cluster scope".to_string(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    format!("User {user:?} cannot {verb} resource {resource:?} in API group {:?} {scope}", question.group)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Identity;

    #[test]
    fn says_it_as_upstream_does() {
        let user = Identity { name: "x".into(), ..Identity::default() };
        let list = Attributes { namespace: "default", ..Attributes::on(&user, "list", "", "pods") };
        assert_eq!(
            forbidden(&list, "").message,
            r#"pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "default""#
        );
        let scale =
            Attributes { subresource: "scale", name: "w", ..Attributes::on(&user, "get", "apps", "deployments") };
        assert_eq!(
            forbidden(&scale, "no").message,
            r#"deployments.apps "w" is forbidden: User "x" cannot get resource "deployments/scale" in API group "apps" at the cluster scope: no"#
        );
        let path = Attributes { is_resource: false, path: "/<a>", ..Attributes::on(&user, "get", "", "") };
        assert_eq!(forbidden(&path, "").message, r#"forbidden: User "x" cannot get path "/&lt;a&gt;""#);
    }
}
