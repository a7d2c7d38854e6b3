//! The one exception to "nothing polls": a runtime that offers no event stream is asked once a second what it has.
//!
//! Two lists (sandboxes, containers) are compared with the two before; a pod of which something came, went or changed its state is
//! told of, as an event would. Every other part of the agent is the same whichever way it is woken.
//! See `docs/decisions/2026-11-21-runtimes-of-others.md`.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use cri::v1::{ListContainersRequest, ListPodSandboxRequest};
use cri::{Cri, Error};

use crate::agent::Agent;
use crate::runtime_view::LABEL_POD_UID;

/// Upstream relists as often.
const EVERY: Duration = Duration::from_secs(1);

/// Sandboxes and containers by id: whose, and in which state.
type Seen = HashMap<String, (String, i32)>;

/// Tells of every pod that changes, first of all pods at once; returns when the runtime cannot be asked.
pub async fn follow(agent: &Agent, told: impl Fn(Option<&str>)) {
    tracing::info!("the runtime has no event stream: it is asked every second");
    told(None);
    let mut seen: Option<Seen> = None;
    loop {
        let now = match look(&*agent.cri).await {
            Ok(now) => now,
            Err(error) => return tracing::warn!(%error, "the runtime cannot be asked what it has, will retry"),
        };
        if let Some(seen) = &seen {
            changed(seen, &now).into_iter().for_each(|uid| told(Some(uid)));
        }
        seen = Some(now);
        agent.clock.sleep(EVERY).await;
    }
}

async fn look(cri: &dyn Cri) -> Result<Seen, Error> {
    let uid = |labels: &HashMap<String, String>| labels.get(LABEL_POD_UID).cloned().unwrap_or_default();
    let sandboxes = cri.list_pod_sandbox(ListPodSandboxRequest::default()).await?.items;
    let containers = cri.list_containers(ListContainersRequest::default()).await?.containers;
    let sandboxes = sandboxes.into_iter().map(|found| (found.id, (uid(&found.labels), found.state)));
    let containers = containers.into_iter().map(|found| (found.id, (uid(&found.labels), found.state)));
    Ok(sandboxes.chain(containers).collect())
}

/// The uids of which something is different.
fn changed<'a>(before: &'a Seen, now: &'a Seen) -> BTreeSet<&'a str> {
    let differs = |one: &'a Seen, other: &'a Seen| {
        one.iter().filter(|(id, found)| other.get(*id) != Some(*found)).map(|(_, (uid, _))| uid.as_str())
    };
    differs(before, now).chain(differs(now, before)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::{self, FakeNode};
    use serde_json::json;

    #[test]
    fn what_comes_goes_or_turns_is_a_change_and_nothing_else() {
        let seen = |entries: &[(&str, &str, i32)]| -> Seen {
            entries.iter().map(|(id, uid, state)| (id.to_string(), (uid.to_string(), *state))).collect()
        };
        let before = seen(&[("s1", "a", 0), ("c1", "a", 1), ("c2", "b", 1), ("c3", "c", 1)]);
        let now = seen(&[("s1", "a", 0), ("c1", "a", 2), ("c3", "c", 1), ("c4", "d", 0)]);
        assert_eq!(changed(&before, &now).into_iter().collect::<Vec<_>>(), ["a", "b", "d"]);
        assert!(changed(&now, &now).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_on_a_runtime_without_events_starts_over_when_its_container_ends() {
        let node = FakeNode::start().await;
        node.runtime.without_events();
        let program =
            fakes::runtime::Program { runs_for: Some(Duration::from_secs(5)), exit_code: 1, ..Default::default() };
        node.runtime.image("brief", program);
        node.create_pod("p", json!({"containers": [{"name": "a", "image": "brief:1"}]}));
        node.pod_when("p", |pod| fakes::restarts(pod) == 2).await;
        node.tasks.shutdown().await;
    }
}
