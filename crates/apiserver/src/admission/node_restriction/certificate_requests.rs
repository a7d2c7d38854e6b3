//! A node agent asks for certificates only in the name of pods that run on its node, and only from signers that they mount.
//!
//! What can be a matter of time (an object that is not seen yet, or not any more) is an error that may be retried, no refusal.

use meta::{Object, ObjectKey, Status};

use super::super::{Operation, Review};
use super::MIRROR_ANNOTATION;
use crate::authz::{Attributes, Decision};
use crate::registry::Registry;

/// Whether the agent of `node` may write the request.
pub async fn check(registry: &Registry, review: &Review<'_>, node: &str, request: &Object) -> Result<(), Status> {
    let refused = |why: String| Err(review.forbidden(Some(request), why));
    if review.operation != Operation::Create || !review.target.subresource.is_empty() {
        return refused("a node can only create PodCertificateRequests".into());
    }
    let asked = |field: &str| request.str_at(&["spec", field]);
    if asked("nodeName") != node {
        return refused(format!(
            "PodCertificateRequest.Spec.NodeName={:?}, which is not the requesting node {node:?}",
            asked("nodeName")
        ));
    }
    let namespace = review.target.namespace.as_str();
    same(registry, "minions", &ObjectKey::new("", node), asked("nodeUID")).await?;
    let pod = same(registry, "pods", &ObjectKey::new(namespace, asked("podName")), asked("podUID")).await?;
    let name = format!("{namespace}/{}", asked("podName"));
    if pod.str_at(&["spec", "nodeName"]) != node {
        return refused(format!("pod {name:?} is not running on node {node:?} named in the PodCertificateRequest"));
    }
    if pod.annotation(MIRROR_ANNOTATION).is_some() {
        return refused(format!("pod {name:?} is a mirror pod"));
    }
    let account = pod.str_at(&["spec", "serviceAccountName"]);
    if asked("serviceAccountName") != account {
        return refused(format!(
            "PodCertificateRequest for pod {name:?} contains serviceAccountName ({:?}) that differs from running pod ({account:?})",
            asked("serviceAccountName")
        ));
    }
    same(registry, "serviceaccounts", &ObjectKey::new(namespace, account), asked("serviceAccountUID")).await?;
    if mounts(&pod, asked("signerName")) || may_ask(registry, review, asked("signerName"), account) {
        return Ok(());
    }
    refused(format!(
        "pod {name:?} does not mount a podCertificate projected volume for signer {:?}",
        asked("signerName")
    ))
}

/// The object that is named, if it is the one that is meant.
async fn same(registry: &Registry, segment: &str, key: &ObjectKey, uid: &str) -> Result<Object, Status> {
    let what = if segment == "minions" { "nodes" } else { segment };
    let Some(found) = registry.current(segment, key).await? else {
        return Err(Status::internal(format!(
            "while retrieving {what} {key} named in the PodCertificateRequest: not found"
        )));
    };
    if *found.header.uid != *uid {
        let why =
            format!("PodCertificateRequest names UID {uid:?} of {what} {key}, which differs from the running one");
        return Err(Status::internal(why));
    }
    found.stored_object()
}

fn mounts(pod: &Object, signer: &str) -> bool {
    let volumes = pod.list_at(&["spec", "volumes"]).iter();
    let mut sources = volumes.filter_map(|volume| volume["projected"]["sources"].as_array()).flatten();
    sources.any(|source| source["podCertificate"]["signerName"] == *signer)
}

/// Agents may be allowed signers beyond what pods mount. A rule cannot spell a slash.
fn may_ask(registry: &Registry, review: &Review<'_>, signer: &str, account: &str) -> bool {
    let signer = signer.replace('/', ":");
    let verb = "request-serviceaccounts-podcertificate-signer";
    let (namespace, version) = (review.target.namespace.as_str(), &*review.row.version);
    let question = Attributes::on(&review.cx.user, verb, &review.row.group, &signer);
    registry.authorize(&Attributes { namespace, version, name: account, ..question }).0 == Decision::Allow
}
