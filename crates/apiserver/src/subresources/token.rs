//! `serviceaccounts/token`: a signed token for an account, bound to a pod, a node or a secret if asked.
//!
//! Signing is `pki`'s; here is who may have what, and for how long.

use base::Timestamp;
use meta::{FieldError, FieldPath, GroupKind, GroupResource, Object, ObjectKey, Status};
use serde_json::{Value, json};

use super::named;
use crate::admission::{Operation, Review, node_restriction};
use crate::context::Context;
use crate::registry::{Outcome, Registry, Target};

const SECONDS_DEFAULT: i64 = 3600;
const SECONDS_MIN: i64 = 600;
const SECONDS_MAX: i64 = 1 << 32;

/// Tokens that admission mounts into pods ask for this long and live for [`EXTENDED_SECONDS`], so that clients which never
/// read their token again go on; the token says after when its use is reported.
const MOUNTED_SECONDS: i64 = 3607;
const EXTENDED_SECONDS: i64 = 365 * 24 * 3600;

/// An object by name and uid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    pub name: String,
    pub uid: String,
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenClaims {
    pub namespace: String,
    pub account: Reference,
    pub pod: Option<Reference>,
    pub node: Option<Reference>,
    pub secret: Option<Reference>,
    pub audiences: Vec<String>,
    pub issued: Timestamp,
    pub expires: Timestamp,
    /// When the holder should have fetched a new one.
    pub warn_after: Option<Timestamp>,
}

/// Makes tokens out of claims.
pub trait TokenSigner: Send + Sync + 'static {
    /// The audiences of a token that asks for none, and those that are the API server's own.
    fn default_audiences(&self) -> Vec<String>;
    fn sign(&self, claims: &TokenClaims) -> Result<String, Status>;
}

pub async fn create(registry: &Registry, cx: &Context, target: &Target, body: &Object) -> Result<Outcome, Status> {
    let target = named(target, body)?;
    let seconds = body.i64_at(&["spec", "expirationSeconds"]).unwrap_or(SECONDS_DEFAULT);
    check_seconds(body, seconds)?;
    let signer = registry.signer().ok_or_else(|| Status::internal("this server does not make tokens"))?;
    let account = registry.read_latest(&target).await?;
    let review = Review::new(cx, &target, &account.kind, Operation::Create, None);
    node_restriction::check_token(registry, &review, body).await?;

    let asked: Vec<String> =
        body.list_at(&["spec", "audiences"]).iter().filter_map(Value::as_str).map(String::from).collect();
    let own = signer.default_audiences();
    let audiences = if asked.is_empty() { own.clone() } else { asked };
    let issued = registry.clock().now();
    let after = |seconds: i64| issued + std::time::Duration::from_secs(seconds.unsigned_abs());
    let extended = seconds == MOUNTED_SECONDS && audiences.iter().all(|audience| own.contains(audience));
    let mut claims = TokenClaims {
        namespace: target.namespace.clone(),
        account: Reference { name: target.name.clone(), uid: account.header.uid.to_string() },
        pod: None,
        node: None,
        secret: None,
        audiences,
        issued,
        expires: after(if extended { EXTENDED_SECONDS } else { seconds }),
        warn_after: extended.then(|| after(seconds)),
    };
    bind(registry, &target, body, &mut claims).await?;
    let mut answer = body.clone();
    answer.set_meta("name", target.name.as_str());
    answer.set_meta("namespace", target.namespace.as_str());
    answer.set_meta("creationTimestamp", meta::time::rfc3339(issued));
    answer.set(&["spec", "audiences"], claims.audiences.clone());
    answer.set(&["spec", "expirationSeconds"], seconds);
    let token = if cx.options.dry_run { String::new() } else { signer.sign(&claims)? };
    answer.set(&["status"], json!({"token": token, "expirationTimestamp": meta::time::rfc3339(after(seconds))}));
    Ok(Outcome::made(answer).as_created())
}

fn check_seconds(request: &Object, seconds: i64) -> Result<(), Status> {
    let path = FieldPath::new("spec.expirationSeconds");
    let why = match seconds {
        seconds if seconds < SECONDS_MIN => "may not specify a duration less than 10 minutes",
        seconds if seconds > SECONDS_MAX => "may not specify a duration larger than 2^32 seconds",
        _ => return Ok(()),
    };
    let error = FieldError::invalid(&path, seconds, why);
    Err(Status::invalid(&GroupKind::new("authentication.k8s.io", "TokenRequest"), request.name(), &[error]))
}

/// Binds the token to the object that the request names, which must be the one the asker means.
async fn bind(registry: &Registry, target: &Target, body: &Object, claims: &mut TokenClaims) -> Result<(), Status> {
    let text = |field: &str| body.str_at(&["spec", "boundObjectRef", field]);
    if body.get(&["spec", "boundObjectRef"]).is_none() {
        return Ok(());
    }
    let (segment, namespace) = match (text("apiVersion"), text("kind")) {
        ("v1", "Pod") => ("pods", target.namespace.as_str()),
        ("v1", "Secret") => ("secrets", target.namespace.as_str()),
        ("v1", "Node") => ("minions", ""),
        (version, kind) => {
            let slash = if version.contains('/') { "" } else { "/" };
            return Err(Status::bad_request(format!(
                "cannot bind token to object of type {slash}{version}, Kind={kind}"
            )));
        }
    };
    let resource = GroupResource::new("", if segment == "minions" { "nodes" } else { segment });
    let key = ObjectKey::new(namespace, text("name"));
    let bound = registry.current(segment, &key).await?.ok_or_else(|| Status::not_found(&resource, text("name")))?;
    let uid = &*bound.header.uid;
    if !text("uid").is_empty() && text("uid") != uid {
        let why = format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
            text("uid")
        );
        return Err(Status::conflict(&resource, text("name"), why));
    }
    let reference = Some(Reference { name: text("name").to_string(), uid: uid.to_string() });
    match segment {
        "secrets" => claims.secret = reference,
        "minions" => claims.node = reference,
        _ => {
            let pod = bound.stored_object()?;
            if pod.str_at(&["spec", "serviceAccountName"]) != target.name {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                    target.name
                )));
            }
            let node = pod.str_at(&["spec", "nodeName"]);
            if !node.is_empty() {
                let uid = registry.cached("minions", &ObjectKey::cluster(node));
                let uid = uid.map(|node| node.header.uid.to_string()).unwrap_or_default();
                claims.node = Some(Reference { name: node.to_string(), uid });
            }
            claims.pod = reference;
        }
    }
    Ok(())
}
