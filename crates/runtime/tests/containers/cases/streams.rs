//! Exec, attach and port-forward.

use cri::{Code, Cri, Streaming, TerminalSize, v1::*};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::node::Node;

pub async fn exec_runs_beside_the_container(node: Node) {
    let sandbox = node.sandbox().await;
    let id = node.start(&sandbox, &node.script("sleep 1000")).await;
    let answer =
        node.exec(&id, "echo out $FROM; echo err >&2; ps | grep -q '[s]leep 1000' && echo seen; exit 6").await.unwrap();
    assert_eq!((answer.exit_code, answer.stdout.as_slice()), (6, b"out image\nseen\n".as_slice()));
    assert_eq!(answer.stderr, b"err\n");
    let same = node.exec(&id, "cat /proc/1/cgroup > /tmp/a; cat /proc/self/cgroup > /tmp/b; cat /tmp/a | grep -vc x; wc -c < /tmp/a; wc -c < /tmp/b");
    let same = String::from_utf8(same.await.unwrap().stdout).unwrap();
    let sizes: Vec<&str> = same.lines().skip(1).collect();
    assert_eq!(sizes[0], sizes[1]);
    let missing = ExecSyncRequest { container_id: id.clone(), cmd: vec!["xyz".into()], timeout: 0 };
    let error = node.runtime.exec_sync(missing).await.unwrap_err();
    assert!(error.message().contains("exec: \"xyz\": executable file not found in $PATH"), "{error}");
    node.stop(&id, 0).await;
    assert!(node.exec(&id, "true").await.is_err());
}

pub async fn exec_that_takes_too_long_is_killed(node: Node) {
    let sandbox = node.sandbox().await;
    let id = node.start(&sandbox, &node.script("sleep 1000")).await;
    let cmd = ["sleep", "777"].map(String::from).to_vec();
    let request = ExecSyncRequest { container_id: id.clone(), cmd, timeout: 1 };
    let error = node.runtime.exec_sync(request).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    let gone = "i=0; while ps | grep -q '[s]leep 777'; do i=$((i+1)); test $i -gt 500 && exit 1; sleep 0.01; done";
    assert_eq!(node.exec(&id, gone).await.unwrap().exit_code, 0);
}

pub async fn exec_streams_both_ways(node: Node) {
    let sandbox = node.sandbox().await;
    let id = node.start(&sandbox, &node.script("sleep 1000")).await;
    let cmd = ["sh", "-c", "cat; echo done >&2; exit 5"].map(String::from).to_vec();
    let request = ExecRequest { container_id: id.clone(), cmd, stdin: true, stdout: true, stderr: true, tty: false };
    let mut session = node.runtime.open_exec(request).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    let data = vec![b'x'; 1 << 20];
    let sent = data.clone();
    let writer = tokio::spawn(async move {
        stdin.write_all(&sent).await.unwrap();
        stdin.shutdown().await.unwrap();
    });
    let (mut out, mut err) = (Vec::new(), Vec::new());
    session.stdout.unwrap().read_to_end(&mut out).await.unwrap();
    session.stderr.unwrap().read_to_end(&mut err).await.unwrap();
    writer.await.unwrap();
    assert!(out == data);
    assert_eq!(err, b"done\n");
    assert_eq!(session.exit.await.unwrap(), 5);
}

pub async fn exec_has_a_terminal_that_can_be_resized(node: Node) {
    let sandbox = node.sandbox().await;
    let id = node.start(&sandbox, &node.script("sleep 1000")).await;
    let cmd = ["sh", "-c", "tty; read x; stty size; echo got $x; exit 3"].map(String::from).to_vec();
    let request = ExecRequest { container_id: id.clone(), cmd, stdin: true, stdout: true, stderr: false, tty: true };
    let mut session = node.runtime.open_exec(request).await.unwrap();
    let mut stdout = session.stdout.take().unwrap();
    session.resize.as_ref().unwrap().send(TerminalSize { width: 123, height: 45 }).await.unwrap();
    let mut out = Vec::new();
    // The size goes ahead of the line that lets the script go on.
    while !out.ends_with(b"\n") {
        out.push(stdout.read_u8().await.unwrap());
    }
    session.stdin.as_mut().unwrap().write_all(b"line\n").await.unwrap();
    stdout.read_to_end(&mut out).await.unwrap();
    let text = String::from_utf8_lossy(&out).replace('\r', "");
    assert_eq!(text, "/dev/pts/0\nline\n45 123\ngot line\n");
    assert_eq!(session.exit.await.unwrap(), 3);
    let config = ContainerConfig {
        tty: true,
        stdin: true,
        ..node.script("tty; test -c /dev/console && echo console; touch /tmp/r; read x; echo $x $TERM")
    };
    let id = node.start(&sandbox, &config).await;
    let attach = AttachRequest { container_id: id.clone(), stdin: true, stdout: true, tty: true, stderr: false };
    let mut session = node.runtime.open_attach(attach).await.unwrap();
    node.exec(&id, "until test -e /tmp/r; do true; done").await.unwrap();
    session.stdin.as_mut().unwrap().write_all(b"typed\n").await.unwrap();
    let status = node.ended(&id).await;
    let log = node.log(&status, "stdout").replace('\r', "");
    assert_eq!(log, "/dev/pts/0\nconsole\ntyped\ntyped xterm\n");
}

pub async fn attach_feeds_and_follows_the_container(node: Node) {
    let sandbox = node.sandbox().await;
    let config = ContainerConfig { stdin: true, stdin_once: true, ..node.script("cat; echo end; exit 8") };
    let id = node.start(&sandbox, &config).await;
    let attach = AttachRequest { container_id: id.clone(), stdin: true, stdout: true, stderr: true, tty: false };
    let watch = AttachRequest { stdin: false, ..attach.clone() };
    let mut watcher = node.runtime.open_attach(watch).await.unwrap();
    let mut session = node.runtime.open_attach(attach).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"words\n").await.unwrap();
    stdin.shutdown().await.unwrap();
    for stream in [session.stdout.take().unwrap(), watcher.stdout.take().unwrap()] {
        let mut text = String::new();
        let mut stream = stream;
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "words\nend\n");
    }
    assert_eq!(session.exit.await.unwrap(), 8);
    let status = node.ended(&id).await;
    assert_eq!(node.log(&status, "stdout"), "words\nend\n");
}

pub async fn ports_are_forwarded_to_the_pods_loopback(node: Node) {
    let sandbox = node.sandbox().await;
    let script = "nc -l -p 8080 -e cat & until cat /proc/net/tcp* | grep -q :1F90; do true; done; touch /tmp/up; wait";
    let id = node.start(&sandbox, &node.script(script)).await;
    node.exec(&id, "until test -e /tmp/up; do true; done").await.unwrap();
    let mut stream = node.runtime.open_port_forward(&sandbox, 8080).await.unwrap();
    stream.write_all(b"there and back").await.unwrap();
    let mut answer = [0; 14];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"there and back");
    let error = node.runtime.open_port_forward(&sandbox, 81).await.err().unwrap();
    assert!(error.message().contains("connection refused"), "{error}");
}
