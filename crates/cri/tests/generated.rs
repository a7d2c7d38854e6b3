//! `src/generated.rs` is what `proto/cri.proto` says: made anew here and compared, or written with `CORACLE_UPDATE=1`.

use std::{fs, path::Path};

const HEAD: &str = "//! CRI v1 messages, client and server, generated from `proto/cri.proto`; see `tests/generated.rs`. Do not edit.\n\n";

#[test]
fn generated_code_matches_the_proto_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().unwrap();
    let files = protox::compile([root.join("proto/cri.proto")], [root.join("proto")]).unwrap();
    tonic_prost_build::configure().out_dir(out.path()).compile_fds(files).unwrap();
    let made = format!("{HEAD}{}", fs::read_to_string(out.path().join("runtime.v1.rs")).unwrap());
    let kept = root.join("src/generated.rs");
    if std::env::var_os("CORACLE_UPDATE").is_some() {
        fs::write(&kept, &made).unwrap();
    }
    assert!(
        fs::read_to_string(&kept).unwrap() == made,
        "src/generated.rs is stale: run CORACLE_UPDATE=1 cargo test -p cri --test generated"
    );
}
