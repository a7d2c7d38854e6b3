//! Exec and attach: the client's streams tied to a process' stdio, and how the process ended told at the end.

use bytes::Bytes;
use cri::streaming::{Session, TerminalSize};
use futures::future::join;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::streams::{Outlet, receive_all, send_all};

/// The client's end.
pub struct ClientStreams {
    pub stdin: Option<mpsc::Receiver<Bytes>>,
    pub stdout: Option<Outlet>,
    pub stderr: Option<Outlet>,
    pub resize: Option<mpsc::Receiver<Bytes>>,
    /// Where the end is told.
    pub error: Outlet,
    /// Version 4 and up tell it as a `Status`, earlier ones as text and only when it is bad.
    pub tells_status: bool,
}

/// Relays until the process has ended and all its output is sent.
pub async fn relay(session: Session, client: ClientStreams) {
    let ClientStreams { stdin, stdout, stderr, resize, error, tells_status } = client;
    let output = join(pump(session.stdout, stdout), pump(session.stderr, stderr));
    let exit = session.exit;
    let input = async {
        if let (Some(inbound), Some(writer)) = (stdin, session.stdin) {
            receive_all(inbound, writer).await;
        }
        // The end of input is not the end of the session.
        std::future::pending::<()>().await;
    };
    let sizes = async {
        if let (Some(inbound), Some(sizes)) = (resize, session.resize) {
            resize_all(inbound, sizes).await;
        }
        std::future::pending::<()>().await;
    };
    let ended = async { join(exit, output).await.0 };
    let ended = tokio::select! {
        ended = ended => ended,
        () = input => return,
        () = sizes => return,
    };
    let verdict = verdict(ended, tells_status);
    if !verdict.is_empty() {
        error.send(verdict.into()).await;
    }
    error.close().await;
}

async fn pump(from: Option<cri::streaming::Reader>, to: Option<Outlet>) {
    if let (Some(from), Some(to)) = (from, to) {
        // Why there was no more is told by the verdict.
        drop(send_all(from, to).await);
    }
}

async fn resize_all(mut inbound: mpsc::Receiver<Bytes>, sizes: mpsc::Sender<TerminalSize>) {
    let mut pending = Vec::new();
    while let Some(bytes) = inbound.recv().await {
        pending.extend_from_slice(&bytes);
        let mut values = serde_json::Deserializer::from_slice(&pending).into_iter::<Value>();
        let mut found = Vec::new();
        while let Some(Ok(value)) = values.next() {
            found.push(value);
        }
        let used = values.byte_offset();
        pending.drain(..used);
        for size in found.iter().filter_map(terminal_size) {
            if sizes.send(size).await.is_err() {
                return;
            }
        }
    }
}

fn terminal_size(value: &Value) -> Option<TerminalSize> {
    let number = |name: &str| value.get(name).and_then(Value::as_u64).and_then(|number| u16::try_from(number).ok());
    Some(TerminalSize { width: number("Width")?, height: number("Height")? })
}

/// What the error stream says about the end.
fn verdict(ended: Result<i32, cri::Error>, as_status: bool) -> Vec<u8> {
    let (text, status) = match ended {
        Ok(0) => (String::new(), json!({"metadata": {}, "status": "Success"})),
        Ok(code) => {
            let text = format!("command terminated with non-zero exit code: exit status {code}");
            let status = json!({
                "metadata": {}, "status": "Failure", "message": text, "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            });
            (text, status)
        }
        Err(error) => {
            let text = format!("error executing command in container: {}", error.message());
            let status = meta::Status::internal(&text).to_json();
            (text, status)
        }
    };
    if as_status { status.to_string().into_bytes() } else { text.into_bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::streams::Outgoing;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn the_end_is_told_as_clients_expect_it() {
        let status: Value = serde_json::from_slice(&verdict(Ok(3), true)).unwrap();
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"][0], json!({"reason": "ExitCode", "message": "3"}));
        assert_eq!(verdict(Ok(0), true), br#"{"metadata":{},"status":"Success"}"#);
        assert_eq!(verdict(Ok(0), false), b"");
    }

    #[tokio::test]
    async fn output_is_complete_before_the_verdict() {
        let (queue, mut sent) = mpsc::channel(64);
        let (stdin_sender, stdin) = mpsc::channel(4);
        let (mut process_stdin, agent_stdin) = tokio::io::duplex(64);
        let (mut process_stdout, agent_stdout) = tokio::io::duplex(64);
        let (resize, mut sizes) = mpsc::channel(4);
        let (size_sender, size_inbound) = mpsc::channel(4);
        let process = async move {
            let mut text = String::new();
            process_stdin.read_to_string(&mut text).await.unwrap();
            process_stdout.write_all(text.to_uppercase().as_bytes()).await.unwrap();
            Ok(7)
        };
        let session = Session {
            stdin: Some(Box::new(agent_stdin)),
            stdout: Some(Box::new(agent_stdout)),
            stderr: None,
            resize: Some(resize),
            exit: Box::pin(process),
        };
        let client = ClientStreams {
            stdin: Some(stdin),
            stdout: Some(Outlet::new(1, queue.clone())),
            stderr: None,
            resize: Some(size_inbound),
            error: Outlet::new(3, queue),
            tells_status: true,
        };
        stdin_sender.send(Bytes::from_static(b"abc")).await.unwrap();
        drop(stdin_sender);
        size_sender.send(Bytes::from_static(b"{\"Width\":80,\"Hei")).await.unwrap();
        size_sender.send(Bytes::from_static(b"ght\":24}")).await.unwrap();
        let relaying = tokio::spawn(relay(session, client));
        assert_eq!(sizes.recv().await.unwrap(), TerminalSize { width: 80, height: 24 });
        relaying.await.unwrap();
        let mut told = Vec::new();
        while let Some(outgoing) = sent.recv().await {
            told.push(match outgoing {
                Outgoing::Data(1, bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
                Outgoing::Data(stream, _) => format!("data {stream}"),
                Outgoing::Close(stream) => format!("close {stream}"),
                other => format!("{other:?}"),
            });
        }
        assert_eq!(told, ["ABC", "close 1", "data 3", "close 3"]);
    }
}
