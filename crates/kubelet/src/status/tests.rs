//! Statuses, by table.

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;
use crate::pod::tests::pod_of;
use crate::pod_worker::start_failure::FailureReason;
use crate::runtime_view::{Container, Sandbox, State, spec_hash};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

fn container(name: &str, attempt: u32, state: State, exit_code: i32) -> Container {
    Container {
        id: format!("{name}{attempt}"),
        sandbox_id: "s".into(),
        name: name.into(),
        attempt,
        state,
        image: "x:1".into(),
        image_ref: "x@sha256:1".into(),
        created_at: at(i64::from(attempt)),
        started_at: Some(at(1)),
        finished_at: (state == State::Exited).then(|| at(2)),
        exit_code,
        reason: String::new(),
        message: String::new(),
        hash: String::new(),
        mounts: HashMap::new(),
        log_path: String::new(),
    }
}

struct Case {
    pod: Pod,
    /// What was published before; none for the first status.
    known: Option<PodStatus>,
    runtime: RuntimePod,
    verdicts: HashMap<String, Verdicts>,
    failures: HashMap<String, StartFailure>,
    crash_loops: CrashLoops,
    stage: Stage,
    failed: Option<Failed>,
    now: Timestamp,
}

impl Case {
    fn of(spec: Value, mut containers: Vec<Container>) -> Self {
        containers.sort_by_key(|container| std::cmp::Reverse(container.created_at));
        let sandbox = Sandbox { id: "s".into(), ready: true, ips: vec!["10.0.0.9".into()], ..Sandbox::default() };
        Case {
            pod: pod_of(spec),
            known: None,
            runtime: RuntimePod { sandboxes: vec![sandbox], containers },
            verdicts: HashMap::new(),
            failures: HashMap::new(),
            crash_loops: CrashLoops::default(),
            stage: Stage::Syncing,
            failed: None,
            now: at(10),
        }
    }

    fn status(&self) -> PodStatus {
        generate(&Inputs {
            pod: &self.pod,
            known: self.known.as_ref().unwrap_or_else(|| pod::status(&self.pod)),
            runtime: &self.runtime,
            verdicts: &self.verdicts,
            failures: &self.failures,
            crash_loops: &self.crash_loops,
            messages: &HashMap::new(),
            stage: &self.stage,
            failed: self.failed.as_ref(),
            start_time: at(0),
            now: self.now,
            host_ips: &["192.0.2.1".parse().unwrap()],
            runtime_name: "coracle",
        })
    }

    /// Phase, conditions and container states in few words.
    fn check(&self, expected: Expect) {
        let status = self.status();
        let mut lines = vec![format!("{} {}", status.phase.unwrap(), status.pod_ip.unwrap_or_default())];
        for condition in status.conditions.unwrap() {
            let (reason, message) = (condition.reason.unwrap_or_default(), condition.message.unwrap_or_default());
            lines.push(format!("{}={} {reason} {message}", condition.type_, condition.status).trim_end().to_string());
        }
        let statuses = [status.init_container_statuses, status.container_statuses].into_iter().flatten().flatten();
        for container in statuses {
            let state = serde_json::to_string(&container.state).unwrap();
            let last = container.last_state.filter(|last| last.terminated.is_some());
            let last = last.map(|last| format!(" last {}", last.terminated.unwrap().exit_code)).unwrap_or_default();
            let (name, ready, count) = (container.name, container.ready, container.restart_count);
            lines.push(format!("{name} ready={ready} restarts={count}{last} {state}"));
        }
        expected.assert_eq(&(lines.join("\n") + "\n"));
    }
}

#[test]
fn a_new_pod_is_pending_and_its_containers_are_being_created() {
    let mut case = Case::of(json!({"containers": [{"name": "a"}]}), vec![]);
    case.runtime = RuntimePod::default();
    case.check(expect![[r#"
        Pending 
        PodReadyToStartContainers=False
        Initialized=True
        Ready=False ContainersNotReady containers with unready status: [a]
        ContainersReady=False ContainersNotReady containers with unready status: [a]
        PodScheduled=True
        a ready=false restarts=0 {"waiting":{"reason":"ContainerCreating"}}
    "#]]);
}

#[test]
fn an_init_container_holds_the_others_back() {
    let running = vec![container("i", 0, State::Running, 0)];
    Case::of(json!({"initContainers": [{"name": "i"}], "containers": [{"name": "a"}]}), running).check(expect![[r#"
        Pending 10.0.0.9
        PodReadyToStartContainers=True
        Initialized=False ContainersNotInitialized containers with incomplete status: [i]
        Ready=False ContainersNotReady containers with unready status: [a]
        ContainersReady=False ContainersNotReady containers with unready status: [a]
        PodScheduled=True
        i ready=false restarts=0 {"running":{"startedAt":"1970-01-12T13:46:41Z"}}
        a ready=false restarts=0 {"waiting":{"reason":"PodInitializing"}}
    "#]]);
}

#[test]
fn a_running_pod_is_ready_when_its_probe_says_so() {
    let spec = json!({"containers": [{"name": "a", "readinessProbe": {}}, {"name": "b"}]});
    let running = vec![container("a", 0, State::Running, 0), container("b", 0, State::Running, 0)];
    let mut case = Case::of(spec, running);
    let ready = |case: &Case| {
        let status = case.status();
        let condition = status.conditions.unwrap().into_iter().find(|condition| condition.type_ == "Ready").unwrap();
        (status.phase.unwrap(), condition.status, condition.message.unwrap_or_default())
    };
    let unready = "containers with unready status: [a]".to_string();
    assert_eq!(ready(&case), ("Running".into(), "False".into(), unready));
    case.verdicts.insert("a0".into(), Verdicts { readiness: Some(true), ..Verdicts::default() });
    assert_eq!(ready(&case), ("Running".into(), "True".into(), String::new()));
}

#[test]
fn a_crash_loop_shows_the_wait_and_how_it_ended() {
    let containers = vec![container("a", 1, State::Exited, 1), container("a", 2, State::Exited, 137)];
    let mut case = Case::of(json!({"containers": [{"name": "a"}]}), containers);
    // The container ended at second 2, and four times before.
    let hash = spec_hash(&pod::containers(&case.pod)[0]);
    for second in -5..0 {
        case.crash_loops.restarted("a", &hash, at(second), at(second));
    }
    case.check(expect![[r#"
        Running 10.0.0.9
        PodReadyToStartContainers=True
        Initialized=True
        Ready=False ContainersNotReady containers with unready status: [a]
        ContainersReady=False ContainersNotReady containers with unready status: [a]
        PodScheduled=True
        a ready=false restarts=2 last 137 {"waiting":{"message":"back-off 2m40s restarting failed container=a pod=p_n(u)","reason":"CrashLoopBackOff"}}
    "#]]);
}

#[test]
fn a_restart_under_way_shows_the_wait_before_it_and_then_what_its_start_failed_of() {
    let mut case = Case::of(json!({"containers": [{"name": "a"}]}), vec![container("a", 0, State::Exited, 1)]);
    let hash = spec_hash(&pod::containers(&case.pod)[0]);
    let waiting = |case: &Case| {
        let state = case.status().container_statuses.unwrap()[0].state.clone().unwrap();
        let waiting = state.waiting?;
        Some((waiting.reason.unwrap(), waiting.message.unwrap()))
    };
    assert_eq!(waiting(&case), None, "the first end is free: it shows how it ended");
    case.crash_loops.restarted("a", &hash, at(1), at(1));
    let ten = ("CrashLoopBackOff".to_string(), "back-off 10s restarting failed container=a pod=p_n(u)".to_string());
    assert_eq!(waiting(&case), Some(ten.clone()));
    case.crash_loops.restarted("a", &hash, at(2), at(12));
    assert_eq!(waiting(&case), Some(ten), "the runtime's view is older than the restart");
    let failure = StartFailure::after(None, FailureReason::CreateContainerError, "no space".into(), "x", at(9));
    case.failures.insert("a".into(), failure);
    case.now = at(13);
    assert_eq!(waiting(&case), Some(("CreateContainerError".into(), "no space".into())));
}

#[test]
fn a_container_that_the_runtime_lost_keeps_its_count_and_its_end_in_every_status_after() {
    let mut case = Case::of(json!({"containers": [{"name": "a"}]}), vec![container("a", 3, State::Exited, 7)]);
    case.known = Some(case.status());
    case.runtime.containers.clear();
    for _ in 0..2 {
        let status = case.status();
        let shown = &status.container_statuses.as_ref().unwrap()[0];
        let last = shown.last_state.as_ref().unwrap().terminated.as_ref().unwrap();
        assert_eq!((shown.restart_count, last.exit_code), (3, 7));
        case.known = Some(status);
    }
}

#[test]
fn a_start_that_failed_shows_why() {
    let mut case = Case::of(json!({"containers": [{"name": "a"}]}), vec![]);
    let failure = StartFailure::after(
        None,
        FailureReason::CreateContainerConfigError,
        "configmap \"c\" not found".into(),
        "x",
        at(9),
    );
    case.failures.insert("a".into(), failure);
    let status = case.status();
    let state = status.container_statuses.unwrap()[0].state.clone().unwrap().waiting.unwrap();
    assert_eq!(state.reason.as_deref(), Some("CreateContainerConfigError"));
    assert_eq!(state.message.as_deref(), Some("configmap \"c\" not found"));
}

#[test]
fn the_end_of_a_pod_is_its_containers_ends() {
    let two = || json!({"restartPolicy": "Never", "containers": [{"name": "a"}, {"name": "b"}]});
    for (a, b, expected) in [(0, 0, "Succeeded"), (0, 1, "Failed"), (137, 137, "Failed")] {
        let ended = vec![container("a", 0, State::Exited, a), container("b", 0, State::Exited, b)];
        let mut case = Case::of(two(), ended);
        assert_eq!(case.status().phase.as_deref(), Some("Running"), "as long as the sandbox is there");
        case.stage = Stage::Terminated;
        assert_eq!(case.status().phase.as_deref(), Some(expected), "{a} {b}");
    }
    let mut case = Case::of(two(), vec![container("a", 0, State::Exited, 0), container("b", 0, State::Exited, 0)]);
    case.stage = Stage::Terminated;
    case.check(expect![[r#"
        Succeeded 10.0.0.9
        PodReadyToStartContainers=False
        Initialized=True
        Ready=False PodCompleted
        ContainersReady=False PodCompleted
        PodScheduled=True
        a ready=false restarts=0 {"terminated":{"containerID":"coracle://a0","exitCode":0,"finishedAt":"1970-01-12T13:46:42Z","reason":"Completed","startedAt":"1970-01-12T13:46:41Z"}}
        b ready=false restarts=0 {"terminated":{"containerID":"coracle://b0","exitCode":0,"finishedAt":"1970-01-12T13:46:42Z","reason":"Completed","startedAt":"1970-01-12T13:46:41Z"}}
    "#]]);
}

#[test]
fn a_pod_past_its_deadline_failed_for_that_reason() {
    let spec = json!({"restartPolicy": "Never", "containers": [{"name": "a"}]});
    let mut case = Case::of(spec, vec![container("a", 0, State::Exited, 0)]);
    case.stage = Stage::Terminated;
    case.failed = Some(Failed { reason: "DeadlineExceeded".into(), message: "m".into() });
    let status = case.status();
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("DeadlineExceeded")));
}

#[test]
fn conditions_turn_when_their_status_does_and_those_of_others_are_not_repeated() {
    let mut case = Case::of(json!({"containers": [{"name": "a"}]}), vec![container("a", 0, State::Running, 0)]);
    case.pod.status = Some(
        serde_json::from_value(json!({"conditions": [
        {"type": "example.com/gate", "status": "True"}, {"type": "PodScheduled", "status": "False"}]}))
        .unwrap(),
    );
    let first = case.status().conditions.unwrap();
    assert_eq!(first.iter().map(|condition| &*condition.type_).collect::<Vec<_>>(), conditions::OWNED);
    assert!(first.iter().all(|condition| condition.status == "True"), "{first:?}");
    case.known = Some(case.status());
    case.now = at(20);
    assert_eq!(case.status().conditions.unwrap(), first, "also while the API still shows the first");
    case.runtime.containers[0] = container("a", 0, State::Exited, 0);
    let turned = case.status().conditions.unwrap();
    let times: Vec<_> = turned.iter().map(|condition| condition.last_transition_time.clone().unwrap()).collect();
    let [early, late] = [at(10), at(20)].map(pod::time);
    assert_eq!(times, [early.clone(), early.clone(), late.clone(), late, early]);
}
