//! The client every component holds: verbs on typed views and on trees, over any [`Door`].
//!
//! Reading gives typed views; changing goes through patches, or through the tree ([`Object`]) so that fields this build does
//! not know survive.

use std::sync::Arc;

use bytes::Bytes;
use meta::{GroupVersionResource, Media, Object, ObjectKey, Status};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::door::{Body, DeleteOptions, Door, Encoded, EventStream, List, Options, PatchKind, Request, Response, Verb};
use crate::outcome::Outcome;
use crate::resource::Typed;

/// A handle on the API with one identity. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    door: Arc<dyn Door>,
}

/// A change to an object, as sent to the server.
#[derive(Clone, Debug)]
pub enum Patch {
    /// RFC 6902: a list of operations.
    Json(Value),
    /// RFC 7386: null removes, lists are replaced.
    Merge(Value),
    /// Lists are merged by their keys.
    Strategic(Value),
    /// Server-side apply as `manager`; `force` takes over fields that others own.
    Apply { object: Value, manager: String, force: bool },
}

/// What happens to the objects that the deleted one owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// A delete with its conditions.
#[derive(Clone, Debug, Default)]
pub struct Deletion {
    pub grace_period_seconds: Option<i64>,
    pub propagation: Option<Propagation>,
    /// Only this very object, not a later one of the same name.
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

/// What to list or watch.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    /// Empty for all namespaces.
    pub namespace: String,
    pub label_selector: String,
    pub field_selector: String,
    /// At most this many; 0 for all.
    pub limit: u64,
    pub continue_token: String,
    pub resource_version: String,
    /// Protobuf for those who only read ([`Options::media`]).
    pub media: Media,
}

/// A list of typed views, all as of `revision`.
#[derive(Clone, Debug)]
pub struct TypedList<K> {
    pub items: Vec<K>,
    pub revision: u64,
    pub continue_token: String,
}

impl Encoded {
    /// The tree, with `metadata.resourceVersion` filled in.
    pub fn object(&self) -> Result<Object, Status> {
        let mut object = api::codec::decode(self.media, &self.bytes)?;
        if self.revision != 0 {
            object.set_meta("resourceVersion", self.revision.to_string());
        }
        Ok(object)
    }

    /// A view of a few fields, named as in JSON: the cheapest way to read an object (see [`api::codec::view`]).
    pub fn view<V: DeserializeOwned>(&self) -> Result<V, Status> {
        api::codec::view(self.media, &self.bytes)
    }

    /// The typed view, with `metadata.resourceVersion` filled in.
    pub fn typed<K: Typed>(&self) -> Result<K, Status> {
        let mut view = K::decode(self.media, &self.bytes)?;
        if self.revision != 0 {
            view.metadata_mut().resource_version = Some(self.revision.to_string());
        }
        Ok(view)
    }
}

impl Client {
    pub fn new(door: Arc<dyn Door>) -> Self {
        Client { door }
    }

    pub fn door(&self) -> &Arc<dyn Door> {
        &self.door
    }

    /// Sends a request that answers with one object.
    pub async fn object(&self, request: Request) -> Result<Encoded, Status> {
        match self.door.send(request).await? {
            Response::Object(encoded) => Ok(encoded),
            Response::List(_) | Response::Done => Err(Status::internal("the server answered without an object")),
        }
    }

    /// Sends a request whose answer, beyond success, does not matter.
    pub async fn done(&self, request: Request) -> Result<(), Status> {
        self.door.send(request).await.map(drop)
    }

    pub async fn get<K: Typed>(&self, key: &ObjectKey) -> Result<K, Status> {
        self.object(request(Verb::Get, K::gvr(), key)).await?.typed()
    }

    /// As [`Client::get`], with "not found" as none.
    pub async fn find<K: Typed>(&self, key: &ObjectKey) -> Result<Option<K>, Status> {
        self.get(key).await.unless_gone()
    }

    /// The tree of an object of any kind.
    pub async fn get_object(&self, resource: &GroupVersionResource, key: &ObjectKey) -> Result<Object, Status> {
        self.object(request(Verb::Get, resource.clone(), key)).await?.object()
    }

    pub async fn list<K: Typed>(&self, query: &ListQuery) -> Result<TypedList<K>, Status> {
        // Views do not keep what they do not know, so nothing is lost on the way.
        let query = ListQuery { media: Media::Protobuf, ..query.clone() };
        let list = self.list_encoded(&K::gvr(), &query).await?;
        let items = list.items.iter().map(Encoded::typed).collect::<Result<_, _>>()?;
        Ok(TypedList { items, revision: list.revision, continue_token: list.continue_token })
    }

    /// A list of shared bytes of any kind.
    pub async fn list_encoded(&self, resource: &GroupVersionResource, query: &ListQuery) -> Result<List, Status> {
        match self.door.send(query.request(Verb::List, resource)).await? {
            Response::List(list) => Ok(list),
            Response::Object(_) | Response::Done => Err(Status::internal("the server answered a list with no list")),
        }
    }

    /// A watch from `query.resource_version` on, with bookmarks.
    pub async fn watch(&self, resource: &GroupVersionResource, query: &ListQuery) -> Result<EventStream, Status> {
        let mut request = query.request(Verb::Watch, resource);
        request.options.allow_watch_bookmarks = true;
        self.door.watch(request).await
    }

    /// Creates an object made from nothing; its namespace is in its metadata.
    pub async fn create<K: Typed>(&self, object: &K) -> Result<K, Status> {
        self.create_object(&K::gvr(), object.to_object()?).await?.typed()
    }

    /// Creates an object of any kind from its tree.
    pub async fn create_object(&self, resource: &GroupVersionResource, object: Object) -> Result<Encoded, Status> {
        let mut create = request(Verb::Create, resource.clone(), &ObjectKey::new(object.namespace(), ""));
        create.body = Body::Object(object);
        self.object(create).await
    }

    /// Posts to a subresource: `binding`, `eviction`, `token`.
    pub async fn create_subresource(
        &self,
        resource: &GroupVersionResource,
        key: &ObjectKey,
        subresource: &str,
        object: Object,
    ) -> Result<Response, Status> {
        let mut create = request(Verb::Create, resource.clone(), key);
        create.subresource = subresource.to_string();
        create.body = Body::Object(object);
        self.door.send(create).await
    }

    /// Replaces an object, or a subresource such as `status` (empty text for the object itself), with a tree that was read
    /// before; its `resourceVersion` makes the server refuse a lost race with a conflict.
    pub async fn update_object(
        &self,
        resource: &GroupVersionResource,
        subresource: &str,
        object: Object,
    ) -> Result<Encoded, Status> {
        let mut update = request(Verb::Update, resource.clone(), &object.key());
        update.subresource = subresource.to_string();
        update.body = Body::Object(object);
        self.object(update).await
    }

    /// Replaces `current` by itself with `change` merged into it (RFC 7386), and answers what came of it: a patch for those
    /// whose role says `update`, as upstream's controllers' do. Refused with a conflict when `current` is not the latest.
    pub async fn amend_object(
        &self,
        resource: &GroupVersionResource,
        subresource: &str,
        current: &Object,
        change: Value,
    ) -> Result<Object, Status> {
        let mut amended = Value::Object(current.0.clone());
        merge(&mut amended, change);
        let amended = Object::from_value(amended).unwrap_or_default();
        self.update_object(resource, subresource, amended).await?.object()
    }

    /// Patches an object, or a subresource of it (empty text for the object itself).
    pub async fn patch<K: Typed>(&self, key: &ObjectKey, subresource: &str, patch: Patch) -> Result<K, Status> {
        self.patch_object(&K::gvr(), key, subresource, patch).await?.typed()
    }

    /// Patches an object of any kind.
    pub async fn patch_object(
        &self,
        resource: &GroupVersionResource,
        key: &ObjectKey,
        subresource: &str,
        patch: Patch,
    ) -> Result<Encoded, Status> {
        let mut change = request(Verb::Patch, resource.clone(), key);
        change.subresource = subresource.to_string();
        let (kind, value) = match patch {
            Patch::Json(value) => (PatchKind::Json, value),
            Patch::Merge(value) => (PatchKind::Merge, value),
            Patch::Strategic(value) => (PatchKind::StrategicMerge, value),
            Patch::Apply { object, manager, force } => {
                change.options.field_manager = manager;
                change.options.force = force;
                (PatchKind::Apply, object)
            }
        };
        change.body = Body::Patch(kind, Bytes::from(serde_json::to_vec(&value).map_err(Status::internal)?));
        self.object(change).await
    }

    pub async fn delete<K: Typed>(&self, key: &ObjectKey, deletion: Deletion) -> Result<(), Status> {
        self.delete_object(&K::gvr(), key, deletion).await
    }

    /// Deletes an object of any kind.
    pub async fn delete_object(
        &self,
        resource: &GroupVersionResource,
        key: &ObjectKey,
        deletion: Deletion,
    ) -> Result<(), Status> {
        let mut delete = request(Verb::Delete, resource.clone(), key);
        delete.body = Body::Delete(deletion.into());
        self.done(delete).await
    }

    /// Deletes everything that `query` selects.
    pub async fn delete_collection(
        &self,
        resource: &GroupVersionResource,
        query: &ListQuery,
        deletion: Deletion,
    ) -> Result<(), Status> {
        let mut delete = query.request(Verb::DeleteCollection, resource);
        delete.body = Body::Delete(deletion.into());
        self.done(delete).await
    }
}

impl ListQuery {
    /// Everything in all namespaces.
    pub fn all() -> Self {
        Self::default()
    }

    pub fn in_namespace(namespace: &str) -> Self {
        ListQuery { namespace: namespace.to_string(), ..Self::default() }
    }

    pub(crate) fn request(&self, verb: Verb, resource: &GroupVersionResource) -> Request {
        let options = Options {
            label_selector: self.label_selector.clone(),
            field_selector: self.field_selector.clone(),
            resource_version: self.resource_version.clone(),
            limit: self.limit,
            continue_token: self.continue_token.clone(),
            media: self.media,
            ..Options::default()
        };
        Request { options, ..request(verb, resource.clone(), &ObjectKey::new(&self.namespace, "")) }
    }
}

impl From<Deletion> for DeleteOptions {
    fn from(deletion: Deletion) -> Self {
        let policy = deletion.propagation.map(|propagation| match propagation {
            Propagation::Background => "Background",
            Propagation::Foreground => "Foreground",
            Propagation::Orphan => "Orphan",
        });
        DeleteOptions {
            grace_period_seconds: deletion.grace_period_seconds,
            propagation_policy: policy.map(String::from),
            precondition_uid: deletion.uid,
            precondition_resource_version: deletion.resource_version,
            ..DeleteOptions::default()
        }
    }
}

/// RFC 7386: maps are merged, null removes, everything else replaces.
fn merge(into: &mut Value, change: Value) {
    let Value::Object(changes) = change else {
        *into = change;
        return;
    };
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    let Some(map) = into.as_object_mut() else { return };
    for (key, value) in changes {
        if value.is_null() {
            map.remove(&key);
        } else {
            merge(map.entry(key).or_insert(Value::Null), value);
        }
    }
}

fn request(verb: Verb, resource: GroupVersionResource, key: &ObjectKey) -> Request {
    Request {
        verb,
        resource,
        subresource: String::new(),
        namespace: key.namespace.to_string(),
        name: key.name.to_string(),
        options: Options::default(),
        body: Body::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn merging_removes_by_null_and_replaces_lists() {
        let mut object = json!({"a": {"b": 1, "c": [1, 2]}, "d": "x"});
        merge(&mut object, json!({"a": {"b": null, "c": [3]}, "e": {"f": null, "g": 1}}));
        assert_eq!(object, json!({"a": {"c": [3]}, "d": "x", "e": {"g": 1}}));
    }
}
