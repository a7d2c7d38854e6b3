//! Plans, by table: a spec and what runs of it, and what is to be done.

use serde_json::{Value, json};

use super::*;
use crate::pod::tests::pod_of;
use crate::pod_worker::start_failure::FailureReason;
use crate::runtime_view::Sandbox;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

fn sandbox(attempt: u32, ready: bool) -> Sandbox {
    let ips = vec!["10.0.0.1".to_string()];
    Sandbox { id: format!("s{attempt}"), attempt, ready, ips, ..Sandbox::default() }
}

/// A container as `name:state[:exit code]`, in sandbox `s0`, ended at second 100.
fn container(text: &str) -> Container {
    let mut parts = text.split(':');
    let name = parts.next().unwrap().to_string();
    let state = match parts.next().unwrap() {
        "running" => State::Running,
        "exited" => State::Exited,
        "created" => State::Created,
        _ => State::Unknown,
    };
    Container {
        id: format!("{name}-id"),
        sandbox_id: "s0".into(),
        attempt: 0,
        state,
        image: String::new(),
        image_ref: String::new(),
        created_at: at(0),
        started_at: Some(at(0)),
        finished_at: (state == State::Exited).then(|| at(100)),
        exit_code: parts.next().map_or(0, |code| code.parse().unwrap()),
        reason: String::new(),
        message: String::new(),
        hash: String::new(),
        mounts: HashMap::new(),
        log_path: String::new(),
        name,
    }
}

#[derive(Default)]
struct Case {
    runtime: RuntimePod,
    verdicts: HashMap<String, Verdicts>,
    crash_loops: CrashLoops,
    failures: HashMap<String, StartFailure>,
}

impl Case {
    fn of(containers: &[&str]) -> Self {
        let containers = containers.iter().map(|text| container(text)).collect();
        Case { runtime: RuntimePod { sandboxes: vec![sandbox(0, true)], containers }, ..Case::default() }
    }

    fn plan(&self, pod: &Pod) -> Plan {
        plan(&Facts {
            pod,
            runtime: &self.runtime,
            verdicts: &self.verdicts,
            crash_loops: &self.crash_loops,
            failures: &self.failures,
            now: at(101),
        })
    }
}

/// A plan in one line: `start a, b` / `kill a` / `sandbox 0` / `finished` / `wait a` / nothing.
fn line(plan: &Plan) -> String {
    let mut words = Vec::new();
    if plan.finished {
        words.push("finished".to_string());
    }
    words.extend(plan.new_sandbox.map(|attempt| format!("sandbox {attempt}")));
    words.extend(plan.kill.iter().map(|kill| format!("kill {} {:?}", kill.name, kill.why)));
    words.extend(plan.start.iter().map(|start| format!("start {} {}", start.name, start.attempt)));
    words.extend(plan.backing_off.iter().map(|entry| format!("wait {} {}", entry.name, entry.waiting.wait.as_secs())));
    words.join(", ")
}

fn spec(policy: &str, init: Value, containers: Value) -> Pod {
    pod_of(json!({"restartPolicy": policy, "initContainers": init, "containers": containers}))
}

#[test]
fn regular_containers_start_restart_and_finish() {
    let two = || json!([{"name": "a"}, {"name": "b"}]);
    for (policy, containers, expected) in [
        ("Always", &[][..], "start a 0, start b 0"),
        ("Always", &["a:running"], "start b 0"),
        ("Always", &["a:running", "b:running"], ""),
        ("Always", &["a:exited:0", "b:running"], "start a 1"),
        ("OnFailure", &["a:exited:0", "b:running"], ""),
        ("OnFailure", &["a:exited:1", "b:running"], "start a 1"),
        ("OnFailure", &["a:exited:0", "b:exited:0"], "finished"),
        ("Never", &["a:exited:1", "b:running"], ""),
        ("Never", &["a:exited:1", "b:exited:0"], "finished"),
        ("Always", &["a:created", "b:running"], "start a 1"),
        ("Always", &["a:unknown", "b:running"], "kill a Unknown"),
    ] {
        let pod = spec(policy, json!([]), two());
        assert_eq!(line(&Case::of(containers).plan(&pod)), expected, "{policy} {containers:?}");
    }
}

#[test]
fn init_containers_run_in_order_and_their_failure_counts() {
    let init = || json!([{"name": "i"}, {"name": "j"}]);
    for (policy, containers, expected) in [
        ("Always", &[][..], "start i 0"),
        ("Always", &["i:running"], ""),
        ("Always", &["i:exited:0"], "start j 0"),
        ("Always", &["i:exited:1"], "start i 1"),
        ("Never", &["i:exited:1"], "finished"),
        ("Always", &["i:exited:0", "j:exited:0"], "start a 0"),
        ("Always", &["i:exited:0", "j:exited:0", "a:running"], ""),
        // The runtime may have forgotten init containers of a pod that came past them.
        ("Always", &["a:running"], ""),
    ] {
        let pod = spec(policy, init(), json!([{"name": "a"}]));
        assert_eq!(line(&Case::of(containers).plan(&pod)), expected, "{policy} {containers:?}");
    }
}

#[test]
fn sidecars_stay_up_and_hold_back_what_follows_until_they_have_started() {
    let init = || json!([{"name": "s", "restartPolicy": "Always", "startupProbe": {}}, {"name": "i"}]);
    let started = |startup| HashMap::from([("s-id".to_string(), Verdicts { startup, ..Verdicts::default() })]);
    for (containers, startup, expected) in [
        (&[][..], None, "start s 0"),
        (&["s:running"], None, ""),
        (&["s:running"], Some(true), "start i 0"),
        (&["s:running"], Some(false), "kill s Startup"),
        (&["s:running", "i:exited:0"], Some(true), "start a 0"),
        (&["s:exited:0", "i:exited:0", "a:running"], None, "start s 1"),
        (&["s:running", "i:exited:0", "a:exited:0"], Some(true), "finished"),
    ] {
        let pod = spec("OnFailure", init(), json!([{"name": "a"}]));
        let case = Case { verdicts: started(startup), ..Case::of(containers) };
        assert_eq!(line(&case.plan(&pod)), expected, "{containers:?} {startup:?}");
    }
}

#[test]
fn failed_probes_and_a_changed_image_replace_a_container() {
    let pod = spec("OnFailure", json!([]), json!([{"name": "a", "image": "x"}]));
    let verdict = |liveness, startup| {
        HashMap::from([("a-id".to_string(), Verdicts { liveness, startup, ..Verdicts::default() })])
    };
    let dead = Case { verdicts: verdict(Some(false), Some(true)), ..Case::of(&["a:running"]) };
    assert_eq!(line(&dead.plan(&pod)), "kill a Liveness");
    let slow = Case { verdicts: verdict(None, Some(false)), ..Case::of(&["a:running"]) };
    assert_eq!(line(&slow.plan(&pod)), "kill a Startup");
    // It was stopped to be restarted: that it ended well does not matter.
    let stopped = Case { verdicts: verdict(Some(false), None), ..Case::of(&["a:exited:0"]) };
    assert_eq!(line(&stopped.plan(&pod)), "start a 1");
    let mut changed = Case::of(&["a:running"]);
    changed.runtime.containers[0].hash = "old".into();
    assert_eq!(line(&changed.plan(&pod)), "kill a SpecChanged");
    changed.runtime.containers[0].hash = spec_hash(&pod::containers(&pod)[0]);
    assert_eq!(line(&changed.plan(&pod)), "");
}

#[test]
fn waits_hold_a_start_back_and_say_when_to_look_again() {
    let pod = spec("Always", json!([]), json!([{"name": "a"}, {"name": "b"}]));
    let mut case = Case::of(&["a:exited:1"]);
    case.crash_loops.restarted("a", &spec_hash(&pod::containers(&pod)[0]), at(50), at(50));
    let failed = StartFailure::after(None, FailureReason::ErrImagePull, "no".into(), "x", at(95));
    case.failures.insert("b".into(), failed);
    let plan = case.plan(&pod);
    assert_eq!(line(&plan), "wait a 10");
    assert_eq!(plan.wake_at, Some(at(105)), "b is tried again before a");
    assert!(plan.is_idle());
}

#[test]
fn a_sandbox_is_made_first_and_again_when_it_is_gone() {
    let pod = spec("OnFailure", json!([]), json!([{"name": "a"}]));
    for (sandboxes, containers, expected) in [
        (vec![], &[][..], "sandbox 0"),
        (vec![sandbox(0, false)], &["a:running"], "sandbox 1"),
        (vec![sandbox(0, false)], &["a:exited:1"], "sandbox 1"),
        (vec![sandbox(0, false)], &["a:exited:0"], "finished"),
        (vec![Sandbox { ips: vec![], ..sandbox(0, true) }], &[], "sandbox 1"),
        (vec![Sandbox { host_network: true, ..sandbox(0, true) }], &[], "sandbox 1"),
    ] {
        let mut case = Case::of(containers);
        case.runtime.sandboxes = sandboxes;
        assert_eq!(line(&case.plan(&pod)), expected, "{:?} {containers:?}", case.runtime.sandboxes);
    }
}

#[test]
fn containers_of_an_older_sandbox_run_anew_in_the_new_one() {
    let pod = spec("Always", json!([{"name": "i"}]), json!([{"name": "a"}]));
    let mut case = Case::of(&["i:exited:0", "a:exited:137"]);
    case.runtime.sandboxes = vec![sandbox(1, true), sandbox(0, false)];
    assert_eq!(line(&case.plan(&pod)), "start i 0", "initialization begins again");
}

#[test]
fn ephemeral_containers_start_once() {
    let pod = pod_of(json!({"containers": [{"name": "a"}], "ephemeralContainers": [{"name": "debug"}]}));
    assert_eq!(line(&Case::of(&["a:running"]).plan(&pod)), "start debug 0");
    assert_eq!(line(&Case::of(&["a:running", "debug:exited:0"]).plan(&pod)), "");
}
