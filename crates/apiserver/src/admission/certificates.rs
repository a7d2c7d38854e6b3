//! Certificate requests: who may approve them, who may sign them, and that none makes a cluster administrator.

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use meta::{Object, Status};
use x509_parser::prelude::{FromDer, X509CertificationRequest};

use super::{Operation, Plugin, Review};
use crate::authz::{Attributes, Decision};
use crate::registry::Registry;

const GROUP: &str = "certificates.k8s.io";
const REQUESTS: &str = "certificatesigningrequests";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
const PRIVILEGED: &str = "system:masters";

pub struct Certificates;

#[async_trait]
impl Plugin for Certificates {
    async fn validate(&self, registry: &Registry, review: &Review<'_>, object: Option<&Object>) -> Result<(), Status> {
        if *review.row.group != *GROUP || *review.row.plural != *REQUESTS {
            return Ok(());
        }
        let (Some(new), subresource) = (object, review.target.subresource.as_str()) else { return Ok(()) };
        let refused = |why: String| Err(review.forbidden(object, why));
        match (review.operation, subresource, review.old) {
            (Operation::Update, "approval", Some(old)) if !may(registry, review, "approve", old) => {
                let signer = old.str_at(&["spec", "signerName"]);
                refused(format!("user not permitted to approve requests with signerName {signer:?}"))
            }
            (Operation::Update, "status", Some(old)) if signs(new, old) && !may(registry, review, "sign", old) => {
                let signer = old.str_at(&["spec", "signerName"]);
                refused(format!("user not permitted to sign requests with signerName {signer:?}"))
            }
            (Operation::Create, "", _) if is_for_masters(new) => {
                refused(format!("use of {CLIENT_SIGNER} signer with {PRIVILEGED} group is not allowed"))
            }
            _ => Ok(()),
        }
    }
}

/// Whether a change of the status is one that only the signer makes.
fn signs(new: &Object, old: &Object) -> bool {
    let certificate = |object: &Object| object.str_at(&["status", "certificate"]).to_string();
    let failed = |object: &Object| {
        let conditions = object.list_at(&["status", "conditions"]).iter();
        conditions.filter(|condition| condition["type"] == "Failed").cloned().collect::<Vec<_>>()
    };
    certificate(new) != certificate(old) || failed(new) != failed(old)
}

/// A signer is asked for by its name, and by its domain with a star.
fn may(registry: &Registry, review: &Review<'_>, verb: &str, request: &Object) -> bool {
    let signer = request.str_at(&["spec", "signerName"]);
    let domain = signer.split('/').next().unwrap_or_default();
    let any = format!("{domain}/*");
    [signer, &any].into_iter().any(|name| {
        let asked = Attributes { name, ..Attributes::on(&review.cx.user, verb, GROUP, "signers") };
        registry.authorize(&asked).0 == Decision::Allow
    })
}

fn is_for_masters(request: &Object) -> bool {
    if request.str_at(&["spec", "signerName"]) != CLIENT_SIGNER {
        return false;
    }
    let Ok(pem) = STANDARD.decode(request.str_at(&["spec", "request"])) else { return false };
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(&pem) else { return false };
    let Ok((_, parsed)) = X509CertificationRequest::from_der(&pem.contents) else { return false };
    let subject = &parsed.certification_request_info.subject;
    subject.iter_organization().any(|group| group.as_str().is_ok_and(|group| group == PRIVILEGED))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_certificate_and_failure_are_the_signers() {
        let object = |value| Object::from_value(value).unwrap();
        let old = object(json!({"status": {"conditions": [{"type": "Approved"}]}}));
        assert!(!signs(&old, &old));
        assert!(signs(&object(json!({"status": {"certificate": "YQ=="}})), &old));
        assert!(signs(&object(json!({"status": {"conditions": [{"type": "Failed"}]}})), &old));
    }
}
