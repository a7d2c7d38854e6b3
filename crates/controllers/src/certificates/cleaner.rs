//! Deletes requests that nobody needs any more: issued, denied and failed ones after an hour, pending ones after a day.

use std::time::Duration;

use base::Timestamp;
use client::{Deletion, Next, Outcome, Queue, Watched};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use meta::ObjectKey;

use super::{Asked, NAME};
use crate::{Context, views};

const ISSUED_MAX: Duration = Duration::from_secs(3600);
const DENIED_MAX: Duration = Duration::from_secs(3600);
const PENDING_MAX: Duration = Duration::from_secs(24 * 3600);

pub fn start(cx: &Context) {
    let (client, _) = cx.identity(NAME);
    let queue: Queue<ObjectKey> = Queue::default();
    let requests = cx.informers.of::<Asked>(Watched::all_of::<CertificateSigningRequest>(), &[]);
    let wake = queue.clone();
    requests.subscribe(move |change| wake.add(change.key().clone()));
    let (requests, clock) = (requests.lister(), cx.clock.clone());
    cx.run_workers(NAME, 1, &queue, move |key: ObjectKey| {
        let (client, requests, clock) = (client.clone(), requests.clone(), clock.clone());
        async move {
            let Some(asked) = requests.get(&key) else { return Ok(Next::Wait) };
            let Some(due) = due(&asked) else { return Ok(Next::Wait) };
            let wait = clock.until(due);
            if !wait.is_zero() {
                return Ok(Next::After(wait));
            }
            let deletion = Deletion { uid: asked.view.metadata.uid.clone(), ..Deletion::default() };
            client.delete::<CertificateSigningRequest>(&key, deletion).await.unless_replaced()?;
            Ok(Next::Wait)
        }
    });
}

/// When the request is to be deleted; none for one that was approved and is not signed yet.
pub(super) fn due(asked: &Asked) -> Option<Timestamp> {
    let conditions = || asked.view.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let since = |kind: &str| {
        let found = conditions().find(|condition| condition.type_ == kind)?;
        found.last_update_time.as_ref().map(views::timestamp)
    };
    let dated = [
        since("Approved").filter(|_| asked.is_issued()).map(|at| at + ISSUED_MAX),
        since("Denied").map(|at| at + DENIED_MAX),
        since("Failed").map(|at| at + DENIED_MAX),
    ];
    if conditions().next().is_none() {
        return asked.view.metadata.creation_timestamp.as_ref().map(|at| views::timestamp(at) + PENDING_MAX);
    }
    dated.into_iter().flatten().min()
}
