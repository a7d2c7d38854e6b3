//! Exec, attach and port-forward as byte streams, carried over a shim's socket.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use cri::{
    Error, Session, Streaming, TerminalSize,
    streaming::{Duplex, RESIZE_QUEUE_MAX},
    v1::{AttachRequest, ExecRequest, ExecSyncRequest, ExecSyncResponse},
};
use futures::FutureExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
};

use crate::{
    Runtime,
    launch::plan::{LaunchPlan, ProcessPlan},
    shim::{
        client,
        protocol::{Frame, Reply, Request, read_frame, write_frame},
    },
    state::Container,
};

/// How much may wait in each direction of a stream, in bytes.
const BUFFER_BYTES: usize = 64 * 1024;

/// How much of each output ExecSync answers with, in bytes; CRI says so.
const EXEC_SYNC_OUTPUT_BYTES_MAX: usize = 16 * 1024 * 1024;

impl Runtime {
    fn exec_request(
        &self,
        container: &Container,
        command: &[String],
        tty: bool,
        stdin: bool,
        kill: bool,
    ) -> Result<Request, Error> {
        if command.is_empty() {
            return Err(Error::invalid("command is empty"));
        }
        let plan = std::fs::read(container.folder.join("plan.json"));
        let plan = plan.map_err(|error| Error::unknown(format!("failed to exec in container: {error}")))?;
        let plan: LaunchPlan = serde_json::from_slice(&plan)
            .map_err(|error| Error::unknown(format!("failed to exec in container: {error}")))?;
        let mut process = ProcessPlan { arguments: command.to_vec(), terminal: tty, ..plan.process };
        if tty && !process.environment.iter().any(|entry| entry.starts_with("TERM=")) {
            process.environment.push("TERM=xterm".into());
        }
        Ok(Request::Exec { container: container.id.clone(), process: Box::new(process), stdin, kill_on_close: kill })
    }

    fn running_container(&self, id: &str) -> Result<Arc<Container>, Error> {
        let container = self.containers().get("container", id)?;
        if container.is_running() {
            return Ok(container);
        }
        let state = container.state().as_str_name();
        Err(Error::unknown(format!("failed to exec in container: container is in {state} state")))
    }

    async fn open_stream(&self, container: &Container, request: &Request) -> Result<UnixStream, Error> {
        match container.sandbox.shim.open(request).await {
            Ok((_, connection)) => Ok(connection),
            Err(client::Error::Failed(why)) => Err(Error::unknown(format!(
                "failed to exec in container: exec failed: unable to start container process: {why}"
            ))),
            Err(error) => Err(Error::unknown(format!("failed to exec in container: {error}"))),
        }
    }

    /// CRI's ExecSync.
    pub(crate) async fn exec_and_wait(&self, request: ExecSyncRequest) -> Result<ExecSyncResponse, Error> {
        let container = self.running_container(&request.container_id)?;
        let exec = self.exec_request(&container, &request.cmd, false, false, true)?;
        let run = async {
            let connection = self.open_stream(&container, &exec).await?;
            let (from, _to) = connection.into_split();
            collect(from).await
        };
        let Ok(timeout_s @ 1..) = u64::try_from(request.timeout) else { return run.await };
        // Dropping the connection kills the command.
        tokio::select! {
            answer = run => answer,
            () = self.clock().sleep(Duration::from_secs(timeout_s)) => Err(Error::deadline_exceeded(format!(
                "failed to exec in container: timeout {timeout_s}s exceeded: context deadline exceeded"
            ))),
        }
    }
}

async fn collect(mut from: OwnedReadHalf) -> Result<ExecSyncResponse, Error> {
    let (mut stdout, mut stderr) = (BytesMut::new(), BytesMut::new());
    let keep = |kept: &mut BytesMut, bytes: Bytes| {
        let room = EXEC_SYNC_OUTPUT_BYTES_MAX - kept.len();
        kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
    };
    loop {
        match next(&mut from).await? {
            Next::Stdout(bytes) => keep(&mut stdout, bytes),
            Next::Stderr(bytes) => keep(&mut stderr, bytes),
            Next::Ended(exit_code) => {
                return Ok(ExecSyncResponse { stdout: stdout.to_vec(), stderr: stderr.to_vec(), exit_code });
            }
        }
    }
}

/// What a shim sends in a session.
enum Next {
    Stdout(Bytes),
    Stderr(Bytes),
    Ended(i32),
}

async fn next(from: &mut OwnedReadHalf) -> Result<Next, Error> {
    let broken = |why: String| Error::unavailable(format!("stream to the container broke: {why}"));
    match read_frame(from).await.map_err(|error| broken(error.to_string()))? {
        Some(Frame::Stdout(bytes)) => Ok(Next::Stdout(bytes)),
        Some(Frame::Stderr(bytes)) => Ok(Next::Stderr(bytes)),
        Some(Frame::Message(message)) => match serde_json::from_slice(&message) {
            Ok(Reply::ExitCode(code)) => Ok(Next::Ended(code)),
            other => Err(broken(format!("{other:?}"))),
        },
        Some(other) => Err(broken(format!("{other:?}"))),
        None => Err(broken("its shim has ended".into())),
    }
}

/// Which streams a client wants.
struct Wanted {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

/// Makes a session of a connection. Its tasks end with the process, or when `exit` is dropped.
fn session(connection: UnixStream, wanted: &Wanted) -> Session {
    let (from, to) = connection.into_split();
    let stream = |wanted: bool| wanted.then(|| tokio::io::duplex(BUFFER_BYTES)).unzip();
    let (stdin, input) = stream(wanted.stdin);
    let (stdout, output) = stream(wanted.stdout);
    let (stderr, error) = stream(wanted.stderr && !wanted.tty);
    let (resize, sizes) = mpsc::channel(RESIZE_QUEUE_MAX);
    let carry = async move {
        let inward = carry_input(to, input, sizes);
        let outward = carry_output(from, output, error);
        tokio::pin!(inward);
        tokio::select! {
            code = outward => code,
            never = &mut inward => match never {},
        }
    };
    // A task of its own, so that streams flow whether or not anyone waits for the exit.
    let task = AbortOnDrop(tokio::spawn(carry));
    let exit = async move {
        let mut task = task;
        (&mut task.0).await.unwrap_or_else(|error| Err(Error::unavailable(format!("stream task: {error}"))))
    };
    Session {
        stdin: stdin.map(|stream| Box::new(stream) as _),
        stdout: stdout.map(|stream| Box::new(stream) as _),
        stderr: stderr.map(|stream| Box::new(stream) as _),
        resize: wanted.tty.then_some(resize),
        exit: exit.boxed(),
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<Result<i32, Error>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn carry_output(
    mut from: OwnedReadHalf,
    mut stdout: Option<DuplexStream>,
    mut stderr: Option<DuplexStream>,
) -> Result<i32, Error> {
    loop {
        let (to, bytes) = match next(&mut from).await? {
            Next::Stdout(bytes) => (&mut stdout, bytes),
            Next::Stderr(bytes) => (&mut stderr, bytes),
            Next::Ended(code) => return Ok(code),
        };
        if let Some(stream) = to
            && stream.write_all(&bytes).await.is_err()
        {
            // Nobody reads it any more: the process goes on, its output goes nowhere.
            *to = None;
        }
    }
}

/// Never ends by itself: the process' end is for the other direction to see.
async fn carry_input(
    mut to: OwnedWriteHalf,
    mut stdin: Option<DuplexStream>,
    mut sizes: mpsc::Receiver<TerminalSize>,
) -> std::convert::Infallible {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut sized = true;
    loop {
        let frame = tokio::select! {
            size = sizes.recv(), if sized => match size {
                Some(size) => Frame::Resize(size.width, size.height),
                None => {
                    sized = false;
                    continue;
                }
            },
            length = read(&mut stdin, &mut buffer) => match length {
                0 => {
                    stdin = None;
                    Frame::InputEnd
                }
                length => Frame::Input(Bytes::copy_from_slice(&buffer[..length])),
            },
        };
        if write_frame(&mut to, &frame).await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Waits for ever when there is no stream; 0 is its end.
async fn read(stream: &mut Option<DuplexStream>, buffer: &mut [u8]) -> usize {
    match stream {
        Some(stream) => stream.read(buffer).await.unwrap_or(0),
        None => std::future::pending().await,
    }
}

#[async_trait::async_trait]
impl Streaming for Runtime {
    async fn open_exec(&self, request: ExecRequest) -> Result<Session, Error> {
        let container = self.running_container(&request.container_id)?;
        let exec = self.exec_request(&container, &request.cmd, request.tty, request.stdin, false)?;
        let wanted = Wanted { stdin: request.stdin, stdout: request.stdout, stderr: request.stderr, tty: request.tty };
        Ok(session(self.open_stream(&container, &exec).await?, &wanted))
    }

    async fn open_attach(&self, request: AttachRequest) -> Result<Session, Error> {
        let container = self.running_container(&request.container_id)?;
        let stdin = request.stdin && container.config.stdin;
        let attach = Request::Attach { container: container.id.clone(), stdin };
        let wanted = Wanted { stdin, stdout: request.stdout, stderr: request.stderr, tty: container.config.tty };
        Ok(session(self.open_stream(&container, &attach).await?, &wanted))
    }

    async fn open_port_forward(&self, pod_sandbox_id: &str, port: u16) -> Result<Box<dyn Duplex>, Error> {
        let sandbox = self.sandboxes().get("sandbox", pod_sandbox_id)?;
        match sandbox.shim.open(&Request::Dial { port }).await {
            Ok((_, connection)) => Ok(Box::new(connection)),
            Err(error) => Err(Error::unknown(format!(
                "failed to connect to localhost:{port} inside namespace {:?}: {error}",
                sandbox.id
            ))),
        }
    }
}
