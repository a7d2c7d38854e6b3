//! Approves what nodes ask for themselves.
//!
//! A client certificate of a node is approved when whoever asks may have one: the API server is asked whether the user may
//! create the pretended subresource `nodeclient` (any node's) or `selfnodeclient` (the own node's), as upstream. A serving
//! certificate is approved when the node itself asks, for names and addresses that its Node object carries; upstream leaves
//! those to people. Everything else waits for somebody to decide.

use std::sync::Arc;

use client::{Client, Lister, Next, Queue, Typed, Watched};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;
use meta::{GroupVersionKind, GroupVersionResource, Object, ObjectKey, Status};
use serde_json::json;

use super::{Asked, NAME, RequestFacts, rules};
use crate::views::{self, Whole};
use crate::{Context, WORKERS};

const REASON: &str = "AutoApproved";
const GROUP: &str = "certificates.k8s.io";

#[derive(Clone)]
struct Approver {
    cx: Context,
    client: Client,
    requests: Lister<Asked>,
    nodes: Lister<Whole<Node>>,
}

/// A right that makes a client certificate good, and what is written when it was found.
struct Right {
    subresource: &'static str,
    message: &'static str,
}

const SELF_NODE_CLIENT: Right = Right {
    subresource: "selfnodeclient",
    message: "Auto approving self kubelet client certificate after SubjectAccessReview.",
};
const NODE_CLIENT: Right = Right {
    subresource: "nodeclient",
    message: "Auto approving kubelet client certificate after SubjectAccessReview.",
};
const SERVING: &str = "Auto approving kubelet serving certificate for names and addresses of its node.";

pub fn start(cx: &Context) {
    let (client, _) = cx.identity(NAME);
    let queue: Queue<ObjectKey> = Queue::default();
    let requests = cx.informers.of::<Asked>(Watched::all_of::<CertificateSigningRequest>(), &[]);
    let nodes = views::whole::<Node>(&cx.informers);
    let wake = queue.clone();
    requests.subscribe(move |change| wake.add(change.key().clone()));
    // A node may ask for its serving certificate before its addresses are known.
    let (wake, asked) = (queue.clone(), requests.lister());
    nodes.subscribe(move |change| {
        let user = format!("system:node:{}", change.key().name);
        let addresses = |node: &Arc<Whole<Node>>| node.view.status.as_ref().and_then(|status| status.addresses.clone());
        let (old, new) = change.sides();
        if old.map(addresses) != new.map(addresses) {
            let waiting = |request: &Arc<Asked>| request.view.spec.username.as_deref() == Some(user.as_str());
            wake.add_all(asked.entries().into_iter().filter(|(_, request)| waiting(request)).map(|(key, _)| key));
        }
    });
    let approver = Approver { cx: cx.clone(), client, requests: requests.lister(), nodes: nodes.lister() };
    cx.run_workers(NAME, WORKERS, &queue, move |key| {
        let approver = approver.clone();
        async move { approver.sync(&key).await }
    });
}

impl Approver {
    async fn sync(&self, key: &ObjectKey) -> Result<Next, Status> {
        let Some(asked) = self.requests.get(key) else { return Ok(Next::Wait) };
        if asked.is_issued() || asked.has("Approved") || asked.has("Denied") {
            return Ok(Next::Wait);
        }
        let facts = match self.cx.signer.read(&asked.view.spec.request.0) {
            Ok(facts) => facts,
            Err(error) => {
                tracing::debug!(request = %key, error, "a certificate request cannot be read");
                return Ok(Next::Wait);
            }
        };
        if rules::judge(asked.signer(), &facts, asked.usages()) != Some(Ok(())) {
            return Ok(Next::Wait);
        }
        let message = match asked.signer() {
            rules::KUBELET_CLIENT => self.client_message(&asked, &facts).await?,
            rules::KUBELET_SERVING => self.serving_message(&asked, &facts),
            _ => None,
        };
        if let Some(message) = message {
            let approved = asked.with_condition(&self.cx, "Approved", REASON, message)?;
            self.client.update_object(&CertificateSigningRequest::gvr(), "approval", approved).await?;
        }
        Ok(Next::Wait)
    }

    async fn client_message(&self, asked: &Asked, facts: &RequestFacts) -> Result<Option<&'static str>, Status> {
        let own = asked.view.spec.username.as_deref() == Some(facts.common_name.as_str());
        let rights: &[Right] = if own { &[SELF_NODE_CLIENT, NODE_CLIENT] } else { &[NODE_CLIENT] };
        for right in rights {
            if self.may(asked, right.subresource).await? {
                return Ok(Some(right.message));
            }
        }
        tracing::info!(user = asked.view.spec.username, "may not have the certificate of a node that it asked for");
        Ok(None)
    }

    fn serving_message(&self, asked: &Asked, facts: &RequestFacts) -> Option<&'static str> {
        let name = rules::node_of(&facts.common_name)?;
        if asked.view.spec.username.as_deref() != Some(facts.common_name.as_str()) {
            return None;
        }
        let node = self.nodes.get(&ObjectKey::cluster(name))?;
        let addresses = node.view.status.iter().flat_map(|status| status.addresses.iter().flatten());
        let addresses: Vec<_> = addresses.map(|found| (found.type_.clone(), found.address.clone())).collect();
        match rules::belongs_to(name, &addresses, facts) {
            Ok(()) => Some(SERVING),
            Err(why) => {
                tracing::info!(node = name, why, "a serving certificate waits for approval");
                None
            }
        }
    }

    /// Whether who asks holds the right.
    async fn may(&self, asked: &Asked, subresource: &str) -> Result<bool, Status> {
        let spec = &asked.view.spec;
        let mut review = Object::new(&GroupVersionKind::new("authorization.k8s.io", "v1", "SubjectAccessReview"));
        review.set(&["spec", "user"], spec.username.clone().unwrap_or_default());
        review.set(&["spec", "uid"], spec.uid.clone().unwrap_or_default());
        review.set(&["spec", "groups"], json!(spec.groups.clone().unwrap_or_default()));
        if let Some(extra) = &spec.extra {
            review.set(&["spec", "extra"], json!(extra));
        }
        let resource = json!({"group": GROUP, "resource": "certificatesigningrequests", "verb": "create",
            "subresource": subresource});
        review.set(&["spec", "resourceAttributes"], resource);
        let reviews = GroupVersionResource::new("authorization.k8s.io", "v1", "subjectaccessreviews");
        let answer = self.client.create_object(&reviews, review).await?.object()?;
        Ok(answer.bool_at(&["status", "allowed"]))
    }
}
