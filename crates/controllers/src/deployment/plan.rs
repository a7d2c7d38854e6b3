//! What a deployment needs next: pure.
//!
//! The plan works on a model of the replica sets and changes it as it decides, so that later decisions and the status see what
//! earlier ones have done. One call makes one step of a rollout; the events of that step's writes bring the next.
//!
//! ```text
//! being deleted      -> status only
//! paused or resized  -> scale (one set, or all in proportion), status
//! Recreate           -> old sets to 0, wait until their pods are gone, new set up
//! RollingUpdate      -> new set up as far as surge allows; else old sets down as far as availability allows
//! ```

use base::Timestamp;
use serde_json::Value;

use super::facts::{DESIRED_REPLICAS, Facts, MAX_REPLICAS, Set, Strategy, same_template};
use super::revision;
use super::scale;
use super::status;

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Make the set of the current template.
    Create { replicas: i32, annotations: Vec<(String, String)> },
    /// Change a set's size.
    Scale { set: String, from: i32, to: i32, annotations: Vec<(String, String)> },
    /// Bring annotations (and `minReadySeconds`) of the current set up to date.
    Annotate { set: String, annotations: Vec<(String, String)>, min_ready_seconds: i32 },
    /// Note the current revision on the deployment itself.
    SetRevision(i64),
    /// Drop a set of the past.
    Delete { set: String },
}

/// What the plan found and wants.
#[derive(Debug)]
pub struct Plan {
    pub actions: Vec<Action>,
    /// The status after the actions.
    pub status: Value,
    /// When to look again without an event.
    pub again_after_seconds: Option<u64>,
}

/// The model under way.
pub struct Model<'a> {
    pub facts: &'a Facts,
    pub sets: Vec<Set>,
    /// Where the set of the current template is in `sets`.
    pub new: Option<usize>,
    pub actions: Vec<Action>,
    /// A `Progressing` condition that this step brought about: reason and message.
    pub progress: Option<(&'static str, String)>,
}

/// `pods_of_old_sets`: pods of other sets than the current one that have not ended yet.
pub fn plan(facts: &Facts, sets: Vec<Set>, pods_of_old_sets: usize, now: Timestamp) -> Plan {
    let mut model = Model::new(facts, sets);
    if facts.meta.deleting.is_some() {
        return model.finish(now, false);
    }
    if facts.paused || model.is_resized() {
        model.sync_revision();
        scale::scale(&mut model);
        if facts.paused {
            model.clean_up();
        }
        return model.finish(now, false);
    }
    match facts.strategy {
        Strategy::Recreate => model.recreate(pods_of_old_sets),
        Strategy::Rolling { .. } => model.roll(),
    }
    model.finish(now, true)
}

impl<'a> Model<'a> {
    pub fn new(facts: &'a Facts, mut sets: Vec<Set>) -> Self {
        sets.sort_by(|a, b| a.age_order().cmp(&b.age_order()));
        // The oldest of several equal ones counts, so that two sets never take turns.
        let new = sets.iter().position(|set| same_template(&set.template, &facts.template));
        Model { facts, sets, new, actions: Vec::new(), progress: None }
    }

    pub fn new_set(&self) -> Option<&Set> {
        self.new.map(|index| &self.sets[index])
    }

    /// Indices of the other sets, oldest first.
    pub fn old(&self) -> Vec<usize> {
        (0..self.sets.len()).filter(|index| Some(*index) != self.new).collect()
    }

    pub fn total(&self) -> i32 {
        self.sets.iter().map(|set| set.replicas).sum()
    }

    /// The deployment's size was changed since the active sets were last scaled.
    fn is_resized(&self) -> bool {
        let active = self.sets.iter().filter(|set| set.replicas > 0);
        active.filter_map(|set| set.number_annotation(DESIRED_REPLICAS)).any(|desired| desired != self.facts.replicas)
    }

    pub fn size_annotations(&self) -> Vec<(String, String)> {
        let max = self.facts.replicas + self.facts.max_surge();
        vec![(DESIRED_REPLICAS.into(), self.facts.replicas.to_string()), (MAX_REPLICAS.into(), max.to_string())]
    }

    /// Changes a set's size; also when only its annotations lag behind. Answers whether anything changed.
    pub fn resize(&mut self, index: usize, to: i32) -> bool {
        let annotations = self.size_annotations();
        let set = &mut self.sets[index];
        let annotated = annotations.iter().all(|(key, value)| set.meta.annotations.get(key) == Some(value));
        if set.replicas == to && annotated {
            return false;
        }
        let from = std::mem::replace(&mut set.replicas, to);
        set.meta.annotations.extend(annotations.iter().cloned());
        self.actions.push(Action::Scale { set: set.name().to_string(), from, to, annotations });
        true
    }

    /// Makes the revision annotations right.
    fn sync_revision(&mut self) {
        let Some(index) = self.new else { return };
        let newest_old = self.old().iter().map(|old| self.sets[*old].revision()).max().unwrap_or(0);
        let changed = revision::annotations(self.facts, Some(&self.sets[index]), newest_old + 1);
        let set = &mut self.sets[index];
        if !changed.is_empty() || set.min_ready_seconds != self.facts.min_ready_seconds {
            set.meta.annotations.extend(changed.iter().cloned());
            self.actions.push(Action::Annotate {
                set: set.name().to_string(),
                annotations: changed,
                min_ready_seconds: self.facts.min_ready_seconds,
            });
        }
        let revision = self.sets[index].revision();
        if super::facts::revision(&self.facts.meta.annotations) != revision {
            self.actions.push(Action::SetRevision(revision));
        }
        if self.facts.progress_deadline_seconds.is_some() && self.facts.condition("Progressing").is_none() {
            let message = format!("Found new replica set {:?}", self.sets[index].name());
            self.progress = Some(("FoundNewReplicaSet", message));
        }
    }

    fn create_new(&mut self) {
        let newest_old = self.sets.iter().map(Set::revision).max().unwrap_or(0);
        let mut annotations = revision::annotations(self.facts, None, newest_old + 1);
        annotations.extend(self.size_annotations());
        let replicas = self.replicas_for_new(0);
        self.actions.push(Action::Create { replicas, annotations });
        self.actions.push(Action::SetRevision(newest_old + 1));
    }

    /// How large the new set may be now, being of size `current`.
    fn replicas_for_new(&self, current: i32) -> i32 {
        match self.facts.strategy {
            Strategy::Recreate => self.facts.replicas,
            Strategy::Rolling { .. } => {
                let room = self.facts.replicas + self.facts.max_surge() - self.total();
                if room <= 0 { current } else { current + room.min(self.facts.replicas - current) }
            }
        }
    }

    fn recreate(&mut self, pods_of_old_sets: usize) {
        self.sync_revision();
        let shrunk: Vec<bool> =
            self.old().into_iter().map(|old| self.sets[old].replicas > 0 && self.resize(old, 0)).collect();
        let still_reported = self.old().iter().any(|old| self.sets[*old].status_replicas > 0);
        if shrunk.contains(&true) || still_reported || pods_of_old_sets > 0 {
            return;
        }
        match self.new {
            None => self.create_new(),
            Some(new) => {
                self.resize(new, self.facts.replicas);
                self.clean_up_if_complete();
            }
        }
    }

    fn roll(&mut self) {
        self.sync_revision();
        let Some(new) = self.new else { return self.create_new() };
        let current = self.sets[new].replicas;
        let wanted = if current > self.facts.replicas { self.facts.replicas } else { self.replicas_for_new(current) };
        if wanted != current {
            self.resize(new, wanted);
            return;
        }
        if !self.shrink_old(new) {
            self.clean_up_if_complete();
        }
    }

    /// Takes old pods away: broken ones first, then good ones as far as enough remain available.
    fn shrink_old(&mut self, new: usize) -> bool {
        let old: Vec<usize> = self.old().into_iter().filter(|index| self.sets[*index].replicas > 0).collect();
        let min_available = self.facts.replicas - self.facts.max_unavailable();
        let new_unavailable = self.sets[new].replicas - self.sets[new].available;
        let most = self.total() - min_available - new_unavailable;
        if old.is_empty() || most <= 0 {
            return false;
        }
        let mut left = most;
        for &index in &old {
            let (replicas, available) = (self.sets[index].replicas, self.sets[index].available);
            let unhealthy = (replicas - available).min(left);
            if unhealthy > 0 {
                left -= unhealthy;
                self.resize(index, replicas - unhealthy);
            }
        }
        let available: i32 = self.sets.iter().map(|set| set.available).sum();
        let mut spare = available - min_available;
        for &index in &old {
            let down = self.sets[index].replicas.min(spare);
            if down > 0 {
                spare -= down;
                self.resize(index, self.sets[index].replicas - down);
            }
        }
        self.actions.iter().any(|action| matches!(action, Action::Scale { .. }))
    }

    fn clean_up_if_complete(&mut self) {
        if status::is_complete(self.facts, &status::numbers(self)) {
            self.clean_up();
        }
    }

    /// Drops the oldest sets beyond the history limit that are empty and settled.
    fn clean_up(&mut self) {
        let Some(limit) = self.facts.history_limit else { return };
        let mut old: Vec<&Set> = self.old().into_iter().map(|index| &self.sets[index]).collect();
        old.retain(|set| set.meta.deleting.is_none());
        let surplus = old.len().saturating_sub(limit);
        old.sort_by_key(|set| (set.revision(), set.meta.created));
        let done =
            old.into_iter().take(surplus).filter(|set| set.replicas == 0 && set.status_replicas == 0 && set.observed);
        let deletions: Vec<Action> = done.map(|set| Action::Delete { set: set.name().to_string() }).collect();
        self.actions.extend(deletions);
    }

    fn finish(self, now: Timestamp, rolling: bool) -> Plan {
        let (status, again_after_seconds) = status::status(&self, now, rolling);
        Plan { actions: self.actions, status, again_after_seconds }
    }
}
