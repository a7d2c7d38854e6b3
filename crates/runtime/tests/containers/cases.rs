//! What is tested, each a sentence.

use cri::v1::*;

use crate::node::{Case, Node};

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        pub const ALL: &[(&str, Case)] = &[$((stringify!($name), |node| Box::pin($name(node)))),*];
    };
}

cases![runs_a_container_and_logs_what_it_says];

async fn runs_a_container_and_logs_what_it_says(node: Node) {
    let sandbox = node.sandbox().await;
    let config = node.script("echo hello $FROM from $HOSTNAME as $(id -u); echo oops >&2; pwd; exit 3");
    let (status, log) = node.run(&sandbox, &config).await;
    assert_eq!(log, "hello image from pod as 0\n/tmp\n");
    assert_eq!(node.log(&status, "stderr"), "oops\n");
    assert_eq!((status.exit_code, status.reason.as_str()), (3, "Error"));
    assert!(status.started_at > 0 && status.finished_at >= status.started_at);
}
