//! Pulling, importing and removing, against a registry in this process on loopback.

use std::{collections::BTreeSet, fs};

use cri::{Code, Cri, v1::*};
use runtime::image::{Mirror, Registries};

use crate::{
    image,
    node::{IMAGE, Node},
    registry::{Behaviour, Registry},
};

pub async fn layers_are_merged_and_whiteouts_hide(node: Node) {
    let sandbox = node.sandbox().await;
    let script = "ls /old; cat /etc/notes; stat -c %a /tmp; echo changed > /etc/notes; rm /old/kept; ls /old | wc -l";
    for _ in 0..2 {
        let (status, log) = node.run(&sandbox, &node.script(script)).await;
        assert_eq!(log, "kept\ntop\n1777\n0\n", "{}", node.log(&status, "stderr"));
    }
}

async fn pull(node: &Node, name: &str, auth: Option<AuthConfig>) -> Result<String, cri::Error> {
    let image = Some(ImageSpec { image: name.into(), ..Default::default() });
    Ok(node.runtime.pull_image(PullImageRequest { image, auth, sandbox_config: None }).await?.image_ref)
}

fn layer_folders(node: &Node) -> BTreeSet<String> {
    let names = fs::read_dir(node.folder.join("runtime/layers")).unwrap().flatten();
    names.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

pub async fn pulls_with_a_token_and_unpacks_every_compression(node: Node) {
    let registry =
        Registry::start(image::busybox(), Behaviour { token: Some("ann:secret"), ..Default::default() }).await;
    let name = format!("{}/team/app:1.0", registry.address);
    let refused = pull(&node, &name, None).await.unwrap_err();
    assert!(refused.message().contains("pull access denied"), "{refused}");
    let auth = AuthConfig { username: "ann".into(), password: "secret".into(), ..Default::default() };
    node.runtime.remove(IMAGE).await.unwrap();
    assert!(layer_folders(&node).is_empty());
    let id = pull(&node, &name, Some(auth)).await.unwrap();
    assert_eq!(layer_folders(&node).len(), 3);
    let sandbox = node.sandbox().await;
    let config = ContainerConfig {
        image: Some(ImageSpec { image: id, ..Default::default() }),
        ..node.script("cat /etc/notes; ls /old")
    };
    let (status, log) = node.run(&sandbox, &config).await;
    assert_eq!(log, "top\nkept\n");
    assert_eq!(status.image.unwrap().image, name);
    assert!(status.image_ref.contains("/team/app@sha256:"), "{}", status.image_ref);
    let by_digest = format!("{}/team/app@{}", registry.address, registry.manifest);
    assert!(node.runtime.images().find(&by_digest).is_some());
    assert!(registry.log().iter().any(|line| line.contains("/v2/team/app/manifests/1.0")));
}

pub async fn mirrors_are_tried_before_the_registry(node: Node) {
    let broken = Registry::start(image::busybox(), Behaviour { down: true, ..Default::default() }).await;
    let mirror = Registry::start(image::busybox(), Behaviour::default()).await;
    let asking = Behaviour { token: Some("captain:lighthouse"), ..Default::default() };
    let asking = Registry::start(image::busybox(), asking).await;
    let plain = |registry: &Registry| Mirror { host: registry.address.clone(), plain_http: true };
    let registries = Registries {
        mirrors: [
            ("registry.k8s.io".to_owned(), vec![plain(&broken), plain(&mirror)]),
            // A port where nobody is: all there is is the mirror.
            ("127.0.0.1:1".to_owned(), vec![plain(&asking)]),
        ]
        .into(),
        ..Default::default()
    };
    node.tasks.shutdown().await;
    let node = Node::open(&node.folder, &node.cgroup, registries, base::Tasks::root()).await;
    pull(&node, "registry.k8s.io/pause:3.10", None).await.unwrap();
    let image = node.runtime.images().find("registry.k8s.io/pause:3.10").unwrap();
    assert!(image.tags.contains("registry.k8s.io/pause:3.10"), "{image:?}");
    assert!(!broken.log().is_empty() && !mirror.log().is_empty());
    // The credentials for a registry are for its mirrors too.
    let refused = pull(&node, "127.0.0.1:1/x:1", None).await.unwrap_err();
    assert!(refused.message().contains("a mirror said: pull access denied"), "{refused}");
    let auth = AuthConfig { username: "captain".into(), password: "lighthouse".into(), ..AuthConfig::default() };
    pull(&node, "127.0.0.1:1/x:1", Some(auth)).await.unwrap();
    node.tasks.shutdown().await;
}

pub async fn a_registrys_refusal_is_passed_on(node: Node) {
    let words = "the blue team owns this";
    let denying = Registry::start(image::busybox(), Behaviour { denied: Some(words), ..Default::default() }).await;
    let error = pull(&node, &format!("{}/x:1", denying.address), None).await.unwrap_err();
    assert!(error.message().contains(words), "{error}");
    let empty = Registry::start(image::busybox(), Behaviour::default()).await;
    let error = pull(&node, &format!("{}/x:absent", empty.address), None).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound, "{error}");
    assert!(error.message().ends_with("/x:absent: not found"), "{error}");
    let error = pull(&node, "127.0.0.1:1/x:1", None).await.unwrap_err();
    assert!(error.message().to_lowercase().contains("connection refused"), "{error}");
    assert_eq!(pull(&node, "NOT A NAME", None).await.unwrap_err().code(), Code::InvalidArgument);
}

pub async fn corrupt_content_is_refused_and_leaves_nothing(node: Node) {
    node.runtime.remove(IMAGE).await.unwrap();
    let mut blobs = image::busybox();
    let layer = blobs.by_digest.iter().max_by_key(|(_, bytes)| bytes.len()).map(|(digest, _)| digest.clone()).unwrap();
    let bytes = blobs.by_digest.get_mut(&layer).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let registry = Registry::start(blobs, Behaviour::default()).await;
    let name = format!("{}/x:1", registry.address);
    let error = pull(&node, &name, None).await.unwrap_err();
    assert!(error.message().contains("sha256") || error.message().contains("igest"), "{error}");
    assert!(layer_folders(&node).is_empty(), "{:?}", layer_folders(&node));
    assert!(node.runtime.images().find(&name).is_none());
}

pub async fn images_are_listed_found_and_removed(node: Node) {
    let images = node.runtime.list_images(Default::default()).await.unwrap().images;
    assert_eq!(images.len(), 1);
    assert_eq!(images[0].repo_tags, [IMAGE]);
    let find = |name: &str| ImageStatusRequest {
        image: Some(ImageSpec { image: name.into(), ..Default::default() }),
        verbose: false,
    };
    let id = &images[0].id;
    for name in ["busybox:1.36", IMAGE, id, id.trim_start_matches("sha256:"), &id[7..20]] {
        assert_eq!(node.runtime.image_status(find(name)).await.unwrap().image.unwrap().id, *id, "{name}");
    }
    assert!(node.runtime.image_status(find("busybox:1.37")).await.unwrap().image.is_none());
    let sandbox = node.sandbox().await;
    let running = node.start(&sandbox, &node.script("sleep 1000")).await;
    let remove = RemoveImageRequest { image: find(IMAGE).image };
    node.runtime.remove_image(remove.clone()).await.unwrap();
    node.runtime.remove_image(remove).await.unwrap();
    assert!(node.runtime.list_images(Default::default()).await.unwrap().images.is_empty());
    // A container stands on its layers for as long as it is there.
    assert_eq!(node.exec(&running, "cat /etc/notes").await.unwrap().stdout, b"top\n");
    let node = node.reopened().await;
    assert_eq!(node.exec(&running, "cat /etc/passwd | wc -l").await.unwrap().stdout, b"2\n");
    let remove = RemovePodSandboxRequest { pod_sandbox_id: sandbox };
    node.runtime.remove_pod_sandbox(remove).await.unwrap();
    let node = node.reopened().await;
    assert!(layer_folders(&node).is_empty());
}

pub async fn imports_what_docker_saves(node: Node) {
    let layer = image::layer(&[("etc", 0o755)], &[("etc/saved", 0o644, b"yes")], &[]);
    let config = serde_json::json!({"config": {"User": "1000"}, "rootfs": {"diff_ids": [image::digest(&layer)]}});
    let config = config.to_string().into_bytes();
    let manifest =
        serde_json::json!([{"Config": "c.json", "RepoTags": ["saved:2", "saved:3"], "Layers": ["a/layer.tar"]}]);
    let manifest = manifest.to_string().into_bytes();
    let files: [(&str, u32, &[u8]); 3] =
        [("c.json", 0o644, &config), ("manifest.json", 0o644, &manifest), ("a/layer.tar", 0o644, &layer)];
    let archive = node.folder.join("saved.tar");
    fs::write(&archive, image::layer(&[("a", 0o755)], &files, &[])).unwrap();
    node.runtime.import(&archive, None).await.unwrap();
    let image = node.runtime.images().find("saved:3").unwrap();
    assert!(image.tags.contains("docker.io/library/saved:2"));
    let request =
        ImageStatusRequest { image: Some(ImageSpec { image: image.id, ..Default::default() }), verbose: false };
    let status = node.runtime.image_status(request).await.unwrap().image.unwrap();
    assert_eq!(status.uid.unwrap().value, 1000);
    fs::write(&archive, b"no archive at all").unwrap();
    assert!(node.runtime.import(&archive, None).await.is_err());
}
