//! Which objects belong to an owner: adoption of orphans that its selector matches, release of its own that no longer match.
//!
//! ```text
//! controlled by owner,    matches  -> mine
//! controlled by owner,    does not -> release (drop the owner reference)
//! controlled by another            -> not mine
//! controlled by nobody,   matches  -> adopt, unless either is being deleted
//! ```

use client::{Client, Outcome, Patch, Typed};
use meta::{GroupVersionKind, GroupVersionResource, LabelSelector, ObjectKey, Status};
use serde_json::{Value, json};

use crate::views::Meta;

/// The object that claims others.
pub struct Claimant<'a> {
    pub gvk: GroupVersionKind,
    pub resource: GroupVersionResource,
    pub key: &'a ObjectKey,
    pub uid: &'a str,
    pub deleting: bool,
    pub selector: &'a LabelSelector,
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Verdict {
    Mine,
    Adopt,
    Release,
    NotMine,
}

impl<'a> Claimant<'a> {
    pub fn of<K: Typed>(owner: &'a K, key: &'a ObjectKey, selector: &'a LabelSelector) -> Self {
        let metadata = owner.metadata();
        Claimant {
            gvk: K::gvk(),
            resource: K::gvr(),
            key,
            uid: metadata.uid.as_deref().unwrap_or_default(),
            deleting: metadata.deletion_timestamp.is_some(),
            selector,
        }
    }

    /// What is to be done about `object`. Pure.
    pub fn judge(&self, object: &Meta) -> Verdict {
        let matches = self.selector.matches_labels(|key| object.label(key));
        match &object.controller {
            Some(owner) if owner.uid != self.uid => Verdict::NotMine,
            Some(_) if matches => Verdict::Mine,
            Some(_) if self.deleting => Verdict::NotMine,
            Some(_) => Verdict::Release,
            None if matches && !self.deleting && object.deleting.is_none() => Verdict::Adopt,
            None => Verdict::NotMine,
        }
    }

    /// The owner reference that an object of ours carries.
    pub fn owner_reference(&self) -> Value {
        controller_reference(&self.gvk, &self.key.name, self.uid)
    }

    async fn is_still_there(&self, client: &Client) -> Result<bool, Status> {
        let owner = client.get_object(&self.resource, self.key).await.unless_gone()?;
        Ok(owner.is_some_and(|owner| owner.uid() == self.uid && !owner.is_being_deleted()))
    }

    /// Carries out a verdict. True when the object is ours afterwards.
    ///
    /// Before an adoption the owner must be known to be alive and the same; that is asked of the API, not of the cache.
    pub async fn settle(
        &self,
        client: &Client,
        resource: &GroupVersionResource,
        object: &Meta,
    ) -> Result<bool, Status> {
        match self.judge(object) {
            Verdict::Mine => Ok(true),
            Verdict::NotMine => Ok(false),
            Verdict::Adopt => {
                if !self.is_still_there(client).await? {
                    return Ok(false);
                }
                let patch = json!({"metadata": {"uid": object.uid, "ownerReferences": [self.owner_reference()]}});
                gone_is_fine(client.patch_object(resource, &object.key, "", Patch::Strategic(patch)).await)
            }
            Verdict::Release => {
                let patch = json!({"metadata": {"uid": object.uid,
                    "ownerReferences": [{"$patch": "delete", "uid": self.uid}]}});
                gone_is_fine(client.patch_object(resource, &object.key, "", Patch::Strategic(patch)).await)?;
                Ok(false)
            }
        }
    }
}

/// The owner reference of an object that `name` controls.
pub fn controller_reference(gvk: &GroupVersionKind, name: &str, uid: &str) -> Value {
    json!({"apiVersion": gvk.api_version(), "kind": &*gvk.kind, "name": name, "uid": uid, "controller": true,
           "blockOwnerDeletion": true})
}

/// The object may be gone, or replaced by another of the same name, by the time the patch arrives.
fn gone_is_fine<T>(outcome: Result<T, Status>) -> Result<bool, Status> {
    match outcome {
        Ok(_) => Ok(true),
        Err(status) if status.is_not_found() || status.is_conflict() || status.code == 422 => Ok(false),
        Err(status) => Err(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::Owner;

    #[test]
    fn judges_by_owner_selector_and_deletion() {
        let selector = LabelSelector::from_labels([("app", "a")]);
        let key = ObjectKey::new("n", "r");
        let gvk = GroupVersionKind::new("apps", "v1", "ReplicaSet");
        let resource = GroupVersionResource::new("apps", "v1", "replicasets");
        let owned = |uid: &str| Some(Owner { uid: uid.into(), ..Owner::default() });
        let object = |app: &str, controller, deleting: bool| Meta {
            labels: [("app".to_string(), app.to_string())].into(),
            controller,
            deleting: deleting.then(base::Timestamp::now),
            ..Meta::default()
        };
        for (object, deleting, expected) in [
            (object("a", owned("me"), false), false, Verdict::Mine),
            (object("b", owned("me"), false), false, Verdict::Release),
            (object("b", owned("me"), false), true, Verdict::NotMine),
            (object("a", owned("other"), false), false, Verdict::NotMine),
            (object("a", None, false), false, Verdict::Adopt),
            (object("a", None, true), false, Verdict::NotMine),
            (object("a", None, false), true, Verdict::NotMine),
            (object("b", None, false), false, Verdict::NotMine),
        ] {
            let (gvk, resource) = (gvk.clone(), resource.clone());
            let claimant = Claimant { gvk, resource, key: &key, uid: "me", deleting, selector: &selector };
            assert_eq!(claimant.judge(&object), expected, "{object:?} {deleting}");
        }
    }
}
