//! What a pod's specification refers to.

use std::collections::HashSet;

use meta::{Object, ObjectKey};
use serde_json::Value;

/// A thing that a pod needs to run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    Secret(ObjectKey),
    ConfigMap(ObjectKey),
    Claim(ObjectKey),
    ServiceAccount(ObjectKey),
    ResourceClaim(ObjectKey),
}

/// Where volume sources name secrets, each as a path of fields.
const VOLUME_SECRETS: [&[&str]; 9] = [
    &["secret", "secretName"],
    &["azureFile", "secretName"],
    &["cephfs", "secretRef", "name"],
    &["cinder", "secretRef", "name"],
    &["csi", "nodePublishSecretRef", "name"],
    &["flexVolume", "secretRef", "name"],
    &["iscsi", "secretRef", "name"],
    &["rbd", "secretRef", "name"],
    &["scaleIO", "secretRef", "name"],
];

/// Where volumes of a PersistentVolume name secrets, as maps with `name` and `namespace`.
const PERSISTENT_SECRETS: [&[&str]; 4] = [
    &["csi", "nodePublishSecretRef"],
    &["csi", "nodeStageSecretRef"],
    &["csi", "nodeExpandSecretRef"],
    &["flexVolume", "secretRef"],
];

/// Everything the pod needs, each once.
pub fn references_of_pod(pod: &Object) -> Vec<Reference> {
    let mut found = Found { namespace: pod.namespace(), references: HashSet::new() };
    let account = pod.str_at(&["spec", "serviceAccountName"]);
    found.add(Reference::ServiceAccount, Some(account));
    for secret in pod.list_at(&["spec", "imagePullSecrets"]) {
        found.add(Reference::Secret, text(secret, &["name"]));
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in pod.list_at(&["spec", list]) {
            found.container(container);
        }
    }
    for volume in pod.list_at(&["spec", "volumes"]) {
        found.volume(volume, pod.name());
    }
    for status in pod.list_at(&["status", "resourceClaimStatuses"]) {
        found.add(Reference::ResourceClaim, text(status, &["resourceClaimName"]));
    }
    for claim in pod.list_at(&["spec", "resourceClaims"]) {
        found.add(Reference::ResourceClaim, text(claim, &["resourceClaimName"]));
    }
    found.references.into_iter().collect()
}

/// The claim a PersistentVolume is bound to, with the secrets its driver needs.
pub fn claims_of_volume(volume: &Object) -> Option<(ObjectKey, HashSet<Reference>)> {
    let claim =
        ObjectKey::new(volume.str_at(&["spec", "claimRef", "namespace"]), volume.str_at(&["spec", "claimRef", "name"]));
    if claim.name.is_empty() {
        return None;
    }
    let spec = volume.get(&["spec"]).unwrap_or(&Value::Null);
    let secret = |path: &&[&str]| {
        let reference = at(spec, path)?;
        let namespace = text(reference, &["namespace"]).unwrap_or(&claim.namespace);
        Some(Reference::Secret(ObjectKey::new(namespace, text(reference, &["name"])?)))
    };
    let secrets = PERSISTENT_SECRETS.iter().filter_map(secret).collect();
    Some((claim, secrets))
}

struct Found<'a> {
    namespace: &'a str,
    references: HashSet<Reference>,
}

impl Found<'_> {
    fn add(&mut self, kind: impl Fn(ObjectKey) -> Reference, name: Option<&str>) {
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            self.references.insert(kind(ObjectKey::new(self.namespace, name)));
        }
    }

    fn container(&mut self, container: &Value) {
        for source in list(container, &["envFrom"]) {
            self.add(Reference::Secret, text(source, &["secretRef", "name"]));
            self.add(Reference::ConfigMap, text(source, &["configMapRef", "name"]));
        }
        for variable in list(container, &["env"]) {
            self.add(Reference::Secret, text(variable, &["valueFrom", "secretKeyRef", "name"]));
            self.add(Reference::ConfigMap, text(variable, &["valueFrom", "configMapKeyRef", "name"]));
        }
    }

    fn volume(&mut self, volume: &Value, pod: &str) {
        for path in VOLUME_SECRETS {
            self.add(Reference::Secret, text(volume, path));
        }
        self.add(Reference::ConfigMap, text(volume, &["configMap", "name"]));
        self.add(Reference::Claim, text(volume, &["persistentVolumeClaim", "claimName"]));
        if let (Some(_), Some(name)) = (volume.get("ephemeral"), text(volume, &["name"])) {
            self.add(Reference::Claim, Some(&format!("{pod}-{name}")));
        }
        for source in list(volume, &["projected", "sources"]) {
            self.add(Reference::Secret, text(source, &["secret", "name"]));
            self.add(Reference::ConfigMap, text(source, &["configMap", "name"]));
        }
    }
}

fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, step| value.get(step))
}

fn text<'a>(value: &'a Value, path: &[&str]) -> Option<&'a str> {
    at(value, path)?.as_str()
}

fn list<'a>(value: &'a Value, path: &[&str]) -> impl Iterator<Item = &'a Value> {
    at(value, path).and_then(Value::as_array).into_iter().flatten()
}
