//! An outside judge: the `kube` crate, which knows nothing of us, in an ordinary session against a running cluster.
//!
//! It lists, creates, watches, reads a log, executes, patches in three ways, pages, is refused, and deletes. Run in a
//! lab by `cargo xtask test`; prints one line per act and a summary that is counted.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod};
use kube::api::{
    Api, AttachParams, DeleteParams, ListParams, LogParams, ObjectMeta, Patch, PatchParams, PostParams, WatchEvent,
    WatchParams,
};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::io::AsyncReadExt;

/// For everything that is waited for, on a machine like ours.
const WAIT_S_MAX: u64 = 90;

#[tokio::main]
async fn main() -> ExitCode {
    // the one provider of this workspace; a second call could only fail because there is one already
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match session().await {
        Ok(acts) => {
            println!("test result: ok. {acts} passed; 0 failed; 0 ignored");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{error:#}\ntest result: FAILED. 0 passed; 1 failed; 0 ignored");
            ExitCode::FAILURE
        }
    }
}

/// The whole session, in a namespace of its own; how many acts there were.
async fn session() -> Result<usize> {
    let client = Client::try_default().await.context("finding the cluster")?;
    let name = format!("public-client-{}", std::process::id());
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = Namespace { metadata: named(&name), ..Namespace::default() };
    namespaces.create(&PostParams::default(), &namespace).await.context("creating a namespace")?;
    let told = acts(&client, &name).await;
    namespaces.delete(&name, &DeleteParams::background()).await.context("deleting the namespace")?;
    told
}

async fn acts(client: &Client, namespace: &str) -> Result<usize> {
    let mut acts = 0;
    let mut done = |what: &str| {
        println!("test {what} ... ok");
        acts += 1;
    };
    discovers(client).await.context("discovery")?;
    done("discovers");
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    pages(&maps).await.context("paging")?;
    done("pages_at_one_revision");
    watches(&maps).await.context("watching")?;
    done("watches_from_a_revision");
    patches(&maps).await.context("patching")?;
    done("patches_in_three_ways");
    is_refused(&maps).await.context("being refused")?;
    done("is_refused_with_a_status");
    runs_a_pod(client, namespace).await.context("a pod")?;
    done("runs_a_pod");
    Ok(acts)
}

async fn discovers(client: &Client) -> Result<()> {
    let version = client.apiserver_version().await?;
    ensure!(
        version.major == "1" && version.minor.starts_with("37"),
        "the version is {}.{}",
        version.major,
        version.minor
    );
    let groups = client.list_api_groups().await?;
    ensure!(groups.groups.iter().any(|group| group.name == "apps"), "the group apps is missing");
    let nodes: Api<Node> = Api::all(client.clone());
    let nodes = nodes.list(&ListParams::default()).await?;
    ensure!(!nodes.items.is_empty(), "there is no node");
    Ok(())
}

async fn pages(maps: &Api<ConfigMap>) -> Result<()> {
    for number in 0..5 {
        maps.create(&PostParams::default(), &map(&format!("page-{number}"), "x")).await?;
    }
    let by_two = ListParams::default().labels("story=pages").limit(2);
    let first = maps.list(&by_two).await?;
    ensure!(first.items.len() == 2, "the first page has {} items", first.items.len());
    let token = first.metadata.continue_.clone().context("the first page is said to be the last")?;
    // what comes after the first page was cut is not on the second
    maps.create(&PostParams::default(), &map("page-9", "x")).await?;
    let mut names: Vec<String> = first.items.iter().map(ResourceExt::name_any).collect();
    let mut next = Some(token);
    while let Some(token) = next.filter(|token| !token.is_empty()) {
        let page = maps.list(&by_two.clone().continue_token(&token)).await?;
        names.extend(page.items.iter().map(ResourceExt::name_any));
        next = page.metadata.continue_;
    }
    ensure!(names == ["page-0", "page-1", "page-2", "page-3", "page-4"], "the pages hold {names:?}");
    Ok(())
}

async fn watches(maps: &Api<ConfigMap>) -> Result<()> {
    let list = maps.list(&ListParams::default()).await?;
    let revision = list.metadata.resource_version.context("a list has a revision")?;
    maps.create(&PostParams::default(), &map("watched", "1")).await?;
    maps.patch("watched", &PatchParams::default(), &Patch::Merge(json!({"data": {"value": "2"}}))).await?;
    maps.delete("watched", &DeleteParams::default()).await?;
    let mut events = maps.watch(&WatchParams::default().fields("metadata.name=watched"), &revision).await?.boxed();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        match within(events.try_next()).await??.context("the watch ended")? {
            WatchEvent::Added(map) => seen.push(format!("added {}", value(&map))),
            WatchEvent::Modified(map) => seen.push(format!("modified {}", value(&map))),
            WatchEvent::Deleted(map) => seen.push(format!("deleted {}", value(&map))),
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Error(status) => anyhow::bail!("the watch says {status:?}"),
        }
    }
    ensure!(seen == ["added 1", "modified 2", "deleted 2"], "the watch shows {seen:?}");
    Ok(())
}

async fn patches(maps: &Api<ConfigMap>) -> Result<()> {
    maps.create(&PostParams::default(), &map("patched", "1")).await?;
    let plain = PatchParams::default();
    let strategic = Patch::Strategic(json!({"metadata": {"labels": {"more": "yes"}}}));
    let patched = maps.patch("patched", &plain, &strategic).await?;
    ensure!(patched.labels().len() == 2, "labels after a strategic merge patch: {:?}", patched.labels());
    let applied =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "patched"}, "data": {"own": "x"}});
    let patched = maps.patch("patched", &PatchParams::apply("judge"), &Patch::Apply(&applied)).await?;
    let owners: Vec<String> = patched.managed_fields().iter().filter_map(|fields| fields.manager.clone()).collect();
    ensure!(owners.contains(&"judge".to_owned()), "fields are owned by {owners:?}");
    let conflict =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "patched"}, "data": {"own": "y"}});
    let refused = maps.patch("patched", &PatchParams::apply("rival"), &Patch::Apply(&conflict)).await;
    ensure!(code_of(&refused) == Some(409), "two owners of one field: {refused:?}");
    Ok(())
}

async fn is_refused(maps: &Api<ConfigMap>) -> Result<()> {
    let missing = maps.get("no-such").await;
    ensure!(code_of(&missing) == Some(404), "a missing object: {missing:?}");
    maps.create(&PostParams::default(), &map("twice", "1")).await?;
    let twice = maps.create(&PostParams::default(), &map("twice", "1")).await;
    ensure!(code_of(&twice) == Some(409), "an object made twice: {twice:?}");
    let mut stale = map("twice", "2");
    stale.metadata.resource_version = Some("1".into());
    let stale = maps.replace("twice", &PostParams::default(), &stale).await;
    ensure!(code_of(&stale) == Some(409), "a stale replacement: {stale:?}");
    let invalid = maps.create(&PostParams::default(), &map("Not A Name", "1")).await;
    ensure!(code_of(&invalid) == Some(422), "an invalid name: {invalid:?}");
    Ok(())
}

async fn runs_a_pod(client: &Client, namespace: &str) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "judge"},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
            "name": "app", "image": "busybox:1.36", "command": ["sh", "-c", "echo begun; sleep 3600"],
        }]},
    }))?;
    pods.create(&PostParams::default(), &pod).await?;
    let watch = watcher(pods.clone(), watcher::Config::default().fields("metadata.name=judge")).applied_objects();
    let running = watch.try_filter(|pod| futures::future::ready(is_running(pod))).boxed().into_future();
    let (running, _) = within(running).await?;
    running.context("the watch ended")??;
    let log = pods.logs("judge", &LogParams::default()).await?;
    ensure!(log == "begun\n", "the log says {log:?}");
    let mut process =
        pods.exec("judge", ["sh", "-c", "echo out; echo err >&2; exit 3"], &AttachParams::default()).await?;
    let status = process.take_status().context("exec has a status")?;
    let mut out = String::new();
    process.stdout().context("exec has an output")?.read_to_string(&mut out).await?;
    let status = within(status).await?.context("exec ended without a status")?;
    process.join().await?;
    ensure!(out == "out\n", "exec printed {out:?}");
    let code = status.details.and_then(|details| Some(details.causes?.first()?.message.clone()));
    let code = code.flatten();
    ensure!(code.as_deref() == Some("3"), "exec ended with {code:?}");
    pods.delete("judge", &DeleteParams::default()).await.map(drop).context("deleting the pod")
}

fn is_running(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }
}

fn map(name: &str, value: &str) -> ConfigMap {
    let labels = Some(BTreeMap::from([("story".to_owned(), "pages".to_owned())]));
    let data = Some(BTreeMap::from([("value".to_owned(), value.to_owned())]));
    ConfigMap { metadata: ObjectMeta { labels, ..named(name) }, data, ..ConfigMap::default() }
}

fn value(map: &ConfigMap) -> &str {
    map.data.as_ref().and_then(|data| data.get("value")).map_or("", String::as_str)
}

fn code_of<T>(outcome: &kube::Result<T>) -> Option<u16> {
    match outcome {
        Err(kube::Error::Api(status)) => Some(status.code),
        _ => None,
    }
}

async fn within<T>(work: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(Duration::from_secs(WAIT_S_MAX), work).await.context("waited too long")
}
