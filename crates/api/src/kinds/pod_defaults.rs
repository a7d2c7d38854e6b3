//! Defaults of pods and of pod templates, as upstream's `SetDefaults_*` for everything under a `PodSpec`.

use serde_json::Value;

use super::tree::{Read, Write, empty};

/// 0644, the mode of files in volumes made from objects.
const FILE_MODE: i64 = 420;

/// What applies to every pod spec, in pods and in templates.
pub fn pod_spec(spec: &mut Value) {
    let account = spec.text("serviceAccountName").to_string();
    let account = if account.is_empty() { spec.text("serviceAccount").to_string() } else { account };
    if !account.is_empty() {
        spec.put("serviceAccountName", account.as_str());
        spec.put("serviceAccount", account);
    }
    spec.default_plain("dnsPolicy", "ClusterFirst");
    spec.default_plain("restartPolicy", "Always");
    spec.default_pointer("securityContext", empty());
    spec.default_pointer("terminationGracePeriodSeconds", 30);
    spec.default_plain("schedulerName", "default-scheduler");
    spec.items_mut("volumes").for_each(volume);
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        spec.items_mut(list).for_each(container);
    }
}

/// What applies to pods only: a template stays as its author wrote it.
pub fn pod_only(spec: &mut Value) {
    if spec.number("terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0) {
        spec.put("terminationGracePeriodSeconds", 1);
    }
    spec.default_pointer("enableServiceLinks", true);
    let host_network = spec.flag("hostNetwork");
    for list in ["initContainers", "containers"] {
        for container in spec.items_mut(list) {
            requests_from_limits(container);
            if host_network {
                container.items_mut("ports").for_each(|port| {
                    let number = port.number("containerPort").unwrap_or(0);
                    port.default_plain("hostPort", number);
                });
            }
        }
    }
}

fn requests_from_limits(container: &mut Value) {
    let Some(resources) = container.child_mut("resources") else { return };
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else { return };
    resources.default_pointer("requests", empty());
    for (name, limit) in limits {
        resources["requests"].default_pointer(&name, limit);
    }
}

fn volume(volume: &mut Value) {
    let has_source =
        volume.as_object().is_some_and(|map| map.iter().any(|(key, value)| key != "name" && !value.is_null()));
    if !has_source {
        volume.put("emptyDir", empty());
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.child_mut(source) {
            source.default_pointer("defaultMode", FILE_MODE);
        }
    }
    if let Some(path) = volume.child_mut("hostPath") {
        path.default_pointer("type", "");
    }
    if let Some(image) = volume.child_mut("image") {
        let policy = pull_policy(image.text("reference"));
        image.default_plain("pullPolicy", policy);
    }
    downward_items(volume.child_mut("downwardAPI"));
    if let Some(projected) = volume.child_mut("projected") {
        for source in projected.items_mut("sources") {
            if let Some(token) = source.child_mut("serviceAccountToken") {
                token.default_pointer("expirationSeconds", 3600);
            }
            downward_items(source.child_mut("downwardAPI"));
        }
    }
    if let Some(spec) =
        volume.get_mut("ephemeral").and_then(|it| it.get_mut("volumeClaimTemplate")).and_then(|it| it.get_mut("spec"))
    {
        spec.default_pointer("volumeMode", "Filesystem");
    }
}

fn downward_items(source: Option<&mut Value>) {
    for item in source.into_iter().flat_map(|source| source.items_mut("items")) {
        if let Some(field) = item.child_mut("fieldRef") {
            field.default_plain("apiVersion", "v1");
        }
    }
}

fn container(container: &mut Value) {
    let policy = pull_policy(container.text("image"));
    container.default_plain("imagePullPolicy", policy);
    container.default_plain("terminationMessagePath", "/dev/termination-log");
    container.default_plain("terminationMessagePolicy", "File");
    container.items_mut("ports").for_each(|port| port.default_plain("protocol", "TCP"));
    for variable in container.items_mut("env") {
        if let Some(field) = variable.child_mut("valueFrom").and_then(|from| from.child_mut("fieldRef")) {
            field.default_plain("apiVersion", "v1");
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(found) = container.child_mut(name) {
            probe(found);
        }
    }
    if let Some(lifecycle) = container.child_mut("lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(hook) = lifecycle.child_mut(hook) {
                http_get(hook);
            }
        }
    }
}

fn probe(probe: &mut Value) {
    for (field, value) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        probe.default_plain(field, value);
    }
    http_get(probe);
    if let Some(grpc) = probe.child_mut("grpc") {
        grpc.default_pointer("service", "");
    }
}

fn http_get(handler: &mut Value) {
    if let Some(http) = handler.child_mut("httpGet") {
        http.default_plain("path", "/");
        http.default_plain("scheme", "HTTP");
    }
}

/// `Always` for images that are tagged `latest`, in words or by having no tag; a digest is as good as any other tag.
fn pull_policy(image: &str) -> &'static str {
    let name = image.rsplit('/').next().unwrap_or(image);
    let latest = !name.contains('@') && name.split_once(':').is_none_or(|(_, tag)| tag == "latest");
    if latest { "Always" } else { "IfNotPresent" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_bare_pod_gets_what_upstream_gives_it() {
        let mut spec = json!({"containers": [{"name": "c", "image": "nginx", "ports": [{"containerPort": 80}],
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}},
            "readinessProbe": {"httpGet": {"port": 80}}}], "volumes": [{"name": "v"}, {"name": "s", "secret": {"secretName": "s"}}]});
        pod_spec(&mut spec);
        pod_only(&mut spec);
        assert_eq!(
            spec,
            json!({"containers": [{"name": "c", "image": "nginx", "imagePullPolicy": "Always",
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}},
                    "readinessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1,
                        "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}],
                "volumes": [{"name": "v", "emptyDir": {}}, {"name": "s", "secret": {"secretName": "s", "defaultMode": 420}}],
                "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "securityContext": {}, "enableServiceLinks": true,
                "terminationGracePeriodSeconds": 30, "schedulerName": "default-scheduler"})
        );
        let once = spec.clone();
        pod_spec(&mut spec);
        pod_only(&mut spec);
        assert_eq!(spec, once, "defaulting twice changes nothing");
    }

    #[test]
    fn only_latest_is_pulled_always() {
        for (image, expected) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("localhost:5000/nginx", "Always"),
            ("localhost:5000/nginx:1", "IfNotPresent"),
            ("nginx@sha256:abc", "IfNotPresent"),
            ("nginx:1.27", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), expected, "{image}");
        }
    }
}
