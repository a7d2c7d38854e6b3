//! The contract between a component and the API: one verb on one object or collection.
//!
//! Two things implement [`Door`]: the API server itself (a call that enters its chain right after authentication) and the
//! HTTPS client. Objects cross it encoded and shared, never copied: a list of thousands is a vector of reference counts.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
pub use meta::Media;
use meta::{GroupVersionResource, Object, ObjectKey, Status};

/// What is to be done, in the words of authorization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    /// The word that RBAC rules, audit records and metrics use.
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
        }
    }
}

/// One request on one resource. Empty text stands for "none" in `subresource`, `namespace` and `name`.
#[derive(Clone, Debug)]
pub struct Request {
    pub verb: Verb,
    pub resource: GroupVersionResource,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub options: Options,
    pub body: Body,
}

/// The query parameters that all verbs share, parsed. Defaults mean "not given".
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    pub label_selector: String,
    pub field_selector: String,
    /// As given: absent, `0`, or a revision.
    pub resource_version: String,
    /// `Exact` or `NotOlderThan`
    pub resource_version_match: String,
    /// At most this many items of a list; 0 for all.
    pub limit: u64,
    pub continue_token: String,
    /// `timeoutSeconds` of lists and watches; 0 for the server's default.
    pub timeout_seconds: u64,
    pub allow_watch_bookmarks: bool,
    pub send_initial_events: Option<bool>,
    pub dry_run: bool,
    pub field_manager: String,
    /// `Ignore`, `Warn` or `Strict`
    pub field_validation: String,
    /// Take conflicting fields over in an apply patch.
    pub force: bool,
    /// The encoding that lists and watches are wanted in. A wish: in process objects come as they are stored, and a server that
    /// has no protobuf of a kind sends JSON. Protobuf is a fraction of the work, but loses fields that this build does not know.
    pub media: Media,
}

#[derive(Clone, Debug, Default)]
pub enum Body {
    #[default]
    None,
    /// A tree, for create and update and for subresources such as `binding`.
    Object(Object),
    Patch(PatchKind, Bytes),
    Delete(DeleteOptions),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PatchKind {
    Json,
    Merge,
    StrategicMerge,
    /// Server-side apply; the bytes are YAML or JSON.
    Apply,
}

impl PatchKind {
    pub fn media_type(self) -> &'static str {
        match self {
            PatchKind::Json => "application/json-patch+json",
            PatchKind::Merge => "application/merge-patch+json",
            PatchKind::StrategicMerge => "application/strategic-merge-patch+json",
            PatchKind::Apply => "application/apply-patch+yaml",
        }
    }

    pub fn from_media_type(media_type: &str) -> Option<Self> {
        [PatchKind::Json, PatchKind::Merge, PatchKind::StrategicMerge, PatchKind::Apply]
            .into_iter()
            .find(|kind| kind.media_type() == media_type)
    }
}

/// The options of a delete, from the query or the body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    pub grace_period_seconds: Option<i64>,
    /// `Foreground`, `Background` or `Orphan`
    pub propagation_policy: Option<String>,
    /// The old form of the policy: true orphans, false does not.
    pub orphan_dependents: Option<bool>,
    pub precondition_uid: Option<String>,
    pub precondition_resource_version: Option<String>,
    pub ignore_store_read_error: bool,
}

/// One object as bytes, shared with whoever else holds it. Cheap to clone.
///
/// `revision` is authoritative for `metadata.resourceVersion`: bytes that come straight from the store do not carry it, bytes
/// from the network do, and decoding fills it in either way.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    pub key: ObjectKey,
    /// 0 when the object is not stored (a review, a dry run).
    pub revision: u64,
    pub media: Media,
    pub bytes: Bytes,
}

/// A list or one page of it. All items are as of `revision`.
#[derive(Clone, Debug, Default)]
pub struct List {
    pub items: Vec<Encoded>,
    pub revision: u64,
    /// Empty on the last page.
    pub continue_token: String,
    pub remaining: Option<u64>,
}

#[derive(Clone, Debug)]
pub enum Response {
    Object(Encoded),
    List(List),
    /// Success with nothing to show, as after most deletes of lists.
    Done,
}

/// What a watch delivers, in order and without gaps. The stream ends after an error, and ends silently only when the server
/// closes it (a time limit); the watcher then goes on from the last revision it saw.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    Added(Encoded),
    Modified(Encoded),
    Deleted(Encoded),
    /// Everything up to `revision` has been delivered.
    Bookmark {
        revision: u64,
        /// The last of the initial events that `send_initial_events` asked for.
        initial_events_end: bool,
    },
    Error(Status),
}

/// Dropping the stream ends the watch.
pub type EventStream = BoxStream<'static, WatchEvent>;

/// A way to the API, with an identity behind it.
#[async_trait]
pub trait Door: Send + Sync + 'static {
    /// Any verb but watch.
    async fn send(&self, request: Request) -> Result<Response, Status>;

    /// A watch on a collection (or one object, by a field selector on its name).
    async fn watch(&self, request: Request) -> Result<EventStream, Status>;
}
