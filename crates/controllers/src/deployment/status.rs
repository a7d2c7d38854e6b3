//! A deployment's status: the sums over its sets, and the conditions `Available`, `Progressing` and `ReplicaFailure`.

use base::Timestamp;
use meta::time;
use serde_json::{Value, json};

use super::facts::{Facts, Set};
use super::plan::Model;

/// The sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    pub replicas: i32,
    pub updated: i32,
    pub ready: i32,
    pub available: i32,
    pub unavailable: i32,
    pub terminating: i32,
}

pub fn numbers(model: &Model<'_>) -> Numbers {
    let sum = |field: fn(&Set) -> i32| model.sets.iter().map(field).sum::<i32>();
    let available = sum(|set| set.available);
    Numbers {
        replicas: sum(|set| set.status_replicas),
        updated: model.new_set().map_or(0, |set| set.status_replicas),
        ready: sum(|set| set.ready),
        available,
        unavailable: (model.total() - available).max(0),
        terminating: sum(|set| set.terminating),
    }
}

/// The rollout is over: every pod is of the current template and available.
pub fn is_complete(facts: &Facts, numbers: &Numbers) -> bool {
    numbers.updated == facts.replicas && numbers.replicas == facts.replicas && numbers.available == facts.replicas
}

/// The status, and after how many seconds a rollout that does not move has to be looked at again.
pub fn status(model: &Model<'_>, now: Timestamp, rolling: bool) -> (Value, Option<u64>) {
    let facts = model.facts;
    let numbers = numbers(model);
    let mut conditions = Conditions { all: facts.status.list_at(&["conditions"]).to_vec(), now };
    let enough = numbers.available >= facts.replicas - facts.max_unavailable();
    if enough {
        conditions.set("Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.");
    } else {
        conditions.set(
            "Available",
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        );
    }
    conditions.pause(facts);
    if let Some((reason, message)) = &model.progress {
        conditions.set("Progressing", "True", reason, message);
    }
    if rolling {
        conditions.progress(model, &numbers);
        conditions.replica_failure(model);
    }
    let again = if rolling { conditions.deadline(facts, &numbers) } else { None };
    let mut status = json!({
        "observedGeneration": facts.generation, "replicas": numbers.replicas, "updatedReplicas": numbers.updated,
        "readyReplicas": numbers.ready, "availableReplicas": numbers.available, "unavailableReplicas": numbers.unavailable,
        "terminatingReplicas": numbers.terminating, "conditions": conditions.all,
    });
    if let Some(collisions) = facts.status.get(&["collisionCount"]) {
        status["collisionCount"] = collisions.clone();
    }
    (status, again)
}

struct Conditions {
    all: Vec<Value>,
    now: Timestamp,
}

impl Conditions {
    fn get(&self, condition_type: &str) -> Option<&Value> {
        self.all.iter().find(|condition| condition["type"] == condition_type)
    }

    fn remove(&mut self, condition_type: &str) {
        self.all.retain(|condition| condition["type"] != condition_type);
    }

    /// Sets a condition unless it says the same already; its transition time moves only with its status.
    fn set(&mut self, condition_type: &str, status: &str, reason: &str, message: &str) {
        let current = self.get(condition_type);
        if current.is_some_and(|current| current["status"] == status && current["reason"] == reason) {
            return;
        }
        let now = time::rfc3339(self.now);
        let since =
            current.filter(|current| current["status"] == status).map(|current| current["lastTransitionTime"].clone());
        let condition = json!({"type": condition_type, "status": status, "reason": reason, "message": message,
            "lastUpdateTime": now, "lastTransitionTime": since.unwrap_or_else(|| now.clone().into())});
        self.remove(condition_type);
        self.all.push(condition);
    }

    /// A pause stops the clock of the progress deadline; resuming starts it anew.
    fn pause(&mut self, facts: &Facts) {
        if facts.progress_deadline_seconds.is_none() {
            return;
        }
        let reason = self.get("Progressing").map(|condition| condition["reason"].clone());
        if reason.as_ref().is_some_and(|reason| reason == "ProgressDeadlineExceeded") {
            return;
        }
        let was_paused = reason.is_some_and(|reason| reason == "DeploymentPaused");
        match (facts.paused, was_paused) {
            (true, false) => self.set("Progressing", "Unknown", "DeploymentPaused", "Deployment is paused"),
            (false, true) => self.set("Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed"),
            _ => {}
        }
    }

    fn progress(&mut self, model: &Model<'_>, numbers: &Numbers) {
        let facts = model.facts;
        let Some(deadline) = facts.progress_deadline_seconds else { return self.remove("Progressing") };
        let current = self.get("Progressing");
        let was_complete = current.is_some_and(|condition| condition["reason"] == "NewReplicaSetAvailable");
        if numbers.replicas == numbers.updated && was_complete {
            return;
        }
        let subject = match model.new_set() {
            Some(set) => format!("ReplicaSet {:?}", set.name()),
            None => format!("Deployment {:?}", &*facts.meta.key.name),
        };
        if is_complete(facts, numbers) {
            let message = format!("{subject} has successfully progressed.");
            self.set("Progressing", "True", "NewReplicaSetAvailable", &message);
        } else if has_moved(facts, numbers) {
            // Each move renews the update time, which the deadline counts from.
            let since =
                current.filter(|current| current["status"] == "True").map(|it| it["lastTransitionTime"].clone());
            let now = Value::from(time::rfc3339(self.now));
            self.remove("Progressing");
            self.all.push(json!({"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated",
                "message": format!("{subject} is progressing."), "lastUpdateTime": now,
                "lastTransitionTime": since.unwrap_or_else(|| now.clone())}));
        } else if self.timed_out(deadline) {
            let message = format!("{subject} has timed out progressing.");
            self.set("Progressing", "False", "ProgressDeadlineExceeded", &message);
        }
    }

    fn timed_out(&self, deadline_seconds: i32) -> bool {
        let Some(current) = self.get("Progressing") else { return false };
        if current["reason"] == "ProgressDeadlineExceeded" {
            return true;
        }
        let since = current["lastUpdateTime"].as_str().and_then(time::parse);
        current["reason"] != "NewReplicaSetAvailable"
            && since.is_some_and(|since| self.now.as_second() - since.as_second() > i64::from(deadline_seconds))
    }

    fn deadline(&self, facts: &Facts, numbers: &Numbers) -> Option<u64> {
        let deadline = i64::from(facts.progress_deadline_seconds?);
        let current = self.get("Progressing")?;
        if is_complete(facts, numbers) || current["reason"] == "ProgressDeadlineExceeded" {
            return None;
        }
        let since = time::parse(current["lastUpdateTime"].as_str()?)?;
        Some(u64::try_from(since.as_second() + deadline - self.now.as_second()).unwrap_or(0) + 1)
    }

    /// Shows a set's failure to make pods as the deployment's own: the current set's, or else an old one's.
    fn replica_failure(&mut self, model: &Model<'_>) {
        let failure =
            |set: &Set| set.conditions.iter().find(|condition| condition["type"] == "ReplicaFailure").cloned();
        let found = model.new_set().and_then(failure).or_else(|| model.sets.iter().find_map(failure));
        match found {
            None => self.remove("ReplicaFailure"),
            Some(found) => {
                let word = |field: &str| found[field].as_str().unwrap_or_default().to_string();
                self.set("ReplicaFailure", &word("status"), &word("reason"), &word("message"));
            }
        }
    }
}

fn has_moved(facts: &Facts, numbers: &Numbers) -> bool {
    let before = |field| facts.status_number(field);
    numbers.updated > before("updatedReplicas")
        || numbers.replicas - numbers.updated < before("replicas") - before("updatedReplicas")
        || numbers.ready > before("readyReplicas")
        || numbers.available > before("availableReplicas")
}
