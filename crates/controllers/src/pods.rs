//! Making and removing the pods of an owner: from its template, many at a time but not all blindly, with events.

use std::future::Future;

use client::events::Recorder;
use client::{Client, Deletion, Typed};
use futures::future::join_all;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use meta::{GroupVersionKind, Object, ObjectKey, Status};
use serde_json::Value;

use crate::claim::Claimant;

/// Batches start at one and double, so that an owner whose pods are all refused (by quota, say) fails after one request.
const SLOW_START_INITIAL: usize = 1;

/// Creates and deletes pods for one controller.
#[derive(Clone)]
pub struct PodControl {
    pub client: Client,
    pub recorder: Recorder,
}

impl PodControl {
    /// Creates a pod as `template` says, owned by `claimant`, with a generated name.
    pub async fn create(
        &self,
        template: &Value,
        claimant: &Claimant<'_>,
        about: &ObjectReference,
    ) -> Result<(), Status> {
        let pod = from_template(template, claimant);
        match self.client.create_object(&Pod::gvr(), pod).await {
            Ok(made) => {
                self.recorder.normal(about, "SuccessfulCreate", format!("Created pod: {}", made.key.name));
                Ok(())
            }
            Err(status) => {
                // A namespace on its way out refuses new pods; users need no event for that.
                let terminating = status.details.iter().flat_map(|details| &details.causes);
                if !terminating.into_iter().any(|cause| cause.reason == "NamespaceTerminating") {
                    self.recorder.warning(about, "FailedCreate", format!("Error creating: {status}"));
                }
                Err(status)
            }
        }
    }

    /// Deletes this very pod; one that is gone already is no error.
    pub async fn delete(&self, key: &ObjectKey, uid: &str, about: &ObjectReference) -> Result<(), Status> {
        let deletion = Deletion { uid: Some(uid.to_string()), ..Deletion::default() };
        match self.client.delete::<Pod>(key, deletion).await {
            Ok(()) => {
                self.recorder.normal(about, "SuccessfulDelete", format!("Deleted pod: {}", key.name));
                Ok(())
            }
            Err(status) if status.is_not_found() || status.is_conflict() => Ok(()),
            Err(status) => {
                self.recorder.warning(about, "FailedDelete", format!("Error deleting: {status}"));
                Err(status)
            }
        }
    }
}

/// The pod a template describes. Labels, annotations and finalizers come from the template, the rest from the owner.
pub fn from_template(template: &Value, claimant: &Claimant<'_>) -> Object {
    let mut pod = Object::new(&GroupVersionKind::new("", "v1", "Pod"));
    for field in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template.pointer(&format!("/metadata/{field}")) {
            pod.set_meta(field, value.clone());
        }
    }
    pod.set_meta("namespace", &*claimant.key.namespace);
    pod.set_meta("generateName", format!("{}-", claimant.key.name));
    pod.set_meta("ownerReferences", Value::Array(vec![claimant.owner_reference()]));
    if let Some(spec) = template.get("spec") {
        pod.set(&["spec"], spec.clone());
    }
    pod
}

/// Runs `count` calls in batches of 1, 2, 4, ...; stops after the first batch in which one failed. Answers how many succeeded
/// and the first error.
pub async fn slow_start<F>(count: usize, call: impl Fn() -> F) -> (usize, Option<Status>)
where
    F: Future<Output = Result<(), Status>>,
{
    let (mut done, mut batch) = (0, SLOW_START_INITIAL);
    while done < count {
        let size = batch.min(count - done);
        let outcomes = join_all((0..size).map(|_| call())).await;
        let succeeded = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        done += succeeded;
        if let Some(error) = outcomes.into_iter().find_map(Result::err) {
            return (done, Some(error));
        }
        batch *= 2;
    }
    (done, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[tokio::test]
    async fn slow_start_stops_after_the_batch_that_failed() {
        let calls = Cell::new(0);
        let (done, error) = slow_start(100, || {
            calls.set(calls.get() + 1);
            let refused = calls.get() > 3;
            async move { if refused { Err(Status::internal("quota")) } else { Ok(()) } }
        })
        .await;
        assert_eq!((done, calls.get()), (3, 7));
        assert!(error.is_some());
        assert_eq!(slow_start(5, || async { Ok(()) }).await, (5, None));
    }
}
