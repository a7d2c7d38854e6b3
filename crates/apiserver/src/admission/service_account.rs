//! Gives every pod a service account, the account's token (with the root certificate and the namespace beside it) and its
//! pull secrets.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use meta::{Object, ObjectKey, Status};
use serde_json::{Value, json};

use super::{Operation, Plugin, Review};
use crate::registry::Registry;
use crate::stored::Stored;

const DEFAULT_NAME: &str = "default";
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// An hour and a few seconds, by which token requests of this plugin are recognized.
const TOKEN_SECONDS: i64 = 3607;

/// How long the first pod of a new namespace waits for its default account to be made.
const ACCOUNT_WAIT_MAX: Duration = Duration::from_secs(1);

pub struct ServiceAccount;

#[async_trait]
impl Plugin for ServiceAccount {
    async fn admit(&self, registry: &Registry, review: &Review<'_>, pod: &mut Object) -> Result<(), Status> {
        if review.operation != Operation::Create || !review.is("", "pods", "") {
            return Ok(());
        }
        if pod.annotation(MIRROR_ANNOTATION).is_some() {
            return refuse_mirror(pod).map_err(|why| review.forbidden(Some(pod), why));
        }
        if pod.str_at(&["spec", "serviceAccountName"]).is_empty() {
            pod.set(&["spec", "serviceAccountName"], DEFAULT_NAME);
        }
        let name = pod.str_at(&["spec", "serviceAccountName"]).to_string();
        pod.set(&["spec", "serviceAccount"], name.as_str());
        let namespace = &review.target.namespace;
        let Some(account) = find(registry, &ObjectKey::new(namespace, &name)).await? else {
            let why = format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found");
            return Err(review.forbidden(Some(pod), why));
        };
        let account = account.stored_object()?;
        if wants_token(pod, &account) {
            mount_token(pod);
        }
        let secrets = account.list_at(&["imagePullSecrets"]);
        if pod.list_at(&["spec", "imagePullSecrets"]).is_empty() && !secrets.is_empty() {
            pod.set(&["spec", "imagePullSecrets"], secrets.to_vec());
        }
        Ok(())
    }
}

/// Finds the account; the default one of a namespace that was made just now is waited for.
async fn find(registry: &Registry, key: &ObjectKey) -> Result<Option<Arc<Stored>>, Status> {
    const ACCOUNTS: &str = "serviceaccounts";
    if let Some(found) = registry.cached(ACCOUNTS, key) {
        return Ok(Some(found));
    }
    if let Some(found) = registry.current(ACCOUNTS, key).await? {
        return Ok(Some(found));
    }
    if &*key.name != DEFAULT_NAME {
        return Ok(None);
    }
    Ok(registry.appears(ACCOUNTS, key, ACCOUNT_WAIT_MAX).await)
}

fn refuse_mirror(pod: &Object) -> Result<(), &'static str> {
    if !pod.str_at(&["spec", "serviceAccountName"]).is_empty() {
        return Err("a mirror pod may not reference service accounts");
    }
    let tokens = |volume: &Value| {
        let sources = volume.pointer("/projected/sources").and_then(Value::as_array);
        sources.is_some_and(|sources| sources.iter().any(|source| source.get("serviceAccountToken").is_some()))
    };
    if pod.list_at(&["spec", "volumes"]).iter().any(tokens) {
        return Err("a mirror pod may not use ServiceAccountToken volume projections");
    }
    Ok(())
}

fn wants_token(pod: &Object, account: &Object) -> bool {
    let says = |value: Option<&Value>| value.and_then(Value::as_bool);
    says(pod.get(&["spec", "automountServiceAccountToken"]))
        .or_else(|| says(account.get(&["automountServiceAccountToken"])))
        .unwrap_or(true)
}

/// Mounts the token where no container has something else at its place.
fn mount_token(pod: &mut Object) {
    let volumes = pod.list_at(&["spec", "volumes"]);
    let existing = volumes.iter().filter_map(|volume| volume.get("name")?.as_str());
    let existing = existing.into_iter().find(|name| name.starts_with(VOLUME_PREFIX)).map(String::from);
    let name = existing.clone().unwrap_or_else(|| format!("{VOLUME_PREFIX}{}", base::chance::suffix(5)));
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        let Some(Value::Array(containers)) = pod.get_mut(&["spec", list]) else { continue };
        for container in containers.iter_mut().filter_map(Value::as_object_mut) {
            let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
            if mounts.is_null() {
                *mounts = json!([]);
            }
            let Value::Array(mounts) = mounts else { continue };
            if !mounts.iter().any(|mount| mount["mountPath"] == TOKEN_PATH) {
                mounts.push(json!({"name": name, "readOnly": true, "mountPath": TOKEN_PATH}));
                mounted = true;
            }
        }
    }
    if mounted && existing.is_none() {
        let mut volumes = pod.list_at(&["spec", "volumes"]).to_vec();
        volumes.push(token_volume(&name));
        pod.set(&["spec", "volumes"], volumes);
    }
}

fn token_volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}]}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Object {
        Object::from_value(value).unwrap()
    }

    #[test]
    fn mounts_the_token_in_every_container_that_has_nothing_there() {
        let mut pod = object(json!({"spec": {"initContainers": [{"name": "i"}], "containers": [{"name": "a"},
            {"name": "b", "volumeMounts": [{"name": "own", "mountPath": TOKEN_PATH}]}]}}));
        mount_token(&mut pod);
        let pod = pod.into_value();
        let volume = pod["spec"]["volumes"][0]["name"].as_str().unwrap();
        assert_eq!(volume.len(), VOLUME_PREFIX.len() + 5);
        assert_eq!(pod["spec"]["containers"][0]["volumeMounts"][0]["name"], volume);
        assert_eq!(pod["spec"]["initContainers"][0]["volumeMounts"][0]["readOnly"], true);
        assert_eq!(pod["spec"]["containers"][1]["volumeMounts"], json!([{"name": "own", "mountPath": TOKEN_PATH}]));
        assert_eq!(pod["spec"]["volumes"][0]["projected"]["defaultMode"], 420);
    }

    #[test]
    fn the_pod_has_the_last_word_on_its_token() {
        for (pod, account, expected) in [
            (json!({}), json!({}), true),
            (json!({}), json!({"automountServiceAccountToken": false}), false),
            (
                json!({"spec": {"automountServiceAccountToken": true}}),
                json!({"automountServiceAccountToken": false}),
                true,
            ),
        ] {
            assert_eq!(wants_token(&object(pod.clone()), &object(account)), expected, "{pod}");
        }
    }
}
