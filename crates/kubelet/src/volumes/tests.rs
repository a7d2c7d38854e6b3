//! Mounts of containers, and volumes on disk.

use serde_json::json;

use super::*;

fn container(mount: serde_json::Value) -> Container {
    serde_json::from_value(json!({"name": "c", "volumeMounts": [mount]})).unwrap()
}

#[test]
fn mounts_say_what_the_spec_says() {
    let volumes = Volumes {
        places: HashMap::from([
            ("v".to_string(), Place::Host("/data/v".into())),
            ("i".to_string(), Place::Image("busybox:1.36".into())),
        ]),
        refresh_at: None,
        made_from_objects: Default::default(),
    };
    let made = |mount| mounts(Path::new("/pod"), &container(mount), &volumes, &[]);
    let plain = made(json!({"name": "v", "mountPath": "x", "readOnly": true, "mountPropagation": "HostToContainer"}));
    let plain = plain.unwrap().remove(0);
    assert_eq!((plain.container_path.as_str(), plain.host_path.as_str(), plain.readonly), ("/x", "/data/v", true));
    assert_eq!(plain.propagation, MountPropagation::PropagationHostToContainer as i32);
    let image = made(json!({"name": "i", "mountPath": "/x"})).unwrap().remove(0);
    assert!(image.readonly && image.image.is_some() && image.host_path.is_empty());
    let missing = made(json!({"name": "gone", "mountPath": "/x"})).unwrap_err();
    assert_eq!(missing, "cannot find volume \"gone\" to mount into container \"c\"");
    assert!(made(json!({"name": "v", "mountPath": "/x", "subPathExpr": "$(GONE)"})).is_err());
}

#[test]
fn an_empty_dir_keeps_its_content_and_belongs_to_the_group() {
    use std::os::unix::fs::MetadataExt;
    let top = tempfile::tempdir().unwrap();
    let directory = top.path().join("v");
    let source = EmptyDirVolumeSource::default();
    empty_dir(&directory, &source, Some(1234), false).unwrap();
    std::fs::write(directory.join("f"), "1").unwrap();
    empty_dir(&directory, &source, Some(1234), false).unwrap();
    let metadata = std::fs::metadata(&directory).unwrap();
    assert_eq!((metadata.gid(), metadata.mode() & 0o7777), (1234, 0o2777));
    assert!(directory.join("f").exists());
}
