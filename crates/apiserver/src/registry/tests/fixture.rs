//! A registry over an embedded store in a folder of its own.

use std::sync::Arc;

use base::{Clock, Tasks};
use client::Verb;
use client::door::{DeleteOptions, PatchKind};
use meta::{Object, Status};
use serde_json::{Value, json};
use store::{Embedded, Options};
use tempfile::TempDir;

use crate::authz::{Authorizer, Privileged};
use crate::context::{Context, Identity};
use crate::registry::{Config, Outcome, Registry, Target};
use crate::subresources::token::{TokenClaims, TokenSigner};
use crate::transformer::Seal;

pub struct Fixture {
    pub registry: Arc<Registry>,
    pub store: Arc<dyn store::Store>,
    tasks: Tasks,
    dir: Arc<TempDir>,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

pub fn object(value: Value) -> Object {
    Object::from_value(value).unwrap()
}

pub fn admin(verb: Verb) -> Context {
    Context::of(Identity::new("admin", &["system:masters"]), verb)
}

impl Fixture {
    pub async fn new() -> Self {
        let (dir, tasks, clock) = (tempfile::tempdir().unwrap(), Tasks::root(), Clock::system());
        let store = Embedded::open(Options::new(dir.path(), clock.clone(), tasks.child())).unwrap();
        let store: Arc<dyn store::Store> = Arc::new(store);
        let fixture = Self::on(store, tasks, Arc::new(dir)).await;
        fixture.account().await;
        fixture
    }

    async fn on(store: Arc<dyn store::Store>, tasks: Tasks, dir: Arc<TempDir>) -> Self {
        Self::with(store, tasks, dir, Arc::new(Privileged)).await
    }

    async fn with(
        store: Arc<dyn store::Store>,
        tasks: Tasks,
        dir: Arc<TempDir>,
        authorizer: Arc<dyn Authorizer>,
    ) -> Self {
        let config = Config {
            store: store.clone(),
            seal: Some(Arc::new(Reversed)),
            service_cidrs: vec!["10.43.0.0/16".parse().unwrap()],
            signer: Some(Arc::new(Plain)),
        };
        let registry = Registry::start(config, Vec::new(), authorizer, Clock::system(), tasks.clone()).await.unwrap();
        Fixture { registry, store, tasks, dir }
    }

    /// A registry on the same store whose users hold the given rules.
    pub async fn ruled_by(&self, authorizer: Arc<dyn Authorizer>) -> Self {
        Self::with(self.store.clone(), self.tasks.child(), self.dir.clone(), authorizer).await
    }

    /// Another registry that starts on the same store.
    pub async fn restarted(&self) -> Self {
        Self::on(self.store.clone(), self.tasks.child(), self.dir.clone()).await
    }

    /// Admission wants every pod to have one.
    async fn account(&self) {
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        self.create("", "v1", "serviceaccounts", account).await.unwrap();
    }

    pub fn target(&self, group: &str, version: &str, resource: &str, name: &str) -> Target {
        let kind = self.registry.kind(group, version, resource).unwrap();
        let namespace = if kind.namespaced() { "default" } else { "" };
        Target { kind, subresource: String::new(), namespace: namespace.into(), name: name.into() }
    }

    pub async fn create(&self, group: &str, version: &str, resource: &str, body: Value) -> Result<Object, Status> {
        let target = self.target(group, version, resource, "");
        shown(&target, self.registry.create(&admin(Verb::Create), &target, object(body)).await?)
    }

    pub async fn get(&self, target: &Target) -> Result<Object, Status> {
        shown(target, self.registry.get(&admin(Verb::Get), target).await?)
    }

    pub async fn update(&self, target: &Target, body: Object) -> Result<Object, Status> {
        shown(target, self.registry.update(&admin(Verb::Update), target, body).await?)
    }

    pub async fn merge(&self, target: &Target, patch: Value) -> Result<Object, Status> {
        let patch = patch.to_string().into();
        shown(target, self.registry.patch(&admin(Verb::Patch), target, PatchKind::Merge, patch).await?)
    }

    pub async fn delete(&self, target: &Target) -> Result<Outcome, Status> {
        self.registry.delete(&admin(Verb::Delete), target, DeleteOptions::default()).await
    }

    pub async fn config_map(&self, name: &str) -> Object {
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}});
        self.create("", "v1", "configmaps", body).await.unwrap()
    }

    pub fn config_maps(&self, name: &str) -> Target {
        self.target("", "v1", "configmaps", name)
    }
}

/// "Encrypts" by turning values around, bound to their key.
struct Reversed;

impl Seal for Reversed {
    fn seal(&self, plain: &[u8], associated: &[u8]) -> Result<Vec<u8>, String> {
        Ok([b"k8s:enc:".as_slice(), associated, b":", &plain.iter().rev().copied().collect::<Vec<_>>()].concat())
    }

    fn open(&self, sealed: &[u8], associated: &[u8]) -> Result<Vec<u8>, String> {
        let prefix = [b"k8s:enc:".as_slice(), associated, b":"].concat();
        let rest = sealed.strip_prefix(prefix.as_slice()).ok_or("it was sealed for another key")?;
        Ok(rest.iter().rev().copied().collect())
    }
}

/// "Signs" by printing the claims.
struct Plain;

impl TokenSigner for Plain {
    fn default_audiences(&self) -> Vec<String> {
        vec!["api".into()]
    }

    fn sign(&self, claims: &TokenClaims) -> Result<String, Status> {
        Ok(format!("{claims:?}"))
    }
}

pub fn shown(target: &Target, outcome: Outcome) -> Result<Object, Status> {
    Ok(outcome.object(&target.kind.group_version().to_string())?.unwrap_or_default())
}
