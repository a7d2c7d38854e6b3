//! Whole pods on virtual time, between a played API and a played runtime.

use std::time::Duration;

use meta::ObjectKey;
use serde_json::json;

use crate::fakes::runtime::Program;
use crate::fakes::{FakeNode, is_running, phase, restarts, waiting};

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn ready(pod: &serde_json::Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

#[tokio::test(start_paused = true)]
async fn a_pod_runs_is_ready_and_goes_when_deleted() {
    let node = FakeNode::start().await;
    node.create_pod("p", json!({"containers": [{"name": "a", "image": "forever:1"}]}));
    let pod = node.pod_when("p", ready).await;
    assert_eq!((phase(&pod), pod["status"]["podIP"].as_str()), ("Running", Some("10.0.0.5")));
    assert_eq!(pod["status"]["containerStatuses"][0]["image"], "forever:1");
    node.api.delete_pod("p", 30);
    node.gone("p").await;
    assert_eq!(node.runtime.counts(), (0, 0));
    assert_eq!(node.runtime.take_log(), ["sandbox", "start a", "term a 30", "end a 143", "sandbox stopped"]);
    assert!(!node.agent.pod_dir("uid-p").exists());
    let events = node.api.events("p");
    let expected = [
        "Pulled Container image \"forever:1\" already present on machine and can be accessed by the pod",
        "Created Container created",
        "Started Container started",
        "Killing Stopping container a",
    ];
    assert_eq!(events, expected);
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_waits_longer_each_time_and_is_forgiven_after_ten_minutes() {
    let node = FakeNode::start().await;
    node.runtime.image("crash", Program { runs_for: Some(seconds(1)), exit_code: 1, ..Program::default() });
    node.create_pod("p", json!({"containers": [{"name": "a", "image": "crash:1"}]}));
    let mut starts = Vec::new();
    for count in 0..7 {
        node.pod_when("p", |pod| restarts(pod) == count && is_running(pod)).await;
        starts.push(node.seconds());
        if count > 0 {
            let pod = node.pod_when("p", |pod| waiting(pod) == "CrashLoopBackOff").await;
            assert_eq!(pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 1);
        }
    }
    let gaps: Vec<i64> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(gaps, [1, 11, 21, 41, 81, 161]);
    node.runtime.image("crash", Program { runs_for: Some(seconds(601)), exit_code: 1, ..Program::default() });
    node.pod_when("p", |pod| restarts(pod) == 7 && is_running(pod)).await;
    let began = node.seconds();
    node.pod_when("p", |pod| restarts(pod) == 8 && is_running(pod)).await;
    assert_eq!(node.seconds() - began, 601, "a long run is forgiven: no wait");
}

#[tokio::test(start_paused = true)]
async fn what_ignores_sigterm_is_killed_when_the_grace_period_is_over() {
    let node = FakeNode::start().await;
    node.runtime.image("stubborn", Program { ignores_term: true, ..Program::default() });
    let hook = json!({"preStop": {"exec": {"command": ["sleep", "4"]}}});
    node.create_pod("p", json!({"containers": [{"name": "a", "image": "stubborn:1", "lifecycle": hook}]}));
    node.pod_when("p", is_running).await;
    let began = node.seconds();
    node.api.delete_pod("p", 20);
    node.gone("p").await;
    assert_eq!(node.seconds() - began, 20, "the hook's time counts");
    let log = node.runtime.take_log();
    assert_eq!(log[2..], ["exec sleep 4", "term a 16", "end a 137", "sandbox stopped"]);
}

#[tokio::test(start_paused = true)]
async fn a_shortened_grace_period_takes_effect_at_once() {
    let node = FakeNode::start().await;
    node.runtime.image("stubborn", Program { ignores_term: true, ..Program::default() });
    node.create_pod("p", json!({"containers": [{"name": "a", "image": "stubborn:1"}]}));
    node.pod_when("p", is_running).await;
    let began = node.seconds();
    node.api.delete_pod("p", 600);
    node.agent.clock.sleep(seconds(5)).await;
    node.api.delete_pod("p", 1);
    node.gone("p").await;
    assert_eq!(node.seconds() - began, 6);
}

#[tokio::test(start_paused = true)]
async fn sidecars_start_first_and_stop_last() {
    let node = FakeNode::start().await;
    node.runtime.image("job", Program { runs_for: Some(seconds(3)), ..Program::default() });
    node.create_pod(
        "p",
        json!({"restartPolicy": "Never", "initContainers": [{"name": "s", "image": "forever:1", "restartPolicy": "Always"}],
               "containers": [{"name": "a", "image": "job:1"}]}),
    );
    node.pod_when("p", |pod| phase(pod) == "Succeeded").await;
    let log = node.runtime.take_log();
    assert_eq!(log, ["sandbox", "start s", "start a", "end a 0", "term s 30", "end s 143", "sandbox stopped"]);
}

#[tokio::test(start_paused = true)]
async fn a_missing_config_map_holds_a_container_back_until_it_appears() {
    let node = FakeNode::start().await;
    let env = json!([{"name": "V", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}]);
    node.create_pod("p", json!({"containers": [{"name": "a", "image": "forever:1", "env": env}]}));
    let pod = node.pod_when("p", |pod| waiting(pod) == "CreateContainerConfigError").await;
    let state = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
    assert_eq!(state["message"], "configmap \"c\" not found");
    let before = node.agent.clock.now();
    node.api.put("configmaps", json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "n"}, "data": {"k": "v"}}));
    node.pod_when("p", is_running).await;
    assert_eq!(node.agent.clock.now(), before, "no wait had to pass");
}

#[tokio::test(start_paused = true)]
async fn an_image_that_cannot_be_pulled_is_shown_and_tried_again() {
    let node = FakeNode::start().await;
    node.create_pod("p", json!({"containers": [{"name": "a", "image": "typo:1"}]}));
    let pod = node.pod_when("p", |pod| waiting(pod) == "ErrImagePull").await;
    let message = pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"].as_str().unwrap();
    assert_eq!(message, "rpc error: code = NotFound desc = no pull of typo:1");
    let pod = node.pod_when("p", |pod| waiting(pod) == "ImagePullBackOff").await;
    let message = pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"].as_str().unwrap();
    assert!(message.starts_with("Back-off pulling image \"typo:1\": ErrImagePull: rpc error"), "{message}");
    node.runtime.publish("typo", Program::default());
    node.pod_when("p", is_running).await;
    assert_eq!(node.seconds(), 10, "the first back-off");
    assert!(node.api.events("p").contains(&"Failed Error: ImagePullBackOff".to_string()));
}

#[tokio::test(start_paused = true)]
async fn a_failed_liveness_probe_restarts_after_its_threshold() {
    let node = FakeNode::start().await;
    let probe = json!({"exec": {"command": ["check"]}, "periodSeconds": 5, "failureThreshold": 3});
    node.create_pod("p", json!({"containers": [{"name": "a", "image": "forever:1", "livenessProbe": probe}]}));
    node.pod_when("p", is_running).await;
    node.agent.clock.sleep(seconds(7)).await;
    node.runtime.fail_exec(true);
    node.pod_when("p", |pod| restarts(pod) == 1).await;
    assert_eq!(node.seconds(), 20, "asked at 10, 15 and 20");
    let events = node.api.events("p");
    assert!(events.contains(&"Unhealthy Liveness probe failed: sick".to_string()), "{events:?}");
    assert!(events.contains(&"Killing Container a failed liveness probe, will be restarted".to_string()), "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn a_container_has_a_whole_period_to_come_up_before_a_failure_counts() {
    for field in ["livenessProbe", "startupProbe"] {
        let node = FakeNode::start().await;
        node.runtime.fail_exec(true);
        let probe = json!({"exec": {"command": ["check"]}, "periodSeconds": 5, "failureThreshold": 1});
        node.create_pod("p", json!({"containers": [{"name": "a", "image": "forever:1", field: probe}]}));
        node.pod_when("p", is_running).await;
        node.agent.clock.sleep(seconds(3)).await;
        node.runtime.fail_exec(false);
        node.agent.clock.sleep(seconds(20)).await;
        let pod = node.pod_when("p", ready).await;
        assert_eq!(restarts(&pod), 0, "{field}");
        let events = node.api.events("p");
        assert!(!events.iter().any(|event| event.starts_with("Unhealthy")), "{field}: {events:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_status_that_somebody_overwrote_is_written_again_and_conditions_of_others_stay() {
    let node = FakeNode::start().await;
    node.create_pod("p", json!({"containers": [{"name": "a", "image": "forever:1"}]}));
    let mut pod = node.pod_when("p", ready).await;
    for condition in pod["status"]["conditions"].as_array_mut().unwrap() {
        condition["status"] = "False".into();
    }
    pod["status"]["conditions"].as_array_mut().unwrap().push(json!({"type": "example.com/gate", "status": "True"}));
    pod["status"]["phase"] = "Pending".into();
    node.api.put("pods", pod);
    let pod = node.pod_when("p", |pod| ready(pod) && phase(pod) == "Running").await;
    let conditions = pod["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().all(|condition| condition["status"] == "True"), "{conditions:?}");
    assert_eq!(conditions.len(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_condition_turned_when_it_turned_even_if_the_api_hears_of_it_later() {
    let node = FakeNode::start().await;
    node.api.refuse_patches(true);
    node.create_pod("p", json!({"containers": [{"name": "a", "image": "forever:1"}]}));
    node.agent.clock.sleep(seconds(60)).await;
    let mut pod = node.api.get("pods", &ObjectKey::new("n", "p")).unwrap();
    pod["metadata"]["labels"] = json!({"wakes": "the worker"});
    node.api.put("pods", pod);
    node.agent.clock.sleep(seconds(3600)).await;
    node.api.refuse_patches(false);
    let back = node.seconds();
    let pod = node.pod_when("p", ready).await;
    assert!(node.seconds() - back <= 11, "offered every ten seconds");
    for condition in pod["status"]["conditions"].as_array().unwrap() {
        assert_eq!(condition["lastTransitionTime"], "2026-01-01T00:00:00Z", "{condition}");
    }
}

#[tokio::test(start_paused = true)]
async fn readiness_turns_with_its_probe() {
    let node = FakeNode::start().await;
    node.runtime.fail_exec(true);
    let probe = json!({"exec": {"command": ["check"]}, "periodSeconds": 2, "failureThreshold": 2});
    node.create_pod("p", json!({"containers": [{"name": "a", "image": "forever:1", "readinessProbe": probe}]}));
    let pod = node.pod_when("p", is_running).await;
    assert!(!ready(&pod));
    node.runtime.fail_exec(false);
    node.pod_when("p", ready).await;
    node.runtime.fail_exec(true);
    let pod = node.pod_when("p", |pod| !ready(pod)).await;
    assert_eq!((restarts(&pod), node.seconds()), (0, 6));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_restarts_carries_on_and_cleans_up() {
    let node = FakeNode::start().await;
    node.create_pod("stays", json!({"containers": [{"name": "a", "image": "forever:1"}]}));
    node.runtime.image("deaf", Program { ignores_term: true, ..Program::default() });
    node.create_pod("goes", json!({"containers": [{"name": "b", "image": "deaf:1"}]}));
    node.pod_when("stays", ready).await;
    node.pod_when("goes", ready).await;
    node.runtime.take_log();
    node.tasks.shutdown().await;
    node.api.remove("pods", &ObjectKey::new("n", "goes"));
    let begun = node.seconds();
    let node = node.restart().await;
    let pod = node.pod_when("stays", ready).await;
    assert_eq!(restarts(&pod), 0);
    node.create_pod("comes", json!({"containers": [{"name": "c", "image": "forever:1"}]}));
    node.pod_when("comes", ready).await;
    assert_eq!(node.seconds(), begun, "nobody waits for what is left of others");
    node.api.delete_pod("comes", 0);
    node.gone("comes").await;
    node.agent.clock.sleep(seconds(31)).await;
    let log = node.runtime.take_log();
    let of_orphan: Vec<&str> = log.iter().map(String::as_str).filter(|line| line.contains(" b ")).collect();
    assert_eq!(of_orphan, ["term b 30", "end b 137"]);
    assert_eq!(node.runtime.counts(), (1, 1));
    node.api.delete_pod("stays", 5);
    node.gone("stays").await;
    assert_eq!(node.runtime.counts(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_a_pod() {
    let node = FakeNode::start().await;
    node.create_pod(
        "p",
        json!({"activeDeadlineSeconds": 30, "restartPolicy": "Never", "containers": [{"name": "a", "image": "forever:1"}]}),
    );
    let pod = node.pod_when("p", |pod| phase(pod) == "Failed").await;
    assert_eq!((pod["status"]["reason"].as_str(), node.seconds()), (Some("DeadlineExceeded"), 30));
}

#[tokio::test(start_paused = true)]
async fn a_pod_behind_a_service_serves_on_until_the_proxies_know() {
    let node = FakeNode::start().await;
    node.create_pod("p", json!({"containers": [{"name": "a", "image": "forever:1"}]}));
    node.pod_when("p", is_running).await;
    let service = |selector| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "n"}, "spec": {"selector": selector}});
    node.api.put("services", service(json!({"app": "p"})));
    let mut pod = node.api.get("pods", &ObjectKey::new("n", "p")).unwrap();
    pod["metadata"]["labels"] = json!({"app": "p", "more": "x"});
    node.api.put("pods", pod);
    let began = node.agent.clock.now();
    node.api.delete_pod("p", 30);
    node.gone("p").await;
    assert_eq!(node.agent.clock.now().duration_since(began).as_millis(), 500);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_restarts_keeps_volumes_up_to_date() {
    let node = FakeNode::start().await;
    let config_map = |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "n"}, "data": {"k": value}});
    node.api.put("configmaps", config_map("one"));
    let volumes = json!([{"name": "v", "configMap": {"name": "c"}}]);
    node.create_pod("p", json!({"volumes": volumes, "containers": [{"name": "a", "image": "forever:1"}]}));
    node.pod_when("p", ready).await;
    let node = node.restart().await;
    node.agent.clock.sleep(seconds(1)).await;
    node.api.put("configmaps", config_map("two"));
    node.agent.clock.sleep(seconds(1)).await;
    let file = node.agent.pod_dir("uid-p").join("volumes/kubernetes.io~configmap/v/k");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "two");
}
