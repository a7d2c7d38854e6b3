//! The files of configMap, secret, downwardAPI and projected volumes, gathered before anything is written.

use base::Timestamp;
use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, KeyToPath, Pod, ProjectedVolumeSource, Volume, VolumeProjection,
};
use meta::ObjectKey;

use super::atomic_writer::{File, Files};
use crate::agent::Agent;
use crate::environment::Data;
use crate::environment::fields;
use crate::pod;
use crate::references::Kind;
use crate::waker::Waker;

/// The permissions of files for which the pod says nothing.
const MODE: i32 = 0o644;

/// What a volume's files are, and when to look again although nothing changed (a token to be renewed).
#[derive(Debug, Default)]
pub struct Gathered {
    pub files: Files,
    pub refresh_at: Option<Timestamp>,
}

/// For whom files are gathered.
pub struct For<'a> {
    pub agent: &'a Agent,
    pub pod: &'a Pod,
    pub waker: &'a Waker,
    pub pod_ips: &'a [String],
}

/// One object or field list of a volume, however the volume names it.
struct Source<'a> {
    items: &'a [KeyToPath],
    optional: bool,
    mode: i32,
}

impl For<'_> {
    /// None when the volume is of another sort.
    pub async fn gather(&self, volume: &Volume) -> Option<Result<Gathered, String>> {
        let mut gathered = Gathered::default();
        let outcome = if let Some(map) = &volume.config_map {
            let source = Source {
                items: map.items.as_deref().unwrap_or_default(),
                optional: map.optional == Some(true),
                mode: map.default_mode.unwrap_or(MODE),
            };
            self.object(Kind::ConfigMap, &map.name, source, &mut gathered).await
        } else if let Some(secret) = &volume.secret {
            let source = Source {
                items: secret.items.as_deref().unwrap_or_default(),
                optional: secret.optional == Some(true),
                mode: secret.default_mode.unwrap_or(MODE),
            };
            let name = secret.secret_name.as_deref().unwrap_or_default();
            self.object(Kind::Secret, name, source, &mut gathered).await
        } else if let Some(downward) = &volume.downward_api {
            let mode = downward.default_mode.unwrap_or(MODE);
            self.downward(downward.items.as_deref().unwrap_or_default(), mode, &mut gathered)
        } else if let Some(projected) = &volume.projected {
            self.projected(projected, &mut gathered).await
        } else {
            return None;
        };
        Some(outcome.map(|()| gathered))
    }

    async fn projected(&self, volume: &ProjectedVolumeSource, gathered: &mut Gathered) -> Result<(), String> {
        let mode = volume.default_mode.unwrap_or(MODE);
        for source in volume.sources.iter().flatten() {
            self.projection(source, mode, gathered).await?;
        }
        Ok(())
    }

    async fn projection(&self, from: &VolumeProjection, mode: i32, gathered: &mut Gathered) -> Result<(), String> {
        if let Some(map) = &from.config_map {
            let items = map.items.as_deref().unwrap_or_default();
            let source = Source { items, optional: map.optional == Some(true), mode };
            return self.object(Kind::ConfigMap, &map.name, source, gathered).await;
        }
        if let Some(secret) = &from.secret {
            let items = secret.items.as_deref().unwrap_or_default();
            let source = Source { items, optional: secret.optional == Some(true), mode };
            return self.object(Kind::Secret, &secret.name, source, gathered).await;
        }
        if let Some(downward) = &from.downward_api {
            return self.downward(downward.items.as_deref().unwrap_or_default(), mode, gathered);
        }
        if let Some(token) = &from.service_account_token {
            let issued = self.agent.tokens.get(self.pod, token).await?;
            let user = sole_user(self.pod);
            let fs_group = pod::spec(self.pod).security_context.as_ref().and_then(|context| context.fs_group);
            // A token is for its pod alone where its pod can be told by a user or a group.
            let mode = if user.is_some() || fs_group.is_some() { 0o600 } else { mode };
            let file = File { bytes: issued.text.into_bytes(), mode: bits(mode), user };
            gathered.files.insert(token.path.clone(), file);
            gathered.refresh_at = Some(gathered.refresh_at.map_or(issued.refresh_at, |at| at.min(issued.refresh_at)));
            return Ok(());
        }
        Err("this kind of projected volume source is not supported yet".to_string())
    }

    async fn object(&self, kind: Kind, name: &str, source: Source<'_>, gathered: &mut Gathered) -> Result<(), String> {
        let key = ObjectKey::new(pod::namespace(self.pod), name);
        let found = self.agent.references.get(kind, &key, pod::uid(self.pod), self.waker).await?;
        match found {
            Some(payload) => select(&payload.data, &source, gathered),
            None if source.optional => Ok(()),
            None => Err(format!("{} {name:?} not found", kind.word())),
        }
    }

    fn downward(&self, items: &[DownwardAPIVolumeFile], mode: i32, gathered: &mut Gathered) -> Result<(), String> {
        let node = self.agent.downward_node(self.pod_ips);
        for item in items {
            let text = match (&item.field_ref, &item.resource_field_ref) {
                (Some(field), _) => fields::pod_field(self.pod, &field.field_path, &node)?,
                (None, Some(resource)) => fields::resource_field(self.pod, resource, None, &node)?,
                (None, None) => continue,
            };
            let mode = bits(item.mode.unwrap_or(mode));
            gathered.files.insert(item.path.clone(), File { bytes: text.into_bytes(), mode, user: None });
        }
        Ok(())
    }
}

/// All keys, or those the items name.
fn select(data: &Data, source: &Source<'_>, gathered: &mut Gathered) -> Result<(), String> {
    let file = |bytes: &[u8], mode: i32| File { bytes: bytes.to_vec(), mode: bits(mode), user: None };
    if source.items.is_empty() {
        gathered.files.extend(data.iter().map(|(key, bytes)| (key.clone(), file(bytes, source.mode))));
        return Ok(());
    }
    for item in source.items {
        match data.get(&item.key) {
            Some(bytes) => {
                gathered.files.insert(item.path.clone(), file(bytes, item.mode.unwrap_or(source.mode)));
            }
            None if source.optional => {}
            None => return Err(format!("references non-existent config key: {}", item.key)),
        }
    }
    Ok(())
}

fn bits(mode: i32) -> u32 {
    u32::try_from(mode).unwrap_or(0) & 0o7777
}

/// The user that all containers run as, if the spec says so.
fn sole_user(pod: &Pod) -> Option<u32> {
    let of_pod = pod::spec(pod).security_context.as_ref().and_then(|context| context.run_as_user);
    let mut users = pod::all_containers(pod)
        .into_iter()
        .map(|(_, container)| container.security_context.as_ref().and_then(|context| context.run_as_user).or(of_pod));
    let first = users.next()??;
    users.all(|user| user == Some(first)).then_some(u32::try_from(first).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn items_choose_keys_and_modes() {
        let data = Data::from([("a".into(), b"1".to_vec()), ("b".into(), b"2".to_vec())]);
        let items: Vec<KeyToPath> =
            serde_json::from_value(json!([{"key": "b", "path": "x/y", "mode": 256}, {"key": "gone", "path": "z"}]))
                .unwrap();
        let chosen = |items: &[KeyToPath], optional| {
            let mut gathered = Gathered::default();
            select(&data, &Source { items, optional, mode: MODE }, &mut gathered).map(|()| gathered.files)
        };
        assert_eq!(chosen(&[], false).unwrap().len(), 2);
        assert_eq!(chosen(&items, false).unwrap_err(), "references non-existent config key: gone");
        let files = chosen(&items, true).unwrap();
        assert_eq!((files.len(), files["x/y"].mode), (1, 0o400));
    }

    #[test]
    fn one_user_for_all_containers_owns_the_token() {
        for (spec, user) in [
            (json!({"containers": [{"name": "a"}]}), None),
            (json!({"securityContext": {"runAsUser": 5}, "containers": [{"name": "a"}, {"name": "b"}]}), Some(5)),
            (json!({"containers": [{"name": "a", "securityContext": {"runAsUser": 5}}, {"name": "b"}]}), None),
        ] {
            assert_eq!(sole_user(&crate::pod::tests::pod_of(spec.clone())), user, "{spec}");
        }
    }
}
