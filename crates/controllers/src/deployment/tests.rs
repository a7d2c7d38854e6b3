//! Rollouts step by step, on the pure plan.

use super::facts::{DESIRED_REPLICAS, MAX_REPLICAS, REVISION, Strategy};
use super::plan::{Action, plan};
use super::*;
use base::Timestamp;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn deployment(replicas: i32, surge: i32, unavailable: i32) -> Facts {
    Facts {
        meta: Meta { key: ObjectKey::new("n", "web"), uid: "d".into(), ..Meta::default() },
        generation: 1,
        replicas,
        paused: false,
        strategy: Strategy::Rolling { surge: IntOrString::Int(surge), unavailable: IntOrString::Int(unavailable) },
        min_ready_seconds: 0,
        progress_deadline_seconds: Some(600),
        history_limit: Some(2),
        selector: json!({"matchLabels": {"app": "web"}}),
        template: template("new"),
        status: Object::default(),
    }
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

/// A set whose pods are all there, of which `available` are available.
fn set(image: &str, age: i64, replicas: i32, available: i32) -> Set {
    let mut meta = Meta { key: ObjectKey::new("n", image), uid: image.into(), ..Meta::default() };
    meta.created = Some(Timestamp::from_second(1_000_000 - age).unwrap());
    Set {
        meta,
        replicas,
        template: template(image),
        min_ready_seconds: 0,
        status_replicas: replicas,
        ready: available,
        available,
        terminating: 0,
        observed: true,
        conditions: Vec::new(),
    }
}

/// As [`set`], already annotated for a deployment of `desired` and `max`.
fn sized(mut set: Set, desired: i32, max: i32, revision: i64) -> Set {
    set.meta.annotations.insert(DESIRED_REPLICAS.into(), desired.to_string());
    set.meta.annotations.insert(MAX_REPLICAS.into(), max.to_string());
    set.meta.annotations.insert(REVISION.into(), revision.to_string());
    set
}

fn scales(plan: &Plan) -> Vec<(&str, i32, i32)> {
    let scale = |action| match action {
        &Action::Scale { ref set, from, to, .. } => Some((set.as_str(), from, to)),
        _ => None,
    };
    plan.actions.iter().filter_map(scale).collect()
}

fn condition<'a>(plan: &'a Plan, condition_type: &str) -> &'a Value {
    let conditions = plan.status["conditions"].as_array().unwrap();
    conditions.iter().find(|condition| condition["type"] == condition_type).unwrap()
}

#[test]
fn a_new_deployment_makes_its_set_at_full_size_as_revision_one() {
    let plan = plan(&deployment(3, 1, 0), vec![], 0, now());
    let Action::Create { replicas, annotations } = &plan.actions[0] else { panic!("{:?}", plan.actions) };
    assert_eq!(*replicas, 3);
    assert!(annotations.contains(&(REVISION.to_string(), "1".to_string())), "{annotations:?}");
    assert_eq!(plan.actions[1], Action::SetRevision(1));
}

#[test]
fn a_rollout_surges_then_takes_old_ones_down_as_new_ones_become_available() {
    let facts = deployment(3, 1, 0);
    let old = sized(set("old", 100, 3, 3), 3, 4, 1);
    let first = plan(&facts, vec![old.clone()], 3, now());
    assert!(matches!(first.actions[0], Action::Create { replicas: 1, .. }), "{:?}", first.actions);
    let waiting = plan(&facts, vec![old.clone(), sized(set("new", 1, 1, 0), 3, 4, 2)], 3, now());
    assert_eq!(scales(&waiting), [], "nothing moves until the new pod is available");
    let stepped = plan(&facts, vec![old, sized(set("new", 1, 1, 1), 3, 4, 2)], 3, now());
    assert_eq!(scales(&stepped), [("old", 3, 2)]);
}

#[test]
fn broken_old_pods_go_first_even_when_nothing_is_to_spare() {
    let facts = deployment(3, 1, 1);
    let old = sized(set("old", 100, 3, 1), 3, 4, 1);
    let plan = plan(&facts, vec![old, sized(set("new", 1, 1, 1), 3, 4, 2)], 3, now());
    assert_eq!(scales(&plan), [("old", 3, 1)]);
}

#[test]
fn a_bad_version_never_takes_more_than_is_allowed_away() {
    let facts = deployment(4, 1, 0);
    let plan = plan(&facts, vec![sized(set("old", 100, 4, 4), 4, 5, 1), sized(set("new", 1, 1, 0), 4, 5, 2)], 4, now());
    assert_eq!(scales(&plan), []);
    assert_eq!(condition(&plan, "Available")["status"], "True");
}

#[test]
fn recreate_waits_until_the_last_old_pod_is_gone() {
    let mut facts = deployment(2, 0, 0);
    facts.strategy = Strategy::Recreate;
    let down = plan(&facts, vec![sized(set("old", 100, 2, 2), 2, 2, 1)], 2, now());
    assert_eq!(scales(&down), [("old", 2, 0)]);
    let gone = sized(set("old", 100, 0, 0), 2, 2, 1);
    assert_eq!(plan(&facts, vec![gone.clone()], 1, now()).actions, []);
    assert!(matches!(plan(&facts, vec![gone], 0, now()).actions[0], Action::Create { replicas: 2, .. }));
}

#[test]
fn resizing_in_the_middle_of_a_rollout_keeps_its_proportions() {
    let facts = deployment(20, 2, 0);
    let sets = vec![sized(set("old", 100, 8, 8), 10, 12, 1), sized(set("new", 1, 4, 4), 10, 12, 2)];
    let plan = plan(&facts, sets, 8, now());
    assert_eq!(scales(&plan), [("old", 8, 15), ("new", 4, 7)]);
}

#[test]
fn going_back_reuses_the_old_set_with_a_new_revision_that_remembers() {
    let facts = deployment(2, 1, 0);
    let sets = vec![sized(set("new", 100, 0, 0), 2, 3, 1), sized(set("bad", 1, 2, 2), 2, 3, 2)];
    let plan = plan(&facts, sets, 2, now());
    let Action::Annotate { set, annotations, .. } = &plan.actions[0] else { panic!("{:?}", plan.actions) };
    assert_eq!(set, "new");
    assert!(annotations.contains(&(REVISION.into(), "3".into())), "{annotations:?}");
    assert!(annotations.contains(&(facts::REVISION_HISTORY.into(), "1".into())), "{annotations:?}");
    assert_eq!(plan.actions[1], Action::SetRevision(3));
}

#[test]
fn finished_history_beyond_the_limit_is_dropped_oldest_first() {
    let mut facts = deployment(1, 1, 0);
    facts.meta.annotations.insert(REVISION.into(), "4".into());
    let old = |name: &str, revision| sized(set(name, 100 - revision, 0, 0), 1, 2, revision);
    let sets = vec![old("c", 3), old("a", 1), old("b", 2), sized(set("new", 1, 1, 1), 1, 2, 4)];
    let plan = plan(&facts, sets, 0, now());
    assert_eq!(plan.actions, [Action::Delete { set: "a".into() }]);
    assert_eq!(condition(&plan, "Progressing")["reason"], "NewReplicaSetAvailable");
}

#[test]
fn a_rollout_that_stands_still_times_out_and_says_so() {
    let mut facts = deployment(1, 1, 0);
    facts.status =
        Object::from_value(json!({"replicas": 1, "updatedReplicas": 1, "unavailableReplicas": 1, "conditions": [
        {"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated", "message": "m",
         "lastUpdateTime": "2025-12-31T23:49:00Z", "lastTransitionTime": "2025-12-31T23:40:00Z"}]}))
        .unwrap();
    let stuck = plan(&facts, vec![sized(set("new", 1, 1, 0), 1, 2, 1)], 0, now());
    assert_eq!(condition(&stuck, "Progressing")["reason"], "ProgressDeadlineExceeded");
    assert_eq!(condition(&stuck, "Progressing")["message"], "ReplicaSet \"new\" has timed out progressing.");
    facts.status.0["conditions"][0]["lastUpdateTime"] = "2025-12-31T23:55:00Z".into();
    let waiting = plan(&facts, vec![sized(set("new", 1, 1, 0), 1, 2, 1)], 0, now());
    assert_eq!(condition(&waiting, "Progressing")["status"], "True");
    assert_eq!(waiting.again_after_seconds, Some(301));
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut facts = deployment(5, 1, 0);
    facts.paused = true;
    let plan = plan(&facts, vec![sized(set("old", 100, 3, 3), 3, 4, 1)], 3, now());
    assert_eq!(scales(&plan), [("old", 3, 5)]);
    assert_eq!(condition(&plan, "Progressing")["reason"], "DeploymentPaused");
}
