//! HorizontalPodAutoscaler in autoscaling v1 and v2. What v1 has no field for travels in annotations, in v1's own shape of
//! metrics, so that an update through v1 loses nothing.

use meta::Object;
use serde_json::{Map, Value, json};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
/// Percent of the requested CPU that v1 aims at when nothing is said.
const DEFAULT_CPU_PERCENT: i64 = 80;

pub fn to_v1(autoscaler: &mut Object) {
    for annotation in [METRICS, CURRENT_METRICS, BEHAVIOR, CONDITIONS] {
        autoscaler.remove(&["metadata", "annotations", annotation]);
    }
    let metrics = take_list(autoscaler, &["spec", "metrics"]);
    let (cpu, others): (Vec<Value>, Vec<Value>) =
        metrics.into_iter().partition(|metric| cpu_percent(metric, "target").is_some());
    if let Some(percent) = cpu.first().and_then(|metric| cpu_percent(metric, "target")) {
        autoscaler.set(&["spec", "targetCPUUtilizationPercentage"], percent);
    }
    annotate(autoscaler, METRICS, others.iter().map(|metric| flatten(metric, "target")).collect());
    let current = take_list(autoscaler, &["status", "currentMetrics"]);
    if let Some(percent) = current.iter().find_map(|metric| cpu_percent(metric, "current")) {
        autoscaler.set(&["status", "currentCPUUtilizationPercentage"], percent);
    }
    annotate(autoscaler, CURRENT_METRICS, current.iter().map(|metric| flatten(metric, "current")).collect());
    let conditions = take_list(autoscaler, &["status", "conditions"]);
    annotate(autoscaler, CONDITIONS, conditions);
    if let Some(behavior) = autoscaler.remove(&["spec", "behavior"]) {
        let text = recased(behavior, |first| first.to_ascii_uppercase()).to_string();
        autoscaler.set(&["metadata", "annotations", BEHAVIOR], text);
    }
}

pub fn to_v2(autoscaler: &mut Object) {
    let mut metrics = annotated_list(autoscaler, METRICS);
    metrics = metrics.iter().map(|metric| nest(metric, "target")).collect();
    if let Some(percent) = autoscaler.remove(&["spec", "targetCPUUtilizationPercentage"]) {
        metrics.push(cpu_metric("target", json!({"type": "Utilization", "averageUtilization": percent})));
    }
    if metrics.is_empty() {
        let target = json!({"type": "Utilization", "averageUtilization": DEFAULT_CPU_PERCENT});
        metrics.push(cpu_metric("target", target));
    }
    autoscaler.set(&["spec", "metrics"], metrics);
    let mut current: Vec<Value> =
        annotated_list(autoscaler, CURRENT_METRICS).iter().map(|metric| nest(metric, "current")).collect();
    let percent = autoscaler.remove(&["status", "currentCPUUtilizationPercentage"]);
    if let Some(percent) = percent.filter(|_| current.is_empty()) {
        current.push(cpu_metric("current", json!({"averageUtilization": percent})));
    }
    if !current.is_empty() {
        autoscaler.set(&["status", "currentMetrics"], current);
    }
    let conditions = annotated_list(autoscaler, CONDITIONS);
    if !conditions.is_empty() {
        autoscaler.set(&["status", "conditions"], conditions);
    }
    let behavior = autoscaler.annotation(BEHAVIOR).and_then(|text| serde_json::from_str::<Value>(text).ok());
    if let Some(behavior @ Value::Object(_)) = behavior {
        autoscaler.set(&["spec", "behavior"], recased(behavior, |first| first.to_ascii_lowercase()));
    }
    for annotation in [METRICS, CURRENT_METRICS, BEHAVIOR, CONDITIONS] {
        autoscaler.remove(&["metadata", "annotations", annotation]);
    }
    if autoscaler.get(&["metadata", "annotations"]).and_then(Value::as_object).is_some_and(Map::is_empty) {
        autoscaler.set_meta("annotations", Value::Null);
    }
}

fn take_list(autoscaler: &mut Object, path: &[&str]) -> Vec<Value> {
    match autoscaler.remove(path) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

fn annotate(autoscaler: &mut Object, annotation: &str, items: Vec<Value>) {
    if !items.is_empty() {
        autoscaler.set(&["metadata", "annotations", annotation], Value::Array(items).to_string());
    }
}

fn annotated_list(autoscaler: &Object, annotation: &str) -> Vec<Value> {
    let text = autoscaler.annotation(annotation).unwrap_or_default();
    serde_json::from_str(text).unwrap_or_default()
}

fn cpu_metric(half: &str, value: Value) -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu", half: value}})
}

fn cpu_percent(metric: &Value, half: &str) -> Option<i64> {
    let resource = metric.get("resource").filter(|_| metric.get("type").and_then(Value::as_str) == Some("Resource"))?;
    let percent = resource.get(half)?.get("averageUtilization")?.as_i64()?;
    (resource.get("name").and_then(Value::as_str) == Some("cpu")).then_some(percent)
}

/// The name of a field in v1 (`?` stands for `target` or `current`) and its place in v2.
type Renamed = (&'static str, &'static [&'static str]);

/// The fields of each source of metrics.
const SOURCES: [(&str, &[Renamed]); 5] = [
    (
        "object",
        &[
            ("target", &["describedObject"]),
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
            ("?Value", &["?", "value"]),
            ("averageValue", &["?", "averageValue"]),
        ],
    ),
    (
        "pods",
        &[
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
            ("?AverageValue", &["?", "averageValue"]),
        ],
    ),
    (
        "resource",
        &[
            ("name", &["name"]),
            ("?AverageUtilization", &["?", "averageUtilization"]),
            ("?AverageValue", &["?", "averageValue"]),
        ],
    ),
    (
        "containerResource",
        &[
            ("name", &["name"]),
            ("container", &["container"]),
            ("?AverageUtilization", &["?", "averageUtilization"]),
            ("?AverageValue", &["?", "averageValue"]),
        ],
    ),
    (
        "external",
        &[
            ("metricName", &["metric", "name"]),
            ("metricSelector", &["metric", "selector"]),
            ("?Value", &["?", "value"]),
            ("?AverageValue", &["?", "averageValue"]),
        ],
    ),
];

/// A metric of v2 in v1's shape.
fn flatten(metric: &Value, half: &str) -> Value {
    let mut flat = Map::new();
    if let Some(kind) = metric.get("type") {
        flat.insert("type".into(), kind.clone());
    }
    for (source, fields) in SOURCES {
        let Some(given) = metric.get(source).and_then(Value::as_object) else { continue };
        let given = Object(given.clone());
        let mut out = Map::new();
        for (name, place) in fields {
            let place: Vec<&str> = place.iter().map(|step| if *step == "?" { half } else { step }).collect();
            if let Some(value) = given.get(&place) {
                out.insert(name.replace('?', half), value.clone());
            }
        }
        flat.insert(source.into(), Value::Object(out));
    }
    Value::Object(flat)
}

/// A metric of v1 in v2's shape.
fn nest(metric: &Value, half: &str) -> Value {
    let mut nested = Map::new();
    if let Some(kind) = metric.get("type") {
        nested.insert("type".into(), kind.clone());
    }
    for (source, fields) in SOURCES {
        let Some(given) = metric.get(source).and_then(Value::as_object) else { continue };
        let mut out = Object::default();
        for (name, place) in fields {
            let place: Vec<&str> = place.iter().map(|step| if *step == "?" { half } else { step }).collect();
            if let Some(value) = given.get(&name.replace('?', half)) {
                out.set(&place, value.clone());
            }
        }
        if half == "target" {
            let kind = match () {
                () if out.get(&[half, "averageUtilization"]).is_some() => "Utilization",
                () if out.get(&[half, "averageValue"]).is_some() => "AverageValue",
                () => "Value",
            };
            out.set(&[half, "type"], kind);
        }
        nested.insert(source.into(), out.into_value());
    }
    Value::Object(nested)
}

/// The annotation of the behavior has its names with a capital first letter.
fn recased(value: Value, case: fn(&char) -> char) -> Value {
    match value {
        Value::Object(map) => {
            let rename = |key: String| {
                let mut letters = key.chars();
                let first = letters.next().map(|first| case(&first));
                first.into_iter().chain(letters).collect::<String>()
            };
            let kept = map.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (rename(key), recased(value, case))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(|item| recased(item, case)).collect()),
        other => other,
    }
}
