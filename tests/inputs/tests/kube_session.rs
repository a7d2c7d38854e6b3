//! An outside judge: the `kube` crate, which knows nothing of us, in ordinary use of the real binary.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt, pin_mut};
use inputs::Server;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use kube::api::{
    Api, DeleteParams, DynamicObject, ListParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions,
    PropagationPolicy, WatchEvent, WatchParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Client, Config, ResourceExt, discovery};
use serde_json::json;

/// More than enough for anything; what takes longer hangs.
const WAIT: Duration = Duration::from_secs(30);

async fn client(server: &Server) -> Result<Client> {
    // The one provider of this workspace; a second call could only fail because there is one already.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let kubeconfig = Kubeconfig::read_from(&server.kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// Runs a session on a server of its own, in the namespace `default`.
async fn session<F: Future<Output = Result<()>>>(acts: impl FnOnce(Client) -> F) {
    let outcome = async {
        let server = Server::start_own(&[])?;
        acts(client(&server).await?).await?;
        server.stop().map(drop)
    };
    if let Err(error) = outcome.await {
        panic!("{error:#}");
    }
}

async fn within<T>(what: &str, work: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(WAIT, work).await.with_context(|| format!("{what} hangs"))
}

fn map(name: &str, value: &str) -> ConfigMap {
    let labels = Some(BTreeMap::from([("set".to_owned(), "a".to_owned())]));
    let metadata = ObjectMeta { name: Some(name.to_owned()), labels, ..ObjectMeta::default() };
    let data = Some(BTreeMap::from([("value".to_owned(), value.to_owned())]));
    ConfigMap { metadata, data, ..ConfigMap::default() }
}

fn value(map: &ConfigMap) -> &str {
    map.data.as_ref().and_then(|data| data.get("value")).map_or("", String::as_str)
}

fn code<T>(outcome: kube::Result<T>) -> u16 {
    match outcome {
        Ok(_) => 200,
        Err(kube::Error::Api(status)) => status.code,
        Err(_) => 0,
    }
}

fn of_ours() -> ListParams {
    ListParams::default().labels("set=a")
}

#[tokio::test]
async fn discovers_what_is_served() {
    session(|client| async move {
        let version = client.apiserver_version().await?;
        ensure!((version.major.as_str(), version.minor.as_str()) == ("1", "37"), "{version:?}");
        let found = discovery::Discovery::new(client.clone()).run().await?;
        let apps = found.get("apps").context("the group apps")?;
        let (deployment, capabilities) = apps.recommended_kind("Deployment").context("deployments")?;
        ensure!(deployment.plural == "deployments" && deployment.version == "v1", "{deployment:?}");
        ensure!(capabilities.supports_operation("patch"), "deployments can be patched");
        ensure!(capabilities.subresources.iter().any(|(sub, _)| sub.plural == "scale"), "deployments have a scale");
        let all: Api<DynamicObject> = Api::all_with(client, &deployment);
        ensure!(all.list(&ListParams::default()).await?.items.is_empty(), "there are no deployments yet");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn lists_in_pages_at_one_revision_and_without_tables() {
    session(|client| async move {
        let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
        for number in 0..7 {
            maps.create(&PostParams::default(), &map(&format!("m{number}"), "x")).await?;
        }
        let first = maps.list(&of_ours().limit(3)).await?;
        ensure!(first.items.len() == 3 && first.metadata.remaining_item_count.is_none(), "{:?}", first.metadata);
        let plain = maps.list(&ListParams::default().limit(3)).await?;
        ensure!(plain.metadata.remaining_item_count.is_some_and(|left| left >= 4), "{:?}", plain.metadata);
        // What happens after the first page was cut is not on the others.
        maps.create(&PostParams::default(), &map("m9", "x")).await?;
        maps.delete("m6", &DeleteParams::default()).await?;
        let (mut names, mut next) = (names(&first.items), first.metadata.continue_.clone());
        while let Some(token) = next.filter(|token| !token.is_empty()) {
            let page = maps.list(&of_ours().limit(3).continue_token(&token)).await?;
            ensure!(page.metadata.resource_version == first.metadata.resource_version, "pages of two revisions");
            names.extend(self::names(&page.items));
            next = page.metadata.continue_;
        }
        ensure!(names == ["m0", "m1", "m2", "m3", "m4", "m5", "m6"], "{names:?}");
        let now = self::names(&maps.list(&of_ours()).await?.items);
        ensure!(now == ["m0", "m1", "m2", "m3", "m4", "m5", "m9"], "{now:?}");
        let one = maps.list(&ListParams::default().fields("metadata.name=m3")).await?;
        ensure!(self::names(&one.items) == ["m3"], "{:?}", self::names(&one.items));
        let metadata = maps.list_metadata(&of_ours()).await?;
        ensure!(metadata.items.len() == 7 && metadata.items[0].labels()["set"] == "a", "metadata alone");
        let cached = maps.list(&of_ours().match_any()).await?;
        ensure!(cached.items.len() == 7, "a list from memory");
        Ok(())
    })
    .await;
}

fn names(items: &[ConfigMap]) -> Vec<String> {
    items.iter().map(ResourceExt::name_any).collect()
}

#[tokio::test]
async fn writes_reads_and_is_refused() {
    session(|client| async move {
        let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
        let made = maps.create(&PostParams::default(), &map("a", "1")).await?;
        ensure!(made.uid().is_some() && made.creation_timestamp().is_some(), "{made:?}");
        ensure!(maps.get("a").await? == made, "what is read is what was answered");
        ensure!(maps.get_opt("absent").await?.is_none(), "an absent object");
        ensure!(code(maps.create(&PostParams::default(), &map("a", "2")).await) == 409, "made twice");
        ensure!(code(maps.create(&PostParams::default(), &map("A b", "2")).await) == 422, "a bad name");
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        maps.create(&dry, &map("dry", "1")).await?;
        ensure!(maps.get_opt("dry").await?.is_none(), "a dry run was stored");
        let mut next = made.clone();
        next.data = map("a", "2").data;
        let replaced = maps.replace("a", &PostParams::default(), &next).await?;
        ensure!(value(&replaced) == "2" && replaced.uid() == made.uid(), "{replaced:?}");
        ensure!(code(maps.replace("a", &PostParams::default(), &next).await) == 409, "a stale replacement");
        let generated = ConfigMap {
            metadata: ObjectMeta { generate_name: Some("g-".into()), ..ObjectMeta::default() },
            ..ConfigMap::default()
        };
        let generated = maps.create(&PostParams::default(), &generated).await?;
        ensure!(generated.name_any().starts_with("g-") && generated.name_any().len() == 7, "{}", generated.name_any());
        let wrong = Preconditions { uid: Some("no".into()), ..Preconditions::default() };
        let delete = DeleteParams { preconditions: Some(wrong), ..DeleteParams::default() };
        ensure!(code(maps.delete("a", &delete).await) == 409, "a delete of another uid");
        maps.delete("a", &DeleteParams::default()).await?;
        ensure!(code(maps.delete("a", &DeleteParams::default()).await) == 404, "deleted twice");
        let services: Api<Service> = Api::default_namespaced(client);
        let service: Service =
            serde_json::from_value(json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}))?;
        let service = services.create(&PostParams::default(), &service).await?;
        let address = service.spec.and_then(|spec| spec.cluster_ip).unwrap_or_default();
        ensure!(address.starts_with("10.43."), "the address of a service is {address:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn patches_in_four_ways() {
    session(|client| async move {
        let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
        maps.create(&PostParams::default(), &map("p", "1")).await?;
        let plain = PatchParams::default();
        let merged = maps.patch("p", &plain, &Patch::Merge(json!({"data": {"b": "2", "value": null}}))).await?;
        ensure!(merged.data == Some(BTreeMap::from([("b".into(), "2".into())])), "{:?}", merged.data);
        let operations = serde_json::from_value(json!([
            {"op": "test", "path": "/data/b", "value": "2"}, {"op": "add", "path": "/data/c", "value": "3"}]))?;
        let patched = maps.patch("p", &plain, &Patch::Json::<()>(operations)).await?;
        ensure!(patched.data.as_ref().is_some_and(|data| data.len() == 2), "{:?}", patched.data);
        strategic(client.clone()).await.context("strategic merge patch")?;
        applies(&maps).await.context("apply")
    })
    .await;
}

/// Lists merge by their keys.
async fn strategic(client: Client) -> Result<()> {
    let deployments: Api<Deployment> = Api::default_namespaced(client);
    let deployment: Deployment = serde_json::from_value(json!({"metadata": {"name": "d"}, "spec": {
        "replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "x", "image": "i:1"}, {"name": "y", "image": "j:1"}]}}}}))?;
    deployments.create(&PostParams::default(), &deployment).await?;
    let patch = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "x", "image": "i:2"}, {"name": "y", "$patch": "delete"}, {"name": "z", "image": "k:1"}]}}}});
    let patched = deployments.patch("d", &PatchParams::default(), &Patch::Strategic(patch)).await?;
    let spec = patched.spec.template.spec.context("a spec")?;
    let mut images: Vec<String> = spec.containers.into_iter().filter_map(|container| container.image).collect();
    images.sort();
    ensure!(images == ["i:2", "k:1"], "{images:?}");
    let two = Patch::Merge(json!({"spec": {"replicas": 2}}));
    let scale = deployments.patch_scale("d", &PatchParams::default(), &two).await?;
    let replicas = scale.spec.and_then(|spec| spec.replicas);
    ensure!(replicas == Some(2), "scaled to {replicas:?}");
    Ok(())
}

async fn applies(maps: &Api<ConfigMap>) -> Result<()> {
    let wanted = |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": {"v": value}});
    let (mine, theirs) = (PatchParams::apply("mine"), PatchParams::apply("theirs"));
    let applied = maps.patch("applied", &mine, &Patch::Apply(wanted("1"))).await?;
    let revision = applied.resource_version();
    let again = maps.patch("applied", &mine, &Patch::Apply(wanted("1"))).await?;
    ensure!(again.resource_version() == revision, "the same apply changed something");
    ensure!(code(maps.patch("applied", &theirs, &Patch::Apply(wanted("2"))).await) == 409, "two owners");
    let forced = maps.patch("applied", &theirs.clone().force(), &Patch::Apply(wanted("2"))).await?;
    let owners: Vec<String> = forced.managed_fields().iter().filter_map(|entry| entry.manager.clone()).collect();
    ensure!(owners == ["theirs"], "after a forced apply the owners are {owners:?}");
    let less = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}});
    let less = maps.patch("applied", &theirs, &Patch::Apply(less)).await?;
    ensure!(less.data.unwrap_or_default().is_empty(), "what is no longer applied is gone");
    Ok(())
}

#[tokio::test]
async fn watches_from_a_revision_and_from_now() {
    session(|client| async move {
        let maps: Api<ConfigMap> = Api::default_namespaced(client);
        let revision = maps.list(&of_ours()).await?.metadata.resource_version.context("a list has a revision")?;
        maps.create(&PostParams::default(), &map("w", "1")).await?;
        maps.patch("w", &PatchParams::default(), &Patch::Merge(json!({"data": {"value": "2"}}))).await?;
        maps.delete("w", &DeleteParams::default()).await?;
        let past = maps.watch(&WatchParams::default().labels("set=a"), &revision).await?;
        pin_mut!(past);
        let mut seen = Vec::new();
        while seen.len() < 3 {
            match within("a watch of the past", past.try_next()).await??.context("the watch ended")? {
                WatchEvent::Added(map) => seen.push(format!("added {}", value(&map))),
                WatchEvent::Modified(map) => seen.push(format!("modified {}", value(&map))),
                WatchEvent::Deleted(map) => seen.push(format!("deleted {}", value(&map))),
                WatchEvent::Bookmark(_) => {}
                WatchEvent::Error(status) => bail!("{status:?}"),
            }
        }
        ensure!(seen == ["added 1", "modified 2", "deleted 2"], "{seen:?}");
        // What stops matching a selector is deleted, as far as the watcher is concerned.
        maps.create(&PostParams::default(), &map("l", "1")).await?;
        let revision = maps.list(&of_ours()).await?.metadata.resource_version.context("a list has a revision")?;
        let present = maps.watch(&WatchParams::default().labels("set=a"), &revision).await?;
        pin_mut!(present);
        maps.patch("l", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"labels": {"set": "b"}}}))).await?;
        let event = within("a watch of the present", present.try_next()).await??;
        ensure!(matches!(event, Some(WatchEvent::Deleted(_))), "{event:?}");
        let old = maps.watch(&WatchParams::default(), "abc").await;
        ensure!(code(old) == 500, "a watch from a revision that is none");
        Ok(())
    })
    .await;
}

/// Both ways in which `kube` keeps a cache: a list and then a watch, and a watch that begins with the state.
#[tokio::test]
async fn a_watcher_sees_every_change() {
    session(|client| async move {
        let maps: Api<ConfigMap> = Api::default_namespaced(client);
        maps.create(&PostParams::default(), &map("before", "1")).await?;
        let listing = watcher::Config::default().labels("set=a").page_size(1);
        follow(&maps, listing, "list").await.context("a list and then a watch")?;
        let streaming = watcher::Config::default().labels("set=a").streaming_lists();
        follow(&maps, streaming, "stream").await.context("a watch that begins with the state")
    })
    .await;
}

async fn follow(maps: &Api<ConfigMap>, config: watcher::Config, prefix: &str) -> Result<()> {
    let (store, writer) = reflector::store();
    let events = watcher(maps.clone(), config).reflect(writer).boxed();
    let mut events = within("the first state", until_initial(events)).await??;
    ensure!(store.len() == 1, "{} objects at first", store.len());
    let (writes, rounds) = (maps.clone(), 20);
    let names: Vec<String> = (0..rounds).map(|number| format!("{prefix}-{number}")).collect();
    let making = names.clone();
    let writing = tokio::spawn(async move {
        for name in &making {
            writes.create(&PostParams::default(), &map(name, "1")).await?;
            writes.patch(name, &PatchParams::default(), &Patch::Merge(json!({"data": {"value": "2"}}))).await?;
            writes.delete(name, &DeleteParams::default()).await?;
        }
        anyhow::Ok(())
    });
    let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
    while seen.values().filter(|states| states.len() == 3).count() < names.len() {
        match within("the next change", events.try_next()).await??.context("the watcher ended")? {
            watcher::Event::Apply(map) => seen.entry(map.name_any()).or_default().push(value(&map).to_owned()),
            watcher::Event::Delete(map) => seen.entry(map.name_any()).or_default().push("gone".to_owned()),
            _ => bail!("the watcher began anew"),
        }
    }
    writing.await??;
    ensure!(seen.values().all(|states| states == &["1", "2", "gone"]), "{seen:?}");
    ensure!(store.len() == 1, "{} objects in the end", store.len());
    Ok(())
}

type Events = futures::stream::BoxStream<'static, watcher::Result<watcher::Event<ConfigMap>>>;

async fn until_initial(mut events: Events) -> Result<Events> {
    while let Some(event) = events.try_next().await? {
        if matches!(event, watcher::Event::InitDone) {
            return Ok(events);
        }
    }
    bail!("the watcher ended")
}

#[tokio::test]
async fn deletes_collections_owners_and_namespaces() {
    session(|client| async move {
        let spaces: Api<Namespace> = Api::all(client.clone());
        let space = Namespace {
            metadata: ObjectMeta { name: Some("gone".into()), ..ObjectMeta::default() },
            ..Namespace::default()
        };
        spaces.create(&PostParams::default(), &space).await?;
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "gone");
        for name in ["a", "b", "c"] {
            maps.create(&PostParams::default(), &map(name, "1")).await?;
        }
        maps.delete_collection(&DeleteParams::default(), &ListParams::default().fields("metadata.name=b")).await?;
        ensure!(names(&maps.list(&of_ours()).await?.items) == ["a", "c"], "a collection by a selector");
        owner_goes(&client, &maps).await.context("an owner")?;
        let revision = spaces.list(&ListParams::default()).await?.metadata.resource_version.unwrap_or_default();
        let ends = spaces.watch(&WatchParams::default().fields("metadata.name=gone"), &revision).await?;
        pin_mut!(ends);
        spaces.delete("gone", &DeleteParams::default()).await?;
        loop {
            let event = within("the end of a namespace", ends.try_next()).await??;
            if let WatchEvent::Deleted(_) = event.context("the watch ended")? {
                break;
            }
        }
        ensure!(maps.list(&of_ours()).await?.items.is_empty(), "the namespace left something behind");
        Ok(())
    })
    .await;
}

/// In the foreground, the owner waits for what it owns.
async fn owner_goes(client: &Client, maps: &Api<ConfigMap>) -> Result<()> {
    let owner = maps.get("a").await?;
    let mut reference = serde_json::to_value(kube::Resource::owner_ref(&owner, &()))?;
    reference["blockOwnerDeletion"] = json!(true);
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "gone");
    let owned: Secret = serde_json::from_value(json!({"metadata": {"name": "owned", "ownerReferences": [reference]}}))?;
    secrets.create(&PostParams::default(), &owned).await?;
    let revision = maps.list(&of_ours()).await?.metadata.resource_version.unwrap_or_default();
    let ends = maps.watch(&WatchParams::default().fields("metadata.name=a"), &revision).await?;
    pin_mut!(ends);
    let foreground =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..DeleteParams::default() };
    maps.delete("a", &foreground).await?;
    loop {
        let event = within("the end of an owner", ends.try_next()).await??;
        if let WatchEvent::Deleted(_) = event.context("the watch ended")? {
            break;
        }
    }
    ensure!(secrets.get_opt("owned").await?.is_none(), "the owner went before what it owned");
    Ok(())
}
