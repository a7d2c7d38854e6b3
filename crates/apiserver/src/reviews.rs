//! The kinds that answer questions about access: they are created, answered and never stored.
//!
//! | kind | question |
//! |---|---|
//! | SubjectAccessReview, LocalSubjectAccessReview, SelfSubjectAccessReview | may this user (I) do that? |
//! | SelfSubjectRulesReview | what may I do in this namespace? |
//! | TokenReview | whose token is this? |
//! | SelfSubjectReview | who am I? |
//!
//! They hang off the registry as [`Virtual`] kinds, so admission, dry-run and encoding treat them as any other create.

mod access;

use std::sync::Arc;

use async_trait::async_trait;
use meta::{GroupResource, Object, Status};
use serde_json::{Map, Value, json};

use crate::authn::Authentication;
use crate::authz::{Authorizer, Rule};
use crate::context::{Context, Identity};
use crate::registry::{Target, Virtual};

const AUTHORIZATION_GROUP: &str = "authorization.k8s.io";
const AUTHENTICATION_GROUP: &str = "authentication.k8s.io";

/// All reviews, by the resource they are posted to.
pub fn all(
    authentication: &Arc<Authentication>,
    authorizer: &Arc<dyn Authorizer>,
) -> Vec<(GroupResource, Arc<dyn Virtual>)> {
    let access = |whose| -> Arc<dyn Virtual> { Arc::new(AccessReview { authorizer: authorizer.clone(), whose }) };
    let authorization = |resource: &str| GroupResource::new(AUTHORIZATION_GROUP, resource);
    let authenticated = |resource: &str| GroupResource::new(AUTHENTICATION_GROUP, resource);
    vec![
        (authorization("subjectaccessreviews"), access(Whose::Named)),
        (authorization("localsubjectaccessreviews"), access(Whose::NamedInNamespace)),
        (authorization("selfsubjectaccessreviews"), access(Whose::Own)),
        (authorization("selfsubjectrulesreviews"), Arc::new(RulesReview { authorizer: authorizer.clone() })),
        (authenticated("tokenreviews"), Arc::new(TokenReview { authentication: authentication.clone() })),
        (authenticated("selfsubjectreviews"), Arc::new(SelfReview)),
    ]
}

/// Whose access an access review is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Named,
    NamedInNamespace,
    Own,
}

struct AccessReview {
    authorizer: Arc<dyn Authorizer>,
    whose: Whose,
}

#[async_trait]
impl Virtual for AccessReview {
    async fn create(&self, cx: &Context, target: &Target, body: Object) -> Result<Object, Status> {
        access::review(self.authorizer.as_ref(), self.whose, &cx.user, target, body)
    }
}

struct RulesReview {
    authorizer: Arc<dyn Authorizer>,
}

#[async_trait]
impl Virtual for RulesReview {
    async fn create(&self, cx: &Context, _target: &Target, mut body: Object) -> Result<Object, Status> {
        let namespace = body.str_at(&["spec", "namespace"]).to_string();
        if namespace.is_empty() {
            return Err(Status::bad_request("no namespace on request"));
        }
        let list = self.authorizer.rules_for(&cx.user, &namespace);
        let (resource, path): (Vec<&Rule>, Vec<&Rule>) =
            list.rules.iter().partition(|rule| rule.non_resource_urls.is_empty());
        let mut status = json!({
            "resourceRules": resource,
            "nonResourceRules": path,
            "incomplete": list.incomplete || !list.errors.is_empty(),
        });
        if !list.errors.is_empty() {
            status["evaluationError"] = list.errors.join(", ").into();
        }
        body.set(&["status"], status);
        Ok(body)
    }
}

struct TokenReview {
    authentication: Arc<Authentication>,
}

#[async_trait]
impl Virtual for TokenReview {
    async fn create(&self, _cx: &Context, _target: &Target, mut body: Object) -> Result<Object, Status> {
        let token = body.str_at(&["spec", "token"]).to_string();
        if token.is_empty() {
            return Err(Status::bad_request("token is required for TokenReview in authentication"));
        }
        let wanted = body.list_at(&["spec", "audiences"]).iter();
        let wanted: Vec<String> = wanted.filter_map(Value::as_str).map(str::to_string).collect();
        let status = match self.authentication.identify_token(&token, &wanted).await {
            Ok(Some(found)) => {
                json!({"authenticated": true, "user": user_info(&found.identity), "audiences": found.audiences})
            }
            Ok(None) => json!({"user": {}}),
            Err(why) => json!({"user": {}, "error": why}),
        };
        body.set(&["status"], status);
        Ok(body)
    }
}

struct SelfReview;

#[async_trait]
impl Virtual for SelfReview {
    async fn create(&self, cx: &Context, _target: &Target, mut body: Object) -> Result<Object, Status> {
        body.set(&["status"], json!({"userInfo": user_info(&cx.user)}));
        Ok(body)
    }
}

/// A `UserInfo`: empty parts are left out.
fn user_info(user: &Identity) -> Value {
    let mut info = Map::new();
    info.insert("username".into(), (*user.name).into());
    if !user.uid.is_empty() {
        info.insert("uid".into(), (*user.uid).into());
    }
    if !user.groups.is_empty() {
        info.insert("groups".into(), user.groups.iter().map(|group| Value::from(&**group)).collect());
    }
    if !user.extra.is_empty() {
        info.insert("extra".into(), json!(user.extra));
    }
    Value::Object(info)
}
